"""Experiments with settings of their own: which KEY VALUE pairs are theirs, what a setting changes, what is
refused before the first run.
"""

import json

import pytest

from dfdc_video.cli import main
from dfdc_video.config import config_hash, resolve
from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.build import build_lr_schedule
from dfdc_video.runs.experiment import Experiment, launch, split_settings
from dfdc_video.runs.run import train

QUICK = (
    "DATA.CACHE false CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32 TRAIN.EPOCHS 1 TRAIN.BATCH_SIZE 4 "
    "OPTIM.WARMUP_EPOCHS 0 TEST.NUM_CLIPS 1 TEST.NUM_BOOTSTRAP 50 WANDB.MODE disabled TRAIN.PRECISION "
    "32-true"
).split()


@pytest.fixture
def declared():
    """An experiment with settings, registered while the test runs."""

    @EXPERIMENTS.register(name="half_or_more")
    def half_or_more(*, dropout: float = 0.5, weights: str = "", rates: tuple[float, ...] = (1.0,)):
        """Does dropout help?"""
        model = {"DROPOUT": dropout, "INIT_FROM": weights}
        return Experiment(
            base="frame_small",
            arms={"plain": {}, "dropped": {"MODEL": model, "OPTIM": {"LR_SCALE": rates[0]}}},
            baseline="plain",
        )

    yield half_or_more
    del EXPERIMENTS._obj_map["half_or_more"]


