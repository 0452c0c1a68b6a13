"""The summary page of a prepared data set, one HTML file: its contents, refusals, faces and leaks.

The page does not grow with the data set: long tables and sheets are cut off, and say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from dfdc_video.environment import commit, versions
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.records import SPLIT_NAMES, STATUSES
from dfdc_video.report import figures, sheets, terminal
from dfdc_video.report.page import render, text_of

TEMPLATE = "prepared.html"
SIZE_EDGES_PX = (24, 32, 48, 64, 96, 128, 192, 256, 384)
MAX_LINES, MAX_EXAMPLES, MAX_TEXT = 25, 3, 160  # of a table, of a kind, of one example
CLASS_COLOURS = (figures.COLOURS[0], figures.COLOURS[4])


def write_summary(
    folder: PreparedFolder, manifest: Manifest, results: dict[str, dict[str, Any]], quarantine: pd.DataFrame
) -> Path:
    """Write the summary page of a prepared folder and return its path.

    `results` are the results by video_id: `own_boxes` tells tracks that were detected from those
    taken over from an original, `seconds` which videos the times are of; videos without a result or an entry
    count as detected and without times. `quarantine` has video_id, path, stage, reason. Equal tables give
    equal bytes, except for times, versions and commit. A face video that cannot be read has no picture and is
    counted in a warning.
    """
    videos, faces = _named(manifest), _faces(manifest, results)
    unread: list[str] = []
    pairs = sheets.pairs(manifest.root, faces, unread)
    contact = sheets.contact_sheets(manifest.root, faces, unread)
    summary = manifest.summary
    values = {
        "title": f"Prepared: {summary.get('dataset') or 'data set'}",
        "overview": _overview(videos, faces),
        "split_hash": manifest.split_hash,
        "warnings": _warnings(summary, unread),
        "tables": [_cross(videos, key) for key in ("class", "method", "status")],
        "notes": _notes(summary, videos),
        "colours": dict(zip(("real", "fake"), CLASS_COLOURS, strict=True))
        if manifest.num_classes == 2
        else {},
        "detection": _detection(faces),
        "pictures": {
            name: _svg(draw(faces), name)
            for name, draw in (("by_size", _draw_detection), ("faces", _draw_histograms))
        },
        "quarantine": _quarantine(quarantine),
        "sheets": contact,
        "pairs": pairs,
        "gain": sheets.GAIN,
        "thumb": sheets.THUMB_PX,
        "audit": _audit(summary),
        "times": _times(summary, videos, results),
        "made": _made(summary),
        "packages": text_of(versions()),
    }
    folder.write_page(render(TEMPLATE, **values))
    return folder.page_path


def _named(manifest: Manifest) -> pd.DataFrame:
    """The videos with names for class and split, in the order of video_id."""
    videos = manifest.videos.sort_values("video_id").reset_index(drop=True)
    names = (
        ["real", "fake"] if manifest.num_classes == 2 else [f"class {n}" for n in range(manifest.num_classes)]
    )
    videos["class"] = [names[label] for label in videos["label"]]
    return videos.assign(split=videos["split"].replace("", "no split"))


def _faces(manifest: Manifest, results: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """A row per track, in the order of track_id, with size_px, seconds, own and place.

    size_px is the median longer side of its boxes; own tracks are detected, not taken over.
    """
    columns = ["video_id", "class", "label", "method", "source_id", "fps"]
    faces = (
        manifest.tracks.merge(_named(manifest)[columns], on="video_id")
        .sort_values(["track_id", "video_id"])
        .reset_index(drop=True)
    )
    sizes, seconds = [], []
    for boxes, stamps, fps in zip(faces["boxes_px"], faces["timestamps_seconds"], faces["fps"], strict=True):
        boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        sizes.append(float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) if len(boxes) else 0.0)
        seconds.append(float(stamps[-1] - stamps[0]) + (1 / fps if fps else 0.0) if len(stamps) else 0.0)
    places = zip(faces["start_frame"], faces["num_frames"], faces["crop_box_px"], strict=True)
    own = np.array([results.get(v, {}).get("own_boxes", True) for v in faces["video_id"]], dtype=bool)
    place = [(int(start), int(count), *map(int, box)) for start, count, box in places]
    faces = faces.drop(columns=["boxes_px", "timestamps_seconds", "crop_box_px"])
    return faces.assign(size_px=sizes, seconds=seconds, own=own, place=pd.Series(place, dtype=object))


def _overview(videos: pd.DataFrame, faces: pd.DataFrame) -> str:
    """The whole set in one line."""
    classes = ", ".join(
        f"{count:,} {name}"
        for name, count in videos["class"].value_counts().sort_index(ascending=False).head(4).items()
    )
    seconds = float((videos["num_frames"] / videos["fps"].where(videos["fps"] > 0)).sum())
    sums = f"{int(videos['num_frames'].sum()):,} frames, {terminal.duration(seconds)}"
    return (
        f"{len(videos):,} videos ({classes}{', …' if videos['class'].nunique() > 4 else ''}), {sums} · "
        f"{len(faces):,} face tracks"
    )


def _warnings(summary: dict[str, Any], unread: list[str]) -> list[str]:
    """Warnings at the top of the page: merged splits, leaks, allowed leaks, unreadable face videos."""
    result = []
    if summary.get("merged"):
        result.append(
            f"Merged: {summary['merged']}. The test videos are trained on, for a final fit; test scores of "
            "this data set are refused."
        )
    leaks = {kind: found for kind, found in summary.get("leak_audit", {}).items() if _leaking(found)}
    if leaks:
        counts = ", ".join(f"{kind.replace('_', ' ')} ({_leaking(found):,})" for kind, found in leaks.items())
        result.append(f"The splits leak: {counts}. Test scores will be too good.")
    if summary.get("allowed_leaks"):
        result.append(
            f"Leaks were allowed: {', '.join(k.replace('_', ' ') for k in summary['allowed_leaks'])}."
        )
    if unread:
        hint = f"the first is {unread[0]}; delete it and run `dfdc-video prepare` again."
        result.append(f"{len(unread)} of the face videos shown here cannot be read, {hint}")
    return result


def _cross(videos: pd.DataFrame, key: str) -> dict[str, Any]:
    """Videos by `key` and split, with totals and shares; the rarest entries of a long table are summed."""
    splits = [s for s in (*SPLIT_NAMES, "no split") if (videos["split"] == s).any()]
    table = pd.crosstab(videos[key].replace("", "–"), videos["split"]).reindex(columns=splits, fill_value=0)
    known = ["real", "fake", *STATUSES]
    largest: list[str] = (
        table.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_LINES].tolist()
    )
    shown = table.loc[
        sorted(
            largest, key=lambda name: (known.index(name) if name in known else len(known), _by_number(name))
        )
    ]
    rows = [(str(name), row.tolist()) for name, row in shown.iterrows()]
    if len(table) > len(shown):
        rows.append((f"{len(table) - len(shown)} more", (table.sum() - shown.sum()).tolist()))
    totals = table.sum().tolist()
    lines = [
        {
            "name": name,
            "cells": [_count(n, of) for n, of in zip((*row, sum(row)), (*totals, len(videos)), strict=True)],
        }
        for name, row in rows
    ]
    return {
        "title": key,
        "splits": splits,
        "lines": lines,
        "totals": [_count(n, len(videos)) for n in (*totals, len(videos))],
    }


def _by_number(name: str) -> tuple[int, str]:
    """A sort key that puts "class 10" after "class 9"."""
    last = name.rpartition(" ")[2]
    return (int(last) if last.isdecimal() else -1, name)


def _count(number: int, of: int) -> dict[str, str]:
    return {"value": f"{number:,}", "share": f"{number / of:.1%}" if of else "–"}


def _notes(summary: dict[str, Any], videos: pd.DataFrame) -> list[str]:
    """Notes on the counts. If faces are found more often in one class, that alone gives the class away."""
    shares = (videos["status"] == "no_face").groupby(videos["class"]).mean().sort_index(ascending=False)
    notes = [f"Without a face: {(videos['status'] == 'no_face').mean():.1%} of all videos"]
    if set(shares.index) == {"real", "fake"}:
        notes[0] += f" ({shares['real']:.1%} of the reals, {shares['fake']:.1%} of the fakes)"
    for key, text in (
        ("missing_originals", "Fakes whose original is not in the data set"),
        ("fakes_with_own_boxes", "Fakes with boxes of their own, since their original has none that fit"),
        ("equal_fakes", "Fakes whose frames equal their original's"),
    ):
        if key in summary:
            notes.append(f"{text}: {summary[key]:,}")
    return notes


def _by_size(faces: pd.DataFrame) -> pd.DataFrame:
    """Number of detected tracks, mean detection rate and mean confidence by face size.

    Sizes go from the first to the last that occurs.
    """
    own = faces[faces["own"]]
    edges = SIZE_EDGES_PX
    names = [
        f"< {edges[0]}",
        *(f"{low}–{high}" for low, high in zip(edges[:-1], edges[1:], strict=True)),
        f"≥ {edges[-1]}",
    ]
    bins = pd.Series(
        pd.Categorical([names[i] for i in np.digitize(own["size_px"], edges)], names, ordered=True),
        index=own.index,
    )
    table = own.groupby(bins, observed=False).agg(
        tracks=("size_px", "size"), rate=("detection_rate", "mean"), confidence=("confidence", "mean")
    )
    used = np.flatnonzero(table["tracks"])
    return table.iloc[used[0] : used[-1] + 1] if len(used) else table.iloc[:0]


def _detection(faces: pd.DataFrame) -> list[dict[str, str]]:
    table = _by_size(faces)
    rows = zip(table.index, table["tracks"], table["rate"], table["confidence"], strict=True)
    return [
        {"size": name, "tracks": f"{n:,}", "rate": _share(rate), "confidence": terminal.number(mean)}
        for name, n, rate, mean in rows
    ]


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.1%}"


def _draw_detection(faces: pd.DataFrame) -> Figure | None:
    """Number of tracks, detection rate and confidence by face size."""
    table = _by_size(faces)
    if table.empty:
        return None
    figure, axes = figures._figure(2, width=10, height=3.0)
    x = np.arange(len(table))
    axes[0, 0].bar(x, table["tracks"], 0.75, color=figures.COLOURS[7], alpha=0.85)
    for name, column, index in (("detection rate", "rate", 0), ("confidence", "confidence", 1)):
        axes[0, 1].plot(x, table[column], label=name, linewidth=1.6, markersize=5, **figures.style_of(index))
    for ax, title in zip(axes[0], ("detected tracks", "mean over the tracks"), strict=True):
        ax.set_xticks(x, list(table.index), rotation=30, ha="right")
        ax.set(title=title, xlabel="face size in px", xlim=(-0.6, len(table) - 0.4))
    axes[0, 1].set_ylim(0, 1.04)
    figures._legend(axes[0, 1], loc="lower right")
    return figure


def _draw_histograms(faces: pd.DataFrame) -> Figure | None:
    """Face sizes and lengths of the tracks; real and fake on top of each other."""
    if faces.empty:
        return None
    groups = (
        [faces[faces["class"] == name] for name in ("real", "fake")]
        if faces["class"].isin(["real", "fake"]).all()
        else [faces]
    )
    figure, axes = figures._figure(2, width=10, height=3.0)
    for ax, column, label in (
        (axes[0, 0], "size_px", "face size in px"),
        (axes[0, 1], "seconds", "track length in seconds"),
    ):
        edges = np.linspace(0, max(float(faces[column].max()), 0.1), 41)
        base = np.zeros(len(edges) - 1)
        for group, colour, name in zip(groups, CLASS_COLOURS, ("real", "fake"), strict=False):
            counts = np.histogram(group[column], edges)[0]
            ax.bar(
                edges[:-1],
                counts,
                np.diff(edges),
                bottom=base,
                align="edge",
                color=colour,
                alpha=0.85,
                linewidth=0,
                label=name,
            )
            base = base + counts
        ax.set(xlabel=label, ylabel="tracks")
    if len(groups) > 1:
        figures._legend(axes[0, 0], loc="best")
    return figure


def _svg(figure: Figure | None, salt: str) -> dict[str, Any] | None:
    return (
        None
        if figure is None
        else {"svg": Markup(figures.to_svg(figure, salt=salt)), "width": round(figure.get_figwidth() * 96)}
    )


def _quarantine(table: pd.DataFrame) -> dict[str, Any]:
    """Refusals by stage and kind, the most frequent first, with the first examples by path.

    The kind is the part of a reason before its first colon.
    """
    table = table.fillna("").astype(str).sort_values(["path", "stage", "reason"])
    kinds = table["reason"].str.split(":", n=1).str[0]
    lines = []
    for (stage, kind), rows in sorted(
        _groups(table, kinds).items(), key=lambda item: (-len(item[1]), item[0])
    ):
        first = zip(rows["path"].head(MAX_EXAMPLES), rows["reason"].head(MAX_EXAMPLES), strict=True)
        examples = [
            _short(f"{path}: {reason[len(kind) + 1 :].strip()}".removesuffix(": ")) for path, reason in first
        ]
        lines.append({"stage": stage, "kind": _short(kind), "count": f"{len(rows):,}", "examples": examples})
    return {"total": len(table), "lines": lines[:MAX_LINES], "more": max(0, len(lines) - MAX_LINES)}


def _groups(table: pd.DataFrame, kinds: pd.Series) -> dict[tuple[str, str], pd.DataFrame]:
    return {(str(stage), str(kind)): rows for (stage, kind), rows in table.groupby([table["stage"], kinds])}  # type: ignore[misc, has-type]


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _leaking(found: Any) -> int:
    """Units of one kind of the audit that lie in more than one split."""
    return int(found.get("leaking") or found.get("units") or 0) if isinstance(found, dict) else 0


def _audit(summary: dict[str, Any]) -> dict[str, Any]:
    """The leak audit as a table, for any kinds and counts."""
    audit = {kind: found for kind, found in summary.get("leak_audit", {}).items() if isinstance(found, dict)}
    heads = list(dict.fromkeys(key for found in audit.values() for key in found if key != "examples"))
    allowed = summary.get("allowed_leaks") or []
    lines = []
    for kind, found in audit.items():
        verdict = (
            "none" if not _leaking(found) else "allowed" if kind in allowed or "all" in allowed else "leak"
        )
        cells = [
            f"{found[key]:,}" if isinstance(found.get(key), int) else text_of(found.get(key)) for key in heads
        ]
        examples = [_short(text_of(e)) for e in found.get("examples", [])[:MAX_EXAMPLES]]
        lines.append(
            {"kind": kind.replace("_", " "), "verdict": verdict, "cells": cells, "examples": examples}
        )
    return {"heads": heads, "lines": lines}


def _times(
    summary: dict[str, Any], videos: pd.DataFrame, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Worker seconds per stage: in all, as a share, per video and per frame of the videos that have times."""
    timed = videos[[bool(results.get(v, {}).get("seconds")) for v in videos["video_id"]]]
    seconds = {stage: float(value) for stage, value in (summary.get("seconds") or {}).items()}
    total, count, frames = sum(seconds.values()), len(timed), int(timed["num_frames"].sum())
    lines = []
    for stage, value in (*seconds.items(), ("all", total)):
        per_video, per_frame = (
            f"{1000 * value / n:,.{digits}f} ms" if n else "–" for n, digits in ((count, 0), (frames, 2))
        )
        share = f"{value / total:.1%}" if total else "–"
        lines.append(
            {
                "stage": stage,
                "cells": [
                    terminal.duration(value) if value >= 60 else f"{value:.2f} s",
                    share,
                    per_video,
                    per_frame,
                ],
            }
        )
    return {"lines": lines if seconds else [], "videos": f"{count:,}", "frames": f"{frames:,}"}


def _made(summary: dict[str, Any]) -> dict[str, str]:
    """Split rule, settings and commit, a line each."""
    made = {k: summary[k] for k in ("split_rule", "split_settings") if summary.get(k)} | dict(
        summary.get("settings") or {}
    )
    return {k.replace("_", " "): text_of(v) for k, v in (made | {"commit": commit()}).items()}
