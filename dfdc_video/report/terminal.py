"""The comparison as tables for a terminal of 120 columns; a narrower one shows the overall table without
intervals.
"""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table

from dfdc_video.evaluation.compare import Comparison, Row, key_of
from dfdc_video.evaluation.metrics import find_metric, title_of
from dfdc_video.evaluation.statistics import Difference, Interval, coverage_of

WIDE = 116  # columns that the overall table needs with its intervals


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, or a dash where undefined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def bounds(interval: Interval | Difference, *, signed: bool = False) -> str:
    """[low, high]; empty where there is no interval."""
    return (
        ""
        if math.isnan(interval.low)
        else f"[{number(interval.low, signed=signed)}, {number(interval.high, signed=signed)}]"
    )


def over_seeds(row: Row, key: str) -> str:
    """± standard deviation over the seeds of an arm; empty for a single run."""
    return f"± {number(row.seed_sd[key])}" if len(row.runs) > 1 else ""


def parameters(count: float | None) -> str:
    """33.6 M, 820 k; a dash where it was not recorded."""
    if count is None:
        return "–"
    return (
        f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e3 else f"{count:.0f}"
    )


def duration(seconds: float | None) -> str:
    """1 h 05 min, 3 min 12 s, 48 s; a dash where it was not recorded."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def heading(metric: str) -> str:
    """Title of a metric with an arrow that points to better values."""
    return f"{title_of(metric)} {'↓' if find_metric(metric).lower_is_better else '↑'}"


def _cell(row: Row, key: str, *, intervals: bool = True) -> str:
    """Value (mean ± standard deviation for several seeds) and its interval."""
    interval = row.intervals.get(key)
    if interval is None:
        return "–"
    lines = [
        f"{number(interval.value)} {over_seeds(row, key)}".strip(),
        bounds(interval) if intervals else "",
    ]
    return "\n".join(line for line in lines if line)


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("run", overflow="fold", min_width=14, max_width=24)
    return table


def _name(row: Row) -> str:
    return row.name if len(row.runs) == 1 else f"{row.name}\n({len(row.runs)} seeds)"


def overall_table(comparison: Comparison, *, intervals: bool = True) -> Table:
    """Every metric over all videos, with size and training time."""
    level = f"{100 * comparison.settings['level']:g} %"
    what = (
        f"value and {level} interval over groups"
        if intervals
        else f"intervals: table.csv, or a terminal of {WIDE} columns"
    )
    table = _table(f"All {len(comparison.rows[0].scores)} test videos ({what})")
    for metric in comparison.metrics:
        table.add_column(heading(metric), justify="right", no_wrap=True)
    for name in ("size", "trained"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        cells = [_cell(row, key_of(metric), intervals=intervals) for metric in comparison.metrics]
        table.add_row(
            _name(row),
            *cells,
            parameters(row.mean_of("num_parameters")),
            duration(row.mean_of("train_seconds")),
            end_section=True,
        )
    return table


def method_table(comparison: Comparison) -> Table:
    """AUC of each method: its fakes against all reals."""
    table = _table("AUC per method: its fakes against all reals")
    for method in comparison.methods:
        count = comparison.rows[0].samples[method]
        table.add_column(
            f"{method}\n{count.num_videos - count.num_real} fakes", justify="right", overflow="fold"
        )
    for row in comparison.rows:
        table.add_row(
            _name(row),
            *(_cell(row, key_of("auc", method)) for method in comparison.methods),
            end_section=True,
        )
    return table


def difference_table(comparison: Comparison) -> Table:
    """Every row minus the baseline on the same resampled groups."""
    main = "auc" if comparison.num_classes == 2 else "top1"
    keys = {title_of("log_loss"): key_of("log_loss"), title_of(main): key_of(main)}
    keys |= {f"AUC {method}": key_of("auc", method) for method in comparison.methods}
    table = _table(f"Difference from {comparison.baseline}, same videos and resamples")
    for title in keys:
        table.add_column(title, justify="right", overflow="fold")
    for name, differences in comparison.differences.items():
        found = [differences.get(key) for key in keys.values()]
        table.add_row(
            name,
            *(
                "–" if d is None else f"{number(d.value, signed=True)}\n{bounds(d, signed=True)}"
                for d in found
            ),
            end_section=True,
        )
    return table


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the tables, the coverage and the warnings."""
    console = console or Console()
    if not console.is_terminal and console.width < WIDE:  # a log file has no width
        console.width = WIDE
    console.print(overall_table(comparison, intervals=console.width >= WIDE))
    if comparison.methods:
        console.print(method_table(comparison))
    if comparison.differences:
        console.print(difference_table(comparison))
    if any(len(row.runs) > 1 for row in comparison.rows):
        console.print(
            "Several seeds: mean ± standard deviation over the runs; below, the interval of the mean over "
            "resampled groups of videos."
        )
    for row in comparison.rows:
        c = coverage_of(row.scores)
        if c["scored"] < c["num_videos"]:
            rest = f"{c['no_face']} without a face, {c['unreadable']} unreadable: these get the prior"
            console.print(
                f"{row.name}: {c['scored']} of {c['num_videos']} videos scored, {rest}",
                markup=False,
                highlight=False,
            )
    for warning in comparison.warnings:
        console.print(f"note: {warning}", style="yellow", markup=False, highlight=False)
