"""Masks of altered pixels beside the frames: of the same frames, cropped and mirrored alike, unknown for a
fake without one.
"""

import shutil

import numpy as np
import pytest
import torch

from dfdc_video.data.datamodule import ClipData
from dfdc_video.data.dataset import ClipDataset, collate
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.data.transforms import basic
from dfdc_video.faces.annotate import load_mask
from dfdc_video.folders.prepared import load_prepared, mask_path
from dfdc_video.registry import SAMPLERS


def spec(size=64):
    return ClipSpec(
        num_frames=4, stride_seconds=1 / 15, stride_frames=0, height=size, width=size, short="repeat_last"
    )


def make(root, size=64, **kwargs):
    manifest = load_prepared(root)
    return ClipDataset(manifest.root, manifest.tracks_of("train"), spec(size), masks=5.0, **kwargs)


def of_label(dataset, label):
    return next(i for i, row in enumerate(dataset.rows) if row["label"] == label)


def test_a_mask_belongs_to_the_frames_of_its_clip(masked_root):
    dataset = make(masked_root)
    index = of_label(dataset, 1)
    item = dataset[(index, 11)]
    frames = item["start_frame"] + 2 * np.arange(4)
    expected = load_mask(mask_path(masked_root / dataset.rows[index]["crop_path"]), threshold=5.0)[frames]
    assert item["mask"].shape == (4, 64, 64) and item["mask"].dtype == torch.uint8 and item["mask_known"]
    assert np.array_equal(item["mask"].numpy() == 255, expected)
    assert 0.2 < expected.mean() < 0.5, "the red corner with a blurred rim"
    real = dataset[(of_label(dataset, 0), 11)]
    assert real["mask_known"] and not real["mask"].any()


def test_the_cache_gives_the_same_masks(masked_root, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(masked_root, root)
    plain, cached = make(root, 48), make(root, 48, cache=True)
    index = of_label(plain, 1)
    for seed in (3, 4):
        one, other = plain[(index, seed)], cached[(index, seed)]
        assert torch.equal(one["mask"], other["mask"]) and torch.equal(one["frames"], other["frames"])
    assert len(list((root / "cache" / "48x48").glob("*_mask5.npy"))) == 1


def test_a_mask_is_cropped_and_mirrored_like_its_frames():
    mask = torch.zeros(3, 64, 64, dtype=torch.uint8)
    mask[:, 8:40, 20:36] = 255
    frames = mask[:, None].repeat(1, 3, 1, 1)
    for seed in range(4):
        torch.manual_seed(seed)
        moved, target = basic(crop_scale=0.5, brightness=0.0, contrast=0.0, saturation=0.0)(frames, mask)
        bright, altered = moved[:, 0] >= 128, target == 255
        assert (bright & altered).sum() / (bright | altered).sum() > 0.8
        assert not torch.equal(target, mask) and set(target.unique().tolist()) <= {0, 255}


def test_frames_are_augmented_alike_with_and_without_a_mask(masked_root):
    dataset, augment = make(masked_root, augment=basic()), basic()
    item = dataset[(1, 5)]
    dataset.masks = None
    assert torch.equal(dataset[(1, 5)]["frames"], item["frames"])
    torch.manual_seed(1)
    frames, mask = augment(item["frames"].transpose(0, 1))
    assert mask is None and type(frames) is torch.Tensor and type(item["mask"]) is torch.Tensor


def test_a_fake_without_a_mask_is_unknown_and_a_set_without_any_is_refused(masked_root, tmp_path, caplog):
    root = tmp_path / "copy"
    shutil.copytree(masked_root, root)
    masks = sorted(root.glob("tracks/train*marked/*_mask.mp4"))
    masks[0].unlink()
    settings = {"sampler": SAMPLERS.get("shuffle"), "augment": None, "decoder": "decord", "cache": False}
    settings |= {"batch_size": 3, "test_batch_size": 4, "num_clips": 2, "seed": 0, "num_workers": 0}
    data = ClipData(load_prepared(root), spec(), **settings, masks=5.0)
    dataset = data.dataset("train")
    assert "1 of 4 tracks of fakes have no difference mask" in caplog.text
    batch = collate([dataset[(i, 0)] for i in range(len(dataset))])
    without = batch["video_id"].index(masks[0].parent.name)
    assert batch["mask"].shape == (8, 4, 64, 64)
    assert (~batch["mask_known"]).nonzero().flatten().tolist() == [without]
    for mask in masks[1:]:
        mask.unlink()
    expected = "has no difference mask of any fake: prepare it with --masks, or set MASK.WEIGHT 0"
    with pytest.raises(ValueError, match=expected):
        data.dataset("train")
