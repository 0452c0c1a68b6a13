"""Index arithmetic of clips: by timestamps, by frames, short tracks, deterministic views."""

import numpy as np
import pytest

from dfdc_video.data.sampling import ClipSpec, clip_indices, last_start, random_start, view_starts


def spec(num_frames=7, seconds=1 / 15, frames=0, short="repeat_last"):
    return ClipSpec(num_frames, seconds, frames, 64, 64, short)


@pytest.mark.parametrize("fps", [15, 24, 25, 30, 60])
def test_spacing_in_seconds_means_the_same_at_every_rate(fps):
    stamps = np.arange(4 * fps) / fps
    indices = clip_indices(stamps, fps, spec())
    wanted = stamps[fps] + np.arange(7) / 15
    assert np.abs(stamps[indices] - wanted).max() <= 0.5 / fps + 1e-9
    assert indices[0] == fps


def test_variable_frame_rate_takes_the_nearest_frame_in_time():
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.uniform(0.01, 0.08, 100))
    indices = clip_indices(stamps, 5, spec())
    for k, index in enumerate(indices):
        assert index == np.abs(stamps - (stamps[5] + k / 15)).argmin()


def test_stride_in_frames_ignores_time():
    stamps = np.cumsum(np.linspace(0.01, 0.1, 80))
    assert clip_indices(stamps, 3, spec(8, frames=2)).tolist() == list(range(3, 19, 2))
    assert last_start(stamps, spec(8, frames=2)) == 80 - (2 * 7 + 1)


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_last_start_is_the_last_with_a_whole_clip(fps):
    stamps = np.arange(3 * fps) / fps
    last = last_start(stamps, spec(16))
    assert np.diff(clip_indices(stamps, last, spec(16))).min() > 0, "no frame is repeated"
    beyond = stamps[last + 1] + 15 / 15
    assert beyond > stamps[-1] + 0.5 / fps - 1e-6, "one later does not fit"


def test_short_tracks():
    stamps = np.arange(10) / 30
    assert last_start(stamps, spec(16)) == -1
    held = clip_indices(stamps, 0, spec(16))
    assert held.tolist() == [0, 2, 4, 6, 8] + [9] * 11
    looped = clip_indices(stamps, 0, spec(16, short="loop"))
    assert looped.tolist() == [0, 2, 4, 6, 8] * 3 + [0]
    assert clip_indices(stamps, 0, spec(16, frames=1, short="loop")).tolist() == [*range(10), *range(6)]
    assert clip_indices(np.zeros(1), 0, spec(4)).tolist() == [0, 0, 0, 0]


def test_views_are_even_and_deterministic():
    stamps = np.arange(90) / 30
    last = last_start(stamps, spec(16))
    assert view_starts(stamps, spec(16), 3) == [0, round(last / 2), last]
    assert view_starts(stamps, spec(16), 1) == [last // 2]
    short = view_starts(np.arange(10) / 30, spec(16), 4)
    assert short == [0], "a short track has one view, not four equal ones"


def test_random_starts_cover_all_and_follow_the_seed():
    stamps = np.arange(60) / 30
    last = last_start(stamps, spec())
    starts = [random_start(stamps, spec(), np.random.default_rng(s)) for s in range(400)]
    assert set(starts) == set(range(last + 1))
    assert starts[7] == random_start(stamps, spec(), np.random.default_rng(7))


def test_policy_holds_what_comparable_runs_must_share():
    expected = {"num_frames": 7, "stride_seconds": 0.066667, "short": "repeat_last", "num_clips": 4}
    assert spec().policy(num_clips=4) == expected
    assert "stride_frames" in spec(frames=2).policy(num_clips=1)
