"""One video file -> its tracks and their face videos, decoded once and never converted to RGB as a whole.

The first pass decodes every frame, keeps its planes, and detects on every k-th frame; the crops are then cut
from the planes. A video that is too long to keep is decoded a second time, with the same result. A fake that
takes its original's boxes needs one pass only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dfdc_video.faces.crop import CROPS
from dfdc_video.faces.face_videos import face_difference, write_face_videos
from dfdc_video.faces.scan import FrameStore, Overview, scan, stream_planes
from dfdc_video.faces.select import select_tracks, tracks_of_original
from dfdc_video.faces.track import build_tracks
from dfdc_video.media.reader import UnreadableVideo, probe
from dfdc_video.media.writer import FORMATS
from dfdc_video.records import Rejection, Stream, Track
from dfdc_video.registry import DETECTORS

MAX_FPS = 1000


@dataclass
class Extraction:
    """The result of one video. `own_boxes` is False where the boxes are those of the video's original.

    `signature` holds perceptual hashes (64 bits as hexadecimal digits) of 8 evenly spaced frames.
    `difference` of a fake with its original's boxes is how far its face videos are from the original's
    (`face_difference`), None for every other video.
    """

    stream: Stream
    tracks: list[Track] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    own_boxes: bool = True
    signature: list[str] = field(default_factory=list)
    difference: float | None = None
    # probe, decode, detect, crop; encode is the codec's share of crop
    seconds: dict[str, float] = field(default_factory=dict)


@lru_cache(maxsize=2)
def _detector(name: str, min_confidence: float, settings: str) -> Any:
    """One detector per worker process; `settings` are its own, as JSON."""
    return DETECTORS.get(name)(min_confidence=min_confidence, **json.loads(settings))


def extract(
    path: str | Path,
    out: str | Path,
    *,
    video_id: str,
    original: tuple[Stream, Sequence[Track]] | None = None,
    detector: str,
    detector_settings: dict[str, Any] | None = None,
    every: int,
    min_confidence: float,
    min_track_confidence: float,
    iou: float,
    max_gap: int,
    min_track_frames: int,
    smooth_seconds: float,
    pad_aspect: str,
    margin: float,
    crop: str,
    size: int,
    format: str,
    crf: int,
    gop: int,
    min_seconds: float,
    max_seconds: float,
    buffer_mb: int = 1024,
) -> Extraction:
    """Find, track and cut out the faces of one video.

    Face videos are written to OUT/tracks/<video_id>/<track_id>.mp4 (format png: a folder). `original` gives
    the stream and the tracks of the video that this one was made from: where frame count and size agree, its
    boxes are taken, so that real and fake are aligned to the pixel. `min_confidence` applies to a detection,
    `min_track_confidence` to the best detection of a track; `max_gap` counts detection frames, of which every
    `every`-th frame is one; `smooth_seconds` is the standard deviation of a Gaussian over boxes and eyes.
    Frames are kept in memory up to `buffer_mb`; above, the video is decoded twice, with the same result.
    Raises UnreadableVideo, and OSError where a face video cannot be written. Call it in a spawned worker (see
    `detect`).
    """
    path, out = Path(path), Path(out)
    if crop not in CROPS or format not in FORMATS:
        raise ValueError(
            f"crop {crop!r}, format {format!r}: expected one of {', '.join(CROPS)}, and one of "
            f"{', '.join(FORMATS)}"
        )
    started = time.perf_counter()
    stream = probe(path)
    seconds = dict.fromkeys(("probe", "decode", "detect", "crop", "encode"), 0.0)
    seconds["probe"] = time.perf_counter() - started
    _check_times(stream, min_seconds, max_seconds)
    result, overview = Extraction(stream, seconds=seconds), Overview(stream.num_frames)
    suffix = "" if format == "png" else ".mp4"
    store: FrameStore | None = None
    try:
        if original is not None and original[1] and _same_shape(stream, original[0]):
            result.own_boxes = False
            result.tracks = tracks_of_original(video_id, original[1], stream, suffix)
        else:
            finder = _detector(detector, min_confidence, json.dumps(detector_settings or {}, sort_keys=True))
            if hasattr(finder, "start"):
                finder.start(path, stream)
            detections, detection_frames, store = scan(
                path,
                stream,
                finder,
                overview,
                seconds,
                every=every,
                pad_aspect=pad_aspect,
                buffer_mb=buffer_mb,
            )
            result.cuts = overview.cuts()
            tracklets = build_tracks(
                detections,
                detection_frames,
                num_frames=stream.num_frames,
                cuts=result.cuts,
                min_confidence=min_confidence,
                iou_threshold=iou,
                max_gap=max_gap,
            )
            result.tracks, dropped = select_tracks(
                video_id,
                tracklets,
                stream,
                margin=margin,
                crop=crop,
                suffix=suffix,
                min_frames=min_track_frames,
                min_track_confidence=min_track_confidence,
                smooth_seconds=smooth_seconds,
            )
            if not tracklets:
                dropped = [f"no face: {detector} found none in {len(detection_frames)} detection frames"]
            result.rejections = [Rejection(video_id, path.name, "faces", reason) for reason in dropped]
        if result.tracks:
            started, decoded = time.perf_counter(), seconds["decode"]
            new = None if result.own_boxes else overview
            frames = store.all() if store is not None else stream_planes(path, stream, seconds, new)
            write_face_videos(
                frames,
                out,
                result.tracks,
                stream,
                overview,
                seconds,
                crop=crop,
                margin=margin,
                size=size,
                format=format,
                crf=crf,
                gop=gop,
            )
            if original is not None and not result.own_boxes:
                pairs = zip(result.tracks, original[1], strict=True)
                result.difference = max(
                    face_difference(out / a.crop_path, out / b.crop_path) for a, b in pairs
                )
            seconds["crop"] = time.perf_counter() - started - (seconds["decode"] - decoded)
    finally:
        if store is not None:
            store.release()
    result.signature = overview.signature
    return result


def _check_times(stream: Stream, min_seconds: float, max_seconds: float) -> None:
    """Raise UnreadableVideo for an implausible frame rate or duration."""
    if not 0 < stream.fps <= MAX_FPS:
        raise UnreadableVideo(
            f"implausible frame rate: {stream.fps:g} frames/s, expected more than 0 and at most {MAX_FPS}"
        )
    last = float(stream.timestamps_seconds[-1])
    duration = last + 1 / stream.fps if last or stream.num_frames == 1 else 0.0
    if not min_seconds <= duration <= max_seconds:
        raise UnreadableVideo(
            f"implausible duration: {duration:.3g} s, expected {min_seconds:g} to {max_seconds:g} s"
        )


def _same_shape(a: Stream, b: Stream) -> bool:
    return (a.num_frames, a.height_px, a.width_px) == (b.num_frames, b.height_px, b.width_px)
