"""The settings of `prepare`, each written once: type, default, help and check are one field of a dataclass.

The flags of `dfdc-video prepare` and `merge`, the keys of a YAML file of settings, the keys of settings.json
in a prepared folder and `dfdc-video list prepare-settings` all come from these fields. A new setting is one
more field here, and the code that uses it.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from dfdc_video.preparation.audit import KINDS
from dfdc_video.preparation.splits import GROUPINGS
from dfdc_video.registry import DETECTORS, SPLITS, Registry, nearest

# (value, all settings) -> what was expected instead, or "" where the value is fine
Check = Callable[[Any, Any], str]


def setting(default: Any, help: str, *checks: Check) -> Any:
    """One setting: a dataclass field that carries its help and its checks."""
    metadata = {"help": help, "checks": checks}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least(low: float) -> Check:
    return lambda value, _: "" if value >= low else f"{low} or more"


def one_of(*choices: str) -> Check:
    return lambda value, _: "" if value in choices else f"{', '.join(choices[:-1])} or {choices[-1]}"


def registered_in(registry: Registry) -> Check:
    """A component that exists; the registry's own error names the nearest ones."""
    return lambda value, _: "" if registry.get(value) else ""


def _fraction(value: float, _: Any) -> str:
    return "" if 0 < value < 1 else "a number between 0 and 1"


def _even(value: int, _: Any) -> str:
    return "an even number, since H.264 stores colour at half the size" if value % 2 else ""


def _aspect(value: str, _: Any) -> str:
    sides = value.split(":")
    fine = not value or (len(sides) == 2 and all(s.isdecimal() and int(s) for s in sides))
    return "" if fine else "width:height, for example 16:9"


def _no_min_confidence(value: Mapping[str, Any], _: Any) -> str:
    if "min_confidence" in value:
        raise ValueError("min_confidence is a setting of its own, not of the detector: give --min-confidence")
    return ""


def _known_leaks(value: tuple[str, ...], _: Any) -> str:
    for kind in value:
        if kind not in (*KINDS, "all"):
            raise ValueError(f"unknown kind of leak '{kind}'; {nearest(kind, (*KINDS, 'all'))}")
    return ""


def _below_the_root(value: tuple[str, ...], settings: Any) -> str:
    for name in value:
        if name.startswith(("/", ".")) or ".." in Path(name).parts:
            raise ValueError(f"folder {name!r}: expected a folder below the root")
    if value and (settings.num_parts > 1 or settings.limit):
        raise ValueError(
            "--folders takes neither --num-parts nor --limit: give each machine folders of its own"
        )
    return ""


def _with_folders(value: str, settings: Any) -> str:
    if value and not settings.folders:
        raise ValueError("--fetch and --delete need --folders: the folders that they fetch and delete")
    return ""


def images_per_video(text: str) -> tuple[int, int] | None:
    """Images per real and per fake video: "10/2" -> (10, 2), "10" -> (10, 10), "" -> None.

    ValueError otherwise.
    """
    if not text.strip():
        return None
    counts = [p.strip() for p in text.split("/")]
    if len(counts) > 2 or not all(c.isdecimal() and int(c) > 0 for c in counts):
        raise ValueError(
            f"frames {text!r}: expected a number of images per video, as in 10, or two, as in 10/2 for 10 "
            "per real and 2 per fake video"
        )
    return int(counts[0]), int(counts[-1])


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Settings that exist are valid: making them checks them. Raises ValueError, in one line."""

    title: ClassVar[str]  # of the group, in the help

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for check in f.metadata["checks"]:
                if expected := check(value, self):
                    raise ValueError(f"{f.name} {value!r}: expected {expected}")

    def plain(self) -> dict[str, Any]:
        """Name -> value, as JSON gives it back."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}))


