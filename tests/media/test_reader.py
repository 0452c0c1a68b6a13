"""video.py: probing, decoding by index, rotation, damaged files, and the writer."""

from __future__ import annotations

import json
import multiprocessing
from fractions import Fraction

import cv2
import numpy as np
import pytest
from video_files import i420, rotate_in_place

from dfdc_video.media.reader import UnreadableVideo, iter_frames, iter_luma, iter_pictures, probe, read_frames
from dfdc_video.media.writer import PlaneScaler, VideoWriter
from dfdc_video.registry import DECODERS


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


def test_writer_and_probe_agree(tmp_path):
    frames = numbered()
    stream = probe(write(tmp_path / "a.mp4", frames))
    assert (stream.num_frames, stream.height_px, stream.width_px, stream.rotation_degrees, stream.codec) == (
        20,
        48,
        64,
        0,
        "h264",
    )
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
    files = {
        write(tmp_path / f"{n}.mp4", frames, crf=12).read_bytes() for n in range(6) if junk.pop() is not None
    }
    assert len(files) == 1


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    """Smooth colours, black, white, a red and a blue block: the colours of 4:2:0 are as good as those of the
    array.
    """
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1).astype(
        np.uint8
    )
    image[20:50, 20:60], image[60:90, 70:110], image[:10], image[-10:] = (250, 30, 40), (20, 60, 240), 0, 255
    return cv2.GaussianBlur(image, (0, 0), 3)


def write_as(
    path,
    pixel_format: str,
    *,
    codec: str = "libx264",
    colorspace: int | None = None,
    color_range: int | None = None,
):
    """`picture` five times, in a pixel format, a colour matrix (1: BT.709) and a range (1 limited, 2 full) of
    FFmpeg.
    """
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.pix_fmt, stream.width, stream.height, stream.options = pixel_format, 128, 96, {"crf": "2"}
        stream.codec_context.color_range = color_range or 0
        if colorspace:
            stream.codec_context.colorspace = colorspace
        matrix = None if codec == "libx264rgb" else "ITU709" if colorspace == 1 else "ITU601"
        for t in range(5):
            frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
            frame = frame.reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range=color_range, threads=1
            )
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("pixel_format", "settings", "decoded", "color"),
    [
        ("yuv420p", {}, "yuv420p", (2, 0)),
        ("yuv420p", {"colorspace": 1, "color_range": 1}, "yuv420p", (1, 1)),
        ("yuvj420p", {"color_range": 2}, "yuvj420p", (2, 1)),
        ("yuv422p", {}, "yuv422p", (2, 1)),
        ("yuv444p", {}, "yuv444p", (2, 1)),
        ("yuv420p10le", {}, "yuv420p10le", (2, 1)),
        ("yuv444p10le", {"colorspace": 1, "color_range": 1}, "yuv444p10le", (1, 1)),
        ("rgb24", {"codec": "libx264rgb"}, "gbrp", (6, 1)),
    ],
)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_planes_keep_the_colours_of_every_pixel_format(
    tmp_path, pixel_format, settings, decoded, color, decoder
):
    path = write_as(tmp_path / "source.mp4", pixel_format, **settings)
    pictures = list(iter_pictures(path))
    assert pictures[0].frame.format.name == decoded and pictures[0].color[:2] == color
    with VideoWriter(tmp_path / "face.mp4", fps=25, crf=2, color=pictures[0].color) as writer:
        for p in pictures:
            writer.add_planes(i420(p.planes))
    source, face = (
        read_frames(tmp_path / name, [3], decoder=decoder)[0].astype(int)
        for name in ("source.mp4", "face.mp4")
    )
    # both lose colour where they go to 4:2:0
    assert np.abs(source - picture()).mean() < 3 and np.abs(face - source).mean() < 2.5
    # a wrong range or matrix shifts them by 5 and more
    assert np.abs((face - source).mean(axis=(0, 1))).max() < 1.5
    matrix, color_range = next(iter_pictures(tmp_path / "face.mp4")).color[:2]
    # x264 leaves out what every decoder takes for granted
    assert matrix == color[0] and color_range in (0, 1)
    with VideoWriter(tmp_path / "face", fps=25, color=pictures[0].color, format="png") as writer:
        writer.add_planes(i420(pictures[3].planes))
    assert np.abs(read_frames(tmp_path / "face", [0])[0].astype(int) - source).mean() < 2.5


