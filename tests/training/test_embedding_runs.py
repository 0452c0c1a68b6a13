"""Runs on a frozen backbone, over embeddings computed once."""

import shutil

import pandas as pd
import pytest
import torch

from dfdc_video.data.dataset import ClipDataset
from dfdc_video.folders.cache import Arrays
from dfdc_video.runs.build import build_data, clip_spec, load_manifest, model_of
from dfdc_video.runs.checks import check
from dfdc_video.runs.run import load_model, score, train
from dfdc_video.training.module import ClassifierModule

SETTINGS = ("DATA.EMBEDDINGS", "true", "AUGMENT.NAME", "none")
FAMILIES = {
    "embedding_lstm": ("embedding_lstm_small",),
    "features": ("aggregator_small",),
    "predictions": ("aggregator_small", "MODEL.INPUTS", "predictions", "MODEL.POOL", "order"),
}


@pytest.fixture(scope="module")
def frame_checkpoint(prepared_root, tmp_path_factory):
    from dfdc_video.config import resolve

    words = (
        "DATA.CACHE false CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32 TRAIN.EPOCHS 1 TRAIN.BATCH_SIZE "
        "4 OPTIM.WARMUP_EPOCHS 0 TEST.NUM_CLIPS 1 "
        "TEST.NUM_BOOTSTRAP 20 WANDB.MODE disabled TRAIN.PRECISION 32-true"
    ).split()
    folder = tmp_path_factory.mktemp("frame") / "run"
    train(
        resolve("frame_small", overrides=[*words, "DATA.PATH", str(prepared_root)]),
        folder,
        name="frame",
        quiet=True,
    )
    return folder / "checkpoints" / "best.ckpt"


@pytest.fixture
def root(prepared_root, tmp_path):
    """A copy, because these runs write to the cache of their data set."""
    shutil.copytree(prepared_root, tmp_path / "prepared", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "prepared"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_over_embeddings_is_a_run_over_frames(family, frame_checkpoint, small_config, root, tmp_path):
    name, *words = FAMILIES[family]
    cfg = small_config(*SETTINGS, *words, "MODEL.INIT_FROM", str(frame_checkpoint), name=name, path=root)
    folder = tmp_path / "run"
    report = train(cfg, folder, name="run", quiet=True)
    assert report["coverage"]["scored"] == 8 and "never" in (folder / "parameters.txt").read_text()
    frozen = {
        n.removeprefix("model."): t
        for n, t in torch.load(frame_checkpoint, weights_only=True)["state_dict"].items()
        if "backbone" in n
    }
    trained = {
        n.removeprefix("model."): t
        for n, t in torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"].items()
    }
    shared = [n for n in frozen if n in trained]
    assert len(shared) > 70 and all(torch.equal(frozen[n], trained[n]) for n in shared), (
        "nothing of the backbone has moved"
    )
    (made,) = (root / "cache" / "embeddings").iterdir()
    assert len(list(made.glob("*.npy"))) == 32, "train, val and, to be scored, test"
    table = pd.read_csv(folder / "predictions.csv").sort_values(["track_id", "start_frame"])
    manifest = load_manifest(cfg)
    clips = ClipDataset(root, manifest.tracks_of("test"), clip_spec(cfg), num_views=2)
    items = sorted(
        (clips[i] for i in range(len(clips))), key=lambda item: (item["track_id"], item["start_frame"])
    )
    with torch.no_grad():
        logits = load_model(folder)(torch.stack([item["frames"] for item in items]))
    torch.testing.assert_close(
        torch.tensor(table[["logit_0", "logit_1"]].to_numpy()).float(), logits, rtol=1e-2, atol=1e-2
    )
    stamps = {p: p.stat().st_mtime_ns for p in made.iterdir()}
    assert score(folder, quiet=True)["metrics"] == report["metrics"]
    assert stamps == {p: p.stat().st_mtime_ns for p in made.iterdir()}, "scoring again embeds nothing again"


def test_a_stopped_run_resumes_to_the_same_weights(
    frame_checkpoint, small_config, root, tmp_path, monkeypatch
):
    cfg = small_config(
        *SETTINGS, "MODEL.INIT_FROM", str(frame_checkpoint), name="embedding_lstm_small", path=root
    )
    train(cfg, tmp_path / "whole", name="x", quiet=True)
    old = ClassifierModule.training_step

    def stop(self, batch, index):
        if self.global_step == 5:
            raise KeyboardInterrupt
        return old(self, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(cfg, tmp_path / "stopped", name="x", quiet=True)
    monkeypatch.undo()
    train(cfg, tmp_path / "stopped", name="x", resume=True, quiet=True)
    states = [
        torch.load(tmp_path / f / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for f in ("whole", "stopped")
    ]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert len(list((root / "cache" / "embeddings").iterdir())) == 1, (
        "the resumed run found the same frozen network"
    )


def test_what_does_not_fit_is_refused_before_anything_is_made(small_config, prepared_root, tmp_path):
    for words, name, message in [
        (
            ("DATA.EMBEDDINGS", "true", "AUGMENT.NAME", "none"),
            "slowfast_small",
            "trains its backbone: it has no embeddings to keep",
        ),
        (
            SETTINGS,
            "embedding_lstm_small",
            "the backbone of embedding_lstm is frozen, and would stay random: set MODEL.INIT_FROM",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            check(small_config(*words, name=name))
    with pytest.raises(ValueError, match="DATA.EMBEDDINGS with AUGMENT.NAME basic"):
        small_config("DATA.EMBEDDINGS", "true", "AUGMENT.NAME", "basic", name="embedding_lstm_small")
    assert not list(tmp_path.iterdir()) and not (prepared_root / "cache" / "embeddings").exists()


def test_the_key_depends_on_frozen_weights_and_frame_size_only(small_config):
    def key(*words, name="embedding_lstm_small"):
        return model_of(small_config(*words, name=name), 2).embedding_key()

    first = key()
    assert key() == first == key("MODEL.HIDDEN", "32") == key("CLIP.NUM_FRAMES", "8")
    others = {key("SEED", "1"), key("CLIP.HEIGHT", "48"), key("MODEL.GRID", "2")}
    assert len(others | {first}) == 4, others


def test_an_epoch_reads_no_video(frame_checkpoint, small_config, root, monkeypatch):
    """With the embeddings in the cache an epoch opens no face video."""
    cfg = small_config(
        *SETTINGS, "MODEL.INIT_FROM", str(frame_checkpoint), name="embedding_lstm_small", path=root
    )
    train(cfg, root.parent / "run", name="x", quiet=True)
    import dfdc_video.data.dataset as dataset

    def never(*args, **kwargs):
        raise AssertionError("a face video was opened")

    monkeypatch.setattr(dataset, "read_frames", never)
    data = build_data(cfg, load_manifest(cfg))
    data.embeddings = Arrays(next((root / "cache" / "embeddings").iterdir()))
    batches = list(data.train_dataloader())
    assert sum(len(b["label"]) for b in batches) == 16 and batches[0]["embeddings"].ndim == 3
