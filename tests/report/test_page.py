"""The page is whole, stands alone, and says what the comparison says."""

from __future__ import annotations

import pytest
from html_pages import PageReader

from dfdc_video.evaluation.compare import compare
from dfdc_video.report.page import write_page


@pytest.fixture
def page(comparison, tmp_path):
    path = write_page(
        tmp_path / "out" / "report.html",
        comparison,
        title="Frame <vs> sequence",
        notes="Why & how?",
        command="dfdc-video compare a b",
    )
    return path.read_text(encoding="utf-8")


def test_page_stands_alone(page, tmp_path):
    reader = PageReader(page)
    assert len(page.encode()) < 1_500_000
    assert reader.scripts == 0 and "@import" not in page and "http://" not in page and "https://" not in page
    assert all(reference.startswith("#") for reference in reader.references)
    assert len(reader.ids) == len(set(reader.ids))
    assert {reference[1:] for reference in reader.references} <= set(reader.ids)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]


def test_order_of_sections_and_escaping(page):
    reader = PageReader(page)
    expected = [
        "Results",
        "Difference from frame",
        "AUC per method",
        "ROC",
        "Training",
        "Scores",
        "Coverage",
        "Worst-scored videos",
        "Provenance",
    ]
    assert reader.headings == expected
    assert "<title>Frame &lt;vs&gt; sequence</title>" in page and "Why &amp; how?" in page


def test_table_says_what_the_comparison_says(page, comparison):
    results, differences, coverage, *worst, made = PageReader(page).tables
    assert [cell.split(" ↑")[0].split(" ↓")[0] for cell in results[0]] == [
        "run", "AUC", "log loss", "accuracy", "AP", "EER", "AUC spatial", "AUC temporal",
    ]  # fmt: skip
    for line, row in zip(results[1:], comparison.rows, strict=True):
        interval = row.intervals["video/auc/temporal"]
        assert line[0].startswith(row.name)
        assert line[-1] == f"{interval.value:.3f}[{interval.low:.3f}, {interval.high:.3f}]"
    assert "11.2 M parameters · trained in 1 h 05 min" in results[1][0]
    delta = comparison.differences["slowfast"]["video/auc/temporal"]
    assert differences[1][0] == "slowfast" and differences[1][-1].startswith(f"{delta.value:+.3f}[")
    assert coverage[1] == ["frame", "75", "73", "1", "1"]
    shown = comparison.rows[0].worst(5)
    assert [line[0] for line in worst[0][1:]] == list(shown["video_id"])
    assert [line[2].split()[0] for line in worst[0][1:]] == [f"{s:.3f}" for s in shown["score"]]
    assert made[0] == ["run", "seed", "folder"] and [line[1] for line in made[1:]] == ["3", "0"]


def test_only_differences_beyond_zero_are_marked(page, comparison):
    row = comparison.differences["slowfast"]
    keys = [
        "video/auc",
        "video/log_loss",
        "video/accuracy",
        "video/ap",
        "video/eer",
        "video/auc/spatial",
        "video/auc/temporal",
    ]
    marked = sum(row[k].low > 0 or row[k].high < 0 for k in keys)
    assert 0 < marked < len(keys)
    assert page.count('<td class="clear"') == marked


def test_provenance_is_told(page):
    text = " ".join(PageReader(page).words)
    for word in (
        "0123456789ab",
        "c0ffee",
        "abc1234",
        "dfdc-video compare a b",
        "torch 2.15",
        "num_frames 16",
        "best.ckpt",
        "200 resamples",
    ):
        assert word in text, word


def test_seeds_show_their_mean_and_deviation(runs, tmp_path):
    entries = [{"experiment": "question", "arm": "frame", "seed": seed} for seed in range(3)]
    paths = [runs.write(tmp_path / f"r{e['seed']}", report=e, seed=e["seed"], strength=0.5) for e in entries]
    comparison = compare(paths, num_samples=50)
    reader = PageReader(write_page(tmp_path / "report.html", comparison).read_text(encoding="utf-8"))
    row = comparison.rows[0]
    mean, sd = row.intervals["video/auc"].value, row.seed_sd["video/auc"]
    assert (
        f"{mean:.3f}" in reader.tables[0][1][1]
        and f"± {sd:.3f}" in reader.tables[0][1][1]
        and "3 seeds" in reader.tables[0][1][0]
    )
    assert "Difference" not in " ".join(reader.headings)


def test_seven_classes_have_a_page_without_roc(seven_classes, tmp_path):
    reader = PageReader(write_page(tmp_path / "report.html", seven_classes).read_text(encoding="utf-8"))
    assert reader.headings == ["Results", "Top-k", "Coverage", "Worst-scored videos", "Provenance"]
    assert reader.tables[0][0] == ["run", "log loss ↓", "top-1 ↑", "top-5 ↑"]
