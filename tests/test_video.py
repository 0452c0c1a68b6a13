"""video.py: probing, decoding by index, rotation, damaged files, and the writer."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dfdc_video.registry import DECODERS
from dfdc_video.video import UnreadableVideo, VideoWriter, iter_frames, probe, read_frames


def numbered(count: int = 20, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose brightness is their number, with a bright upper left corner."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    frames += (np.arange(count, dtype=np.uint8) * 8 + 20)[:, None, None, None]
    frames[:, : height // 3, : width // 3] = 250
    return frames


def write(path, frames, *, fps=25, times=None, crf=4, options=None):
    with VideoWriter(path, fps=fps, crf=crf) as writer:
        if options:
            writer.container.close()
            import av

            writer.container = av.open(str(writer.temporary), "w", options=options)
            writer.stream = writer.container.add_stream("libx264", rate=fps)
            writer.stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(frames):
            writer.add(frame, None if times is None else times[i])
    return path


def number_of(frames: np.ndarray) -> list[int]:
    return [round((float(f[-8:, -8:].mean()) - 20) / 8) for f in frames]


def rotate_in_place(path, matrix):
    """Write another display matrix into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *(int(v * (1 << (30 if i % 3 == 2 else 16))) for i, v in enumerate(matrix)))
    path.write_bytes(data)


def test_writer_and_probe_agree(tmp_path):
    frames = numbered()
    stream = probe(write(tmp_path / "a.mp4", frames))
    assert (stream.num_frames, stream.height_px, stream.width_px, stream.rotation_degrees, stream.codec) == (20, 48, 64, 0, "h264")
    assert stream.fps == pytest.approx(25)
    assert np.allclose(stream.timestamps_seconds, np.arange(20) / 25, atol=1e-4)
    decoded = np.stack(list(iter_frames(tmp_path / "a.mp4")))
    assert decoded.shape == frames.shape and np.abs(decoded.astype(int) - frames).mean() < 3


def test_time_stamps_of_a_variable_rate_survive(tmp_path):
    times = np.cumsum([0, *[0.033, 0.05, 0.02] * 6, 0.2])
    stream = probe(write(tmp_path / "vfr.mp4", numbered(20), times=times))
    assert np.allclose(stream.timestamps_seconds, times, atol=1e-4)


def test_repeated_time_stamps_are_written(tmp_path):
    write(tmp_path / "a.mp4", numbered(4), times=[0, 0.1, 0.1, 0.2])
    assert len(list(iter_frames(tmp_path / "a.mp4"))) == 4


@pytest.mark.parametrize("decoder", DECODERS.names())
def test_decoders_give_the_asked_frames_in_the_asked_order(tmp_path, decoder):
    path = write(tmp_path / "a.mp4", numbered())
    frames = read_frames(path, [7, 0, 19, 7, 3], decoder=decoder)
    assert frames.dtype == np.uint8 and frames.shape == (5, 48, 64, 3)
    assert number_of(frames) == [7, 0, 19, 7, 3]
    assert np.array_equal(frames, np.stack(list(iter_frames(path)))[[7, 0, 19, 7, 3]]) or decoder == "opencv"


@pytest.mark.parametrize("decoder", DECODERS.names())
@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, 0, -1, 0, 0, 48, 0, 1), 3), ((-1, 0, 0, 0, -1, 0, 64, 48, 1), 2), ((0, -1, 0, 1, 0, 0, 0, 64, 1), 1)],
)
def test_rotation_is_applied_by_every_decoder(tmp_path, decoder, matrix, turns):
    path = write(tmp_path / "a.mp4", numbered())
    upright = np.stack(list(iter_frames(path)))[[2, 5]]
    rotate_in_place(path, matrix)
    expected = np.stack([np.rot90(f, turns) for f in upright])
    assert (probe(path).height_px, probe(path).width_px) == expected.shape[1:3]
    frames = read_frames(path, [2, 5], decoder=decoder)
    assert frames.shape == expected.shape and np.abs(frames.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("content", [b"", b"this is no video, whatever its name says\n" * 50])
def test_no_video_at_all(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for call in (lambda: probe(path), lambda: list(iter_frames(path)), lambda: read_frames(path, [0])):
        with pytest.raises(UnreadableVideo, match=r"a\.mp4"):
            call()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        read_frames(tmp_path / "none.mp4", [0])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [None, {"movflags": "faststart"}])
def test_a_truncated_file_never_passes_for_whole(tmp_path, share, options):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mp4", noise, options=options)
    assert probe(path).num_frames == 30
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableVideo, match=r"a\.mp4"):
        probe(path)


@pytest.mark.parametrize("indices", [[20], [-1], [3, 400]])
def test_frames_that_are_not_there(tmp_path, indices):
    with pytest.raises(UnreadableVideo, match="the file gives 20"):
        read_frames(write(tmp_path / "a.mp4", numbered()), indices)


def test_fallback_says_so(tmp_path, monkeypatch, caplog):
    path = write(tmp_path / "a.mp4", numbered())

    def broken(path, indices):
        raise UnreadableVideo("it is broken today")

    monkeypatch.setitem(DECODERS._obj_map, "decord", broken)
    assert number_of(read_frames(path, [4])) == [4]
    assert "it is broken today" in caplog.text and "pyav" in caplog.text


def test_unknown_decoder_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="decord"):
        read_frames(write(tmp_path / "a.mp4", numbered()), [0], decoder="dekord")


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
    files = {write(tmp_path / f"{n}.mp4", frames, crf=12).read_bytes() for n in range(6) if junk.pop() is not None}
    assert len(files) == 1