def test_grey_and_odd_sizes_have_planes(tmp_path):
    for name, fmt, size in (("grey.mkv", "gray", (98, 66)), ("odd.mkv", "yuv420p", (97, 65))):
        import av

        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.pix_fmt, (stream.width, stream.height) = fmt, size
            frame = av.VideoFrame.from_ndarray(picture(size[1], size[0]), format="rgb24").reformat(
                format=fmt, threads=1
            )
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        p = next(iter_pictures(tmp_path / name))
        assert [plane.shape for plane in p.planes] == [
            (size[1], size[0]),
            *[(-(-size[1] // 2), -(-size[0] // 2))] * 2,
        ]
        assert (
            p.rgb().shape == (size[1], size[0], 3)
            and 16 <= p.planes[0].min() < 30
            and 220 < p.planes[0].max() <= 236
        )
    assert (p.planes[0] != next(iter_pictures(tmp_path / "grey.mkv")).planes[0].min()).any()


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1, 0, -1, 0, 0, 96, 0, 1), 3),
        ((-1, 0, 0, 0, -1, 0, 128, 96, 1), 2),
        ((0, -1, 0, 1, 0, 0, 0, 128, 1), 1),
    ],
)
def test_pictures_are_upright(tmp_path, matrix, turns):
    path = write_as(tmp_path / "a.mp4", "yuv420p")
    before = next(iter_pictures(path))
    rotate_in_place(path, matrix)
    after = next(iter_pictures(path))
    assert (
        after.size_px
        == after.planes[0].shape
        == after.rgb().shape[:2]
        == (probe(path).height_px, probe(path).width_px)
    )
    for a, b in zip(after.planes, before.planes, strict=True):
        assert np.array_equal(a, np.rot90(b, turns))
    small = after.rgb(long_side_px=64)
    expected = cv2.resize(after.rgb(), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    # colour has half the size
    assert max(small.shape) == 64 and np.abs(small.astype(int) - expected).mean() < 4
    assert after.rgb(long_side_px=4000).shape == after.rgb().shape


def test_a_video_that_changes_its_size_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "a.ts"), "w") as whole:
        out, shift = whole.add_stream("mpeg2video", rate=25), 0
        out.width, out.height, out.pix_fmt = 64, 48, "yuv420p"
        for size in ((64, 48), (96, 64)):
            coder = av.CodecContext.create("mpeg2video", "w")
            coder.width, coder.height, coder.pix_fmt, coder.framerate, coder.time_base = (
                *size,
                "yuv420p",
                25,
                Fraction(1, 25),
            )
            for t in range(4):
                frame = av.VideoFrame.from_ndarray(
                    np.full((size[1], size[0], 3), 90, np.uint8), format="rgb24"
                ).reformat(format="yuv420p")
                frame.pts = t + shift
                for packet in [*coder.encode(frame), *(coder.encode(None) if t == 3 else ())]:
                    packet.stream = out
                    whole.mux(packet)
            shift += 4
    with pytest.raises(UnreadableVideo, match="changes its size from 64x48 to 96x64"):
        list(iter_pictures(tmp_path / "a.ts"))


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
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == [f"0000{i}.png" for i in range(5)] + [
        "timestamps.json"
    ]
    stream = probe(tmp_path / "v")
    assert (stream.num_frames, stream.fps, stream.height_px, stream.width_px, stream.codec) == (
        5,
        25.0,
        46,
        64,
        "png",
    )
    assert np.allclose(stream.timestamps_seconds, times)
    assert np.array_equal(np.stack(list(iter_frames(tmp_path / "v"))), frames)
    assert np.array_equal(read_frames(tmp_path / "v", [3, 0, 3]), frames[[3, 0, 3]])
    assert np.array_equal(next(iter_luma(tmp_path / "v")), cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY))
    with pytest.raises(UnreadableVideo, match="the file gives 5"):
        read_frames(tmp_path / "v", [5])
    with VideoWriter(tmp_path / "v", fps=25, format="png") as writer:  # written again
        writer.add(frames[1])
    assert probe(tmp_path / "v").num_frames == 1 and list(tmp_path.iterdir()) == [tmp_path / "v"]


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


def test_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="expected one of h264, lossless, png"):
        VideoWriter(tmp_path / "a.mp4", fps=25, format="gif")


def write_within(path, limit: int, format: str) -> str:
    """What is raised where no file may grow beyond `limit` bytes, which looks to a program like a full disk."""
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
        said = pool.apply(write_within, (tmp_path / "v.mp4", limit, format))
    if format == "png" and limit > 60_000:
        assert said == "written"  # each of its files is smaller
    else:
        assert said.startswith("OSError") and list(tmp_path.iterdir()) == []
