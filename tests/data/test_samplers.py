"""Order of training: a function of (seed, epoch), resumable at any batch, sharded without loss."""

import pandas as pd
import pytest

from dfdc_video.registry import SAMPLERS


def table(num_real=5, fakes_each=3):
    rows = []
    for r in range(num_real):
        rows.append({"video_id": f"r{r}", "track_id": f"r{r}_00", "source_id": "", "label": 0})
        rows += [
            {"video_id": f"r{r}f{f}", "track_id": f"r{r}f{f}_00", "source_id": f"r{r}", "label": 1}
            for f in range(fakes_each)
        ]
    return pd.DataFrame(rows)


def batches(name, epoch=0, start=0, rank=0, world=1, batch_size=4, tracks=None, seed=0):
    sampler = SAMPLERS.get(name)(table() if tracks is None else tracks, batch_size, seed, rank, world)
    sampler.set_epoch(epoch)
    sampler.start = start
    return list(sampler)


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_order_is_a_function_of_seed_and_epoch_and_resumes_anywhere(name):
    whole = batches(name)
    assert whole == batches(name)
    assert whole != batches(name, epoch=1)
    assert whole != batches(name, seed=1)
    assert batches(name, start=1) == whole[1:]
    assert len(whole) == len(SAMPLERS.get(name)(table(), 4, 0))


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_processes_share_an_epoch_in_equal_steps(name):
    shards = [batches(name, rank=r, world=2) for r in (0, 1)]
    assert len(shards[0]) == len(shards[1])
    seen = {s for shard in shards for batch in shard for s in batch}
    assert {s for batch in batches(name) for s in batch} <= seen


def test_shuffle_takes_every_track_once():
    assert sorted(i for batch in batches("shuffle") for i, _ in batch) == list(range(20))


def test_balanced_has_as_many_of_each_class_in_every_batch():
    labels = table()["label"].to_numpy()
    for batch in batches("balanced"):
        assert sum(labels[i] for i, _ in batch) * 2 == len(batch)
    sampled = [i for batch in batches("balanced") for i, _ in batch]
    reals = {sampled.count(i) for i in range(20) if labels[i] == 0}
    assert reals == {2}, "every real twice before any a third time"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_pairs_stay_together_with_one_seed_whatever_the_batch_size(batch_size):
    tracks = table()
    seen = set()
    for batch in batches("pairs", batch_size=batch_size):
        assert len(batch) % 2 == 0
        for (real, seed), (fake, other_seed) in zip(batch[::2], batch[1::2], strict=True):
            assert tracks["video_id"][real] == tracks["source_id"][fake] and seed == other_seed
            seen.add(real)
    assert len(seen) == 5, "no original is lost"
    fakes = {f for epoch in range(30) for b in batches("pairs", epoch=epoch) for f, _ in b[1::2]}
    assert len(fakes) == 15, "every fake occurs"


def test_pairs_need_fakes_together_with_their_originals():
    with pytest.raises(ValueError, match="this split has no fake together with its original"):
        batches("pairs", tracks=table()[lambda t: t["label"] == 1].reset_index(drop=True))
