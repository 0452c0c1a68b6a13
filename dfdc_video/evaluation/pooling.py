"""Clip logits -> one score per video. Clips are grouped by `video_id` and `track_id`, never by position.

The table of predictions (one row per clip) and that of videos (every video of the split) are the boundary:
everything after them can be recomputed without a model.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.special import softmax

from dfdc_video.folders.run import PREDICTION_COLUMNS, SCORED_COLUMNS, require_columns
from dfdc_video.records import STATUSES
from dfdc_video.registry import POOLINGS


def _track_means(probs: np.ndarray, track_ids: np.ndarray) -> np.ndarray:
    """(n_clips, K) -> (n_tracks, K), tracks in the order of their ids."""
    _, track = np.unique(track_ids, return_inverse=True)
    sums = np.zeros((track.max() + 1, probs.shape[1]))
    np.add.at(sums, track, probs)
    return sums / np.bincount(track)[:, None]


@POOLINGS.register(name="mean")
def mean_over_tracks(probs: np.ndarray, track_ids: np.ndarray) -> np.ndarray:
    """Mean over the clips of each track, then over the tracks: a long track has no more weight."""
    return _track_means(probs, track_ids).mean(axis=0)


@POOLINGS.register(name="max_track")
def most_fake_track(probs: np.ndarray, track_ids: np.ndarray) -> np.ndarray:
    """Mean over the clips of each track, then the track with the highest P(fake) = 1 − P(class 0).

    As in Self-Blended Images (CVPR 2022): one manipulated face makes a video fake. The drawback: every
    additional track of a real video can only raise its score.
    """
    tracks = _track_means(probs, track_ids)
    return tracks[np.argmin(tracks[:, 0])]


@POOLINGS.register(name="mean_clips")
def mean_over_clips(probs: np.ndarray, track_ids: np.ndarray) -> np.ndarray:
    """Plain mean over all clips of the video, whatever track they come from."""
    return probs.mean(axis=0)


def _logit_columns(predictions: pd.DataFrame) -> list[str]:
    found = {c for c in predictions.columns if re.fullmatch(r"logit_\d+", str(c))}
    expected = [f"logit_{k}" for k in range(len(found))]
    if len(found) < 2 or found != set(expected):
        raise ValueError(
            f"predictions: logit columns {sorted(found) or 'none'}, expected logit_0, logit_1 … one per class"
        )
    return expected


def _checked_labels(table: pd.DataFrame, num_classes: int, what: str) -> np.ndarray:
    labels = pd.to_numeric(table["label"], errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(labels) & (labels >= 0) & (labels < num_classes) & (labels == np.floor(labels)))
    if bad.any():
        row = table[bad].iloc[0]
        raise ValueError(
            f"{what}: label {row['label']!r} of video {row['video_id']}, expected a class 0 … "
            f"{num_classes - 1}"
        )
    return labels.astype(np.int64)


def _check(predictions: pd.DataFrame, videos: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Both tables with ids as text and integer labels; ValueError names what does not fit together."""
    require_columns(predictions, PREDICTION_COLUMNS, "the table of predictions")
    require_columns(videos, SCORED_COLUMNS, "the table of videos")
    logits = _logit_columns(predictions)
    if predictions.empty:
        raise ValueError("the predictions have no row; no clip was scored")
    predictions = predictions.assign(
        video_id=predictions["video_id"].astype(str), track_id=predictions["track_id"].astype(str)
    )
    videos = videos.assign(
        video_id=videos["video_id"].astype(str),
        label=_checked_labels(videos, len(logits), "the table of videos"),
    )
    predictions["label"] = _checked_labels(predictions, len(logits), "the predictions")
    repeated = videos["video_id"][videos["video_id"].duplicated()]
    if len(repeated):
        raise ValueError(f"the table of videos has {repeated.iloc[0]} twice; expected one row per video")
    strange = sorted(set(videos["status"].astype(str)) - set(STATUSES))
    if strange:
        raise ValueError(
            f"the table of videos has status {strange[0]!r}, expected one of {', '.join(STATUSES)}"
        )
    unknown = predictions["video_id"][~predictions["video_id"].isin(videos["video_id"])].unique()
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} predicted videos are not among the tested ones (first: {unknown[0]}); are "
            "both files of one run?"
        )
    finite = np.isfinite(predictions[logits].to_numpy(dtype=float)).all(axis=1)
    if not finite.all():
        row = predictions[~finite].iloc[0]
        where = f"video {row['video_id']}, track {row['track_id']}, frame {row['start_frame']}"
        raise ValueError(
            f"{(~finite).sum()} predictions have logits that are not finite (first: {where}); the model "
            "diverged"
        )
    expected = predictions["video_id"].map(videos.set_index("video_id")["label"])
    if (expected != predictions["label"]).any():
        row = predictions[expected != predictions["label"]].iloc[0]
        raise ValueError(
            f"video {row['video_id']} has label {row['label']} in the predictions and another in the "
            "table of videos"
        )
    classes = sorted(set(videos["label"]))
    if len(classes) < 2:
        raise ValueError(
            f"all {len(videos)} videos have label {classes[0]}; scoring needs at least two classes in the "
            "split"
        )
    return predictions, videos, logits


