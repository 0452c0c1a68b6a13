"""Freezing and learning-rate factors in real runs: the table in the run folder, refusals, and exact
resumption.
"""

from __future__ import annotations

import pytest
import torch

from dfdc_video.config import resolve
from dfdc_video.folders.run import RunFolder
from dfdc_video.runs.run import train
from dfdc_video.training.module import ClassifierModule

SMALL = ("TRAIN.EPOCHS", "2", "MODEL.DROPOUT", "0.2")  # 8 steps


def state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("name", "words", "stop"),
    [
        ("frame_small", "FREEZE.NAME head_first FREEZE.STEPS 5 OPTIM.NAME sgd OPTIM.LR 0.01", 3),
        ("frame_small", "FREEZE.NAME gradual FREEZE.EVERY 1 OPTIM.NAME adamw OPTIM.LAYER_DECAY 0.5", 2),
        (
            "efficientnet3d_small",
            (
                "FREEZE.NAME alternate FREEZE.SPATIAL_STEPS 2 FREEZE.TEMPORAL_STEPS 3 FREEZE.FREEZE_BN true "
                "OPTIM.NAME adamw"
            ),
            3,
        ),
    ],
    ids=["head_first", "gradual", "alternate"],
)
def test_a_run_stopped_within_a_phase_resumes_to_the_same_weights(
    small_config, tmp_path, monkeypatch, name, words, stop
):
    cfg = small_config(*SMALL, *words.split(), name=name)
    train(cfg, tmp_path / "whole", name="whole", quiet=True)
    old = ClassifierModule.training_step

    def stopped(self, batch, batch_idx):
        if self.global_step == stop:
            raise KeyboardInterrupt
        return old(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierModule, "training_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "parts", name="parts", quiet=True)
    assert (
        torch.load(RunFolder(tmp_path / "parts").newest_checkpoint(), weights_only=True)["global_step"]
        == stop
    )
    train(cfg, tmp_path / "parts", name="parts", resume=True, quiet=True)
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole["global_step"] == parts["global_step"] == 8
    assert all(torch.equal(whole["state_dict"][k], parts["state_dict"][k]) for k in whole["state_dict"])
    first, second = (s["optimizer_states"][0]["state"] for s in (whole, parts))
    assert first.keys() == second.keys()
    assert all(
        torch.equal(torch.as_tensor(first[p][k]), torch.as_tensor(second[p][k]))
        for p in first
        for k in first[p]
        if first[p][k] is not None
    )
    assert (tmp_path / "whole/predictions.csv").read_bytes() == (
        tmp_path / "parts/predictions.csv"
    ).read_bytes()


def test_frozen_stages_stay_unchanged_and_are_listed_in_the_folder(small_config, tmp_path, caplog):
    from dfdc_video.runs.build import model_of

    cfg = small_config(
        *SMALL,
        "FREEZE.NAME",
        "frozen",
        "FREEZE.NAMES",
        "stem",
        "OPTIM.LR_FACTORS",
        "head:10",
        "OPTIM.NAME",
        "sgd",
    )
    with caplog.at_level("INFO"):
        train(cfg, tmp_path / "run", name="run", quiet=True)
    table = (tmp_path / "run" / "parameters.txt").read_text()
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert rows["stem"][-1] == "never" and rows["head"][3:5] == ["x", "10"]
    assert table.strip() in caplog.text
    start, end = model_of(cfg, 2), state(tmp_path / "run")["state_dict"]
    stem = tuple({n.rpartition(".")[0] for n in start.parameters_by_stage()["stem"]})
    kept = {n for n, t in start.state_dict().items() if torch.equal(t, end[f"model.{n}"])}
    assert {n for n in start.state_dict() if n.startswith(stem)} <= kept, "weights and running statistics"
    assert not kept & set(start.parameters_by_stage()["head"])


def test_policies_and_rates_that_do_not_suit_the_run_leave_no_folder(small_config, tmp_path):
    for words, message in (
        ("FREEZE.NAME head_first FREEZE.STEPS 8", "in a run of 8 steps"),
        ("FREEZE.NAME alternate", "no temporal kernel"),
        ("FREEZE.NAME frozen FREEZE.NAMES stam", "did you mean stem"),
        ("OPTIM.LR_FACTORS hat:2", "no stage 'hat'"),
        ("OPTIM.LAYER_DECAY 2", "at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(small_config(*SMALL, *words.split()), tmp_path / "never", name="never", quiet=True)
        assert not (tmp_path / "never").exists()


def test_names_of_policies_and_their_settings_are_checked_like_all_others():
    with pytest.raises(ValueError, match="unknown freezing rule 'head_frist'; did you mean head_first"):
        resolve("frame_small", overrides=["FREEZE.NAME", "head_frist"])
    with pytest.raises(ValueError, match="unknown key FREEZE.STEP of head_first; did you mean STEPS"):
        resolve("frame_small", overrides=["FREEZE.NAME", "head_first", "FREEZE.STEP", "3"])
    cfg = resolve("frame_small", overrides=["FREEZE.NAME", "gradual", "FREEZE.EPOCHS", "[1, 2.5]"])
    assert cfg.FREEZE.EPOCHS == [1.0, 2.5] and cfg.FREEZE.FREEZE_BN is False
