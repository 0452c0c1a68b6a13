"""Face videos: cut from the planes, upright, smoothed or aligned, in the source's colours; how two differ."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from red_square import extract_with, squares, tree
from video_files import i420, rotate_in_place

import dfdc_video.faces.scan as scanning
from dfdc_video.faces.crop import EYE_DISTANCE, EYE_HEIGHT, crop_box
from dfdc_video.faces.face_videos import face_difference
from dfdc_video.folders.manifest import track_from_row, track_row
from dfdc_video.media.reader import iter_frames, iter_pictures, probe
from dfdc_video.media.writer import VideoWriter


def test_the_face_video_is_the_crop_of_the_source(worker, make_video, tmp_path):
    path = make_video(num_frames=20)
    found = worker(extract_with, path, tmp_path / "out", video_id="v", size=96, crf=4)
    (x0, y0, x1, y1), face_video = found.tracks[0].crop_box_px, tmp_path / "out" / found.tracks[0].crop_path
    assert min(x0, y0) >= 0
    for source, crop in zip(iter_frames(path), iter_frames(face_video), strict=True):
        expected = cv2.resize(source[y0:y1, x0:x1], (96, 96), interpolation=cv2.INTER_AREA)
        assert np.abs(crop.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop": "smoothed"},
        {"crop": "aligned", "smooth_seconds": 0.1},
        {"format": "png"},
        {"format": "lossless"},
    ],
)
def test_one_pass_and_two_give_the_same_bytes(red, make_video, tmp_path, monkeypatch, settings):
    red()
    passes = []
    monkeypatch.setattr(scanning, "iter_pictures", lambda path: passes.append(path) or iter_pictures(path))
    path = make_video(frames=squares())
    whole = extract_with(path, tmp_path / "whole", **settings)
    assert len(passes) == 1
    streamed = extract_with(path, tmp_path / "streamed", buffer_mb=1, **settings)
    assert len(passes) == 3 and len(tree(tmp_path / "whole")) > 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "streamed")
    assert [track_row(t) for t in whole.tracks] == [track_row(t) for t in streamed.tracks]
    assert whole.signature == streamed.signature
    (name,) = [p.name for p in (tmp_path / "whole/tracks/v").iterdir()]
    assert name == ("v_00" if settings.get("format") == "png" else "v_00.mp4")
    crop = probe(tmp_path / "whole" / whole.tracks[0].crop_path)
    assert (crop.num_frames, crop.height_px, crop.width_px) == (24, 64, 64)


MATRICES = {
    0: None,
    90: (0, 1, 0, -1, 0, 0, 180, 0, 1),
    180: (-1, 0, 0, 0, -1, 0, 240, 180, 1),
    270: (0, -1, 0, 1, 0, 0, 0, 240, 1),
}


@pytest.mark.parametrize("crop", ["fixed", "smoothed", "aligned"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("buffer_mb", [0, 100])
def test_rotated_videos_give_upright_boxes_and_crops(red, make_video, tmp_path, degrees, crop, buffer_mb):
    detector = red(long_side_px=120 if buffer_mb else 0)
    near = 4.5 if buffer_mb else 2.5  # two pixels of the detector's frame
    upright = squares(12, 240, 180) if degrees % 180 else squares(12)
    stored = np.rot90(upright, degrees // 90, axes=(1, 2))
    path = make_video("r.mp4", np.ascontiguousarray(stored), crf=4)
    height, width = stored.shape[1:3]
    shift = {90: (height, 0), 180: (width, height), 270: (0, width)}[degrees]
    rotate_in_place(path, (*MATRICES[degrees][:6], *shift, 1))
    settings = {"crop": crop, "buffer_mb": buffer_mb}
    expected = extract_with(make_video("u.mp4", upright, crf=4), tmp_path / "u", **settings)
    found = extract_with(path, tmp_path / "r", **settings)
    assert (found.stream.height_px, found.stream.width_px) == upright.shape[1:3]
    assert found.stream.rotation_degrees == degrees
    assert set(detector.shapes) == {tuple(n // 2 if buffer_mb else n for n in upright.shape[1:3])}
    (a,), (b,) = expected.tracks, found.tracks
    assert np.abs(a.boxes_px - b.boxes_px).max() <= near
    assert np.abs(np.array(a.crop_box_px) - b.crop_box_px).max() <= near + 2
    assert np.abs(b.boxes_px[0] - (60, 50, 100, 90)).max() <= near
    pairs = zip(
        iter_frames(tmp_path / "u" / a.crop_path), iter_frames(tmp_path / "r" / b.crop_path), strict=True
    )
    for x, y in pairs:
        assert np.abs(x.astype(int) - y).mean() < 5 * near  # the blue bar is below the red square in both


@pytest.mark.parametrize("crop", ["fixed", "smoothed"])
def test_crops_follow_the_face_only_where_asked(red, make_video, tmp_path, crop):
    red()
    (track,) = extract_with(
        make_video(frames=squares(40, step=2), crf=4), tmp_path, crop=crop, crf=4, every=1, margin=2.0
    ).tracks
    centres = []
    for frame in iter_frames(tmp_path / track.crop_path):
        rows, columns = np.nonzero((frame[..., 0] > 150) & (frame[..., 1] < 90))
        centres.append((columns.min() + columns.max() + 1) / 2)
    if crop == "fixed":
        scale = 64 / (track.crop_box_px[2] - track.crop_box_px[0])
        assert np.allclose(centres, centres[0] + 2 * scale * np.arange(40), atol=1.5) and np.ptp(centres) > 25
    else:
        assert np.ptp(centres) <= 2.5  # corners are even, so up to a pixel of the source to either side
        x0, _, x1, _ = crop_box(track.boxes_px[:1], margin=2.0)
        assert x1 - x0 in (80, 82, 84)


def test_smoothing_takes_the_jitter_out_of_boxes_and_eyes(red, make_video, tmp_path):
    red()
    frames = squares(60, step=0)
    for t in range(60):
        frames[t] = np.roll(frames[t], (0, 3 * (-1) ** t), axis=(0, 1))
    path = make_video(frames=frames, crf=4)
    (raw,), (smoothed,) = (
        extract_with(path, tmp_path / str(s), every=1, smooth_seconds=s, crop="smoothed").tracks
        for s in (0.0, 0.2)
    )
    assert np.ptp(raw.boxes_px[:, 0]) >= 5
    assert np.ptp(smoothed.boxes_px[10:-10, 0]) < 0.5 and np.ptp(smoothed.eyes_px[10:-10, 0]) < 0.5
    assert np.abs(smoothed.boxes_px.mean(axis=0) - raw.boxes_px.mean(axis=0)).max() < 1


def test_aligned_crops_hold_the_eyes_and_a_fake_takes_its_originals_transforms(red, make_video, tmp_path):
    red()
    settings = {"crop": "aligned", "every": 1, "crf": 4, "margin": 1.5}
    original = extract_with(
        make_video("a.mp4", squares(20, step=2.5), crf=4), tmp_path, video_id="a", **settings
    )
    for frame in iter_frames(tmp_path / original.tracks[0].crop_path):
        rows, columns = np.nonzero((frame[..., 0] > 140) & (frame[..., 1] < 100))
        assert abs((columns.min() + columns.max() + 1) / 2 - 32) < 2  # between the eyes
        assert abs(rows.min() - (0.5 - EYE_HEIGHT / 1.5) * 64) < 2
        assert abs(columns.max() + 1 - columns.min() - min(64, 3 * EYE_DISTANCE / 1.5 * 64)) < 4
    pair = (original.stream, [track_from_row(track_row(t)) for t in original.tracks])  # as it comes from disk
    same = extract_with(
        make_video("b.mp4", squares(20, step=2.5), crf=4), tmp_path, video_id="b", original=pair, **settings
    )
    assert (tmp_path / "tracks/b/b_00.mp4").read_bytes() == (tmp_path / "tracks/a/a_00.mp4").read_bytes()
    assert not same.own_boxes and same.difference == 0.0
    assert same.tracks[0].detection_rate == original.tracks[0].detection_rate
    assert same.signature == original.signature and original.difference is None
    red(keypoints=False)
    with pytest.raises(ValueError, match="needs the eyes"):
        extract_with(tmp_path / "a.mp4", tmp_path, **settings)


@pytest.mark.parametrize("crop", ["fixed", "smoothed", "aligned"])
@pytest.mark.parametrize("format", ["h264", "png"])
def test_difference_is_the_largest_block_of_all_frames(red, make_video, tmp_path, crop, format):
    red()
    frames = squares(20)
    settings = {"crop": crop, "format": format, "every": 1, "crf": 4}
    original = extract_with(make_video("a.mp4", frames, crf=4), tmp_path, video_id="a", **settings)
    pair = (original.stream, [track_from_row(track_row(t)) for t in original.tracks])
    altered = frames.copy()
    altered[13, 55:85, 80:105] += 15  # one frame of twenty, a region of the face
    one = extract_with(make_video("b.mp4", altered, crf=4), tmp_path, video_id="b", original=pair, **settings)
    assert 6 < one.difference < 20
    audio_only = extract_with(
        make_video("c.mp4", frames, crf=4, fps=30.2), tmp_path, video_id="c", original=pair, **settings
    )
    # equal frames with different timestamps are coded differently
    assert not audio_only.own_boxes and audio_only.difference < 3
    assert audio_only.difference == 0.0 or format == "h264"


def test_face_difference_by_hand(tmp_path):
    base = np.full((3, 40, 40, 3), 100, np.uint8)
    altered = base.copy()
    altered[1, 16:32, 0:8] += 30  # half a block of 16 x 16
    for name, frames in (("a", base), ("b", altered)):
        with VideoWriter(tmp_path / name, fps=25, format="png") as writer:
            for frame in frames:
                writer.add(frame)
    assert face_difference(tmp_path / "a", tmp_path / "b") == pytest.approx(15)
    assert face_difference(tmp_path / "a", tmp_path / "a") == 0.0


def test_colours_of_the_source_come_out_of_the_face_video(red, make_video, tmp_path):
    import av

    red()
    frames = squares(12)
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.pix_fmt, stream.width, stream.height, stream.options = "yuv420p", 240, 180, {"crf": "4"}
        stream.codec_context.colorspace = stream.codec_context.color_range = 1  # BT.709, limited
        for t, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709"
            )
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = extract_with(path, tmp_path / "out", crf=4)
    x0, y0, x1, y1 = found.tracks[0].crop_box_px
    shown = next(iter_frames(tmp_path / "out" / found.tracks[0].crop_path)).astype(int)
    expected = cv2.resize(frames[0, y0:y1, x0:x1], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs((shown - expected).mean(axis=(0, 1))).max() < 2
    assert np.abs(shown[26:38, 26:38] - (230, 20, 20)).max() < 8
    y, u, v = next(iter_pictures(path)).planes
    exact = i420([y[y0:y1, x0:x1], *(p[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for p in (u, v))])
    lossless = extract_with(path, tmp_path / "exact", format="lossless", size=x1 - x0)
    picture = next(iter_pictures(tmp_path / "exact" / lossless.tracks[0].crop_path))
    assert np.array_equal(i420(picture.planes), exact)
