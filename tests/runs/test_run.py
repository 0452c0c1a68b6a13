"""A run from settings to report: its folder, exact resumption, what stops it, and the experiment over it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from dfdc_video.config import dump
from dfdc_video.evaluation.compare import compare
from dfdc_video.folders.run import RunFolder
from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.build import build_data, load_manifest, model_of
from dfdc_video.runs.checks import check
from dfdc_video.runs.experiment import Experiment, launch
from dfdc_video.runs.run import score, train
from dfdc_video.training.module import NonFiniteLoss


def weights(folder: Path, name: str = "last") -> dict:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_root):
    """One finished run of two epochs, with its config."""
    from dfdc_video.config import resolve

    folder = tmp_path_factory.mktemp("runs") / "one"
    words = (
        "CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32 TRAIN.EPOCHS 2 TRAIN.BATCH_SIZE 4 "
        "OPTIM.WARMUP_EPOCHS 0 TEST.NUM_CLIPS 2 DATA.CACHE false TEST.NUM_BOOTSTRAP 100 WANDB.MODE "
        "disabled TRAIN.PRECISION 32-true TRAIN.CHECKPOINT_EVERY_STEPS 1 MODEL.DROPOUT 0.2"
    )
    cfg = resolve("frame_small", overrides=[*words.split(), "DATA.PATH", str(prepared_root)])
    return folder, cfg, train(cfg, folder, name="one", quiet=True)


def test_a_run_folder_holds_what_explains_it(finished):
    folder, cfg, report = finished
    for name in (
        "config.yaml",
        "environment.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.csv",
        "predictions.csv",
        "videos.csv",
    ):
        assert (folder / name).is_file(), name
    assert (folder / "config.yaml").read_text() == dump(cfg)
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == 8 * 2 and set(predictions["video_id"].str[:4]) == {"test"}, (
        "test videos only, every view"
    )
    curve = pd.read_csv(folder / "metrics.csv")
    assert {"epoch", "train/loss", "video/log_loss", "video/auc", "lr"} <= set(curve.columns) and len(
        curve
    ) == 2
    assert report == json.loads((folder / "report.json").read_text())
    assert report["coverage"] == {"num_videos": 8, "scored": 8, "no_face": 0, "unreadable": 0}
    made_with = json.loads((folder / "environment.json").read_text())
    assert made_with["precision"] == report["precision"] == "32-true"
    assert made_with["cpu"] == report["environment"]["cpu"] and report["environment"]["num_threads"] >= 1
    assert list(folder.glob("samples/*.mp4"))


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(finished):
    folder, _, _ = finished
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    curve = pd.read_csv(folder / "metrics.csv")
    assert saved["epoch"] == curve.loc[curve["video/log_loss"].idxmin(), "epoch"]


def test_scoring_again_gives_the_same_and_val_lies_apart(finished):
    folder, _, report = finished
    before = (folder / "predictions.csv").read_bytes()
    again = score(folder, quiet=True)
    assert (folder / "predictions.csv").read_bytes() == before
    assert again["metrics"] == report["metrics"] and again["name"] == "one"
    val = score(folder, split="val", quiet=True)
    assert val["split"] == "val" and (folder / "val" / "predictions.csv").is_file()
    assert (folder / "predictions.csv").read_bytes() == before


def test_the_same_seed_gives_the_same_weights(finished, tmp_path):
    folder, cfg, _ = finished
    train(cfg, tmp_path / "two", name="two", quiet=True)
    assert same(weights(folder), weights(tmp_path / "two"))


SCRIPT = """
import sys, signal, os
from pathlib import Path
from dfdc_video.config import load_dump
from dfdc_video.runs.run import train
from dfdc_video.training.module import ClassifierModule
stop, how = int(sys.argv[3]), sys.argv[4]
old = ClassifierModule.training_step
def step(self, batch, index):
    if self.global_step == stop:
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGINT)
    return old(self, batch, index)
ClassifierModule.training_step = step
try:
    train(load_dump(Path(sys.argv[1])), Path(sys.argv[2]), name="x", quiet=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("stop", "how"),
    [(2, "kill"), (4, "kill"), (6, "interrupt")],
    ids=["within-epoch-1", "after-epoch-1", "ctrl-c-in-epoch-2"],
)
def test_a_stopped_run_resumes_to_the_same_weights(finished, tmp_path, stop, how):
    """4 steps an epoch; the model has dropout, so that order, augmentation and random state must all be
    restored.
    """
    folder, cfg, _ = finished
    config = tmp_path / "start.yaml"
    config.write_text(dump(cfg))
    stopped = tmp_path / "stopped"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(config), str(stopped), str(stop), how],
        capture_output=True,
        text=True,
    )
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 130), done.stderr
    assert not (stopped / "report.json").exists()
    assert torch.load(RunFolder(stopped).newest_checkpoint(), weights_only=True)["global_step"] == stop
    train(cfg, stopped, name="x", resume=True, quiet=True)
    assert same(weights(folder), weights(stopped))
    curves = [pd.read_csv(f / "metrics.csv") for f in (folder, stopped)]
    assert curves[0]["epoch"].tolist() == curves[1]["epoch"].tolist()
    assert curves[0]["video/log_loss"].tolist() == pytest.approx(curves[1]["video/log_loss"].tolist())
    assert (folder / "predictions.csv").read_bytes() == (stopped / "predictions.csv").read_bytes()


