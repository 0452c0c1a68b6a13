"""KITTI labels and image trees: right content, read by others, the same again on a second run, and nothing
stale.
"""

import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from dfdc_video.folders.prepared import PreparedFolder, load_prepared
from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import probe
from dfdc_video.media.writer import VideoWriter
from dfdc_video.preparation import image_trees
from dfdc_video.preparation.image_trees import write_images
from dfdc_video.preparation.kitti_labels import write_kitti
from dfdc_video.registry import DETECTORS

KITTI = (
    "frame track_id type truncated occluded alpha left top right bottom h w l x y z rotation_y score".split()
)


def table(*tracks):
    columns = ["track_id", "video_id", "start_frame", "confidence", "boxes_px"]
    return pd.DataFrame([dict(zip(columns, t, strict=True)) for t in tracks], columns=columns)


def state(folder):
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def boxes():
    return np.random.default_rng(0).uniform(-50, 1900, (2, 30, 4)).astype(np.float32).round(2)


def test_kitti_lines_give_the_boxes_back(tmp_path, boxes):
    videos = pd.DataFrame({"video_id": ["a", "b", "broken"], "status": ["ok", "no_face", "unreadable"]})
    # as lists and as arrays
    tracks = table(("a_01", "a", 7, 0.625, boxes[1].ravel().tolist()), ("a_00", "a", 5, 0.98765, boxes[0]))
    write_kitti(PreparedFolder(tmp_path), videos, tracks)
    assert (
        sorted(p.name for p in (tmp_path / "kitti").iterdir()) == ["a.txt", "b.txt"]
        and not (tmp_path / "kitti" / "b.txt").read_text()
    )
    rows = pd.read_csv(tmp_path / "kitti" / "a.txt", sep=" ", names=KITTI, header=None)
    assert len(rows) == 60 and rows.notna().all().all()
    assert list(zip(rows["frame"], rows["track_id"], strict=True)) == sorted(
        zip(rows["frame"], rows["track_id"], strict=True)
    )
    for number, (start, confidence) in enumerate([(5, 0.9877), (7, 0.625)]):
        track = rows[rows["track_id"] == number]
        assert track["frame"].tolist() == list(range(start, start + 30))
        assert np.array_equal(
            track[["left", "top", "right", "bottom"]].to_numpy(dtype=np.float32), boxes[number]
        )
        assert track["score"].unique().tolist() == [confidence]
    assert (
        (rows["type"] == "Face").all()
        and (rows[["alpha", "rotation_y"]] == -10).all().all()
        and (rows[["x", "y", "z"]] == -1000).all().all()
    )
    assert (rows[["truncated", "occluded", "h", "w", "l"]] == -1).all().all()


def test_the_kitti_detector_reads_the_files(tmp_path, make_video):
    path = make_video("a.mp4", num_frames=12)
    boxes = np.array([[10 + t, 20.25, 90 + t, 100.5] for t in range(10)], dtype=np.float32)
    videos = pd.DataFrame({"video_id": ["a"], "status": ["ok"]})
    write_kitti(
        PreparedFolder(tmp_path),
        videos,
        table(("a_00", "a", 2, 0.75, boxes), ("a_01", "a", 0, 0.9, boxes[:3] + 100)),
    )
    detector = DETECTORS.get("kitti")(folder=str(tmp_path / "kitti"))
    detector.start(path, probe(path))
    found = detector.detect(read_frames(path, range(12)), list(range(12)))
    expected = [[] for _ in range(12)]
    for start, score, of_track in ((2, 0.75, boxes), (0, 0.9, boxes[:3] + 100)):
        for number, box in enumerate(of_track.tolist()):
            expected[start + number].append((tuple(box), score))
    assert [sorted((f.box_px, f.confidence) for f in faces) for faces in found] == [
        sorted(faces) for faces in expected
    ]


def test_kitti_has_no_negative_zero_and_two_decimals(tmp_path):
    write_kitti(
        PreparedFolder(tmp_path),
        pd.DataFrame({"video_id": ["a"], "status": ["ok"]}),
        table(("a_00", "a", 0, 1.0, [[-0.001, 0, 1.005, 2]])),
    )
    assert (tmp_path / "kitti" / "a.txt").read_text().split()[6:10] == ["0.00", "0.00", "1.00", "2.00"]


def test_kitti_files_change_only_where_the_tables_do(tmp_path, boxes):
    videos = pd.DataFrame({"video_id": ["a", "b"], "status": "ok"})
    tracks = table(("a_00", "a", 0, 0.5, boxes[0]), ("b_00", "b", 0, 0.5, boxes[1]))
    write_kitti(PreparedFolder(tmp_path), videos, tracks)
    before = state(tmp_path)
    write_kitti(PreparedFolder(tmp_path), videos.iloc[::-1], tracks.iloc[::-1])
    assert state(tmp_path) == before
    (tmp_path / "kitti" / ".a.txt.part").write_text("what a kill left")
    write_kitti(PreparedFolder(tmp_path), videos[:1], tracks[:1])
    assert state(tmp_path) == {"kitti/a.txt": before["kitti/a.txt"]}


