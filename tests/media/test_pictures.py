"""Decoded frames as planes: every pixel format, odd sizes, rotation, colours."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from video_files import i420, picture, rotate_in_place

from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo, iter_pictures, probe
from dfdc_video.media.writer import VideoWriter


def write_as(path, pixel_format: str, *, codec: str = "libx264", colorspace: int = 0, color_range: int = 0):
    """Write `picture` five times, in FFmpeg's pixel format, colour matrix (1: BT.709) and range (1 limited, 2
    full).
    """
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.pix_fmt, stream.width, stream.height, stream.options = pixel_format, 128, 96, {"crf": "2"}
        stream.codec_context.color_range = color_range
        if colorspace:
            stream.codec_context.colorspace = colorspace
        matrix = None if codec == "libx264rgb" else "ITU709" if colorspace == 1 else "ITU601"
        for t in range(5):
            frame = av.VideoFrame.from_ndarray(picture(), format="rgb24")
            target = {
                "format": pixel_format,
                "dst_colorspace": matrix,
                "dst_color_range": color_range or None,
            }
            frame = frame.reformat(**target, threads=1)
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
    # x264 does not write what every decoder assumes
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
        half = (-(-size[1] // 2), -(-size[0] // 2))
        assert [plane.shape for plane in p.planes] == [(size[1], size[0]), half, half]
        assert p.rgb().shape == (size[1], size[0], 3)
        assert 16 <= p.planes[0].min() < 30 and 220 < p.planes[0].max() <= 236
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
    stream = probe(path)
    assert after.size_px == (stream.height_px, stream.width_px)
    assert after.planes[0].shape == after.rgb().shape[:2] == after.size_px
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
            coder.width, coder.height, coder.pix_fmt = (*size, "yuv420p")
            coder.framerate, coder.time_base = 25, Fraction(1, 25)
            for t in range(4):
                grey = np.full((size[1], size[0], 3), 90, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
                frame.pts = t + shift
                for packet in [*coder.encode(frame), *(coder.encode(None) if t == 3 else ())]:
                    packet.stream = out
                    whole.mux(packet)
            shift += 4
    with pytest.raises(UnreadableVideo, match="changes its size from 64x48 to 96x64"):
        list(iter_pictures(tmp_path / "a.ts"))
