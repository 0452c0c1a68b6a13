"""Face videos on disk: timestamps, coding, folders of PNG files, what a failure leaves behind."""

from __future__ import annotations

import multiprocessing

import cv2
import numpy as np
import pytest
from video_files import i420, numbered, picture, write

from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo, iter_frames, iter_luma, iter_pictures, probe
from dfdc_video.media.writer import PlaneScaler, VideoWriter


def test_time_stamps_of_a_variable_rate_survive(tmp_path):
    times = np.cumsum([0, *[0.033, 0.05, 0.02] * 6, 0.2])
    stream = probe(write(tmp_path / "vfr.mp4", numbered(20), times=times))
    assert np.allclose(stream.timestamps_seconds, times, atol=1e-4)


def test_repeated_time_stamps_are_written(tmp_path):
    write(tmp_path / "a.mp4", numbered(4), times=[0, 0.1, 0.1, 0.2])
    assert len(list(iter_frames(tmp_path / "a.mp4"))) == 4


def test_writer_leaves_nothing_behind_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        writer.add(numbered(1)[0])
        raise RuntimeError
    with VideoWriter(tmp_path / "b.mp4", fps=25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_odd_sizes(tmp_path):
    with pytest.raises(ValueError, match="even"), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        writer.add(np.zeros((31, 40, 3), dtype=np.uint8))


def test_short_gops(tmp_path):
    import av

    with av.open(str(write(tmp_path / "a.mp4", numbered()))) as container:
        keys = [p.is_keyframe for p in container.demux(container.streams.video[0]) if p.size]
    assert sum(keys) >= 2 and len(keys) == 20  # 20 frames, a key frame at least every 12


def test_equal_frames_give_equal_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    for i in range(1, 40):
        frames[i] = (0.8 * frames[i - 1].astype(float) + 0.2 * frames[i]).astype(np.uint8)
    junk = [np.full(1000 * n, n, dtype=np.uint8) for n in range(1, 50)]
    files = set()
    for n in range(6):
        junk.pop()  # the encoder finds different contents in fresh memory
        files.add(write(tmp_path / f"{n}.mp4", frames, crf=12).read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize(
    ("side", "method"),
    [(150, cv2.INTER_AREA), (64, cv2.INTER_AREA), (20, cv2.INTER_CUBIC), (22, cv2.INTER_CUBIC)],
)
def test_planes_are_scaled_as_opencv_does(side, method):
    rng = np.random.default_rng(0)
    y, u = (
        cv2.GaussianBlur(rng.integers(0, 255, (s, s), dtype=np.uint8), (0, 0), 1.5) for s in (side, side // 2)
    )
    scaled = PlaneScaler(32)(i420((y, u, u)))
    for got, plane in ((scaled[:32], y), (scaled[32:40].reshape(16, 16), u)):
        assert np.abs(got.astype(int) - cv2.resize(plane, got.shape, interpolation=method)).mean() < 0.5


def test_lossless_is_lossless(tmp_path):
    source = write(tmp_path / "a.mp4", picture()[None].repeat(3, 0))
    with VideoWriter(tmp_path / "b.mp4", fps=25, format="lossless") as writer:
        for p in iter_pictures(source):
            writer.add_planes(i420(p.planes))
    for a, b in zip(iter_pictures(source), iter_pictures(tmp_path / "b.mp4"), strict=True):
        assert np.array_equal(i420(a.planes), i420(b.planes))


def test_a_folder_of_png_files_reads_like_a_video(tmp_path):
    frames, times = numbered(5, 47, 64)[:, :46], [0, 0.04, 0.1, 0.15, 0.4]
    with VideoWriter(tmp_path / "v", fps=25, format="png") as writer:
        for frame, seconds in zip(frames, times, strict=True):
            writer.add(frame, seconds)
        assert not (tmp_path / "v").exists()  # whole or not at all
    names = [*(f"0000{i}.png" for i in range(5)), "timestamps.json"]
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == names
    stream = probe(tmp_path / "v")
    assert (stream.num_frames, stream.height_px, stream.width_px) == (5, 46, 64)
    assert (stream.fps, stream.codec) == (25.0, "png")
    assert np.allclose(stream.timestamps_seconds, times)
    assert np.array_equal(np.stack(list(iter_frames(tmp_path / "v"))), frames)
    assert np.array_equal(read_frames(tmp_path / "v", [3, 0, 3]), frames[[3, 0, 3]])
    assert np.array_equal(next(iter_luma(tmp_path / "v")), cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY))
    with pytest.raises(UnreadableVideo, match="the file gives 5"):
        read_frames(tmp_path / "v", [5])
    with VideoWriter(tmp_path / "v", fps=25, format="png") as writer:  # written again
        writer.add(frames[1])
    assert probe(tmp_path / "v").num_frames == 1 and list(tmp_path.iterdir()) == [tmp_path / "v"]


def test_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="expected one of h264, lossless, png"):
        VideoWriter(tmp_path / "a.mp4", fps=25, format="gif")


def write_within(path, limit: int, format: str) -> str:
    """What the writer raises where no file may exceed `limit` bytes, which has the effect of a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with VideoWriter(path, fps=25, format=format) as writer:
            for seed in range(40):
                writer.add(np.random.default_rng(seed).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    except OSError as error:
        return f"OSError {error}"
    return "written"


@pytest.mark.parametrize("limit", [100, 20_000, 100_000])
@pytest.mark.parametrize("format", ["h264", "lossless", "png"])
def test_a_full_disk_is_an_oserror_and_leaves_nothing(tmp_path, limit, format):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outcome = pool.apply(write_within, (tmp_path / "v.mp4", limit, format))
    if format == "png" and limit > 60_000:
        assert outcome == "written"  # each of its files is smaller
    else:
        assert outcome.startswith("OSError") and list(tmp_path.iterdir()) == []
