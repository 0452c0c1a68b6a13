"""The owner of a prepared folder: the only code that knows the names of what lies in it.

settings.json           what the folder was made with; other settings need another folder
records/<part>.json     videos, refusals, content hashes and failures of one part: "all", "2-of-8", or the
                        name of a folder of the raw data
hashes/<part>.json      size, modification time and content hash of every raw file, by path
work/<video_id>.json    the result of one video; written once the video is done
tracks/<video_id>/      <track_id>.mp4 (or a folder of PNG files), with _landmarks.npz and _mask.mp4
manifest.parquet        a row per video
tracks.parquet          a row per track
<split>.csv             Kinetics-style lists of train, val and test (`folders.lists`)
quarantine.csv          everything that was refused, with stage and reason
leak_audit.json         what lies in more than one split
summary.json            counts and settings; summary.html is the same and more as a page
kitti/<video_id>.txt    boxes as KITTI tracking labels
frames/                 image trees (`folders.images`)
cache/                  what training computes from the face videos (`folders.cache`)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from dfdc_video.files import is_partial, load_json, partial_path, whole_file, write_atomic
from dfdc_video.folders.images import ImageTree
from dfdc_video.folders.lists import write_list
from dfdc_video.folders.manifest import LARGE_COLUMNS, TRACK_COLUMNS, Manifest
from dfdc_video.records import SPLIT_NAMES

SETTINGS, RECORDS, HASHES, RESULTS, TRACKS = "settings.json", "records", "hashes", "work", "tracks"
VIDEO_TABLE, TRACK_TABLE, SUMMARY, PAGE = "manifest.parquet", "tracks.parquet", "summary.json", "summary.html"
QUARANTINE, LEAK_AUDIT, KITTI, IMAGES = "quarantine.csv", "leak_audit.json", "kitti", "frames"
LISTS = {split: f"{split}.csv" for split in SPLIT_NAMES}
RECORD_KEYS = ("name", "videos", "rejections", "hashes", "failures")
RESULT_KEYS = ("content_hash", "source_hash", "source_tracks", "tracks")
LANDMARKS_ENDING, MASK_ENDING = "_landmarks.npz", "_mask"
NAMES = (
    *(SETTINGS, RECORDS, HASHES, RESULTS, TRACKS, VIDEO_TABLE, TRACK_TABLE, SUMMARY, PAGE),
    *(QUARANTINE, LEAK_AUDIT, KITTI, IMAGES, *LISTS.values()),
)


def face_video_path(video_id: str, track_id: str, *, suffix: str = ".mp4") -> str:
    """The path of a track's face video in its prepared folder; without a suffix it is a folder of images."""
    return f"{TRACKS}/{video_id}/{track_id}{suffix}"


def landmarks_path(crop_path: Path) -> Path:
    """Where the landmarks of a face video are."""
    return crop_path.with_name(f"{crop_path.stem}{LANDMARKS_ENDING}")


def mask_path(crop_path: Path) -> Path:
    """Where the difference mask of a face video is."""
    return crop_path.with_name(f"{crop_path.stem}{MASK_ENDING}{crop_path.suffix}")


def load_prepared(root: str | Path, *, boxes: bool = True) -> Manifest:
    """The tables of the folder that `dfdc-video prepare` wrote (`PreparedFolder.load`)."""
    return PreparedFolder(Path(root).expanduser()).load(boxes=boxes)


def differences(before: dict[str, Any], settings: dict[str, Any]) -> str:
    """In words, the settings that two folders do not share; "" where there are none."""
    names = sorted(before.keys() | settings.keys())
    return "; ".join(
        f"{k} {before.get(k)!r}, now {settings.get(k)!r}" for k in names if before.get(k) != settings.get(k)
    )


