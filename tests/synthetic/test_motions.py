"""The synthetic motions: only the order of frames reveals the class; Kinetics' layout, disjoint people,
continuation, refusals.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfdc_video.cli import main
from dfdc_video.folders.prepared import load_prepared
from dfdc_video.media.reader import probe
from dfdc_video.preparation.splits import assign_groups
from dfdc_video.registry import DATASETS
from dfdc_video.synthetic import motions as motions_module

SMALL = {
    "num_identities": 3,
    "seconds": 0.4,
    "height": 96,
    "width": 128,
    "progress": lambda done, total: None,
}
SIZE, REACH = 24, 1.1  # pixels of a face, half its width in half-widths of the head


@pytest.fixture(scope="module")
def motions():
    return motions_module


@pytest.fixture(scope="module")
def root(motions, tmp_path_factory):
    """Three people, every class once. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("motions") / "raw"
    summary = motions.generate_motions(folder, **SMALL, workers=2)
    assert summary["videos"] == summary["rendered"] == 24
    assert summary["splits"] == {"train": 8, "val": 8, "test": 8}
    return folder


def test_the_kinetics_reader_reads_it_as_it_is(motions, root):
    videos, rejections = DATASETS.get("kinetics")(root)
    assert not rejections and len(videos) == 24
    names = sorted(motions.MOTIONS)
    assert all(v.label == names.index(v.method) and v.path.split("/")[1] == v.method for v in videos)
    people = {split: {v.identities for v in videos if v.split == split} for split in ("train", "val", "test")}
    assert [len(p) for p in people.values()] == [1, 1, 1]
    assert len(set.union(*people.values())) == 3, "a person lies in one split"
    for who in set.union(*people.values()):
        methods = sorted(v.method for v in videos if v.identities == who)
        assert methods == names, "everyone performs every class"
    assert len({v.video_id for v in videos}) == 24


def test_preparing_by_the_lists_keeps_people_apart(root, tmp_path):
    words = f"prepare kinetics --root {root} --out {tmp_path / 'out'} --split official".split()
    assert main([*words, *"--size 32 --every 3 --workers 1".split()]) == 0
    manifest = load_prepared(tmp_path / "out")
    videos = manifest.videos.assign(person=manifest.videos["video_id"].str.split("_").str[0])
    assert videos.groupby("person")["split"].nunique().tolist() == [1, 1, 1]
    assert videos["split"].nunique() == 3
    assert videos.groupby("split")["label"].agg(set).tolist() == [set(range(8))] * 3
    assert manifest.num_classes == 8
    assert videos["group_id"].nunique() == 3 and (videos["status"] == "ok").mean() > 0.8


def test_default_grouping_keeps_people_apart(root):
    grouped = assign_groups(DATASETS.get("kinetics")(root)[0])
    assert all(len({v.group_id for v in grouped if v.identities == w.identities}) == 1 for w in grouped)
    assert len({v.group_id for v in grouped}) == 3


def test_the_people_are_not_those_of_the_deepfakes(motions, synthetic):
    settings = {"num_identities": 6, "takes": 1, "ratios": [0.4, 0.3, 0.3], "seconds": 0.4, "seed": 0}
    settings |= {"height": 96, "width": 128}
    settings |= {"clip_seconds": 1.07, "strength": 1.0, "spatial_strength": 1.0}
    one_per_person = motions.plan(settings)[:: len(motions.MOTIONS)]
    frames = [next(motions.frames_of(video, settings)) for video in one_per_person]
    real = {"donor": None, "second": None, "take": 0, "fps": 30, "method": "real", "size": (96, 128)}
    frames += [next(synthetic.frames_of({"identity": n, **real}, settings)) for n in range(6)]
    apart = [np.abs(a.astype(float) - b).mean() for i, a in enumerate(frames) for b in frames[:i]]
    assert min(apart) > 10


@pytest.mark.parametrize("count", [3, 4, 10, 48])
def test_no_split_of_people_is_empty(motions, count):
    for seed in range(5):
        names = motions.split_of_people(count, (0.7, 0.15, 0.15), seed)
        assert len(names) == count and set(names) == {"train", "val", "test"}
        assert names.count("train") >= names.count("val") >= 1
    shares = motions.split_of_people(1000, (0.5, 0.2, 0.3), 0)
    assert [shares.count(s) for s in ("train", "val", "test")] == [500, 200, 300]


@pytest.mark.parametrize("way", ["calm", "rising", "falling"])
def test_every_sweep_visits_all_values_equally_often(motions, way):
    found = np.sort(motions.sweep(np.arange(0.25, 1000) / 1000 + 0.3, way))
    assert found == pytest.approx(np.linspace(-1, 1, 1000), abs=0.003)
    steps = np.diff(motions.sweep(np.arange(0.0, 3.0, 0.01) + 0.005, way))
    ups, downs = (steps > 0).mean(), (steps < 0).mean()
    assert {"calm": abs(ups - downs) < 0.02, "rising": ups > 0.95, "falling": downs > 0.95}[way]


def test_a_frame_has_the_same_distribution_in_every_class(motions):
    """Of every quantity at any one time, and of the products of two: frame 7 of 400 videos of each class,
    with independent random numbers.
    """
    place = {"num_frames": 8, "fps": 30, "clip_seconds": 1.07, "strength": 1.0}
    names = list(motions.REACH)
    states = {}
    for number, motion in enumerate(motions.MOTIONS):
        series = [
            motions.motion_series(np.random.default_rng([number, n]), motion=motion, **place)
            for n in range(400)
        ]
        state = np.asarray([[s[name][7] for name in names] for s in series])
        centred = state - state.mean(0)
        states[motion] = np.column_stack(
            [state, *(centred[:, i] * centred[:, j] for i in range(5) for j in range(i))]
        )
    reference = states.pop("talk")
    least = min(
        ks_2samp(reference[:, column], state[:, column]).pvalue
        for state in states.values()
        for column in range(reference.shape[1])
    )
    assert least > 0.01 / (len(states) * reference.shape[1])


