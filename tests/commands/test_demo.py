"""The whole way in one call, on a few videos: generate, prepare, four families, one report. Its numbers mean
nothing at this size.
"""

import pandas as pd

from dfdc_video.cli import main


def test_the_small_demo_ends_with_a_report_of_four_families_and_three_methods(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--small"]) == 0
    table = pd.read_csv(out / "runs" / "table.csv").set_index("name")
    assert list(table.index) == ["frame", "slowfast", "efficientnet3d", "cnn_lstm"]
    for method in ("spatial", "temporal", "both"):
        assert table[f"video/auc/{method}"].between(0, 1).all()
    page = (out / "runs" / "report.html").read_text(encoding="utf-8")
    assert "Does a model that sees the order of frames" in page and "dfdc-video run frame_vs_sequence" in page
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("report.json")}
    assert len(stamps) == 4
    quarantine = pd.read_csv(out / "prepared" / "quarantine.csv")
    assert {"clean", "decode"} <= set(quarantine["stage"]), "the corrupt file and the copy are refused"
    assert main(["demo", "--out", str(out), "--small"]) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in out.rglob("report.json")}, (
        "a second call only compares"
    )