@dataclass(frozen=True)
class PreparedFolder:
    """A folder that `dfdc-video prepare` makes, or a part of one. Files are written whole or not at all."""

    root: Path

    # what it was made with

    def claim(self, settings: dict[str, Any], *, open_until_done: Collection[str] = ()) -> None:
        """Write the settings of a new folder; ValueError where it was made with others, or by something else.

        Settings of `open_until_done` may change as long as there are no tables: after a split that was
        refused nothing needs to be extracted again.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root} is a file; --out is a folder")
        path = self.root / SETTINGS
        if path.is_file():
            before = self.settings()
            still_open = () if (self.root / SUMMARY).is_file() else open_until_done
            before |= {name: settings[name] for name in still_open}
            if differing := differences(before, settings):
                raise ValueError(
                    f"{self.root} was prepared with other settings ({differing}); use the same ones or "
                    f"another --out. For another split of the same faces: `dfdc-video merge {self.root} "
                    "--out NEW --split …`"
                )
        # a killed run may have left the unfinished file of its settings, and nothing else
        elif self.root.is_dir() and any(p != partial_path(path) for p in self.root.iterdir()):
            raise ValueError(
                f"{self.root} is not empty and was not made by `dfdc-video prepare`; give a new folder as "
                "--out"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(settings, indent=2) + "\n")

    def settings(self) -> dict[str, Any]:
        """What the folder was made with. FileNotFoundError without such a file, ValueError if damaged."""
        path = self.root / SETTINGS
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.root} has no {SETTINGS}: expected a folder made by `dfdc-video prepare`"
            )
        settings = load_json(path, keys=("dataset", "split"))
        if settings is None:
            raise ValueError(
                f"{path} is damaged; use another --out, or delete {self.root} if `dfdc-video prepare` made it"
            )
        return settings

    # its parts

    def write_record(self, part: str, record: dict[str, Any]) -> None:
        self._write_json(self._of_part(RECORDS, part), record)

    def record(self, part: str) -> dict[str, Any] | None:
        """The record of a part, or None where it is missing or damaged."""
        return load_json(self._of_part(RECORDS, part), keys=RECORD_KEYS)

    def records(self) -> list[dict[str, Any]]:
        """The records of all parts, by name. ValueError for a damaged one, and where there is none."""
        found = []
        for path in sorted((self.root / RECORDS).glob("*.json")):
            record = load_json(path, keys=RECORD_KEYS)
            if record is None:
                raise ValueError(
                    f"{path} is damaged; delete it and run `dfdc-video prepare` for that part again"
                )
            found.append(record)
        if not found:
            raise ValueError(f"{self.root} has no {RECORDS}/: expected a folder made by `dfdc-video prepare`")
        return found

    def hashes(self, part: str) -> dict[str, Any]:
        """The hashes of raw files that a part has seen, by path; empty where there are none."""
        return load_json(self._of_part(HASHES, part)) or {}

    def write_hashes(self, part: str, hashes: dict[str, Any]) -> None:
        self._write_json(self._of_part(HASHES, part), hashes)

    def _of_part(self, kind: str, part: str) -> Path:
        return self.root / kind / f"{part.replace('/', '__')}.json"

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(content) + "\n")

    # one video

    def result_path(self, video_id: str) -> Path:
        return self.root / RESULTS / f"{video_id}.json"

    def result(self, video_id: str) -> dict[str, Any] | None:
        """The result of a video, or None where it is missing or damaged."""
        return load_json(self.result_path(video_id), keys=RESULT_KEYS)

    def write_result(self, video_id: str, result: dict[str, Any]) -> None:
        self._write_json(self.result_path(video_id), result)

    def files_of(self, video_id: str) -> list[str]:
        """Names of the face videos of a video and of what lies beside them."""
        folder = self.root / TRACKS / video_id
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def num_results(self) -> int:
        """How many videos have a result so far."""
        return sum(1 for _ in (self.root / RESULTS).glob("*.json"))

    def clear(self, video_id: str) -> None:
        """Remove what a video has left, its result first: a result without its files would be wrong."""
        self.result_path(video_id).unlink(missing_ok=True)
        shutil.rmtree(self.root / TRACKS / video_id, ignore_errors=True)

    # the tables and reports

    def load(self, *, boxes: bool = True) -> Manifest:
        """Its tables. Without `boxes` the large columns that training does not need stay on disk.

        FileNotFoundError where a table is missing, ValueError where one is damaged or breaks an invariant.
        """
        for name in (VIDEO_TABLE, TRACK_TABLE, SUMMARY):
            if not (self.root / name).is_file():
                raise FileNotFoundError(
                    f"{self.root} has no {name}: expected the --out folder of `dfdc-video prepare` (set "
                    "DATA.PATH to it)"
                )
        try:
            columns = None if boxes else [c for c in TRACK_COLUMNS if c not in LARGE_COLUMNS]
            videos = pd.read_parquet(self.root / VIDEO_TABLE)
            tracks = pd.read_parquet(self.root / TRACK_TABLE, columns=columns)
            summary = json.loads((self.root / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.root}: a table is damaged ({str(error).splitlines()[0][:120]}); run `dfdc-video "
                "prepare` again"
            ) from error
        return Manifest(self.root, videos, tracks, summary)

    def write(self, manifest: Manifest) -> None:
        """Write the tables, the lists and the summary."""
        self.root.mkdir(parents=True, exist_ok=True)
        for name, table in ((VIDEO_TABLE, manifest.videos), (TRACK_TABLE, manifest.tracks)):
            with whole_file(self.root / name) as temporary:
                _write_parquet(table, temporary)
        for split, name in LISTS.items():
            rows = manifest.tracks_of(split)
            write_list(self.root / name, zip(rows["crop_path"], rows["label"], strict=True))
        write_atomic(self.root / SUMMARY, json.dumps(manifest.summary, indent=2) + "\n")

    def write_leak_audit(self, found: dict[str, Any]) -> None:
        write_atomic(self.root / LEAK_AUDIT, json.dumps(found, indent=2) + "\n")

    @property
    def quarantine_path(self) -> Path:
        return self.root / QUARANTINE

    def write_quarantine(self, table: pd.DataFrame) -> None:
        write_atomic(self.quarantine_path, table.to_csv(index=False))

    @property
    def page_path(self) -> Path:
        return self.root / PAGE

    def write_page(self, html: str) -> None:
        write_atomic(self.page_path, html)

    # forms that other programs read

    def write_kitti_labels(self, labels: Iterable[tuple[str, str]]) -> None:
        """Write (video_id, text) label files, and remove those of other videos."""
        folder = self.root / KITTI
        folder.mkdir(parents=True, exist_ok=True)
        written = set()
        for video_id, text in labels:
            write_atomic(folder / f"{video_id}.txt", text)
            written.add(f"{video_id}.txt")
        for path in list(folder.iterdir()):
            if is_partial(path) or (path.suffix == ".txt" and path.name not in written):
                path.unlink()

    @property
    def images(self) -> ImageTree:
        return ImageTree(self.root / IMAGES)

    # other prepared folders

    def take_over(self, sources: Sequence[PreparedFolder]) -> None:
        """Take records, results and face videos of other folders.

        They are hard links, or copies on another file system.
        """
        sources = [s for s in sources if s.root.resolve() != self.root.resolve()]
        if not sources:
            return
        # the folder holds what these folders hold, and nothing from an earlier call
        shutil.rmtree(self.root / RECORDS, ignore_errors=True)
        for source in sources:
            for kind in (RECORDS, RESULTS, TRACKS):
                for path in _visible_files(source.root / kind):
                    target = self.root / path.relative_to(source.root)
                    if kind == RECORDS and target.is_file() and target.read_bytes() != path.read_bytes():
                        digest = sha256(path.read_bytes()).hexdigest()[:8]
                        target = target.with_name(f"{target.stem}-{digest}.json")
                    _link(path, target)


def _visible_files(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _link(path: Path, target: Path) -> None:
    if target.is_file():
        a, b = path.stat(), target.stat()
        if target.samefile(path) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copy2(path, temporary)


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
