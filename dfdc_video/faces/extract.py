"""One video file -> its tracks and their face videos. Frames are streamed; no video is ever in memory as a whole.

The first pass decodes every frame and detects on every k-th; the second cuts the crops out. A fake that takes its original's boxes
needs the second pass only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.crop import crop_box, cut_out, split_track
from dfdc_video.faces.track import CUT_THUMBNAIL, Tracklet, build_tracks, find_cuts
from dfdc_video.records import Face, Rejection, Stream, Track
from dfdc_video.registry import DETECTORS
from dfdc_video.video import UnreadableVideo, VideoWriter, iter_frames, probe


@dataclass
class Extraction:
    """What came out of one video. `own_boxes` tells detection on the video itself from boxes taken over from its original."""

    stream: Stream
    tracks: list[Track] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    own_boxes: bool = True
    seconds: dict[str, float] = field(default_factory=dict)  # probe, decode, detect, crop


@lru_cache(maxsize=2)
def _detector(name: str, min_confidence: float) -> Any:
    """One detector per worker process."""
    return DETECTORS.get(name)(min_confidence=min_confidence)


def _check_count(path: Path, decoded: int, stream: Stream) -> None:
    if decoded != stream.num_frames:
        raise UnreadableVideo(f"{path.name} decodes {decoded} of {stream.num_frames} frames")


def _scan(path: Path, stream: Stream, detector: Any, every: int, seconds: dict[str, float]) -> tuple[list[list[Face]], list[int], list[int]]:
    """First pass: faces on every k-th frame, the indices of these frames, and the hard cuts."""
    detections: list[list[Face]] = []
    looked_at: list[int] = []
    thumbnails = []
    started, detecting, index = time.perf_counter(), 0.0, -1
    for index, frame in enumerate(iter_frames(path)):
        thumbnails.append(cv2.cvtColor(cv2.resize(frame, CUT_THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY))
        if index % every == 0:
            before = time.perf_counter()
            detections += detector.detect(frame[None], [index])
            looked_at.append(index)
            detecting += time.perf_counter() - before
    _check_count(path, index + 1, stream)
    seconds["detect"] = detecting
    seconds["decode"] = time.perf_counter() - started - detecting
    return detections, looked_at, find_cuts(np.stack(thumbnails))


def _write_crops(path: Path, out: Path, tracks: Sequence[Track], stream: Stream, *, size: int, crf: int, gop: int) -> None:
    """Second pass: every track's fixed box, with the time stamps of the source from 0 on."""
    starts: dict[int, list[Track]] = {}
    for track in tracks:
        starts.setdefault(track.start_frame, []).append(track)
    with ExitStack() as stack:
        writers: list[tuple[Track, VideoWriter, ExitStack]] = []
        index = -1
        for index, frame in enumerate(iter_frames(path)):
            for track in starts.get(index, ()):
                own = stack.enter_context(ExitStack())
                writer = own.enter_context(VideoWriter(out / track.crop_path, fps=stream.fps, crf=crf, gop=gop))
                writers.append((track, writer, own))
            for track, writer, own in list(writers):
                offset = index - track.start_frame
                writer.add(cut_out(frame, track.crop_box_px, size), float(track.timestamps_seconds[offset] - track.timestamps_seconds[0]))
                if offset == track.num_frames - 1:
                    own.close()
                    writers = [w for w in writers if w[0] is not track]
        _check_count(path, index + 1, stream)


def _tracks(video_id: str, tracklets: Sequence[Tracklet], stream: Stream, *, margin: float, min_frames: int) -> tuple[list[Track], list[str]]:
    """Tracks with crop boxes and names in the order of their first frame, and the reasons for those that were dropped."""
    dropped = [f"short track: {len(t.boxes_px)} frames from frame {t.start_frame}, expected {min_frames} or more"
               for t in tracklets if len(t.boxes_px) < min_frames]  # fmt: skip
    pieces = [p for t in tracklets if len(t.boxes_px) >= min_frames for p in split_track(t, margin=margin, min_frames=min_frames)]
    tracks = []
    for number, piece in enumerate(sorted(pieces, key=lambda p: (p.start_frame, *p.boxes_px[0]))):
        track_id = f"{video_id}_{number:02d}"
        stamps = stream.timestamps_seconds[piece.start_frame : piece.end_frame]
        box = crop_box(piece.boxes_px, margin=margin)
        crop_path = f"tracks/{video_id}/{track_id}.mp4"
        tracks.append(Track(track_id, video_id, piece.start_frame, piece.boxes_px.astype(np.float32), stamps, piece.confidence, crop_path, box))
    return tracks, dropped


def _aligned(video_id: str, original: Sequence[Track], stream: Stream) -> list[Track]:
    """The original's boxes under the fake's name and time stamps."""
    tracks = []
    for number, t in enumerate(original):
        track_id = f"{video_id}_{number:02d}"
        stamps = stream.timestamps_seconds[t.start_frame : t.start_frame + t.num_frames]
        crop_path = f"tracks/{video_id}/{track_id}.mp4"
        tracks.append(Track(track_id, video_id, t.start_frame, t.boxes_px, stamps, t.confidence, crop_path, t.crop_box_px))
    return tracks


def extract(
    path: str | Path,
    out: str | Path,
    *,
    video_id: str,
    original: tuple[Stream, Sequence[Track]] | None = None,
    detector: str,
    every: int,
    margin: float,
    size: int,
    min_confidence: float,
    iou: float,
    max_gap: int = 3,
    min_track_frames: int,
    crf: int,
    gop: int,
) -> Extraction:
    """Find, track and cut out the faces of one video; face videos go to OUT/tracks/<video_id>/<track_id>.mp4.

    `original` gives the stream and the tracks of the video that this one was made from: where frame count and size agree, its boxes are
    taken, so that real and fake are aligned to the pixel. Raises UnreadableVideo. Call it in a spawned worker (see `detect`).
    """
    path, out = Path(path), Path(out)
    started = time.perf_counter()
    stream = probe(path)
    result = Extraction(stream, seconds={"probe": time.perf_counter() - started, "decode": 0.0, "detect": 0.0, "crop": 0.0})
    if original is not None and original[1] and _same_shape(stream, original[0]):
        result.own_boxes, result.tracks = False, _aligned(video_id, original[1], stream)
    else:
        detections, looked_at, result.cuts = _scan(path, stream, _detector(detector, min_confidence), every, result.seconds)
        tracklets = build_tracks(detections, looked_at, num_frames=stream.num_frames, cuts=result.cuts, iou_threshold=iou, max_gap=max_gap)
        result.tracks, dropped = _tracks(video_id, tracklets, stream, margin=margin, min_frames=min_track_frames)
        if not tracklets:
            dropped = [f"no face: {detector} found none in the {len(looked_at)} frames that it looked at"]
        result.rejections = [Rejection(video_id, path.name, "faces", reason) for reason in dropped]
    started = time.perf_counter()
    if result.tracks:
        _write_crops(path, out, result.tracks, stream, size=size, crf=crf, gop=gop)
    result.seconds["crop"] = time.perf_counter() - started
    return result


def _same_shape(a: Stream, b: Stream) -> bool:
    return (a.num_frames, a.height_px, a.width_px) == (b.num_frames, b.height_px, b.width_px)
