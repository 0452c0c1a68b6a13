"""Probing, frames by index, rotation, damaged files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from video_files import number_of, numbered, rotate_in_place, write

from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo, iter_frames, probe
from dfdc_video.media.writer import VideoWriter
from dfdc_video.registry import DECODERS


def test_writer_and_probe_agree(tmp_path):
    frames = numbered()
    stream = probe(write(tmp_path / "a.mp4", frames))
    assert (stream.num_frames, stream.height_px, stream.width_px) == (20, 48, 64)
    assert (stream.rotation_degrees, stream.codec) == (0, "h264")
    assert stream.fps == pytest.approx(25)
    assert np.allclose(stream.timestamps_seconds, np.arange(20) / 25, atol=1e-4)
    decoded = np.stack(list(iter_frames(tmp_path / "a.mp4")))
    assert decoded.shape == frames.shape and np.abs(decoded.astype(int) - frames).mean() < 3


@pytest.mark.parametrize("decoder", DECODERS.names())
def test_decoders_give_the_requested_frames_in_the_requested_order(tmp_path, decoder):
    path = write(tmp_path / "a.mp4", numbered())
    frames = read_frames(path, [7, 0, 19, 7, 3], decoder=decoder)
    assert frames.dtype == np.uint8 and frames.shape == (5, 48, 64, 3)
    assert number_of(frames) == [7, 0, 19, 7, 3]
    assert np.array_equal(frames, np.stack(list(iter_frames(path)))[[7, 0, 19, 7, 3]]) or decoder == "opencv"


@pytest.mark.parametrize("decoder", DECODERS.names())
@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1, 0, -1, 0, 0, 48, 0, 1), 3),
        ((-1, 0, 0, 0, -1, 0, 64, 48, 1), 2),
        ((0, -1, 0, 1, 0, 0, 0, 64, 1), 1),
    ],
)
def test_rotation_is_applied_by_every_decoder(tmp_path, decoder, matrix, turns):
    path = write(tmp_path / "a.mp4", numbered())
    upright = np.stack(list(iter_frames(path)))[[2, 5]]
    rotate_in_place(path, matrix)
    expected = np.stack([np.rot90(f, turns) for f in upright])
    assert (probe(path).height_px, probe(path).width_px) == expected.shape[1:3]
    frames = read_frames(path, [2, 5], decoder=decoder)
    assert frames.shape == expected.shape and np.abs(frames.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("content", [b"", b"not a video, despite its name\n" * 50])
def test_files_that_are_not_videos(tmp_path, content):
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
def test_frames_out_of_range(tmp_path, indices):
    with pytest.raises(UnreadableVideo, match="the file gives 20"):
        read_frames(write(tmp_path / "a.mp4", numbered()), indices)


def test_a_fallback_is_logged(tmp_path, monkeypatch, caplog):
    path = write(tmp_path / "a.mp4", numbered())

    def broken(path, indices):
        raise UnreadableVideo("broken decoder")

    monkeypatch.setitem(DECODERS._obj_map, "decord", broken)
    assert number_of(read_frames(path, [4])) == [4]
    assert "broken decoder" in caplog.text and "pyav" in caplog.text


def test_unknown_decoder_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="decord"):
        read_frames(write(tmp_path / "a.mp4", numbered()), [0], decoder="dekord")


def test_a_damaged_folder_is_unreadable(tmp_path):
    with VideoWriter(tmp_path / "v", fps=25, format="png") as writer:
        for frame in numbered(3):
            writer.add(frame)
    (tmp_path / "v/00001.png").unlink()
    with pytest.raises(UnreadableVideo, match=r"00001\.png is missing"):
        list(iter_frames(tmp_path / "v"))
    (tmp_path / "v/timestamps.json").write_text(json.dumps([1, 2]))
    with pytest.raises(UnreadableVideo, match=r"without a readable timestamps\.json"):
        probe(tmp_path / "v")
