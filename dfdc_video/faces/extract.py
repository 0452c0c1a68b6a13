"""One video file -> its tracks and their face videos, decoded once and never converted to RGB as a whole.

The first pass looks at every frame's Y plane and detects on every k-th frame; the planes of all frames are
kept meanwhile, and the crops are cut from them. A video that is too long for that is decoded a second time,
with the same result. A fake that takes its original's boxes needs one pass only.
"""

from __future__ import annotations

import filecmp
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.crop import CROPS, Planes, crop_box, cut_planes, eye_transform, split_track, warp_planes
from dfdc_video.faces.scan import FrameStore, Looks, planes_of, scan
from dfdc_video.faces.track import Tracklet, build_tracks, smooth
from dfdc_video.media.reader import UnreadableVideo, iter_luma, probe, upright
from dfdc_video.media.writer import FORMATS, PlaneScaler, VideoWriter
from dfdc_video.records import Rejection, Stream, Track
from dfdc_video.registry import DETECTORS

BLOCK_PX = 16
MAX_FPS = 1000
# of x264: at crf 12 as near to the source as veryfast, a third more bytes, a quarter of the time and half to
# decode
PRESET = "ultrafast"


@dataclass
class Extraction:
    """What came out of one video. `own_boxes` tells detection on the video itself from boxes taken over from
    its original.

    `signature` are perceptual hashes (64 bits as hexadecimal digits) of 8 evenly spaced frames. `difference`
    of a fake with its original's boxes is how far its face videos are from the original's
    (`face_difference`), None for every other video.
    """

    stream: Stream
    tracks: list[Track] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    own_boxes: bool = True
    signature: list[str] = field(default_factory=list)
    difference: float | None = None
    # probe, decode, detect, crop; encode is the part of crop that the codec takes
    seconds: dict[str, float] = field(default_factory=dict)


@lru_cache(maxsize=2)
def _detector(name: str, min_confidence: float, settings: str) -> Any:
    """One detector per worker process; `settings` are its own, as JSON."""
    return DETECTORS.get(name)(min_confidence=min_confidence, **json.loads(settings))


def _cutter(track: Track, *, crop: str, margin: float, size: int) -> Callable[[Planes, int], np.ndarray]:
    """(upright planes, frame of the track) -> crop."""
    scale = PlaneScaler(size)
    if crop == "smoothed":
        boxes = [crop_box(box[None], margin=margin) for box in track.boxes_px]
        return lambda planes, t: scale(cut_planes(planes, boxes[t]))
    if crop == "aligned":
        transforms = [eye_transform(eyes, size=size, margin=margin) for eyes in track.eyes_px]
        return lambda planes, t: warp_planes(planes, transforms[t], size)
    return lambda planes, t: scale(cut_planes(planes, track.crop_box_px))


def _write_crops(
    frames: Iterable[tuple[int, Planes]],
    out: Path,
    result: Extraction,
    looks: Looks,
    *,
    crop: str,
    margin: float,
    size: int,
    **writer_settings: Any,
) -> None:
    """Every track's crops, with the time stamps of the source from 0 on."""
    starts: dict[int, list[Track]] = {}
    for track in result.tracks:
        starts.setdefault(track.start_frame, []).append(track)
    with ExitStack() as stack:
        open_tracks: list[tuple[Track, VideoWriter, ExitStack, Callable[[Planes, int], np.ndarray]]] = []
        for index, stored in frames:
            for track in starts.get(index, ()):
                own = stack.enter_context(ExitStack())
                writer = VideoWriter(
                    out / track.crop_path,
                    fps=result.stream.fps,
                    preset=PRESET,
                    color=looks.color,
                    **writer_settings,
                )
                open_tracks.append(
                    (
                        track,
                        own.enter_context(writer),
                        own,
                        _cutter(track, crop=crop, margin=margin, size=size),
                    )
                )
            y, u, v = (upright(p, result.stream.rotation_degrees) for p in stored)
            for entry in list(open_tracks):
                track, writer, own, cut = entry
                offset = index - track.start_frame
                image = cut((y, u, v), offset)
                started = time.perf_counter()
                writer.add_planes(
                    image, float(track.timestamps_seconds[offset] - track.timestamps_seconds[0])
                )
                if offset == track.num_frames - 1:
                    own.close()
                    open_tracks.remove(entry)
                result.seconds["encode"] += time.perf_counter() - started


