"""Figures of a comparison: matplotlib Figure objects without pyplot's global state, and their conversion for
HTML.

Every row of the comparison has the same colour in every figure. Text, axes and reference lines are drawn in
INK, which the page replaces by its own text colour, so that a figure is legible in light and dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from dfdc_video.evaluation.compare import Comparison, Row, key_of
from dfdc_video.evaluation.metrics import title_of

INK = "#3b4148"
# legible on white and on near-black backgrounds
COLOURS = ("#0f7ac2", "#e0761a", "#2a9d5c", "#b0449e", "#c8443c", "#7c6bd6", "#8f8a1c", "#16a0a8")
MARKERS = "osD^vPX*"
BINS = [i / 20 for i in range(21)]


def style_of(index: int) -> dict[str, str]:
    """Colour and marker of the row at `index`; markers distinguish rows without relying on colour."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _figure(columns: int, *, width: float, height: float, rows: int = 1) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.patch.set_alpha(0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(INK)
        ax.tick_params(colors=INK, labelsize=9)
        ax.grid(True, axis="y", color=INK, alpha=0.15, linewidth=0.6)
        ax.set_axisbelow(True)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_color(INK)
            text.set_fontsize(10)
    return figure, axes


def _legend(owner: Any, **settings: Any) -> None:
    owner.legend(frameon=False, fontsize=9, labelcolor=INK, **settings)


def curve_of(curves: pd.DataFrame | None, *names: str) -> pd.Series | None:
    """One value per epoch, the mean over its rows, of the first of the columns `names` that was logged; None
    where none was.
    """
    if curves is None or "epoch" not in curves.columns:
        return None
    for name in names:
        if name in curves.columns:
            values = pd.to_numeric(curves[name], errors="coerce").groupby(curves["epoch"]).mean().dropna()
            if len(values):
                return values
    return None


