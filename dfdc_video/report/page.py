"""The comparison as one self-contained HTML page: tables, figures, provenance. No scripts, no other files, no
network access.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dfdc_video.evaluation.compare import Comparison, Row, key_of
from dfdc_video.evaluation.metrics import find_metric, title_of
from dfdc_video.evaluation.statistics import coverage_of
from dfdc_video.files import write_atomic
from dfdc_video.report import figures, terminal

TEMPLATE = "page.html"
PICTURES = (
    (
        "AUC per method",
        figures.method_bars,
        "Whiskers are intervals over groups; the dashed line is the chance level.",
    ),
    ("ROC", figures.roc_curves, "The fakes of each method against all reals; the legend gives the AUC."),
    (
        "Training",
        figures.training_curves,
        "Means per epoch: over the training batches, and over the validation videos.",
    ),
    (
        "Scores",
        figures.score_histograms,
        "Distribution of P(fake) over reals (filled) and over the fakes of each method (outlined).",
    ),
)
PROVENANCE = (
    "config_name",
    "seed",
    "config_hash",
    "commit",
    "command",
    "checkpoint",
    "manifest_path",
    "clip",
    "pooling",
    "precision",
    "environment",
)


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder. Values are escaped unless they are Markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def text_of(value: Any) -> str:
    """An entry of a report or a summary as one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {text_of(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(text_of(v) for v in value)
    return "–" if value is None or value == "" else str(value)


def _cell(row: Row, key: str, best: float | None = None) -> dict[str, Any]:
    interval = row.intervals.get(key)
    if interval is None:
        return {"value": "–", "bounds": "", "seeds": "", "best": False}
    return {
        "value": terminal.number(interval.value),
        "bounds": terminal.bounds(interval),
        "seeds": terminal.over_seeds(row, key),
        "best": best is not None and interval.value == best,
    }


def _best(comparison: Comparison, metric: str, method: str = "") -> float | None:
    """The best value of a column, to be printed in bold; None where there is only one row."""
    values = [
        row.intervals[key_of(metric, method)].value
        for row in comparison.rows
        if key_of(metric, method) in row.intervals
    ]
    values = [v for v in values if v == v]
    if len(comparison.rows) < 2 or not values:
        return None
    return min(values) if find_metric(metric).lower_is_better else max(values)


def _facts(row: Row) -> str:
    """Number of seeds, size and training time, as far as known."""
    facts = [f"{len(row.runs)} seeds"] if len(row.runs) > 1 else []
    size, seconds = row.mean_of("num_parameters"), row.mean_of("train_seconds")
    facts += [f"{terminal.parameters(size)} parameters"] if size is not None else []
    facts += [f"trained in {terminal.duration(seconds)}"] if seconds is not None else []
    return " · ".join(facts)


def _main_table(comparison: Comparison) -> dict[str, Any]:
    columns = [(metric, "") for metric in comparison.metrics] + [
        ("auc", method) for method in comparison.methods
    ]
    heads = [
        {"title": terminal.heading(m) if not method else f"AUC {method} ↑", "method": bool(method)}
        for m, method in columns
    ]
    best = {column: _best(comparison, *column) for column in columns}
    lines = []
    for index, row in enumerate(comparison.rows):
        lines.append(
            {
                "name": row.name,
                "colour": figures.style_of(index)["color"],
                "facts": _facts(row),
                "cells": [_cell(row, key_of(*column), best[column]) for column in columns],
            }
        )
    return {"heads": heads, "lines": lines}


def _difference_table(comparison: Comparison) -> dict[str, Any]:
    columns = [(metric, "") for metric in comparison.metrics] + [
        ("auc", method) for method in comparison.methods
    ]
    lines = []
    for name, differences in comparison.differences.items():
        cells = []
        for column in columns:
            delta = differences.get(key_of(*column))
            beyond = delta is not None and (delta.low > 0 or delta.high < 0)
            text = "–" if delta is None else terminal.number(delta.value, signed=True)
            above = "" if delta is None else f"above 0 in {delta.fraction_above:.1%} of the samples"
            cells.append(
                {
                    "value": text,
                    "bounds": "" if delta is None else terminal.bounds(delta, signed=True),
                    "above": above,
                    "beyond": beyond,
                }
            )
        lines.append({"name": name, "cells": cells})
    return {
        "heads": [title_of(m) if not method else f"AUC {method}" for m, method in columns],
        "lines": lines,
    }


def _pictures(comparison: Comparison) -> list[dict[str, Any]]:
    result = []
    for title, draw, caption in PICTURES:
        figure = draw(comparison)
        if figure is not None:
            title = title if comparison.num_classes == 2 or draw is not figures.method_bars else "Top-k"
            svg = figures.to_svg(figure, salt=draw.__name__)
            result.append(
                {
                    "title": title,
                    "svg": Markup(svg),
                    "caption": caption,
                    "width": round(figure.get_figwidth() * 96),
                }
            )
    return result


def _worst(comparison: Comparison, count: int) -> list[dict[str, Any]]:
    result = []
    for row in comparison.rows:
        videos = [v | {"score": f"{v['score']:.3f}"} for v in row.worst(count).to_dict("records")]
        result.append({"name": row.name, "videos": videos})
    return result


def _provenance(comparison: Comparison) -> dict[str, Any]:
    runs = [run for row in comparison.rows for run in row.runs]
    entries = [entry for entry in PROVENANCE if any(entry in run.report for run in runs)]
    texts = {entry: [text_of(run.report.get(entry)) for run in runs] for entry in entries}
    shared = {entry: t[0] for entry, t in texts.items() if len(set(t)) == 1}
    apart = [entry for entry in entries if entry not in shared]
    lines = [
        {"name": run.name, "path": str(run.path), "cells": [texts[entry][i] for entry in apart]}
        for i, run in enumerate(runs)
    ]
    return {"shared": shared, "apart": apart, "lines": lines}


def write_page(
    path: str | Path,
    comparison: Comparison,
    *,
    title: str = "Comparison",
    notes: str | Sequence[str] = (),
    command: str = "",
    num_worst: int = 5,
) -> Path:
    """Write the page and return its path; the file appears whole or not at all.

    `notes` are paragraphs below the title, `command` is the command that repeats the comparison, `num_worst`
    is how many of the worst-scored videos are listed per row.
    """
    path = Path(path)
    everything = comparison.rows[0].samples[""]
    page = render(
        TEMPLATE,
        title=title,
        notes=[notes] if isinstance(notes, str) and notes else list(notes),
        command=command,
        comparison=comparison,
        level=f"{100 * comparison.settings['level']:g} %",
        table=_main_table(comparison),
        differences=_difference_table(comparison),
        pictures=_pictures(comparison),
        coverage=[{"name": row.name} | coverage_of(row.scores) for row in comparison.rows],
        worst=_worst(comparison, num_worst),
        provenance=_provenance(comparison),
        split=comparison.rows[0].runs[0].report["split"],
        split_hash=comparison.rows[0].runs[0].report["split_hash"],
        num_videos=everything.num_videos,
        num_real=everything.num_real,
        num_groups=everything.num_groups,
        num_dropped=everything.num_dropped,
        several_seeds=any(len(row.runs) > 1 for row in comparison.rows),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path