def _tracks(
    video_id: str,
    tracklets: Sequence[Tracklet],
    stream: Stream,
    *,
    margin: float,
    crop: str,
    suffix: str,
    min_frames: int,
    min_track_confidence: float,
    smooth_seconds: float,
) -> tuple[list[Track], list[str]]:
    """Tracks with crop boxes and names in the order of their first frame, and the reasons for those that were
    dropped.
    """
    kept, dropped = [], []
    for t in tracklets:
        if len(t.boxes_px) < min_frames:
            dropped.append(
                f"short track: {len(t.boxes_px)} frames from frame {t.start_frame}, expected {min_frames} "
                "or more"
            )
        elif t.best_confidence < min_track_confidence:
            dropped.append(
                f"unsure track: confidence {t.best_confidence:.2f} at best from frame {t.start_frame}, "
                f"expected {min_track_confidence:g}"
            )
        elif crop == "aligned" and not len(t.eyes_px):
            raise ValueError(
                "crop 'aligned' needs the eyes, and the detector gives no key points; use another "
                "detector, or crop fixed or smoothed"
            )
        else:
            kept += split_track(t, margin=margin, min_frames=min_frames) if crop == "fixed" else [t]
    tracks = []
    for number, piece in enumerate(sorted(kept, key=lambda p: (p.start_frame, *p.boxes_px[0]))):
        track_id = f"{video_id}_{number:02d}"
        stamps = stream.timestamps_seconds[piece.start_frame : piece.end_frame]
        # rounded as in the table, so that a fake that reads its original's boxes there cuts the same pixels
        boxes, eyes = (
            smooth(v, stamps, seconds=smooth_seconds).astype(np.float32).round(2)
            for v in (piece.boxes_px, piece.eyes_px)
        )
        box, crop_path = crop_box(boxes, margin=margin), f"tracks/{video_id}/{track_id}{suffix}"
        rate = piece.detection_rate
        tracks.append(
            Track(
                track_id,
                video_id,
                piece.start_frame,
                boxes,
                stamps,
                piece.confidence,
                rate,
                crop_path,
                box,
                eyes,
            )
        )
    return tracks, dropped


def _aligned(video_id: str, original: Sequence[Track], stream: Stream, suffix: str) -> list[Track]:
    """The original's boxes and eyes under the fake's name and time stamps."""
    tracks = []
    for number, t in enumerate(original):
        track_id = f"{video_id}_{number:02d}"
        stamps = stream.timestamps_seconds[t.start_frame : t.start_frame + t.num_frames]
        path = f"tracks/{video_id}/{track_id}{suffix}"
        tracks.append(
            Track(
                track_id,
                video_id,
                t.start_frame,
                t.boxes_px,
                stamps,
                t.confidence,
                t.detection_rate,
                path,
                t.crop_box_px,
                t.eyes_px,
            )
        )
    return tracks


