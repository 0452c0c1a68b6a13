"""The boxes of a prepared data set as KITTI tracking labels, a file per video. `faces.kitti` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.folders.prepared import PreparedFolder

KITTI_LINE = "%d %d Face -1 -1 -10 %.2f %.2f %.2f %.2f -1 -1 -1 -1000 -1000 -1000 -10 %.4f\n"


def write_kitti(folder: PreparedFolder, videos: pd.DataFrame, tracks: pd.DataFrame) -> None:
    """Write the boxes of every video as KITTI tracking labels, one line per box, by frame and then by track.

    Tracks count from 0 in the order of track_id, the score is the track's confidence, and what a 2D box does
    not know has KITTI's own placeholder. A video without a face has an empty file, an unreadable one has
    none. Files of other videos are removed, and files that would not change are left alone.
    """
    columns = ["video_id", "track_id", "start_frame", "confidence", "boxes_px"]
    rows_of: dict[str, list[tuple[Any, ...]]] = {}
    for video_id, *row in tracks[columns].sort_values(columns[:2]).itertuples(index=False, name=None):
        rows_of.setdefault(video_id, []).append(tuple(row))
    wanted = videos.loc[videos["status"] != "unreadable", "video_id"]
    folder.write_kitti_labels((v, _kitti_text(rows_of.get(v, []))) for v in wanted)


def _kitti_text(tracks: Sequence[tuple[Any, ...]]) -> str:
    """All lines of one video's (track_id, start_frame, confidence, boxes).

    They are one format operation: DFDC has some 36 million of them.
    """
    pieces = [np.empty((0, 7))]
    for number, (_, start_frame, confidence, boxes) in enumerate(tracks):
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        piece = np.empty((len(boxes), 7))
        piece[:, 0], piece[:, 1], piece[:, 6] = start_frame + np.arange(len(boxes)), number, confidence
        piece[:, 2:6] = boxes.round(2) + 0.0  # + 0.0: no "-0.00"
        pieces.append(piece)
    table = np.concatenate(pieces)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return (KITTI_LINE * len(table)) % tuple(table.ravel().tolist())
