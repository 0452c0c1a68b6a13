"""Contact sheets: thumbnails of the middle frames of face videos, and of fakes beside their originals."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo

SHEET, PAIRS, THUMB_PX = 48, 15, 72  # faces per sheet, pairs, and the side of a thumbnail
GAIN = 4  # of the difference between a fake and its original


def _middles(
    root: Path, crop_paths: Sequence[str], num_frames: Sequence[int], unread: list[str]
) -> list[np.ndarray | None]:
    """The middle frame (H, W, 3) of every face video; None for one that cannot be read, which is added to
    `unread`.
    """

    def middle(crop_path: str, count: int) -> np.ndarray | None:
        try:
            return read_frames(root / crop_path, [count // 2])[0]
        except (UnreadableVideo, FileNotFoundError):
            return None

    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(middle, crop_paths, num_frames))
    unread += [
        path for path, image in zip(crop_paths, images, strict=True) if image is None and path not in unread
    ]
    return images


def _uri(image: np.ndarray | None) -> str:
    """A small JPEG as a data URI; "" without an image."""
    if image is None:
        return ""
    small = cv2.resize(image, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def contact_sheets(root: Path, faces: pd.DataFrame, unread: list[str]) -> list[dict[str, Any]]:
    """The smallest, the lowest-confidence and random tracks (`faces`: one row per track, see `prepared`), as
    data for the page.

    The first two show detected tracks only, and one per video: otherwise a crowd would fill the sheet, and a
    face would be repeated with each of its fakes.
    """
    own, any_tracks = faces[faces["own"]], np.sort(np.random.default_rng(0).permutation(len(faces))[:SHEET])
    smallest, least_certain = (
        own.sort_values([column, "track_id"]).drop_duplicates("video_id")
        for column in ("size_px", "confidence")
    )
    chosen = (
        ("Smallest", "The smallest detected face of each video, smallest first.", smallest),
        (
            "Lowest confidence",
            "The detected face of lowest confidence in each video, lowest first.",
            least_certain,
        ),
        (
            "Random",
            "Random tracks, including fakes that use the boxes of their original.",
            faces.iloc[any_tracks],
        ),
    )
    result = []
    for title, caption, rows in chosen:
        tracks: list[Any] = rows.head(SHEET).to_dict("records")
        images = _middles(root, [t["crop_path"] for t in tracks], [t["num_frames"] for t in tracks], unread)
        result.append(
            {
                "title": title,
                "caption": caption,
                "cells": [_cell(t, image) for t, image in zip(tracks, images, strict=True)],
            }
        )
    return result


def _cell(track: dict[str, Any], image: np.ndarray | None) -> dict[str, str]:
    facts = f"{track['size_px']:.0f} px · confidence {track['confidence']:.2f}"
    found = f"found on {track['detection_rate']:.0%} of the detection frames · {track['seconds']:.1f} s"
    tip = f"{track['track_id']} · {track['class']}, {track['method'] or 'no method'} · {facts} · {found}"
    text = f"{track['size_px']:.0f} px · {track['confidence']:.2f}"
    return {"uri": _uri(image), "tip": tip, "text": text, "name": track["video_id"], "class": track["class"]}


def pairs(root: Path, faces: pd.DataFrame, unread: list[str]) -> list[dict[str, Any]]:
    """Random fakes beside the original with the same box over the same frames: one frame of each, and their
    difference.
    """
    fakes = faces[(faces["source_id"] != "") & (faces["source_id"] != faces["video_id"])]
    both = fakes.merge(
        faces, left_on=["source_id", "place"], right_on=["video_id", "place"], suffixes=("", "_of")
    )
    both = both.sort_values(["track_id", "track_id_of"]).drop_duplicates("video_id")
    both = both.iloc[np.sort(np.random.default_rng(0).permutation(len(both))[:PAIRS])]
    originals = _middles(root, both["crop_path_of"].tolist(), both["num_frames"].tolist(), unread)
    made = _middles(root, both["crop_path"].tolist(), both["num_frames"].tolist(), unread)
    result = []
    for row, real, fake in zip(both.to_dict("records"), originals, made, strict=True):
        difference = None
        if real is not None and fake is not None and real.shape == fake.shape:
            difference = np.minimum(np.abs(real.astype(np.int16) - fake) * GAIN, 255).astype(np.uint8)
        method = row["method"] or "no method"
        tip = f"{row['track_id']} · {method} · made from {row['track_id_of']}"
        result.append(
            {
                "uris": [_uri(real), _uri(fake), _uri(difference)],
                "tip": tip,
                "text": method,
                "name": row["video_id"],
            }
        )
    return result