@pytest.fixture(scope="module")
def one_face_each(write_prepared, tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("images"), per_split={"train": 2, "val": 1}, num_frames=36)


@pytest.fixture
def manifest(one_face_each, tmp_path):
    """A folder of its own for every test, with the face videos of the module."""
    shutil.copytree(one_face_each, tmp_path / "set")
    return load_prepared(tmp_path / "set")


def images(root):
    return sorted(
        p.relative_to(root).as_posix() for p in (root / "frames").rglob("*.*") if p.suffix in (".jpg", ".png")
    )


def test_images_are_the_frames_that_they_name(manifest):
    counts = write_images(manifest, per_real=3, per_fake=2, suffix="png")
    index = pd.read_csv(manifest.root / "frames" / "index.csv")
    assert list(index.columns) == ["path", "video_id", "track_id", "frame", "label", "split"]
    assert (
        counts["images"] == {"train/fake": 4, "train/real": 6, "val/fake": 2, "val/real": 3}
        and counts["short_videos"] == 0
    )
    assert sorted("frames/" + index["path"]) == images(manifest.root)
    first = index[index["video_id"] == "train00real"]
    assert first["path"].tolist() == [f"train/real/train00real_00_{f:05d}.png" for f in (6, 18, 30)], (
        "the middles of three equal pieces"
    )
    for row in index.itertuples():
        (expected,) = read_frames(manifest.root / f"tracks/{row.video_id}/{row.track_id}.mp4", [row.frame])
        assert np.array_equal(cv2.imread(str(manifest.root / "frames" / row.path))[..., ::-1], expected)
        assert row.path.split("/")[:2] == [row.split, ("real", "fake")[row.label]]


def test_face_videos_may_be_folders_of_png_files(manifest):
    path = manifest.root / "tracks/val00real/val00real_00.mp4"
    frames = read_frames(path, range(36))
    folder = path.with_suffix("")
    with VideoWriter(folder, fps=30, format="png") as writer:
        for frame in frames:
            writer.add(frame)
    tracks = manifest.tracks.assign(
        crop_path=manifest.tracks["crop_path"].str.replace("val00real_00.mp4", "val00real_00")
    )
    write_images(replace(manifest, tracks=tracks), per_real=1, per_fake=1, suffix="png")
    image = cv2.imread(str(manifest.root / "frames/val/real/val00real_00_00018.png"))
    assert np.array_equal(image[..., ::-1], frames[18])


def test_torchvision_reads_the_tree(manifest):
    from torchvision.datasets import ImageFolder

    write_images(manifest, per_real=10, per_fake=2)
    for split, videos in (("train", 2), ("val", 1)):
        folder = ImageFolder(str(manifest.root / "frames" / split))
        assert (
            folder.classes == ["fake", "real"]
            and sorted(folder.targets) == [0] * 2 * videos + [1] * 10 * videos
        )
        for image, target in folder:
            # the fakes of these videos have a red corner
            red = np.asarray(image, dtype=int)[:32, :32].mean((0, 1))
            assert image.size == (64, 64) and (red[0] - red[1] > 100) == (folder.classes[target] == "fake")


def split_in_two(manifest):
    """The tracks of train00real become two, of 24 and of 12 frames, the second from frame 90 on; its file is
    the first's.
    """
    tracks = manifest.tracks.set_index("track_id", drop=False)
    first, second = tracks.loc["train00real_00"].copy(), tracks.loc["train00real_00"].copy()
    first["num_frames"], second["num_frames"], second["start_frame"], second["track_id"] = (
        24,
        12,
        90,
        "train00real_01",
    )
    others = tracks[tracks["video_id"] != "train00real"]
    return replace(
        manifest,
        tracks=pd.DataFrame([second, first, *(r for _, r in others.iterrows())]).reset_index(drop=True),
    )


def test_images_are_spread_over_all_frames_of_all_tracks(manifest):
    write_images(split_in_two(manifest), per_real=6, per_fake=1)
    index = pd.read_csv(manifest.root / "frames" / "index.csv")
    found = index.loc[index["video_id"] == "train00real", ["track_id", "frame"]].values.tolist()
    assert found == [["train00real_00", f] for f in (3, 9, 15, 21)] + [
        ["train00real_01", f] for f in (93, 99)
    ]
    assert (manifest.root / "frames/train/real/train00real_01_00093.jpg").is_file()


def test_a_short_video_gives_every_frame_once(manifest):
    counts = write_images(manifest, per_real=50, per_fake=1)
    index = pd.read_csv(manifest.root / "frames" / "index.csv")
    assert (
        index.loc[index["video_id"] == "val00real", "frame"].tolist() == list(range(36))
        and counts["short_videos"] == 3
    )


def test_a_second_run_decodes_nothing_and_touches_nothing(manifest, monkeypatch):
    write_images(manifest, per_real=3, per_fake=2)
    before = state(manifest.root)
    monkeypatch.setattr(image_trees, "read_frames", None)
    shuffled = replace(manifest, videos=manifest.videos.iloc[::-1], tracks=manifest.tracks.iloc[::-1])
    assert write_images(shuffled, per_real=3, per_fake=2) == write_images(manifest, per_real=3, per_fake=2)
    assert state(manifest.root) == before