@dataclass(frozen=True, kw_only=True)
class WorkSettings(_Settings):
    """May change from run to run, since they never change the result of a video; not in settings.json."""

    title = "amount of work (never changes the result of a video)"

    workers: int = setting(2, "number of processes", at_least(1))
    timeout_seconds: float = setting(
        300.0, "time limit per video", lambda v, _: "" if v > 0 else "more than 0"
    )
    buffer_mb: int = setting(
        1024,
        "decoded frames that a worker keeps in memory; longer videos are decoded twice, with the same result",
        at_least(0),
    )
    ray: str = setting(
        "", "address of a Ray cluster, or local; ROOT and OUT must be on storage that every node sees"
    )
    limit: int = setting(0, "only the first videos, each original with its fakes; 0: all", at_least(0))
    part: int = setting(
        1,
        "which part to prepare, from 1",
        at_least(1),
        lambda v, s: "" if v <= s.num_parts else f"num_parts ({s.num_parts}) or less",
    )
    num_parts: int = setting(
        1, "prepare one part of this many; `dfdc-video merge` puts the parts together", at_least(1)
    )
    folders: tuple[str, ...] = setting(
        (),
        "prepare these folders of ROOT one after another, with --fetch before and --delete after each",
        _below_the_root,
    )
    fetch: str = setting(
        "", "shell command that fetches a folder; {folder} and {root} are filled in", _with_folders
    )
    delete: str = setting("", "shell command that deletes a folder once its faces are done", _with_folders)


@dataclass(frozen=True, kw_only=True)
class FaceSettings(_Settings):
    """What is read, and what comes out of a video: fixed for a prepared folder."""

    title = "faces"

    dataset_settings: dict[str, Any] = setting(
        {}, "settings of the reader, as `dfdc-video list datasets` shows them"
    )
    detector: str = setting(
        "blazeface_full", "face detector, from `dfdc-video list face-detectors`", registered_in(DETECTORS)
    )
    detector_settings: dict[str, Any] = setting(
        {},
        "settings of the detector, as `dfdc-video list face-detectors` shows them",
        _no_min_confidence,
    )
    every: int = setting(5, "detect on every k-th frame; boxes are interpolated between", at_least(1))
    min_confidence: float = setting(0.5, "detections of lower confidence are ignored (sigma_l)", _fraction)
    min_track_confidence: float = setting(
        0.5,
        "a track needs one detection of at least this confidence (sigma_h)",
        lambda v, s: (
            "" if s.min_confidence <= v < 1 else f"min_confidence ({s.min_confidence}) or more, below 1"
        ),
    )
    iou: float = setting(
        0.3, "overlap (intersection over union) from which two boxes are the same face (sigma_IoU)", _fraction
    )
    max_gap: int = setting(
        3, "consecutive detection frames on which a face may be missing within a track", at_least(0)
    )
    min_track_frames: int = setting(8, "shortest track that is kept, in frames", at_least(1))
    smooth_seconds: float = setting(
        0.0, "smooth the boxes over time with a Gaussian of this width; 0: no smoothing", at_least(0)
    )
    pad_aspect: str = setting(
        "", "pad frames to this aspect ratio before detection, for example 16:9", _aspect
    )
    margin: float = setting(1.5, "side of the crop as a multiple of the side of the face", at_least(1))
    crop: str = setting(
        "fixed",
        "fixed (one box per segment), smoothed (a box per frame) or aligned (eyes at fixed places)",
        one_of("fixed", "smoothed", "aligned"),
    )
    size: int = setting(256, "side of the face videos in pixels", at_least(16), _even)
    format: str = setting("h264", "h264, lossless (H.264) or png", one_of("h264", "lossless", "png"))
    crf: int = setting(12, "x264 quality of the face videos: lower is better", at_least(0))
    gop: int = setting(12, "frames from one key frame to the next", at_least(1))
    min_seconds: float = setting(0.2, "shorter videos are refused", at_least(0))
    max_seconds: float = setting(
        3600.0,
        "longer videos are refused",
        lambda v, s: "" if v > s.min_seconds else f"more than min_seconds ({s.min_seconds})",
    )
    landmarks: bool = setting(False, "store 468 face mesh points per frame beside every face video")
    masks: bool = setting(
        False, "store the difference between a fake and its original beside the fake's face videos"
    )


