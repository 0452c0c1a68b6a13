"""A run folder as its owner sees it: claimed once, read with errors that name the file and the cure."""

import json
import os

import pandas as pd
import pytest

from dfdc_video.config import config_hash, dump, resolve
from dfdc_video.folders.run import ExperimentFolder, RunFolder

DATA = {"path": "prepared", "split_hash": "0123456789ab", "merged": ""}


@pytest.fixture(scope="module")
def cfg():
    return resolve("frame_small", overrides=["WANDB.MODE", "disabled"])


def test_a_folder_is_claimed_once_and_resumed_with_its_own_settings(cfg, tmp_path):
    run = RunFolder(tmp_path / "run")
    assert not run.started
    run.claim(cfg, data=DATA, resume=False)
    assert run.started and run.data() == DATA and run.checkpoints.is_dir()
    assert dump(run.config()) == dump(cfg)
    run.claim(cfg, data=DATA, resume=True)
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        run.claim(cfg, data=DATA, resume=False)
    other = resolve("frame_small", overrides=["OPTIM.LR", "0.5"])
    with pytest.raises(ValueError, match=f"config hash {config_hash(cfg)}, now {config_hash(other)}"):
        run.claim(other, data=DATA, resume=True)
    with pytest.raises(FileNotFoundError, match="no config.yaml"):
        RunFolder(tmp_path / "none").claim(cfg, data=DATA, resume=True)


def test_the_newest_checkpoint_is_by_time_and_the_best_one_is_required(tmp_path):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    assert run.newest_checkpoint() is None
    with pytest.raises(FileNotFoundError, match="did not finish an epoch; continue it with .*--resume"):
        run.best_checkpoint()
    for stamp, name in enumerate((run.LAST, run.STEP, run.BEST), start=1):
        run.checkpoint(name).write_bytes(b"x")
        os.utime(run.checkpoint(name), (stamp, stamp))
    assert run.newest_checkpoint() == tmp_path / "checkpoints" / "step.ckpt"
    assert run.best_checkpoint() == tmp_path / "checkpoints" / "best.ckpt"


def test_logs_of_all_parts_are_joined_in_order_and_the_last_value_of_a_step_counts(tmp_path):
    run = RunFolder(tmp_path)
    run.join_logs()
    assert run.curves() is None
    for part, rows in ((2, "0,1,0.7\n0,2,0.6\n"), (10, "0,2,0.5\n1,3,0.4\n"), (11, "")):
        file = tmp_path / "logs" / f"version_{part}" / "metrics.csv"
        file.parent.mkdir(parents=True)
        file.write_text(f"epoch,step,train/loss\n{rows}" if rows else "")
    run.join_logs()
    curves = run.curves()
    assert curves is not None
    assert curves["step"].tolist() == [1, 2, 3] and curves["train/loss"].tolist() == [0.7, 0.5, 0.4]


def test_training_time_adds_up_and_the_wandb_id_stays(tmp_path):
    run = RunFolder(tmp_path)
    assert run.add_train_seconds(1.5) == 1.5 and run.add_train_seconds(2.0) == 3.5
    assert run.wandb_id(lambda: "first") == "first" and run.wandb_id(lambda: "second") == "first"


def test_scores_of_another_split_are_a_folder_beside_and_keep_the_name(tmp_path):
    run = RunFolder(tmp_path)
    assert run.of_split("test") is run
    val = run.of_split("val")
    table = pd.DataFrame({"video_id": ["007"], "label": [1]})
    val.write_predictions(
        table.assign(track_id="NA", start_frame=0), table.assign(method="m", group_id="g", status="ok")
    )
    val.write_report(table, {"name": "one", "config_hash": "c0ffee", "metrics": {}})
    assert sorted(p.name for p in tmp_path.glob("val/*")) == [
        "predictions.csv",
        "report.json",
        "scores.csv",
        "videos.csv",
    ]
    assert val.kept_entries() == {"name": "one"} and run.kept_entries() == {}
    assert val.is_finished("c0ffee") and not run.is_finished("c0ffee")
    with pytest.raises(ValueError, match="holds a run of other settings"):
        val.is_finished("other")
    assert val.predictions().loc[0, ["video_id", "track_id"]].tolist() == ["007", "NA"]


def test_a_damaged_report_is_a_run_to_score_again(tmp_path):
    """`dfdc-video test` is the cure that the errors name, so it must not stop at the damage."""
    (tmp_path / "report.json").write_text('{"name": "o')
    run = RunFolder(tmp_path)
    assert run.kept_entries() == {} and not run.is_finished("c0ffee")
    with pytest.raises(ValueError, match="report.json is damaged .*run `dfdc-video test` on the run again"):
        run.report()
    (tmp_path / "report.json").write_text(json.dumps({"name": "o", "split": "test"}))
    with pytest.raises(ValueError, match="lacks split_hash, clip, pooling"):
        run.report()
    with pytest.raises(ValueError, match=r"data.json is missing or damaged"):
        run.data()


def test_damaged_files_of_a_run_are_named(cfg, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.claim(cfg, data=DATA, resume=False)
    for text in ("[]", "{}"):
        (run.path / "data.json").write_text(text)
        with pytest.raises(ValueError, match="data.json is missing or damaged"):
            run.data()
    (run.path / "config.yaml").write_text("MODEL: {NAME: frame, WIDHT: 3}")
    with pytest.raises(ValueError, match="run/config.yaml is damaged, or of another version: unknown key"):
        run.config()
    (run.path / "train_seconds.txt").write_text("")
    with pytest.raises(ValueError, match="train_seconds.txt is damaged; delete it"):
        run.add_train_seconds(3.0)
    log = run.path / "logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("[]")
    with pytest.raises(
        ValueError, match="version_0/metrics.csv is damaged: .*lacks.* epoch, step.*delete it"
    ):
        run.join_logs()


def test_an_experiment_folder_places_runs_table_and_page(tmp_path):
    folder = ExperimentFolder(tmp_path)
    assert folder.run("slowfast", 2).path == tmp_path / "slowfast" / "seed2"
    assert {folder.table.parent, folder.page.parent} == {tmp_path}
