"""The tables of a prepared data set, in memory: the records as rows, and what must hold between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.records import SPLIT_NAMES, STATUSES, Rejection, Track

STREAM_FIELDS = ("num_frames", "fps", "height_px", "width_px", "rotation_degrees", "codec")
VIDEO_COLUMNS = (
    "video_id dataset path label split source_id group_id method folder identities status num_frames fps "
    "height_px width_px rotation_degrees codec content_hash mask_path"
).split()
TRACK_COLUMNS = (
    "track_id video_id start_frame num_frames confidence detection_rate crop_path crop_box_px "
    "boxes_px eyes_px timestamps_seconds"
).split()
LARGE_COLUMNS = ("boxes_px", "eyes_px")


def split_hash(videos: pd.DataFrame) -> str:
    """Twelve hex digits over (video_id, label, split) of every video, in any order.

    Equal hashes mean equal splits.
    """
    rows = sorted(
        f"{v}\t{la}\t{s}"
        for v, la, s in zip(videos["video_id"], videos["label"], videos["split"], strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Manifest:
    """A prepared data set: `root` is its folder, `videos` (VIDEO_COLUMNS, a row per video) and `tracks`
    (TRACK_COLUMNS, a row per track) are its tables, `summary` is what `prepare` reported.

    `folders.prepared` reads and writes it. ValueError for tables that break an invariant: a missing column, a
    video_id that occurs twice, tracks of unknown videos, an unknown status, a group in several splits.
    """

    root: Path
    videos: pd.DataFrame
    tracks: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, table, columns in (
            ("manifest", self.videos, VIDEO_COLUMNS),
            ("tracks", self.tracks, TRACK_COLUMNS),
        ):
            # large columns may have been left on disk
            missing = [c for c in columns if c not in table.columns and c not in LARGE_COLUMNS]
            if missing:
                raise ValueError(
                    f"{self.root}: the {name} table lacks the columns {', '.join(missing)}; run "
                    "`dfdc-video prepare` again"
                )
        if self.videos["video_id"].duplicated().any():
            repeated = self.videos.loc[self.videos["video_id"].duplicated(), "video_id"].iloc[0]
            raise ValueError(f"{self.root}: video_id {repeated!r} occurs twice in the manifest")
        unknown = set(self.tracks["video_id"]) - set(self.videos["video_id"])
        if unknown:
            raise ValueError(
                f"{self.root}: tracks of videos that the manifest does not have: {sorted(unknown)[:3]}"
            )
        strange = set(self.videos["status"]) - set(STATUSES)
        if strange:
            raise ValueError(f"{self.root}: status {sorted(strange)}, expected {STATUSES}")
        per_group = self.videos[self.videos["split"] != ""].groupby("group_id")["split"].nunique()
        allowed = self.summary.get("split_rule") == "random" or {"group", "all"} & set(
            self.summary.get("allowed_leaks", ())
        )
        if not allowed and (per_group > 1).any():
            raise ValueError(
                f"{self.root}: group {per_group.idxmax()!r} lies in {per_group.max()} splits: a leak"
            )

    @property
    def split_hash(self) -> str:
        return split_hash(self.videos)

    @property
    def num_classes(self) -> int:
        return max(2, int(self.videos["label"].max()) + 1)

    def videos_of(self, split: str) -> pd.DataFrame:
        """Every video of a split, those without a face or unreadable included."""
        if split not in SPLIT_NAMES:
            raise ValueError(f"split {split!r}, expected one of {', '.join(SPLIT_NAMES)}")
        return self.videos[self.videos["split"] == split].reset_index(drop=True)

    def tracks_of(self, split: str) -> pd.DataFrame:
        """Tracks of a split with label, method, group and source of their video, by track_id."""
        videos = self.videos_of(split)[["video_id", "label", "method", "group_id", "source_id", "fps"]]
        return (
            self.tracks.merge(videos, on="video_id", how="inner")
            .sort_values("track_id")
            .reset_index(drop=True)
        )


def track_row(track: Track) -> dict[str, Any]:
    """A track as a row of the table, in plain values (boxes rounded to 0.01 px, row by row)."""
    return {
        "track_id": track.track_id,
        "video_id": track.video_id,
        "start_frame": track.start_frame,
        "num_frames": track.num_frames,
        "confidence": float(track.confidence),
        "detection_rate": float(track.detection_rate),
        "crop_path": track.crop_path,
        "crop_box_px": list(map(int, track.crop_box_px)),
        # row-major (N, 4)
        "boxes_px": np.asarray(track.boxes_px, dtype=np.float32).round(2).ravel().tolist(),
        "eyes_px": np.asarray(track.eyes_px, dtype=np.float32).round(2).ravel().tolist(),
        "timestamps_seconds": np.asarray(track.timestamps_seconds, dtype=np.float64).round(6).tolist(),
    }


def track_from_row(row: dict[str, Any]) -> Track:
    """The track of a row of the table, or of a result in JSON."""
    return Track(
        row["track_id"],
        row["video_id"],
        int(row["start_frame"]),
        np.asarray(row["boxes_px"], dtype=np.float32).reshape(-1, 4),
        np.asarray(row["timestamps_seconds"], dtype=np.float64),
        float(row["confidence"]),
        float(row["detection_rate"]),
        row["crop_path"],
        tuple(int(v) for v in row["crop_box_px"]),  # type: ignore[arg-type]
        np.asarray(row["eyes_px"], dtype=np.float32).reshape(-1, 4),
    )


def quarantine_table(rejections: Iterable[Rejection]) -> pd.DataFrame:
    """Everything that was refused, in the order of paths: video_id, path, stage, reason."""
    rows = [r.__dict__ for r in sorted(rejections, key=lambda r: (r.path, r.stage, r.reason))]
    return pd.DataFrame(rows, columns=["video_id", "path", "stage", "reason"])