def face_difference(a: Path, b: Path) -> float:
    """The largest mean absolute difference of luma over a block of 16 x 16 pixels, over all frames of two
    face videos; 0 where they are equal.
    """
    if a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False):
        return 0.0
    largest = 0.0
    for x, y in zip(iter_luma(a), iter_luma(b), strict=True):
        difference = cv2.absdiff(np.ascontiguousarray(x), np.ascontiguousarray(y))
        if difference.any():
            height, width = (-(-n // BLOCK_PX) * BLOCK_PX for n in difference.shape)
            padded = np.pad(difference, ((0, height - difference.shape[0]), (0, width - difference.shape[1])))
            largest = max(
                largest,
                float(padded.reshape(height // BLOCK_PX, BLOCK_PX, -1, BLOCK_PX).mean(axis=(1, 3)).max()),
            )
    return largest


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
    """Find, track and cut out the faces of one video; face videos go to OUT/tracks/<video_id>/<track_id>.mp4
    (format png: a folder).

    `original` gives the stream and the tracks of the video that this one was made from: where frame count and
    size agree, its boxes are taken, so that real and fake are aligned to the pixel. `min_confidence` is for a
    detection, `min_track_confidence` for the surest of a track; `max_gap` counts looks, of which there is one
    on every `every`-th frame; `smooth_seconds` is the standard deviation of a Gaussian over boxes and eyes.
    Frames are kept in memory up to `buffer_mb`; above, the video is decoded twice, with the same result.
    Raises UnreadableVideo, OSError where a face video cannot be written. Call it in a spawned worker (see
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
    seconds = {
        "probe": time.perf_counter() - started,
        "decode": 0.0,
        "detect": 0.0,
        "crop": 0.0,
        "encode": 0.0,
    }
    _check_times(stream, min_seconds, max_seconds)
    result, suffix, looks = (
        Extraction(stream, seconds=seconds),
        "" if format == "png" else ".mp4",
        Looks(stream.num_frames),
    )
    store: FrameStore | None = None
    try:
        if original is not None and original[1] and _same_shape(stream, original[0]):
            result.own_boxes, result.tracks = False, _aligned(video_id, original[1], stream, suffix)
        else:
            finder = _detector(detector, min_confidence, json.dumps(detector_settings or {}, sort_keys=True))
            if hasattr(finder, "start"):
                finder.start(path, stream)
            found, looked_at, store = scan(
                path, stream, finder, looks, seconds, every=every, pad_aspect=pad_aspect, buffer_mb=buffer_mb
            )
            result.cuts = looks.cuts()
            tracklets = build_tracks(found, looked_at, num_frames=stream.num_frames, cuts=result.cuts, min_confidence=min_confidence,
                                     iou_threshold=iou, max_gap=max_gap)  # fmt: skip
            result.tracks, dropped = _tracks(video_id, tracklets, stream, margin=margin, crop=crop, suffix=suffix, min_frames=min_track_frames,
                                             min_track_confidence=min_track_confidence, smooth_seconds=smooth_seconds)  # fmt: skip
            if not tracklets:
                dropped = [f"no face: {detector} found none in the {len(looked_at)} frames that it looked at"]
            result.rejections = [Rejection(video_id, path.name, "faces", reason) for reason in dropped]
        if result.tracks:
            started, decoded = time.perf_counter(), seconds["decode"]
            frames = (
                planes_of(path, stream, seconds, None if result.own_boxes else looks)
                if store is None
                else store.all()
            )
            _write_crops(
                frames,
                out,
                result,
                looks,
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
                    face_difference(out / mine.crop_path, out / theirs.crop_path) for mine, theirs in pairs
                )
            seconds["crop"] = time.perf_counter() - started - (seconds["decode"] - decoded)
    finally:
        if store is not None:
            store.release()
    result.signature = looks.signature
    return result


def _check_times(stream: Stream, min_seconds: float, max_seconds: float) -> None:
    """Raise UnreadableVideo for a length or a rate that no real video has."""
    if not 0 < stream.fps <= MAX_FPS:
        raise UnreadableVideo(
            f"absurd rate: {stream.fps:g} frames/s, expected more than 0 and at most {MAX_FPS}"
        )
    last = float(stream.timestamps_seconds[-1])
    duration = last + 1 / stream.fps if last or stream.num_frames == 1 else 0.0
    if not min_seconds <= duration <= max_seconds:
        raise UnreadableVideo(
            f"absurd duration: {duration:.3g} s, expected {min_seconds:g} to {max_seconds:g} s"
        )


def _same_shape(a: Stream, b: Stream) -> bool:
    return (a.num_frames, a.height_px, a.width_px) == (b.num_frames, b.height_px, b.width_px)
