"""A prepared data set on disk: the nouns of `records` as tables, and what must hold between them.

manifest.parquet   one row per video: Video and Stream fields, status (ok, no_face, unreadable), content hash
tracks.parquet     one row per track: boxes, time stamps, crop box, path of its face video train.csv val.csv
test.csv   "path label" without a header: PySlowFast, pytorchvideo and MMAction2 read them as they are
quarantine.csv     everything that was refused, with stage and reason summary.json       counts, settings,
split hash
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.files import publish, write_atomic
from dfdc_video.records import SPLIT_NAMES, STATUSES, Rejection, Track

VIDEO_COLUMNS = (
    "video_id dataset path label split source_id group_id method folder identities status num_frames fps "
    "height_px width_px rotation_degrees codec content_hash mask_path"
).split()
TRACK_COLUMNS = (
    "track_id video_id start_frame num_frames confidence detection_rate crop_path crop_box_px "
    "boxes_px eyes_px timestamps_seconds"
).split()
LARGE_COLUMNS = ("boxes_px", "eyes_px")


def landmarks_path(crop_path: Path) -> Path:
    """Where the landmarks of a face video are."""
    return crop_path.with_name(f"{crop_path.stem}_landmarks.npz")


def mask_path(crop_path: Path) -> Path:
    """Where the difference mask of a face video is."""
    return crop_path.with_name(f"{crop_path.stem}_mask{crop_path.suffix}")


def split_hash(videos: pd.DataFrame) -> str:
    """Twelve hex digits over (video_id, label, split) of every video, whatever the order: equal hashes mean
    equal splits.
    """
    rows = sorted(
        f"{v}\t{la}\t{s}"
        for v, la, s in zip(videos["video_id"], videos["label"], videos["split"], strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Manifest:
    """A prepared data set: `root` is its folder, `videos` and `tracks` are its tables, `summary` what
    `prepare` reported.
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
            missing = [c for c in columns if c not in table.columns and c not in LARGE_COLUMNS]  # see `load`
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
        """Tracks of a split joined with label, method, group and source of their video, in the order of
        track_id.
        """
        videos = self.videos_of(split)[["video_id", "label", "method", "group_id", "source_id", "fps"]]
        return (
            self.tracks.merge(videos, on="video_id", how="inner")
            .sort_values("track_id")
            .reset_index(drop=True)
        )

    def write(self) -> None:
        """Write every table and list; files appear whole or not at all."""
        self.root.mkdir(parents=True, exist_ok=True)
        for name, table in (("manifest", self.videos), ("tracks", self.tracks)):
            temporary = self.root / f".{name}.parquet.part"
            _write_parquet(table, temporary)
            publish(temporary, self.root / f"{name}.parquet")
        for split in SPLIT_NAMES:
            rows = self.tracks_of(split)
            write_list(self.root / f"{split}.csv", zip(rows["crop_path"], rows["label"], strict=True))
        write_atomic(self.root / "summary.json", json.dumps(self.summary, indent=2) + "\n")

    @classmethod
    def load(cls, root: str | Path, *, boxes: bool = True) -> Manifest:
        """Read the folder that `dfdc-video prepare` wrote. Without `boxes` the large columns that training
        does not need stay on disk.

        FileNotFoundError where a table is missing, ValueError where one is damaged or breaks an invariant.
        """
        root = Path(root).expanduser()
        for name in ("manifest.parquet", "tracks.parquet", "summary.json"):
            if not (root / name).is_file():
                raise FileNotFoundError(
                    f"{root} has no {name}: expected the --out folder of `dfdc-video prepare` (set "
                    "DATA.PATH to it)"
                )
        try:
            columns = None if boxes else [c for c in TRACK_COLUMNS if c not in LARGE_COLUMNS]
            videos, tracks = (
                pd.read_parquet(root / "manifest.parquet"),
                pd.read_parquet(root / "tracks.parquet", columns=columns),
            )
            summary = json.loads((root / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{root}: a table is damaged ({str(error).splitlines()[0][:120]}); run `dfdc-video "
                "prepare` again"
            ) from error
        return cls(root, videos, tracks, summary)


def _write_parquet(table: pd.DataFrame, path: Path, rows: int = 10_000) -> None:
    """In row groups of `rows`: the boxes of 100,000 tracks need not be in memory a second time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = pa.Table.from_pandas(table.iloc[:rows], preserve_index=False)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for start in range(rows, len(table), rows):
            writer.write_table(
                pa.Table.from_pandas(
                    table.iloc[start : start + rows], schema=first.schema, preserve_index=False
                )
            )


def track_row(track: Track) -> dict[str, Any]:
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


def write_list(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    """A Kinetics-style list, "path label" with one blank; a list without rows is left out, since other
    readers refuse empty files.
    """
    rows = list(rows)
    for crop_path, _ in rows:
        if " " in crop_path or crop_path.startswith(("/", "..")):
            raise ValueError(
                f"{path.name}: {crop_path!r} must be a relative path without blanks, or other readers of "
                "the list fail"
            )
    if rows:
        write_atomic(path, "".join(f"{crop_path} {label}\n" for crop_path, label in rows))
    else:
        path.unlink(missing_ok=True)


def read_list(path: str | Path) -> list[tuple[str, int]]:
    """Read a "path label" list; errors name file and line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list at {path}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            hint = "; this line has commas, the separator is a blank" if "," in line else ""
            raise ValueError(
                f"{path}:{number}: {line[:80]!r}: expected 'path label' with one blank and a class "
                f"number{hint}"
            )
        rows.append((parts[0], int(parts[1])))
    if not rows:
        raise ValueError(f"{path}: no line; expected 'path label' lines")
    return rows


def quarantine_table(rejections: Iterable[Rejection]) -> pd.DataFrame:
    """quarantine.csv: everything that was refused, in the order of paths."""
    rows = [r.__dict__ for r in sorted(rejections, key=lambda r: (r.path, r.stage, r.reason))]
    return pd.DataFrame(rows, columns=["video_id", "path", "stage", "reason"])