def test_pairs_are_the_experiments_or_the_configs(declared):
    own, rest = split_settings(
        declared,
        [
            "DATA.PATH",
            "here",
            "dropout",
            "1e-1",
            "rates",
            "[1, 2.5]",
            "weights",
            "a b.ckpt",
            "OPTIM.LR",
            "0.1",
        ],
    )
    assert own == {"dropout": 0.1, "rates": (1.0, 2.5), "weights": "a b.ckpt"}
    assert rest == ["DATA.PATH", "here", "OPTIM.LR", "0.1"]
    assert split_settings(declared, []) == ({}, []), "what is not given keeps the default of the signature"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dropuot", "0.1"], "unknown key half_or_more.dropuot; did you mean dropout?"),
        (["dropout", "much"], "dropout = 'much' .str.: expected float"),
        (["weights", "3"], "weights = 3 .int.: expected str"),
        (["dropout"], "pairs KEY VALUE"),
        (["SEED", "4"], "--seeds"),
        (["dropout.rate", "1"], "unknown section 'dropout'"),
        (["weights", "gone.ckpt"], "no file at gone.ckpt"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_run(declared, tmp_path, capsys, prepared_root, words, message):
    with pytest.raises((ValueError, OSError), match=message):
        launch("half_or_more", tmp_path / "runs", overrides=[*QUICK, "DATA.PATH", str(prepared_root), *words])
    assert (
        main(
            [
                "run",
                "half_or_more",
                "--out",
                str(tmp_path / "runs"),
                *QUICK,
                "DATA.PATH",
                str(prepared_root),
                *words,
            ]
        )
        == 2
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_an_experiment_without_settings_says_so(prepared_root, tmp_path):
    with pytest.raises(ValueError, match="unknown key frame_vs_sequence.weights; known: none"):
        launch("frame_vs_sequence", tmp_path, overrides=["weights", "a.ckpt"])


def test_another_value_is_another_run(declared, tmp_path, prepared_root):
    words = [*QUICK, "DATA.PATH", str(prepared_root)]
    launch("half_or_more", tmp_path, overrides=[*words, "dropout", "0.25"], quiet=True)
    configs = {arm: resolve(tmp_path / arm / "seed0" / "config.yaml") for arm in ("plain", "dropped")}
    assert configs["dropped"].MODEL.DROPOUT == 0.25 and config_hash(configs["plain"]) != config_hash(
        configs["dropped"]
    )
    assert ("dfdc-video run half_or_more") in (tmp_path / "report.html").read_text() and "dropout 0.25" in (
        tmp_path / "report.html"
    ).read_text()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/seed0/report.json")}
    launch("half_or_more", tmp_path, overrides=[*words, "dropout", "0.25"], quiet=True)
    assert (
        stamps == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/seed0/report.json")} and len(stamps) == 2
    )
    with pytest.raises(ValueError, match="dropped/seed0 holds a run of other settings"):
        launch("half_or_more", tmp_path, overrides=words, quiet=True)
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/seed0/report.json")}


def test_list_shows_the_settings_of_experiments(capsys):
    assert main(["list", "experiments"]) == 0
    text = capsys.readouterr().out
    assert (
        "weights 'weights/slowfast_small_motions.ckpt'" in text
        and "weights 'weights/SLOWFAST_8x8_R50.pyth'" in text
    )


@pytest.mark.parametrize("name", ["slowfast_transfer", "slowfast_transfer_small"])
def test_transfer_has_two_starts_at_three_rates(name, tmp_path, prepared_root):
    experiment = EXPERIMENTS.get(name)(weights="w.ckpt")
    assert len(experiment.arms) == 6 and experiment.seeds == (0, 1, 2) and experiment.baseline == "scratch_x1"
    plain = resolve(experiment.base)
    for arm, settings in experiment.arms.items():
        cfg = resolve(experiment.base, arm=settings)
        start = "w.ckpt" if arm.startswith("pretrained") else ""
        assert start == cfg.MODEL.INIT_FROM
        rates = build_lr_schedule(cfg, 10), build_lr_schedule(plain, 10)
        scale = {"x1": 1.0, "div10": 0.1, "div100": 0.01}[arm.split("_")[1]]
        assert [rates[0](step) for step in (0, 20, 65)] == pytest.approx(
            [scale * rates[1](step) for step in (0, 20, 65)]
        )
    with pytest.raises(FileNotFoundError, match="no file at w.ckpt"):
        launch(name, tmp_path / "runs", overrides=["weights", "w.ckpt", "DATA.PATH", str(prepared_root)])
    assert not (tmp_path / "runs").exists(), "although the arms without weights come first"


def test_pretrained_arms_start_from_a_run_of_other_classes(write_prepared, prepared_root, tmp_path):
    """Weights of a network for three classes: all but its head is taken over, and the seed decides what the
    new head is.
    """
    from dfdc_video.folders.manifest import Manifest
    from dfdc_video.folders.prepared import PreparedFolder, load_prepared

    root = write_prepared(tmp_path / "p", per_split={"train": 3, "val": 3, "test": 3})
    manifest = load_prepared(root)
    changed = Manifest(
        root,
        manifest.videos.assign(label=[n % 3 for n in range(len(manifest.videos))]),
        manifest.tracks,
        manifest.summary,
    )
    PreparedFolder(root).write(changed)
    report = train(
        resolve("slowfast_small", overrides=[*QUICK, "DATA.PATH", str(root)]),
        tmp_path / "three",
        name="three",
        quiet=True,
    )
    assert "video/top1" in report["metrics"]
    words = [
        *QUICK,
        "DATA.PATH",
        str(prepared_root),
        "weights",
        str(tmp_path / "three/checkpoints/best.ckpt"),
    ]
    runs = tmp_path / "runs"
    comparison = launch(
        "slowfast_transfer_small",
        runs,
        overrides=words,
        seeds=[1],
        arms=["scratch_x1", "pretrained_div10"],
        quiet=True,
    )
    assert comparison.baseline == "scratch_x1" and [row.name for row in comparison.rows] == [
        "scratch_x1",
        "pretrained_div10",
    ]
    assert "classifier head, initialised anew" in (runs / "pretrained_div10/seed1/init_from.txt").read_text()
    assert not (runs / "scratch_x1/seed1/init_from.txt").exists()
    assert json.loads((runs / "pretrained_div10/seed1/report.json").read_text())["arm"] == "pretrained_div10"
