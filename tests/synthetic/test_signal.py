"""What the synthetic data set promises: `temporal` shows in the order of frames and in nothing else,
`spatial` shows in every frame.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from missed_faces import count_missed
from scipy.stats import ks_2samp
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfdc_video.media.reader import iter_frames
from dfdc_video.synthetic import features, film, signal

CLIP = 32  # frames, as long as the windows of the permutation
SIZE, REACH = 32, 1.3  # pixels of a face, half its width in half-widths of the head


@pytest.fixture(scope="module")
def faces(synthetic, tmp_path_factory):
    """method -> pixels (N, T, SIZE, SIZE, 3) in 0..1, sharpness (N, T) and rings (N, V, F), after encoding
    and decoding; row i is identity i.
    """
    root = tmp_path_factory.mktemp("signal") / "raw"
    settings = {"num_identities": 60, "seconds": 1.6, "height": 160, "width": 192, "parts": 1, "seed": 7}
    settings |= {"methods": ("spatial", "temporal")}
    synthetic.generate(root, **settings, extras=False, workers=2, progress=lambda done, total: None)
    methods = ("real", "spatial", "temporal")
    found = {method: {"pixels": [], "sharpness": [], "rings": []} for method in methods}
    for video in synthetic.plan({**settings, "extras": False, "originals_per_identity": 1}):
        scene = film.scene_of(video, settings["seed"])
        zoom, centre = SIZE / (2 * REACH * scene["unit_px"]), np.asarray(scene["centres_px"][0])
        matrix = np.column_stack([zoom * np.eye(2), SIZE / 2 - zoom * centre])
        frames = iter_frames(root / video["path"])
        crops = [cv2.warpAffine(frame, 2 * matrix, (2 * SIZE, 2 * SIZE)) for frame in frames]
        greys = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
        small = np.stack([cv2.resize(c, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for c in crops])
        rows = found[video["method"]]
        rows["sharpness"].append([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in greys])
        rows["pixels"].append(small.astype(np.float32) / 255)
        rows["rings"].append([rings(c) for c in crops[::6]])
    return {
        method: {name: np.asarray(values) for name, values in rows.items()} for method, rows in found.items()
    }


def rings(crop: np.ndarray) -> np.ndarray:
    """(F,) of one frame: edge strength and colour along ellipses around the inner face; a border, a blur or
    another colour changes them.
    """
    place = ((np.arange(2 * SIZE) + 0.5) / SIZE - 1) * REACH
    (x, y), (a, b) = features.INNER_CENTRE, features.INNER_AXES
    radius = np.sqrt(((place[None] - x) / a) ** 2 + ((place[:, None] - y) / b) ** 2)
    image = crop.astype(np.float32) / 255
    edge = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
    bands = [(radius >= low) & (radius < low + 0.1) for low in np.arange(0.2, 1.4, 0.1)]
    sharp = np.log([edge[b].mean() + 0.002 for b in bands])
    colour = np.stack([np.log(image[b] + 0.05).mean(0) for b in bands])
    chroma = colour - colour.mean(1, keepdims=True)
    tint = chroma[:6].mean(0) - chroma[9:].mean(0)
    return np.concatenate([sharp, np.diff(sharp), tint, np.abs(tint), np.abs(np.diff(colour, axis=0)).max(1)])


def held_out_auc(reals: np.ndarray, fakes: np.ndarray, *, penalty: float = 0.01) -> float:
    """AUC over videos of features (N, V, F), V views each, of a linear classifier on held-out pairs of
    identities, in three folds.
    """
    both = np.concatenate([reals, fakes])
    identity, label = np.tile(np.arange(len(reals)), 2), np.repeat([0, 1], len(reals))
    views, scores = both.shape[1], np.zeros(len(both))
    for fold in range(3):
        test = identity // 2 % 3 == fold
        components = PCA(min(40, both.shape[-1]), random_state=0)
        classifier = LogisticRegression(C=penalty, max_iter=500)
        model = make_pipeline(StandardScaler(), components, StandardScaler(), classifier)
        model.fit(both[~test].reshape(-1, both.shape[-1]), np.repeat(label[~test], views))
        logits = model.decision_function(both[test].reshape(-1, both.shape[-1]))
        scores[test] = logits.reshape(-1, views).mean(1)
    return float(roc_auc_score(label, scores))


def single_frames(faces: np.ndarray) -> np.ndarray:
    return faces[:, ::6].reshape(len(faces), -1, SIZE * SIZE * 3)


def clips(faces: np.ndarray) -> list[np.ndarray]:
    return [faces[:, start : start + CLIP] for start in (0, 8, 16)]


def test_statistics_of_single_frames_agree(faces):
    """Mean colour, contrast and sharpness: the means of videos are distributed alike, and paired differences
    are small beside the spread.
    """
    rows = [faces[m] for m in ("real", "temporal")]
    features = {
        "colour": [r["pixels"].mean((1, 2, 3, 4)) for r in rows],
        "contrast": [r["pixels"].std((2, 3)).mean((1, 2)) for r in rows],
        "sharpness": [np.log(r["sharpness"]).mean(1) for r in rows],
    }
    for name, (a, b) in features.items():
        assert ks_2samp(a, b).pvalue > 0.01, name
        assert abs(np.mean(b - a)) < 0.25 * a.std(), name


def test_a_frame_cannot_tell_temporal_from_real(faces):
    real, fake = (single_frames(faces[method]["pixels"]) for method in ("real", "temporal"))
    assert 0.35 < held_out_auc(real, fake) < 0.65


@pytest.mark.parametrize("statistic", [np.mean, np.std])
def test_the_set_of_frames_cannot_tell_temporal_from_real(faces, statistic):
    real, fake = (
        np.stack([statistic(c, axis=1).reshape(len(c), -1) for c in clips(faces[m]["pixels"])], 1)
        for m in ("real", "temporal")
    )
    assert 0.35 < held_out_auc(real, fake) < 0.65


def test_differences_between_frames_tell_temporal_from_real(faces):
    real, fake = (
        np.stack(
            [np.abs(np.diff(c, axis=1)).mean(1).reshape(len(c), -1) for c in clips(faces[m]["pixels"])], 1
        )
        for m in ("real", "temporal")
    )
    assert held_out_auc(real, fake) > 0.9
    level = np.concatenate([real.mean((1, 2)), fake.mean((1, 2))])
    assert roc_auc_score(np.repeat([0, 1], len(real)), level) > 0.9


def test_spatial_is_as_smooth_as_a_real(faces):
    real, spatial, temporal = (
        np.abs(np.diff(faces[m]["pixels"], axis=1)).mean() for m in ("real", "spatial", "temporal")
    )
    assert abs(spatial - real) < 0.3 * (temporal - real)


def test_a_single_frame_shows_spatial(faces):
    """Scores of single frames of people whom the classifier did not see."""
    both = np.concatenate([faces["real"]["rings"], faces["spatial"]["rings"]])
    (_, views, size), half = both.shape, len(both) // 2
    test, label = np.tile(np.arange(half), 2) >= 40, np.repeat([0, 1], half)
    model = HistGradientBoostingClassifier(max_iter=80, max_depth=3, random_state=0)
    model.fit(both[~test].reshape(-1, size), np.repeat(label[~test], views))
    scores = model.predict_proba(both[test].reshape(-1, size))[:, 1]
    assert roc_auc_score(np.repeat(label[test], views), scores) > 0.9


def test_a_permutation_stays_within_windows():
    order = signal.permute_windows(np.random.default_rng(0), 100, 32)
    assert sorted(order) == list(range(100))
    assert np.abs(order - np.arange(100)).max() < 32
    assert np.abs(np.diff(order)).mean() > 5
    with pytest.raises(ValueError, match="windows of 1 frame"):
        signal.permute_windows(np.random.default_rng(0), 10, 1)


def test_a_temporal_series_is_a_real_one_in_another_order():
    real, fake = (
        signal.inner_series(
            np.random.default_rng(4), 90, fps=30, clip_seconds=1.07, strength=1.0, permuted=permuted
        )
        for permuted in (False, True)
    )
    for name in signal.INNER_RMS:
        assert np.array_equal(np.sort(real[name]), np.sort(fake[name])), name
        assert np.abs(np.diff(fake[name])).mean() > 2 * np.abs(np.diff(real[name])).mean(), name


def test_strength_zero_leaves_nothing_to_find():
    series = signal.inner_series(
        np.random.default_rng(4), 30, fps=30, clip_seconds=0.5, strength=0.0, permuted=True
    )
    assert all(np.ptp(values) == 0 for values in series.values())


@pytest.mark.parametrize("model", [0, 1])
def test_faces_are_detected(synthetic_root, model):
    """Both BlazeFace models, in a process of their own, since a fork of a process that ran a detector
    deadlocks.
    """
    paths = [str(p) for p in sorted(synthetic_root.glob("*/*.mp4"))]
    readable = [p for p in paths if b"moov" in Path(p).read_bytes()][::2]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        frames, missed = pool.submit(count_missed, readable, model).result()
    assert frames > 80
    assert missed <= 0.01 * frames