def test_a_kill_in_the_middle_is_made_up_for(manifest, monkeypatch):
    write_images(manifest, per_real=3, per_fake=2)
    whole = {k: v[1] for k, v in state(manifest.root / "frames").items()}
    shutil.rmtree(manifest.root / "frames")
    decoded = []

    def dies(path, indices):
        decoded.append(path.name)
        if len(decoded) > 3:
            raise KeyboardInterrupt
        return read_frames(path, indices)

    monkeypatch.setattr(image_trees, "read_frames", dies)
    with pytest.raises(KeyboardInterrupt):
        write_images(manifest, per_real=3, per_fake=2, workers=1)
    kept = images(manifest.root)
    assert 0 < len(kept) < len(whole) - 1 and not (manifest.root / "frames" / "index.csv").exists()
    (manifest.root / "frames" / "train" / "real" / ".half.jpg.part").write_bytes(b"half")
    decoded.clear()
    monkeypatch.setattr(
        image_trees,
        "read_frames",
        lambda path, indices: (decoded.append(path.name), read_frames(path, indices))[1],
    )
    write_images(manifest, per_real=3, per_fake=2, workers=2)
    assert {k: v[1] for k, v in state(manifest.root / "frames").items()} == whole
    done = {"_".join(name.split("/")[-1].split("_")[:2]) + ".mp4" for name in kept}
    assert set(decoded).isdisjoint(done) and len(set(decoded) | done) == 6, "only what was missing is decoded"


def test_images_of_another_choice_or_split_go_and_the_rest_stays(manifest):
    write_images(manifest, per_real=3, per_fake=2)
    before = state(manifest.root / "frames")
    write_images(manifest, per_real=1, per_fake=2)
    assert len(images(manifest.root)) == 3 * 1 + 3 * 2
    kept = {k: v for k, v in state(manifest.root / "frames").items() if "/fake/" in k}
    assert kept == {k: v for k, v in before.items() if "/fake/" in k}
    moved = replace(manifest, videos=manifest.videos.assign(split="test"))
    write_images(moved, per_real=1, per_fake=2)
    assert {p.split("/")[1] for p in images(manifest.root)} == {"test"} and not (
        manifest.root / "frames" / "train"
    ).exists()


def test_a_face_video_that_was_made_anew_gives_new_images(manifest):
    write_images(manifest, per_real=1, per_fake=1)
    fake, real = (manifest.root / f"tracks/val00{m}/val00{m}_00.mp4" for m in ("marked", "real"))
    image = manifest.root / "frames" / "val" / "real" / "val00real_00_00018.jpg"
    shutil.copyfile(fake, real)
    later = image.stat().st_mtime_ns + 1_000_000_000
    os.utime(real, ns=(later, later))
    write_images(manifest, per_real=1, per_fake=1)
    assert cv2.imread(str(image))[:32, :32, 2].mean() > 180, "the red corner of the other video"


def test_more_classes_are_named_by_number_and_sorted_by_it(manifest):
    labels = {v: n for n, v in enumerate(manifest.videos["video_id"])} | {"train00real": 11}
    seven = replace(manifest, videos=manifest.videos.assign(label=manifest.videos["video_id"].map(labels)))
    with pytest.raises(ValueError, match="12 classes, not real and fake; give one number"):
        write_images(seven, per_real=2, per_fake=1)
    write_images(seven, per_real=1, per_fake=1)
    classes = [p.name for p in sorted((manifest.root / "frames" / "train").iterdir())]
    assert classes == [f"{n:02d}" for n in range(12)] and len(images(manifest.root)) == 6


def test_a_split_without_a_class_does_not_renumber_the_others(manifest):
    """ImageFolder numbers what it finds: with reals only it would call them 0, where the other splits call
    them 1.
    """
    from torchvision.datasets import ImageFolder

    only = manifest.videos[(manifest.videos["split"] != "val") | (manifest.videos["label"] == 0)]
    reals = replace(
        manifest, videos=only, tracks=manifest.tracks[manifest.tracks["video_id"].isin(only["video_id"])]
    )
    write_images(reals, per_real=1, per_fake=1)
    with pytest.raises(FileNotFoundError, match="fake"):
        ImageFolder(str(manifest.root / "frames" / "val"))
    assert ImageFolder(str(manifest.root / "frames" / "val"), allow_empty=True).targets == [1]


def test_a_face_video_that_cannot_be_read_stops_it(manifest):
    (manifest.root / "tracks/val00real/val00real_00.mp4").write_bytes(b"nothing")
    with pytest.raises(
        ValueError,
        match=r"tracks/val00real/val00real_00.mp4: this face video cannot be read .*; delete it and run",
    ):
        write_images(manifest, per_real=1, per_fake=1)
    assert not (manifest.root / "frames" / "index.csv").exists()
    with pytest.raises(ValueError, match="image format 'gif': expected jpg or png"):
        write_images(manifest, per_real=1, per_fake=1, suffix="gif")
