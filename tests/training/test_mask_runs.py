"""Runs that also learn which pixels were altered."""

import json

import pandas as pd
import pytest
import torch

from dfdc_video.models.mask import add_mask_head, logits_and_masks, mask_target
from dfdc_video.models.weights.load import load_weights
from dfdc_video.runs.build import model_of
from dfdc_video.runs.checks import check
from dfdc_video.runs.run import load_model, score, train
from dfdc_video.training.losses import MaskOverlap, mask_loss


@pytest.fixture(scope="module")
def masked_config(masked_root):
    from dfdc_video.config import resolve

    def make(*overrides, name="frame_small"):
        base = (
            "DATA.CACHE true CLIP.NUM_FRAMES 4 CLIP.HEIGHT 64 CLIP.WIDTH 64 TRAIN.EPOCHS 8 "
            "TRAIN.BATCH_SIZE 4 OPTIM.WARMUP_EPOCHS 0 OPTIM.LR 0.003 "
            "TEST.NUM_CLIPS 2 TEST.NUM_BOOTSTRAP 100 WANDB.MODE disabled TRAIN.PRECISION 32-true "
            "AUGMENT.NAME none MASK.WEIGHT 1"
        ).split()
        return resolve(name, overrides=[*base, "DATA.PATH", str(masked_root), *overrides])

    return make


@pytest.fixture(scope="module")
def finished(masked_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(masked_config(), folder, name="run", quiet=True)


def test_a_run_learns_masks_and_reports_their_overlap(finished):
    folder, report = finished
    assert report["mask_iou"] > 0.6, "the red corner is found"
    table = pd.read_csv(folder / "metrics.csv")
    losses = table["train/mask_loss"].dropna()
    assert losses.iloc[-1] < 0.5 * losses.iloc[0] and table["mask/iou"].max() > 0.6
    model = load_model(folder)
    frames = torch.randint(0, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        logits, masks = logits_and_masks(model, frames)
        assert masks.shape == (2, 4, 4, 4) and torch.equal(logits, model(frames))
    report_of_val = score(folder, split="val", quiet=True)
    assert (
        report_of_val["mask_iou"] > 0.6
        and json.loads((folder / "val/report.json").read_text())["mask_iou"] == report_of_val["mask_iou"]
    )


def test_without_a_weight_nothing_is_different(masked_config, tmp_path):
    cfg = masked_config("MASK.WEIGHT", "0", "TRAIN.EPOCHS", "1")
    report = train(cfg, tmp_path / "run", name="run", quiet=True)
    assert "mask_iou" not in report and model_of(cfg, 2).mask_head is None
    assert not any("mask" in c for c in pd.read_csv(tmp_path / "run/metrics.csv").columns)


def test_a_masked_checkpoint_starts_a_plain_model_and_the_other_way_round(finished, masked_config, tmp_path):
    folder, _ = finished
    plain = model_of(masked_config("MASK.WEIGHT", "0"), 2)
    report = load_weights(plain, folder / "checkpoints/best.ckpt", keep_head=True)
    assert {n for n in report.left_out if n.startswith("mask_head.")} == {
        "mask_head.projection.weight",
        "mask_head.projection.bias",
    }
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    masked = model_of(masked_config(), 2)
    report = load_weights(masked, tmp_path / "plain.pth", keep_head=True)
    assert {n for n in report.missing if n.startswith("mask_head.")} == {
        "mask_head.projection.weight",
        "mask_head.projection.bias",
    }
    assert torch.equal(
        masked.state_dict()["network.backbone.conv1.0.weight"],
        plain.state_dict()["network.backbone.conv1.0.weight"],
    )


def test_the_mask_head_is_in_the_head_stage(masked_config):
    model = model_of(masked_config(), 2)
    assert {"mask_head.projection.weight", "network.backbone.fc.weight"} <= set(
        model.parameters_by_stage()["head"]
    )


def test_what_cannot_have_a_mask_head_is_refused_before_anything_is_made(masked_config, tmp_path):
    for name, words, message in [
        ("frame_small", ["MODEL.BACKBONE", "test_vit"], "no feature maps"),
        ("frame_small", ["MASK.STAGE", "9"], "mask head at stage 9: .* has 5 stages, expected -5 to 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            check(masked_config(*words, name=name))
    with pytest.raises(ValueError, match="MASK.WEIGHT = -1"):
        masked_config("MASK.WEIGHT", "-1")
    with pytest.raises(ValueError, match="no mask head: set MASK.WEIGHT"):
        logits_and_masks(
            model_of(masked_config("MASK.WEIGHT", "0"), 2), torch.zeros(1, 3, 4, 64, 64, dtype=torch.uint8)
        )


def test_a_set_without_masks_is_refused(small_config, tmp_path):
    with pytest.raises(ValueError, match="prepare it with --masks"):
        train(small_config("MASK.WEIGHT", "1"), tmp_path / "run", name="run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_loss_counts_known_masks_only():
    logits, target = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    known = torch.tensor([True, False, True])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], target[known])
    torch.testing.assert_close(mask_loss(logits, target, known), expected)
    assert mask_loss(logits, target, torch.zeros(3, dtype=torch.bool)) == 0


def test_the_target_is_the_altered_share_of_a_cell():
    masks = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    masks[:, :2, :4, :2] = 255
    target = mask_target(masks, torch.Size((1, 2, 2, 2)))
    assert torch.equal(target, torch.tensor([[[[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]))


def test_the_overlap_counts_over_all_clips():
    overlap = MaskOverlap()
    assert overlap.value() != overlap.value(), "nothing to find, nothing found"
    overlap.add(
        torch.tensor([[[[1.0, 1.0]]], [[[1.0, 1.0]]]]),
        torch.tensor([[[[1.0, 0.2]]], [[[0.0, 0.0]]]]),
        torch.tensor([True, False]),
    )
    assert overlap.value() == 0.5


def test_weights_of_a_model_do_not_depend_on_its_mask_head(masked_config):
    plain, masked = model_of(masked_config("MASK.WEIGHT", "0"), 2), model_of(masked_config(), 2)
    assert all(torch.equal(t, masked.state_dict()[n]) for n, t in plain.state_dict().items())
    with pytest.raises(ValueError, match="stage 7"):
        add_mask_head(plain, stage=7)


def test_a_pyslowfast_checkpoint_has_no_mask_head(tmp_path):
    from dfdc_video.models.classifier import build_classifier
    from dfdc_video.models.weights.write import save_pyslowfast

    model = add_mask_head(
        build_classifier("slowfast", 2, 8, (64, 64), depth=18, width=16, alpha=4, beta_inv=4)
    )
    saved = torch.load(save_pyslowfast(model, tmp_path / "a.pyth"), weights_only=True)["model_state"]
    assert not any("mask" in name for name in saved) and "head.projection.weight" in saved
    plain = build_classifier("slowfast", 2, 8, (64, 64), depth=18, width=16, alpha=4, beta_inv=4)
    assert not load_weights(plain, tmp_path / "a.pyth", keep_head=True).missing