def test_a_damaged_checkpoint_is_named_before_anything_is_trained(finished, tmp_path):
    folder, cfg, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="ckpt is damaged: delete it to continue from an older checkpoint"):
        train(cfg, tmp_path / "run", name="one", resume=True, quiet=True)


def test_a_folder_is_never_overwritten_nor_resumed_with_other_settings(finished, small_config):
    folder, cfg, _ = finished
    with pytest.raises(ValueError, match="already holds a run"):
        train(cfg, folder, name="one", quiet=True)
    with pytest.raises(ValueError, match="started with other settings"):
        train(small_config("OPTIM.LR", "0.5"), folder, name="one", resume=True, quiet=True)


def test_a_loss_that_is_not_finite_names_step_and_videos(small_config, tmp_path):
    cfg = small_config("OPTIM.NAME", "sgd", "OPTIM.LR", "1e30", "AUGMENT.NAME", "none")
    with pytest.raises(
        NonFiniteLoss, match=r"step \d+ .*train\d\d.*OPTIM.LR|returns NaN or infinity for .*OPTIM.LR"
    ):
        train(cfg, tmp_path / "nan", name="nan", quiet=True)


def test_what_can_be_refused_is_refused_before_a_folder_is_made(small_config, tmp_path):
    cases = [
        (("OPTIM.WARMUP_START_LR", "1"), "above the base rate"),
        (("OPTIM.WARMUP_EPOCHS", "2"), "warm-up of 2 epochs in a run of 2"),
        (("DATA.PATH", str(tmp_path / "nowhere")), "manifest.parquet"),
        (("DATA.PATH", ""), "DATA.PATH is empty"),
        (("MODEL.INIT_FROM", "no.ckpt"), "no file at no.ckpt"),
        (("CLIP.NUM_FRAMES", "60", "CLIP.SHORT", "drop"), "all 16 tracks are shorter"),
    ]
    for words, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(small_config(*words), tmp_path / "never", name="never", quiet=True)
        assert not (tmp_path / "never").exists(), words


def test_one_class_or_an_empty_split_is_refused_before_training(write_prepared, small_config, tmp_path):
    from dfdc_video.folders.manifest import Manifest
    from dfdc_video.folders.prepared import PreparedFolder, load_prepared

    root = write_prepared(tmp_path / "p", per_split={"train": 2, "val": 1, "test": 1})
    manifest = load_prepared(root)
    fewer = manifest.videos[manifest.videos["split"] != "val"]
    PreparedFolder(root).write(
        Manifest(root, fewer, manifest.tracks[manifest.tracks["video_id"].isin(fewer["video_id"])], {})
    )
    with pytest.raises(ValueError, match="the val split has no video"):
        train(small_config(path=root), tmp_path / "run", name="run", quiet=True)
    PreparedFolder(root).write(Manifest(root, manifest.videos.assign(label=0), manifest.tracks, {}))
    with pytest.raises(ValueError, match=r"train split has one class only \(label 0\)"):
        train(small_config(path=root), tmp_path / "run", name="run", quiet=True)
    reals_only = manifest.videos["label"].where(manifest.videos["split"] != "test", 0)
    PreparedFolder(root).write(Manifest(root, manifest.videos.assign(label=reals_only), manifest.tracks, {}))
    with pytest.raises(ValueError, match=r"the test split has one class only \(label 0\)"):
        train(small_config(path=root), tmp_path / "run", name="run", quiet=True)


def test_many_unreadable_face_videos_stop_a_run(write_prepared, small_config, tmp_path):
    root = write_prepared(tmp_path / "p", per_split={"train": 4, "val": 2, "test": 2})
    files = sorted(root.glob("tracks/train*/*.mp4"))
    files[0].write_bytes(b"x")
    report = train(small_config(path=root), tmp_path / "one_bad", name="one_bad", quiet=True)
    assert report["coverage"]["scored"] == 4, "one bad file is left out and told"
    for file in files[:4]:
        file.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"tracks cannot be read \(first: train"):
        train(small_config(path=root), tmp_path / "many_bad", name="many_bad", quiet=True)


