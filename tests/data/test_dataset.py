"""Clips of face videos: the right frames, the same views, independent of workers; bad files are reported, not
replaced.
"""

import numpy as np
import pytest
import torch

from dfdc_video.data.datamodule import ClipData, ResumableLoader
from dfdc_video.data.dataset import ClipDataset, collate, scale_and_crop
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.data.transforms import basic
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.prepared import load_prepared
from dfdc_video.media.decoders import read_frames
from dfdc_video.registry import SAMPLERS


def spec(num_frames=4, size=32, **kwargs):
    base = {"stride_seconds": 1 / 15, "stride_frames": 0, "short": "repeat_last"}
    return ClipSpec(**{"num_frames": num_frames, "height": size, "width": size} | base | kwargs)


def make(root, split="train", clip=None, **kwargs):
    manifest = load_prepared(root)
    return ClipDataset(manifest.root, manifest.tracks_of(split), clip or spec(), **kwargs)


def test_an_item_holds_the_frames_that_it_names(prepared_root):
    dataset = make(prepared_root, clip=spec(size=64))
    item = dataset[(3, 11)]
    assert item["frames"].shape == (3, 4, 64, 64) and item["frames"].dtype == torch.uint8
    row = dataset.rows[3]
    indices = [item["start_frame"] + offset for offset in (0, 2, 4, 6)]
    expected = read_frames(prepared_root / row["crop_path"], indices, decoder="pyav")
    assert np.array_equal(item["frames"].permute(1, 2, 3, 0).numpy(), expected)
    assert all(item[key] == row[key] for key in ("video_id", "track_id", "label"))


def test_views_are_all_clips_of_all_tracks_in_one_order(prepared_root):
    one, other = make(prepared_root, "val", num_views=3), make(prepared_root, "val", num_views=3)
    assert len(one) == 8 * 3 and one.views == other.views
    assert torch.equal(one[5]["frames"], other[5]["frames"])


def test_the_cache_gives_the_same_pixels_and_is_remade_when_the_video_changes(tmp_path, write_prepared):
    root = write_prepared(tmp_path / "p", per_split={"train": 1, "val": 1, "test": 1})
    plain, cached = make(root), make(root, cache=True)
    assert torch.equal(plain[(0, 5)]["frames"], cached[(0, 5)]["frames"])
    file = next((root / "cache" / "32x32").glob("*.npy"))
    before = file.stat().st_mtime_ns
    cached[(0, 6)]
    assert file.stat().st_mtime_ns == before, "the second read comes from the cache"
    crop = root / cached.rows[0]["crop_path"]
    crop.write_bytes((root / cached.rows[1]["crop_path"]).read_bytes())
    assert torch.equal(cached[(0, 5)]["frames"], plain[(0, 5)]["frames"])
    assert file.stat().st_mtime_ns > before
    crop.touch()  # a newer face video with the same pixels
    remade = cached[(0, 5)] and file.stat().st_mtime_ns
    cached[(0, 6)]
    assert remade >= crop.stat().st_mtime_ns and file.stat().st_mtime_ns == remade, "remade once"


def test_the_sample_seed_decides_start_and_augmentation(prepared_root):
    dataset = make(prepared_root, augment=basic())
    assert torch.equal(dataset[(0, 4)]["frames"], dataset[(0, 4)]["frames"])
    assert any(not torch.equal(dataset[(0, 4)]["frames"], dataset[(0, s)]["frames"]) for s in range(5, 9))
    state = torch.get_rng_state()
    dataset[(0, 9)]
    assert torch.equal(state, torch.get_rng_state()), "augmentation does not change the global generator"


def test_every_frame_of_a_clip_and_both_videos_of_a_pair_are_augmented_alike():
    augment = basic()
    frame = (torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    clip = frame.repeat(5, 1, 1, 1)
    torch.manual_seed(3)
    once, _ = augment(clip)
    torch.manual_seed(3)
    assert torch.equal(once, augment(clip)[0]) and not torch.equal(once, clip)
    assert all(torch.equal(once[0], other) for other in once[1:])


def test_bad_augmentation_settings():
    with pytest.raises(ValueError, match="AUGMENT.FLIP = 2"):
        basic(flip=2)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (96, 96), (31, 57)])
def test_frames_are_scaled_to_cover_and_cropped_at_the_centre(height, width):
    frames = np.zeros((1, 60, 60, 3), np.uint8)
    frames[0, 28:32, 28:32] = 255
    out = scale_and_crop(frames, height, width)[0, ..., 0].astype(float)
    assert out.shape == (height, width)
    ys, xs = np.mgrid[:height, :width]
    centre = (out * ys).sum() / out.sum(), (out * xs).sum() / out.sum()
    assert abs(centre[0] - (height - 1) / 2) < 1 and abs(centre[1] - (width - 1) / 2) < 1


def test_an_unreadable_video_is_reported_and_left_out(tmp_path, write_prepared):
    root = write_prepared(tmp_path / "p", per_split={"train": 1, "val": 1, "test": 1})
    dataset = make(root)
    (root / dataset.rows[0]["crop_path"]).write_bytes(b"no video")
    batch = collate([dataset[(0, 1)], dataset[(1, 1)]])
    assert batch["frames"].shape[0] == 1 and batch["video_id"] == [dataset.rows[1]["video_id"]]
    assert batch["errors"][0][0] == dataset.rows[0]["track_id"]
    assert collate([dataset[(0, 1)]])["frames"] is None


def test_short_tracks_are_dropped_or_filled(prepared_root):
    filled, dropped = make(prepared_root, clip=spec(40)), make(prepared_root, clip=spec(40, short="drop"))
    assert filled.num_short == 16 == len(filled) and len(dropped) == 0


def data_module(root, clip=None, **kwargs):
    settings = {"sampler": SAMPLERS.get("shuffle"), "augment": basic(), "decoder": "decord", "cache": False}
    settings |= {"batch_size": 3, "test_batch_size": 4, "num_clips": 2, "seed": 0, "num_workers": 0}
    return ClipData(load_prepared(root), clip or spec(), **settings | kwargs)


def test_the_order_does_not_depend_on_the_number_of_workers(prepared_root):
    batches = [list(data_module(prepared_root, num_workers=n).train_dataloader()) for n in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert one["track_id"] == other["track_id"] and torch.equal(one["frames"], other["frames"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_after_its_last_batch(prepared_root, workers):
    whole = [b["track_id"] for b in data_module(prepared_root).train_dataloader()]
    loader = data_module(prepared_root, num_workers=workers).train_dataloader()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    resumed = data_module(prepared_root, num_workers=workers).train_dataloader()
    assert isinstance(resumed, ResumableLoader)
    resumed.load_state_dict(state)
    assert [b["track_id"] for b in resumed] == whole[2:]
    assert [b["track_id"] for b in resumed] == whole, "only the first pass starts in the middle"


def test_splits_that_cannot_be_trained_on_are_refused(prepared_root):
    with pytest.raises(ValueError, match="all 16 tracks are shorter than the clip"):
        data_module(prepared_root, spec(40, short="drop")).dataset("train")
    module = data_module(prepared_root)
    one_class = module.manifest.videos.assign(label=1)
    module.manifest = Manifest(module.manifest.root, one_class, module.manifest.tracks, {})
    with pytest.raises(ValueError, match=r"one class only \(label 1\)"):
        module.dataset("train")