def training_curves(comparison: Comparison) -> Figure | None:
    """Training loss, and log loss and AUC of the validation videos, per epoch: one thin line per run, one
    colour per row. None without logs.
    """
    panels: list[tuple[str, tuple[str, ...]]] = [
        ("training loss", ("train/loss_epoch", "train/loss", "train/loss_step")),
        ("validation log loss", ("video/log_loss",)),
    ]
    panels.append(
        ("validation AUC", ("video/auc",))
        if comparison.num_classes == 2
        else ("validation top-1", ("video/top1",))
    )
    figure, axes = _figure(3, width=10, height=3.1)
    found = False
    for ax, (title, names) in zip(axes[0], panels, strict=True):
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        for index, row in enumerate(comparison.rows):
            for number, run in enumerate(row.runs):
                values = curve_of(run.curves, *names)
                if values is None:
                    continue
                found = True
                label = row.name if number == 0 else None
                ax.plot(
                    values.index + 1,
                    values.to_numpy(),
                    label=label,
                    linewidth=1.4,
                    markersize=3.5,
                    alpha=0.9,
                    **style_of(index),
                )
    handles = {
        label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if not found:
        return None
    _legend(
        figure,
        handles=list(handles.values()),
        labels=list(handles),
        loc="outside lower center",
        ncols=min(5, len(handles)),
    )
    return figure


def roc_curves(comparison: Comparison) -> Figure | None:
    """ROC of all videos and of each method, as steps, with the AUC in the legend. None for more than two
    classes.
    """
    if comparison.num_classes != 2:
        return None
    scopes = ("", *comparison.methods)
    columns = min(4, len(scopes))
    rows = -(-len(scopes) // columns)
    figure, axes = _figure(columns, rows=rows, width=max(3.3 * columns, 4), height=3.6 * rows)
    for ax in axes.ravel()[len(scopes) :]:
        ax.set_axis_off()
    for ax, method in zip(axes.ravel(), scopes, strict=False):
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
        for index, row in enumerate(comparison.rows):
            scores = (
                row.scores
                if not method
                else row.scores[(row.scores["label"] == 0) | (row.scores["method"] == method)]
            )
            if scores["label"].nunique() < 2:
                continue
            fpr, tpr, _ = roc_curve(scores["label"], scores["score"], drop_intermediate=True)
            auc = row.intervals[key_of("auc", method)].value
            ax.plot(fpr, tpr, color=style_of(index)["color"], linewidth=1.6, label=f"{row.name}  {auc:.3f}")
        ax.set(
            title=method or "all videos",
            xlabel="false positive rate",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        ax.set_xticks([0, 0.5, 1])
        ax.set_yticks([0, 0.5, 1])
        if ax in axes[:, 0]:
            ax.set_ylabel("true positive rate")
        _legend(ax, loc="lower right", handlelength=1.2)
    return figure


def method_bars(comparison: Comparison) -> Figure | None:
    """AUC with its interval, over all videos and per method, and the chance level of 0.5. For more than two
    classes: top-k accuracies.
    """
    if comparison.num_classes == 2:
        keys = {method or "all videos": key_of("auc", method) for method in ("", *comparison.methods)}
    else:
        keys = {title_of(m): key_of(m) for m in comparison.metrics if re.fullmatch(r"top\d", m)}
    figure, axes = _figure(1, width=max(6.0, 1.2 + 0.42 * len(keys) * (len(comparison.rows) + 1)), height=3.6)
    ax, width = axes[0, 0], 0.8 / len(comparison.rows)
    for index, row in enumerate(comparison.rows):
        intervals = [row.intervals[key] for key in keys.values()]
        x = np.arange(len(keys)) + (index - (len(comparison.rows) - 1) / 2) * width
        values = np.array([i.value for i in intervals])
        whiskers = np.array([[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]])
        ax.bar(x, values, width * 0.9, color=style_of(index)["color"], alpha=0.85, label=row.name)
        ax.errorbar(
            x,
            values,
            yerr=np.clip(np.nan_to_num(whiskers), 0, None),
            fmt="none",
            ecolor=INK,
            elinewidth=1.1,
            capsize=2.5,
        )
    chance = 0.5 if comparison.num_classes == 2 else 1 / comparison.num_classes
    ax.axhline(
        chance,
        color=INK,
        linewidth=1,
        linestyle="--",
        label=f"chance level, {chance:.2g}" + ("" if comparison.num_classes == 2 else " for top-1"),
    )
    ax.set_xticks(np.arange(len(keys)), list(keys))
    ax.set(
        ylim=(0, 1.03),
        ylabel="AUC" if comparison.num_classes == 2 else "fraction of videos",
        xlim=(-0.6, len(keys) - 0.4),
    )
    _legend(figure, loc="outside lower center", ncols=min(5, len(comparison.rows) + 1))
    return figure


def score_histograms(comparison: Comparison) -> Figure | None:
    """Distribution of P(fake) over reals and over the fakes of each method, one panel per row. None for more
    than two classes.
    """
    if comparison.num_classes != 2:
        return None
    columns = min(4, len(comparison.rows))
    lines = -(-len(comparison.rows) // columns)
    figure, axes = _figure(columns, rows=lines, width=max(4.0, 3.0 * columns), height=2.6 * lines + 0.4)
    for ax in axes.ravel()[len(comparison.rows) :]:
        ax.set_axis_off()
    for ax, row in zip(axes.ravel(), comparison.rows, strict=False):
        _histogram(ax, row, comparison.methods)
    for ax in axes[:, 0]:
        ax.set_ylabel("fraction of videos")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    _legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def _histogram(ax: Axes, row: Row, methods: Sequence[str]) -> None:
    reals = row.scores.loc[row.scores["label"] == 0, "score"]
    share = np.full(len(reals), 1 / max(len(reals), 1))
    ax.hist(reals, BINS, weights=share, color=INK, alpha=0.3, label="real")
    for index, method in enumerate(methods):
        fakes = row.scores.loc[(row.scores["label"] == 1) & (row.scores["method"] == method), "score"]
        share = np.full(len(fakes), 1 / len(fakes))
        ax.hist(
            fakes,
            BINS,
            weights=share,
            histtype="step",
            linewidth=1.5,
            color=COLOURS[-1 - index % len(COLOURS)],
            label=method,
        )
    ax.set(title=row.name, xlabel="P(fake)", xlim=(0, 1))


def to_svg(figure: Figure, *, salt: str) -> str:
    """Inline SVG with ids unique to `salt`, text kept as text, and INK replaced by the page's text colour.
    Equal figures give equal bytes.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "DejaVu Sans"}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)  # HTML declares both namespaces itself
    text = re.sub(
        r'id="((?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|LineCollection|PolyCollection)_\d+)"',
        "",
        text,
    )
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)  # the page scales it by its width
    return text.replace("'DejaVu Sans'", "inherit")