@dataclass(frozen=True, kw_only=True)
class FinishingSettings(_Settings):
    """How the results of all videos become one data set; `merge` can change it without decoding anything."""

    title = "cleaning, splits, labels and images for other programs"

    split: str = setting("group", "split rule, from `dfdc-video list split-rules`", registered_in(SPLITS))
    split_settings: dict[str, Any] | None = setting(
        None, "settings of the split rule, as `dfdc-video list split-rules` shows them"
    )
    group_by: str = setting(
        "auto",
        "what stays in one split beside an original and its fakes: identity, folder, original; auto takes "
        "the strongest that is known",
        one_of(*GROUPINGS),
    )
    ratios: tuple[float, float, float] = setting((0.7, 0.1, 0.2), "shares of train, val and test")
    seed: int = setting(0, "seed of the split")
    near_distance: float = setting(
        4.0,
        "videos whose frames differ by at most this many of 64 hash bits are near-duplicates and stay in one "
        "split; 0: near-duplicates are not looked for",
        lambda v, _: "" if v >= 0 else "0 (near-duplicates are not looked for) or more",
    )
    drop_equal_fakes: bool = setting(
        False, "leave out fakes whose frames equal their original's (only the sound is fake)"
    )
    drop_orphans: bool = setting(False, "leave out fakes whose original is missing")
    allow_leaks: tuple[str, ...] = setting(
        (),
        f"kinds of leak between splits that are no error: {', '.join(KINDS)}, or all",
        _known_leaks,
    )
    merge: str = setting(
        "",
        "train+test: train on the test split, too, for a final fit; test scores are then refused",
        lambda v, _: "" if v in ("", "train+test") else "train+test, or nothing",
    )
    kitti: bool = setting(True, "write a KITTI tracking label file per video")
    frames: str = setting(
        "",
        "write image trees frames/SPLIT/CLASS: images per video, or per real/per fake video, for example "
        "10/2",
        lambda v, _: "" if images_per_video(v) else "",
    )
    frames_format: str = setting("jpg", "jpg or png", one_of("jpg", "png"))


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(FinishingSettings, FaceSettings, WorkSettings):
    """All settings of `prepare`, in the order of GROUPS."""

    def fixed(self) -> dict[str, Any]:
        """What settings.json keeps, as plain values: everything but the amount of work."""
        return {k: v for k, v in self.plain().items() if k not in names_of(WorkSettings)}

    def extraction(self) -> dict[str, Any]:
        """Keyword arguments of `faces.extract.extract`, with `landmarks` and `masks`."""
        names = (*names_of(FaceSettings), "buffer_mb")
        return {name: getattr(self, name) for name in names if name != "dataset_settings"}

    def finishing(self) -> FinishingSettings:
        return FinishingSettings(**{name: getattr(self, name) for name in names_of(FinishingSettings)})


GROUPS: tuple[type[_Settings], ...] = (WorkSettings, FaceSettings, FinishingSettings)


def names_of(group: type[_Settings]) -> list[str]:
    return [f.name for f in fields(group)]


def types_of(group: type[_Settings]) -> dict[str, Any]:
    """Name -> annotated type of every setting."""
    hints = typing.get_type_hints(group)
    return {name: hints[name] for name in names_of(group)}


def default_of(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if callable(f.default_factory) else f.default


def default_text(f: dataclasses.Field[Any]) -> str:
    """A setting's default as one would type it, or "" where it has none to speak of."""
    default = default_of(f)
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "" if default in ("", None, {}) else str(default)


def setting_lines() -> dict[str, str]:
    """Name -> help and default of every setting: `dfdc-video list prepare-settings`."""
    lines = {}
    for f in (f for group in GROUPS for f in fields(group)):
        default = default_text(f)
        lines[f.name] = f.metadata["help"] + (f" (default {default})" if default else "")
    return lines