def test_an_unreadable_test_video_gets_the_prior_and_is_counted(write_prepared, small_config, tmp_path):
    root = write_prepared(tmp_path / "p", per_split={"train": 2, "val": 2, "test": 3})
    next(iter(root.glob("tracks/test01real/*.mp4"))).write_bytes(b"x")
    report = train(small_config(path=root), tmp_path / "run", name="run", quiet=True)
    assert report["coverage"] == {"num_videos": 6, "scored": 5, "no_face": 0, "unreadable": 1}
    scores = pd.read_csv(tmp_path / "run" / "scores.csv").set_index("video_id")
    assert scores.loc["test01real", "score"] == 0.5 and list(report["unreadable_tracks"]) == ["test01real_00"]


def test_a_new_split_of_the_data_is_noticed(write_prepared, small_config, tmp_path):
    from dfdc_video.folders.manifest import Manifest
    from dfdc_video.folders.prepared import PreparedFolder, load_prepared

    root = write_prepared(tmp_path / "p", per_split={"train": 2, "val": 2, "test": 2})
    train(small_config(path=root), tmp_path / "run", name="run", quiet=True)
    manifest = load_prepared(root)
    swapped = manifest.videos.assign(
        split=manifest.videos["split"].map({"train": "test", "test": "train", "val": "val"})
    )
    PreparedFolder(root).write(Manifest(root, swapped, manifest.tracks, manifest.summary))
    with pytest.raises(ValueError, match="trained-on videos may be among the tested"):
        score(tmp_path / "run", quiet=True)


def test_a_model_starts_from_weights_that_it_is_given(finished, small_config, tmp_path):
    folder, cfg, _ = finished
    report = train(
        small_config("MODEL.INIT_FROM", str(folder / "checkpoints/best.ckpt")),
        tmp_path / "run",
        name="run",
        quiet=True,
    )
    text = (tmp_path / "run" / "init_from.txt").read_text()
    assert "head" in text.lower() or "left out" in text.lower(), text
    assert hashlib.sha256((folder / "checkpoints/best.ckpt").read_bytes()).hexdigest() in text
    assert report["num_parameters"] == sum(p.numel() for p in model_of(cfg, 2).parameters())
    with pytest.raises(ValueError):
        wrong = small_config("MODEL.INIT_FROM", str(folder / "checkpoints/best.ckpt"), name="slowfast_small")
        train(wrong, tmp_path / "wrong", name="wrong", quiet=True)


def test_two_models_of_one_seed_see_the_same_order(small_config):
    """Identical splits and clips are what makes arms comparable: the order follows data and seed, never the
    model.
    """
    orders = []
    for name in ("frame_small", "slowfast_small"):
        cfg = small_config(name=name)
        model_of(cfg, 2)
        orders.append(
            [b["track_id"] + b["start_frame"] for b in build_data(cfg, load_manifest(cfg)).train_dataloader()]
        )
    assert orders[0] == orders[1]


def test_an_experiment_runs_every_arm_and_finishes_what_is_missing(
    small_config, prepared_root, tmp_path, monkeypatch
):
    @EXPERIMENTS.register(name="two_heads")
    def two_heads():
        """Does dropout help?"""
        return Experiment(
            base="frame_small",
            arms={"none": {}, "half": {"MODEL": {"DROPOUT": 0.5}}},
            seeds=(0, 1),
            baseline="none",
        )

    from dfdc_video.config import to_dict

    plain = to_dict(small_config())
    words = [
        w
        for s in ("DATA", "CLIP", "TRAIN", "TEST")
        for k, v in plain[s].items()
        for w in (f"{s}.{k}", str(v))
    ]
    words += ["WANDB.MODE", "disabled", "OPTIM.WARMUP_EPOCHS", "0", "TRAIN.EPOCHS", "1"]
    try:
        comparison = launch("two_heads", tmp_path, overrides=words, quiet=True)
        assert [row.name for row in comparison.rows] == ["none", "half"] and comparison.baseline == "none"
        assert all(len(row.runs) == 2 for row in comparison.rows)
        page = (tmp_path / "report.html").read_text()
        assert "Does dropout help?" in page and (tmp_path / "table.csv").is_file()
        stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/seed*/report.json")}
        (tmp_path / "half/seed1/report.json").unlink()
        launch("two_heads", tmp_path, overrides=words, quiet=True)
        changed = [p for p in tmp_path.glob("*/seed*/report.json") if stamps[p] != p.stat().st_mtime_ns]
        assert [p.parent.name for p in changed] == ["seed1"] and len(changed) == 1
        with pytest.raises(ValueError, match="other settings"):
            launch("two_heads", tmp_path, overrides=[*words, "OPTIM.LR", "0.5"], quiet=True)
        with pytest.raises(ValueError, match="unknown arm 'hal' of two_heads; did you mean half"):
            launch("two_heads", tmp_path, arms=["hal"], overrides=words)
    finally:
        del EXPERIMENTS._obj_map["two_heads"]


