"""Tracklets -> tracks: which are kept, where they are divided, their crop boxes and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dfdc_video.faces.crop import crop_box, split_track
from dfdc_video.faces.track import Tracklet, smooth
from dfdc_video.folders.prepared import face_video_path
from dfdc_video.records import Stream, Track


def select_tracks(
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
    """Tracks with crop boxes, in the order of their first frame, and the reasons why others were dropped.

    Their face videos get names with `suffix`. ValueError where aligned crops have no eyes to align.
    """
    kept: list[Tracklet] = []
    dropped = []
    for t in tracklets:
        reason = _reason_to_drop(t, min_frames, min_track_confidence)
        if reason:
            dropped.append(reason)
        elif crop == "aligned" and not len(t.eyes_px):
            raise ValueError(
                "crop 'aligned' needs the eyes, and the detector gives no keypoints; use another "
                "detector, or crop fixed or smoothed"
            )
        else:
            kept += split_track(t, margin=margin, min_frames=min_frames) if crop == "fixed" else [t]
    tracks = []
    for number, piece in enumerate(sorted(kept, key=lambda p: (p.start_frame, *p.boxes_px[0]))):
        track_id, crop_path = _names(video_id, number, suffix)
        stamps = stream.timestamps_seconds[piece.start_frame : piece.end_frame]
        # rounded as in the table, so that a fake that reads its original's boxes there cuts the same pixels
        boxes, eyes = (
            smooth(values, stamps, seconds=smooth_seconds).astype(np.float32).round(2)
            for values in (piece.boxes_px, piece.eyes_px)
        )
        track = Track(
            track_id=track_id,
            video_id=video_id,
            start_frame=piece.start_frame,
            boxes_px=boxes,
            timestamps_seconds=stamps,
            confidence=piece.confidence,
            detection_rate=piece.detection_rate,
            crop_path=crop_path,
            crop_box_px=crop_box(boxes, margin=margin),
            eyes_px=eyes,
        )
        tracks.append(track)
    return tracks, dropped


def _reason_to_drop(t: Tracklet, min_frames: int, min_track_confidence: float) -> str:
    if len(t.boxes_px) < min_frames:
        return (
            f"short track: {len(t.boxes_px)} frames from frame {t.start_frame}, expected {min_frames} or more"
        )
    if t.best_confidence < min_track_confidence:
        return (
            f"low-confidence track: confidence {t.best_confidence:.2f} at best from frame {t.start_frame}, "
            f"expected {min_track_confidence:g}"
        )
    return ""


def _names(video_id: str, number: int, suffix: str) -> tuple[str, str]:
    """A track's id, and the path of its face video below the prepared folder."""
    track_id = f"{video_id}_{number:02d}"
    return track_id, face_video_path(video_id, track_id, suffix=suffix)


def tracks_of_original(video_id: str, original: Sequence[Track], stream: Stream, suffix: str) -> list[Track]:
    """The boxes and eyes of an original's tracks under the fake's names and timestamps."""
    tracks = []
    for number, theirs in enumerate(original):
        track_id, crop_path = _names(video_id, number, suffix)
        stamps = stream.timestamps_seconds[theirs.start_frame : theirs.start_frame + theirs.num_frames]
        ours = replace(
            theirs, track_id=track_id, video_id=video_id, timestamps_seconds=stamps, crop_path=crop_path
        )
        tracks.append(ours)
    return tracks