def test_classes_differ_in_the_leading_quantity_only(motions):
    place = {"num_frames": 60, "fps": 30, "clip_seconds": 1.07, "strength": 1.0}
    series = {m: motions.motion_series(np.random.default_rng(3), motion=m, **place) for m in motions.MOTIONS}
    for one in motions.MOTIONS:
        for other in motions.MOTIONS:
            differing = {n for n in motions.REACH if not np.array_equal(series[one][n], series[other][n])}
            assert differing == {motions.MOTIONS[m][0] for m in (one, other) if one != other}
    brightness = [np.abs(np.diff(s["brightness"])).max() for s in series.values()]
    assert max(brightness) < 0.25, "a jump in brightness is a cut to preparation"


@pytest.fixture(scope="module")
def faces(motions):
    """(people, classes, frames, pixels): faces of a dozen people in every class, before encoding."""
    import cv2

    settings = {"num_identities": 15, "takes": 1, "ratios": [0.4, 0.3, 0.3], "seconds": 1.1, "seed": 5}
    settings |= {"height": 80, "width": 96, "clip_seconds": 1.07, "strength": 1.0}
    rows = []
    for video in motions.plan(settings):
        scene = motions.film.scene_of(video, settings["seed"])
        zoom, centre = SIZE / (2 * REACH * scene["unit_px"]), np.asarray(scene["centres_px"][0])
        matrix = np.column_stack([zoom * np.eye(2), SIZE / 2 - zoom * centre])
        crops = [
            cv2.cvtColor(cv2.warpAffine(f, matrix, (SIZE, SIZE)), cv2.COLOR_RGB2GRAY)
            for f in motions.frames_of(video | {"fps": 24}, settings)
        ]
        rows.append(np.asarray(crops, np.float32).reshape(len(crops), -1) / 255)
    return np.asarray(rows).reshape(-1, len(motions.MOTIONS), len(rows[0]), SIZE * SIZE)


def held_out_accuracy(features: np.ndarray) -> float:
    """Accuracy of a linear classifier of features (people, classes, views, F) on held-out people, in three
    folds.
    """
    people, classes, views, size = features.shape
    right = []
    for fold in range(3):
        test = np.arange(people) % 3 == fold
        model = make_pipeline(
            StandardScaler(),
            PCA(30, random_state=0),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=300),
        )
        label = np.broadcast_to(np.arange(classes)[None, :, None], (people, classes, views))
        model.fit(features[~test].reshape(-1, size), label[~test].ravel())
        right.append(model.score(features[test].reshape(-1, size), label[test].ravel()))
    return float(np.mean(right))


def test_a_single_frame_does_not_reveal_the_class(faces):
    assert held_out_accuracy(faces[:, :, ::4]) < 0.2, "chance is one in eight"


@pytest.mark.parametrize("statistic", [np.mean, np.std])
def test_mean_and_spread_of_the_frames_do_not_reveal_the_class(faces, statistic):
    assert held_out_accuracy(statistic(faces, axis=2)[:, :, None]) < 0.22


def test_the_order_of_frames_reveals_the_class(faces):
    """From how fast every pixel changes, and whether in slow steps or in jumps, up or down."""
    steps = np.diff(faces, axis=2)
    skew = np.cbrt((steps**3).mean(2))
    assert held_out_accuracy(np.concatenate([np.abs(steps).mean(2), skew], -1)[:, :, None]) > 0.4


def test_a_killed_run_continues_and_other_settings_are_refused(motions, synthetic, root):
    files = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*.mp4")}
    lost = sorted(files)[5]
    lost.unlink()
    (root / "annotations" / "motions.csv").unlink()
    calls = []
    settings = {**SMALL, "progress": lambda done, total: calls.append((done, total))}
    again = motions.generate_motions(root, **settings, workers=0)
    assert again["rendered"] == 1 and calls == [(23, 24), (24, 24)] and lost.read_bytes() == files[lost][1]
    assert all(p.stat().st_mtime_ns == time for p, (time, _) in files.items() if p != lost)
    listing = (root / "annotations" / "motions.csv").read_text()
    assert listing.startswith("label,youtube_id,time_start,time_end,split\n")
    assert probe(lost).num_frames in (10, 12)
    with pytest.raises(ValueError, match="strength=1.0 there, 2.0 asked for"):
        motions.generate_motions(root, **SMALL, strength=2.0)
    with pytest.raises(ValueError, match="task=motions there, None asked for"):
        synthetic.generate(root, num_identities=2, parts=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["num_identities", "2"], "expected 3 or more (train, val and test show different people)"),
        (["ratios", "[0.8, 0.2, 0]"], "three shares above 0"),
        (["height", "97"], "even size"),
        (["takes", "0"], "expected 1 or more"),
        (["takes", "200000"], "five digits for people"),
        (["methods", "[spatial]"], "unknown key generate_motions.methods"),
        (["num_identitys", "4"], "did you mean num_identities"),
        (["--task", "motion"], "invalid choice: 'motion' (choose from 'deepfake', 'motions')"),
    ],
)
def test_settings_that_cannot_be_met_are_one_line(tmp_path, capsys, words, message):
    try:
        code = main(["generate", "--root", str(tmp_path / "raw"), "--task", "motions", *words])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "raw").exists()