def test_runs_on_different_frames_refuse_to_be_compared(finished, small_config, tmp_path):
    folder, _, _ = finished
    train(small_config("CLIP.NUM_FRAMES", "2"), tmp_path / "fewer", name="fewer", quiet=True)
    with pytest.raises(ValueError, match="num_frames"):
        compare([folder, tmp_path / "fewer"])
    assert len(compare([folder, tmp_path / "fewer"], allow_different_frames=True).rows) == 2


def test_wandb_offline_keeps_one_run_id(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    cfg = small_config("WANDB.MODE", "offline", "WANDB.GROUP", "g", "TRAIN.EPOCHS", "1")
    train(cfg, tmp_path / "run", name="run", quiet=True)
    run_id = (tmp_path / "run" / "wandb_id.txt").read_text().strip()
    files = list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{run_id}/*.wandb"))
    assert len(files) == 1
    # wandb's own process writes the file, some time after the run was finished
    deadline = time.monotonic() + 60
    while files[0].stat().st_size <= 1000 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert files[0].stat().st_size > 1000


def test_wandb_online_without_account_is_one_clear_error(small_config, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ValueError, match="wandb login"):
        train(small_config("WANDB.MODE", "online"), tmp_path / "run", name="run", quiet=True)


def test_ctrl_c_on_the_command_line_says_how_to_continue(finished, tmp_path):
    _, cfg, _ = finished
    config = tmp_path / "long.yaml"
    config.write_text(dump(cfg).replace("EPOCHS: 2", "EPOCHS: 500"))
    command = [sys.executable, "-m", "dfdc_video", "train", str(config), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "run/checkpoints/last.ckpt").is_file()
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert f"continue with dfdc-video train --resume {tmp_path / 'run'}" in text
    assert "Traceback" not in text


def test_scoring_and_resuming_need_no_network_for_pretrained_weights(finished, monkeypatch):
    """A checkpoint replaces timm's weights, so they must not be fetched again."""
    import timm

    _, cfg, _ = finished
    asked = []
    old = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *a, **k: asked.append(k["pretrained"]) or old(*a, **{**k, "pretrained": False}),
    )
    from dfdc_video.config import merge_overrides

    pretrained = merge_overrides(cfg, ["MODEL.PRETRAINED", "true"])
    model_of(pretrained, 2)
    model_of(pretrained, 2, checkpoint_follows=True)
    assert asked == [True, False]


def test_a_set_without_a_test_split_is_scored_on_val(write_prepared, small_config, tmp_path, caplog):
    root = write_prepared(tmp_path / "p", per_split={"train": 2, "val": 2, "test": 0})
    cfg, run = small_config("TRAIN.EPOCHS", "1", path=root), tmp_path / "run"
    with pytest.raises(ValueError, match="no video in its test split"):
        check(cfg)
    with caplog.at_level("INFO"):
        report = train(cfg, run, name="run", quiet=True)
    assert "no test: " in caplog.text and report["split"] == "val" and not (run / "report.json").exists()
    with pytest.raises(ValueError, match="no video in its test split"):
        score(run, quiet=True)


def test_a_merged_set_is_trained_on_and_never_tested(write_prepared, small_config, tmp_path, caplog):
    from dfdc_video.folders.manifest import Manifest
    from dfdc_video.folders.prepared import PreparedFolder, load_prepared

    root = write_prepared(tmp_path / "p", per_split={"train": 2, "val": 2, "test": 2})
    manifest = load_prepared(root)
    merged = manifest.videos.assign(split=manifest.videos["split"].replace("test", "train"))
    PreparedFolder(root).write(
        Manifest(root, merged, manifest.tracks, {**manifest.summary, "merged": "train+test"})
    )
    cfg, run = small_config("TRAIN.EPOCHS", "1", path=root), tmp_path / "run"
    with pytest.raises(ValueError, match="test scores would be meaningless"):
        check(cfg)  # what an experiment asks before its first arm
    with caplog.at_level("INFO"):
        report = train(cfg, run, name="run", quiet=True)
    assert "no test: " in caplog.text and report["split"] == "val" and report["coverage"]["num_videos"] == 4
    assert (
        (run / "val" / "report.json").is_file()
        and not (run / "report.json").exists()
        and not (run / "predictions.csv").exists()
    )
    with pytest.raises(
        ValueError, match=(f"{root} merged|run was trained on a set that merged its test split into train")
    ):
        score(run, quiet=True)
    PreparedFolder(root).write(manifest)  # the unmerged set at the same place
    with pytest.raises(
        ValueError, match=("run was trained on a set that merged its test split into train .* meaningless")
    ):
        score(run, quiet=True)
    with pytest.raises(ValueError, match="has no test scores to compare"):
        compare([run])
