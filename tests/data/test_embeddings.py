"""Per-frame embeddings on disk: computed once, and again where a face video changed."""

import numpy as np
import pytest
import torch

from dfdc_video.data.dataset import ClipDataset, collate, whole_track
from dfdc_video.data.embeddings import embed_tracks
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.folders.prepared import load_prepared

SPEC = ClipSpec(
    num_frames=4, stride_seconds=1 / 15, stride_frames=0, height=32, width=32, short="repeat_last"
)


def read(path, num_frames):
    return whole_track(path, num_frames, height=32, width=32, decoder="decord")


def colours(frames):
    """(1, C, T, H, W) -> (1, T, C): a frozen network with known embeddings."""
    return frames.float().mean((3, 4)).transpose(1, 2)


def make(root, key="k", embed=colours, num_workers=0):
    tracks = load_prepared(root).tracks_of("train")
    return embed_tracks(root, tracks, key=key, embed=embed, read=read, num_workers=num_workers), tracks


@pytest.fixture
def root(tmp_path, write_prepared):
    return write_prepared(tmp_path / "p", per_split={"train": 2, "val": 1, "test": 1}, num_frames=70)


def test_a_clip_of_embeddings_is_that_of_its_frames(root):
    embeddings, tracks = make(root)
    plain = ClipDataset(root, tracks, SPEC)
    embedded = ClipDataset(root, tracks, SPEC, embeddings=embeddings)
    for seed in range(3):
        frames, item = plain[(1, seed)], embedded[(1, seed)]
        assert all(frames[key] == item[key] for key in ("label", "track_id", "start_frame"))
        assert "frames" not in item and item["embeddings"].shape == (4, 3)
        assert item["embeddings"].dtype == torch.float32
        expected = colours(frames["frames"][None])[0]
        torch.testing.assert_close(item["embeddings"], expected, rtol=1e-3, atol=0.06)  # half precision
    batch = collate([embedded[(i, 0)] for i in range(3)])
    assert batch["embeddings"].shape == (3, 4, 3) and batch["frames"] is None and len(batch["label"]) == 3


def test_embeddings_are_kept_until_their_face_video_changes(root):
    embeddings, tracks = make(root, num_workers=2)
    folder = embeddings.folder
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert set(stamps) == {f"{t}.npy" for t in tracks["track_id"]}

    def never(frames):
        raise AssertionError("nothing is missing")

    make(root, embed=never)
    first, second = (f"{t}.npy" for t in tracks["track_id"][:2])
    (folder / first).unlink()
    crop = root / tracks["crop_path"][1]
    crop.write_bytes(crop.read_bytes())
    make(root)
    changed = {p.name for p in folder.iterdir() if stamps[p.name] != p.stat().st_mtime_ns}
    assert changed == {first, second} and not list(folder.glob(".*"))
    assert make(root, key="other")[0].folder != folder, "every network has its own folder"


def test_a_track_that_cannot_be_read_is_reported_and_has_none(root, caplog):
    tracks = load_prepared(root).tracks_of("train")
    (root / tracks["crop_path"][0]).write_bytes(b"no video")
    embeddings, _ = make(root)
    assert f"track {tracks['track_id'][0]} cannot be read" in caplog.text
    dataset = ClipDataset(root, tracks, SPEC, embeddings=embeddings)
    batch = collate([dataset[(0, 0)], dataset[(1, 0)]])
    assert len(batch["embeddings"]) == 1 and "has no embeddings" in batch["errors"][0][1]


def test_embeddings_that_exceed_half_precision_are_an_error_and_leave_nothing(root):
    with pytest.raises(ValueError, match="exceed half precision"):
        make(root, embed=lambda frames: colours(frames) * 1e6)
    assert not list((root / "cache").rglob("*.npy"))
    assert np.load(next(make(root)[0].folder.glob("*.npy"))).dtype == np.float16