def pool_predictions(
    predictions: pd.DataFrame, videos: pd.DataFrame, *, pooling: str = "mean"
) -> pd.DataFrame:
    """One row per video of `videos`, in the order of video_id: clip probabilities (softmax of the logits)
    pooled within the video.

    Columns: video_id, label, method, group_id, status (scored, no_face, unreadable), num_tracks, num_clips,
    prob_0 … prob_{K-1}, score (P(fake) for two classes, else the largest probability). A video without a
    prediction gets the prior 1/K, and its status says why: `no_face` as in `videos`, `unreadable` otherwise.
    A video with a prediction is `scored`. The order of rows is irrelevant, to the last bit. Raises ValueError
    for tables that do not fit together.
    """
    pool = POOLINGS.get(pooling)
    predictions, videos, logits = _check(predictions, videos)
    predictions = predictions.sort_values(["video_id", "track_id", "start_frame", *logits])
    videos = videos.sort_values("video_id").reset_index(drop=True)
    clip_probs = softmax(predictions[logits].to_numpy(dtype=np.float64), axis=1)
    track_ids = predictions["track_id"].to_numpy()

    probs = np.full((len(videos), len(logits)), 1 / len(logits))
    counts = np.zeros((len(videos), 2), dtype=np.int64)  # tracks, clips
    position = {video_id: i for i, video_id in enumerate(videos["video_id"])}
    for video_id, rows in predictions.groupby("video_id", sort=False).indices.items():
        i = position[video_id]
        probs[i] = pool(clip_probs[rows], track_ids[rows])
        counts[i] = len(set(track_ids[rows])), len(rows)

    method = videos["method"].fillna("").astype(str)
    group = videos["group_id"].fillna("").astype(str)
    status = np.where(
        counts[:, 1] > 0, "scored", np.where(videos["status"] == "no_face", "no_face", "unreadable")
    )
    table = pd.DataFrame({"video_id": videos["video_id"], "label": videos["label"]})
    table["method"] = np.where(method != "", method, np.where(videos["label"] == 0, "real", "unknown"))
    # a video without a group is a group of its own
    table["group_id"] = group.where(group != "", videos["video_id"])
    table["status"], table["num_tracks"], table["num_clips"] = status, counts[:, 0], counts[:, 1]
    for k in range(len(logits)):
        table[f"prob_{k}"] = probs[:, k]
    return with_score(table)


def probabilities(scores: pd.DataFrame) -> np.ndarray:
    """(num_videos, K) of the prob_0 … prob_{K-1} columns."""
    columns = [c for c in scores.columns if re.fullmatch(r"prob_\d+", str(c))]
    return scores[[f"prob_{k}" for k in range(len(columns))]].to_numpy(dtype=np.float64)


def with_score(scores: pd.DataFrame) -> pd.DataFrame:
    """The table with `score` computed from its probabilities: P(fake) for two classes, the largest
    probability otherwise.
    """
    probs = probabilities(scores)
    return scores.assign(score=probs[:, 1] if probs.shape[1] == 2 else probs.max(axis=1))
