"""Every reader on a miniature of its true layout: ids, labels, splits, originals, people, and what each
refuses.
"""

from __future__ import annotations

import json

import pytest

from dfdc_video.registry import DATASETS

REAL = {"label": "REAL", "split": "train", "original": None}


def read(name, root, **settings):
    videos, rejections = DATASETS.get(name)(root, **settings)
    assert len({r.path for r in rejections}) == len(rejections), "one rejection a file"
    return {v.video_id: v for v in videos}, {r.path: r.reason for r in rejections}


def facts(videos, *names):
    return {
        i: tuple(getattr(v, n) for n in names) if len(names) > 1 else getattr(v, names[0])
        for i, v in videos.items()
    }


def put(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def part(root, name, entries, *, on_disk=None):
    put(
        root,
        f"{name}/metadata.json",
        *(f"{name}/{file}" for file in (entries if on_disk is None else on_disk)),
    )
    (root / name / "metadata.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return root / name


# dfdc


def test_dfdc_parts_and_test_set_under_one_root(miniature):
    videos, rejections = read("dfdc", miniature("dfdc"))
    gone = "gonegonego"
    assert not rejections
    assert facts(videos, "label", "split", "source_id", "method", "folder") == {
        "aaaaaaaaaa": (0, "train", "", "real", "dfdc_train_part_0"),
        "bbbbbbbbbb": (1, "train", "aaaaaaaaaa", "unknown", "dfdc_train_part_0"),
        "cccccccccc": (1, "train", gone, "unknown", "dfdc_train_part_7"),
        "dddddddddd": (1, "train", gone, "unknown", "dfdc_train_part_7"),
        "eeeeeeeeee": (0, "train", "", "real", "dfdc_train_part_7"),
        "ffffffffff": (1, "test", "", "unknown", "test"),
        "gggggggggg": (0, "test", "", "real", "test"),
    }
    assert videos["ffffffffff"].path == "test/videos/ffffffffff.mp4"


def test_dfdc_a_part_by_itself_gives_the_same_ids(miniature):
    root = miniature("dfdc")
    whole, _ = read("dfdc", root)
    alone, _ = read("dfdc", root / "dfdc_train_part_7")
    assert (
        sorted(alone) == ["cccccccccc", "dddddddddd", "eeeeeeeeee"]
        and alone["cccccccccc"].path == "cccccccccc.mp4"
    )
    assert facts(alone, "source_id", "folder") == {i: (whole[i].source_id, whole[i].folder) for i in alone}


def test_dfdc_other_names_carry_their_part(tmp_path):
    for n in (0, 1):
        part(tmp_path, f"p{n}", {"aaa.mp4": {"label": "FAKE", "original": "bbb.mp4"}, "bbb.mp4": REAL})
    videos, _ = read("dfdc", tmp_path)
    assert facts(videos, "source_id") == {
        "p0__aaa": "p0__bbb",
        "p0__bbb": "",
        "p1__aaa": "p1__bbb",
        "p1__bbb": "",
    }


def test_dfdc_the_same_video_in_two_folders(miniature):
    root = miniature("dfdc")  # Kaggle's train_sample_videos repeats videos of the parts
    part(root, "train_sample_videos", {"aaaaaaaaaa.mp4": REAL})
    videos, rejections = read("dfdc", root)
    assert len(videos) == 7 and list(rejections) == ["train_sample_videos/aaaaaaaaaa.mp4"]
    assert rejections["train_sample_videos/aaaaaaaaaa.mp4"].startswith(
        "name clash: its id aaaaaaaaaa is that of dfdc_train_part_0/aaaaaaaaaa.mp4"
    )


def test_dfdc_people_and_methods_where_named(tmp_path):
    named = {"label": "FAKE", "original": "b.mp4", "method": "spatial", "identity": "id1", "donor": "id2"}
    part(tmp_path, "p", {"a.mp4": named, "b.mp4": {"label": "REAL", "identity": "id1"}})
    videos, _ = read("dfdc", tmp_path)
    assert facts(videos, "method", "identities") == {
        "p__a": ("spatial", ("id1", "id2")),
        "p__b": ("real", ("id1",)),
    }


@pytest.mark.parametrize("videos_in", ["", "videos/", "test_videos/", "test/videos/"])
@pytest.mark.parametrize("labels", ["labels.csv", "metadata.json", "both"])
def test_dfdc_test_set(tmp_path, videos_in, labels):
    put(tmp_path, f"{videos_in}x.mp4", f"{videos_in}y.mp4")
    if labels != "metadata.json":
        (tmp_path / "labels.csv").write_text("filename,label\r\nx.mp4,1\r\ny.mp4,0\r\n")
    if labels != "labels.csv":
        table = {
            "x.mp4": {"augmentations": {"augmenter": {}}, "is_fake": 1},
            "y.mp4": {"augmentations": {}, "is_fake": 0},
        }
        (tmp_path / "metadata.json").write_text(json.dumps(table))
    videos, rejections = read("dfdc", tmp_path)
    assert {v.path: (v.label, v.split) for v in videos.values()} == {
        f"{videos_in}x.mp4": (1, "test"),
        f"{videos_in}y.mp4": (0, "test"),
    }
    assert not rejections


def test_dfdc_files_that_do_not_fit_are_rejected_one_by_one(tmp_path):
    entries = {
        "aaa.mp4": {"label": "FAKE", "original": "gone.mp4"}, "gone.mp4": REAL, "odd.mp4": {"label": "MAYBE"}, "none.mp4": {}, "b b.mp4": REAL,
        "../../etc/x.mp4": REAL, "/etc/y.mp4": REAL, "self.mp4": {"label": "FAKE", "original": "self.mp4"},
        "out.mp4": {"label": "FAKE", "original": "../x.mp4"}, "made.mp4": {"label": "REAL", "original": "aaa.mp4"},
        "nan.mp4": {"label": "REAL", "original": float("nan")}, "twice.mp4": REAL,
    }  # fmt: skip
    on_disk = [n for n in entries if n not in ("gone.mp4", "twice.mp4") and "/" not in n]
    part(tmp_path, "p", entries, on_disk=[*on_disk, "extra.mp4", "notes.txt", "1/twice.mp4", "2/twice.mp4"])
    videos, reasons = read("dfdc", tmp_path)
    assert [i.split("--")[0] for i in sorted(videos)] == ["p__aaa", "p__b_b", "p__nan"] and videos[
        "p__aaa"
    ].source_id == "p__gone"
    kinds = {path.removeprefix("p/"): reason.split(":")[0] for path, reason in reasons.items()}
    assert kinds == {
        "gone.mp4": "missing file", "odd.mp4": "bad label", "none.mp4": "bad label", "../../etc/x.mp4": "outside the root",
        "/etc/y.mp4": "outside the root", "self.mp4": "bad original", "out.mp4": "bad original", "made.mp4": "contradictory labels",
        "extra.mp4": "no label", "1/twice.mp4": "ambiguous name",
    }  # fmt: skip


def test_dfdc_contradictory_labels(tmp_path):
    table = (
        '{"a.mp4": {"label": "REAL"}, "a.mp4": {"label": "FAKE"}, "b.mp4": {"label": "REAL", "label": '
        '"FAKE"}, "c.mp4": {"is_fake": 1}}'
    )
    part(tmp_path, "p", table, on_disk=[])
    put(tmp_path, "p/a.mp4", "p/b.mp4", "p/c.mp4", "p/d.mp4", "p/e.mp4")
    (tmp_path / "p/labels.csv").write_text("filename,label\nc.mp4,0\nd.mp4,1\nd.mp4,1\ne.mp4,1\n")
    (tmp_path / "labels.csv").write_text("filename,label\np/e.mp4,0\n")
    videos, reasons = read("dfdc", tmp_path)
    assert facts(videos, "label") == {"p__d": 1}
    assert sorted(reasons) == ["p/a.mp4", "p/b.mp4", "p/c.mp4", "p/e.mp4"] and all(
        r.startswith("contradictory labels: ") for r in reasons.values()
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"a.mp4": "REAL"}'])
def test_dfdc_damaged_metadata(tmp_path, content):
    part(tmp_path, "dfdc_train_part_3", content, on_disk=[])
    with pytest.raises(ValueError, match="dfdc_train_part_3/metadata.json"):
        read("dfdc", tmp_path)


def test_dfdc_labels_with_another_header(tmp_path):
    put(tmp_path, "x.mp4")
    (tmp_path / "labels.csv").write_text("name;fake\nx.mp4;1\n")
    with pytest.raises(ValueError, match="labels.csv:2: expected the columns filename,label"):
        read("dfdc", tmp_path)


# dfdcp


def test_dfdcp(miniature):
    videos, rejections = read("dfdcp", miniature("dfdcp"))
    first, second = "original_videos__1003254_a_001", "original_videos__1260311_c_001"
    missing = "original_videos__1260311_c_002"
    assert not rejections
    assert facts(videos, "label", "split", "method", "source_id", "identities") == {
        first: (0, "test", "real", "", ("1003254",)),
        second: (0, "train", "real", "", ("1260311",)),
        "method_a__1255229_1003254_a_001": (1, "test", "method_A", first, ("1003254", "1255229")),
        "method_b__1255300_1260311_c_001": (1, "train", "method_B", second, ("1260311", "1255300")),
        "method_b__1255300_1260311_c_002": (1, "train", "method_B", missing, ("1260311", "1255300")),
    }


def test_dfdcp_refusals(miniature):
    root = miniature("dfdcp")
    put(
        root,
        "method_A/1/1_A/2_1_A_001.mp4",
        "original_videos/1/1_A_001.mp4",
        "method_A/odd.mp4",
        "method_B/loose.mp4",
    )
    put(root, "method_A/1/1_A/3_1_A_001.mp4")
    text = (root / "dataset.json").read_text().rstrip("} \n") + "}"
    text += (
        ', "method_A/1/1_A/2_1_A_001.mp4": {"label": "real", "set": "train"}, '
        '"original_videos/1/1_A_001.mp4": {"label": "real", "set": "maybe"}'
    )
    text += ', "method_A/odd.mp4": {"label": "fake", "set": "train", "target_id": 9, "swapped_id": 8}'
    text += (
        ', "method_A/1/1_A/3_1_A_001.mp4": {"label": "fake"}, "method_A/1/1_A/3_1_A_001.mp4": '
        '{"label": "real"}}'
    )
    (root / "dataset.json").write_text(text)
    videos, reasons = read("dfdcp", root)
    kinds = {path: reason.split(":")[0] for path, reason in reasons.items()}
    assert kinds == {
        "method_A/1/1_A/2_1_A_001.mp4": "contradictory labels", "method_A/1/1_A/3_1_A_001.mp4": "contradictory labels",
        "original_videos/1/1_A_001.mp4": "bad split", "method_B/loose.mp4": "no label",
    }  # fmt: skip
    # a name that tells nothing keeps what dataset.json says
    odd = next(v for v in videos.values() if v.path == "method_A/odd.mp4")
    assert (odd.label, odd.source_id, odd.identities) == (1, "", ("9", "8"))


# ffpp


def test_ffpp(miniature):
    videos, rejections = read("ffpp", miniature("ffpp"))
    assert not rejections
    assert facts(videos, "label", "split", "method", "source_id", "identities") == {
        "youtube__c23__071": (0, "train", "real", "", ("071",)),
        "youtube__c23__054": (0, "train", "real", "", ("054",)),
        "youtube__c23__953": (0, "test", "real", "", ("953",)),
        "youtube__c23__974": (0, "test", "real", "", ("974",)),
        "deepfakes__c23__071_054": (1, "train", "Deepfakes", "youtube__c23__071", ("071", "054")),
        "neuraltextures__c23__071_054": (1, "train", "NeuralTextures", "youtube__c23__071", ("071", "054")),
        "faceshifter__c23__974_953": (1, "test", "FaceShifter", "youtube__c23__974", ("974", "953")),
    }
    masks = {i: v.mask_path for i, v in videos.items() if v.mask_path}
    assert masks == {"deepfakes__c23__071_054": "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4"}


def test_ffpp_compressions_and_methods(miniature):
    root = miniature("ffpp")
    both, _ = read("ffpp", root, compression=("c23", "c40"), methods="Deepfakes")
    assert (
        sum(v.label for v in both.values()) == 2
        and both["deepfakes__c40__071_054"].source_id == "youtube__c40__071"
    )
    assert both["deepfakes__c40__071_054"].mask_path, "masks are the same for every compression"
    assert list(read("ffpp", root, compression="c40")[0]) == ["deepfakes__c40__071_054"]
    with pytest.raises(ValueError, match="unknown compression 'c32'; did you mean c23"):
        read("ffpp", root, compression="c32")
    with pytest.raises(ValueError, match="unknown method 'Deepfake'; did you mean Deepfakes"):
        read("ffpp", root, methods=("Deepfake",))
    with pytest.raises(ValueError, match="no video of compression raw .*found .*c23/videos"):
        read("ffpp", root, compression="raw")


def test_ffpp_splits(miniature):
    root = miniature("ffpp")
    (root / "splits/val.json").write_text(json.dumps([["071", "900"], "054", ["../../x", "054"], ["1"]]))
    videos, _ = DATASETS.get("ffpp")(root)
    rejections = {r.reason.split(",")[0] for r in DATASETS.get("ffpp")(root)[1]}
    assert (
        "contradictory splits: train and val" in rejections
        and sum(r.startswith("bad name") for r in rejections) == 3
    )
    assert "youtube__c23__071" not in {v.video_id for v in videos} and {v.split for v in videos} == {
        "train",
        "test",
    }
    for split in ("train", "val", "test"):
        (root / f"splits/{split}.json").unlink()
    assert {v.split for v in DATASETS.get("ffpp")(root)[0]} == {""}
    (root / "train.json").write_text('[["071", "054"]]')  # where other tools expect it
    assert {v.split for v in read("ffpp", root)[0].values()} == {"train", ""}


def test_ffpp_names_and_masks_that_do_not_fit(miniature, tmp_path):
    root = miniature("ffpp")
    put(
        root,
        "original_sequences/youtube/c23/videos/71.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/071.mp4",
        "secret.mp4",
    )
    (root / "manipulated_sequences/NeuralTextures/masks/videos").mkdir(parents=True)
    (root / "manipulated_sequences/NeuralTextures/masks/videos/071_054.mp4").symlink_to(root / "secret.mp4")
    videos, reasons = read("ffpp", root)
    kinds = sorted(r.split(":")[0] for r in reasons.values())
    assert (
        kinds == ["a link", "unknown name", "unknown name"]
        and videos["neuraltextures__c23__071_054"].mask_path == ""
    )


# dfd


def test_dfd(miniature):
    root = miniature("dfd")
    videos, rejections = read("dfd", root)
    assert not rejections and {v.split for v in videos.values()} == {""}
    original = "actors__c23__01__exit_phone_room"
    assert facts(videos, "label", "source_id", "identities", "folder") == {
        original: (0, "", ("01",), "01"),
        "actors__c23__02__exit_phone_room": (0, "", ("02",), "02"),
        "actors__c23__04__podium_speech_happy": (0, "", ("04",), "04"),
        "dfd__c23__01_02__exit_phone_room__yvgy8lok": (1, original, ("01", "02"), "01"),
        "dfd__c23__03_01__walking_outside__ab12cd34": (
            1,
            "actors__c23__03__walking_outside",
            ("03", "01"),
            "03",
        ),
    }
    assert [bool(v.mask_path) for v in videos.values()].count(True) == 1
    put(
        root,
        "original_sequences/actors/c23/videos/1__x.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__x.mp4",
    )
    assert [r.split(":")[0] for r in read("dfd", root)[1].values()] == ["unknown name"] * 2
    with pytest.raises(ValueError, match="no video of compression c40"):
        read("dfd", root, compression="c40")


# celebdf


def test_celebdf(miniature, caplog):
    root = miniature("celebdf")
    videos, rejections = read("celebdf", root)
    assert not rejections and "has 3 lines, that of Celeb-DF v2 has 518" in caplog.text
    assert facts(videos, "label", "split", "source_id", "identities") == {
        "youtube-real__00170": (0, "test", "", ("youtube-00170",)),  # the first line of the list
        "youtube-real__00000": (0, "train", "", ("youtube-00000",)),
        "celeb-real__id1_0001": (0, "test", "", ("id1",)),
        "celeb-synthesis__id1_id0_0001": (1, "test", "celeb-real__id1_0001", ("id1", "id0")),
        "celeb-synthesis__id2_id3_0007": (1, "train", "celeb-real__id2_0007", ("id2", "id3")),
    }


def test_celebdf_the_whole_list_of_518(tmp_path, caplog):
    names = [
        f"{n % 2} {'YouTube-real' if n % 2 else 'Celeb-synthesis'}/{f'{n:05d}' if n % 2 else f'id{n}_id1_0000'}.mp4"
        for n in range(518)
    ]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(names))
    put(tmp_path, *(name.split()[1] for name in names))
    videos, rejections = read("celebdf", tmp_path)
    assert (
        sum(v.split == "test" for v in videos.values()) == 518
        and sum(v.label for v in videos.values()) == 259
    )
    assert not rejections and not caplog.text


def test_celebdf_refusals(miniature):
    root = miniature("celebdf")
    extra = ["0 Celeb-real/id5_0000.mp4", "1 Celeb-real/id6_0000.mp4", "0 Celeb-real/id6_0000.mp4"]
    extra += ["1,Celeb-real/id7_0000.mp4", "1 Other/x.mp4", "2 x.mp4"]
    with (root / "List_of_testing_videos.txt").open("a") as stream:
        stream.write("\n".join([*extra, "1 YouTube-real/99999.mp4"]))
    put(root, "Celeb-real/id5_0000.mp4", "Celeb-real/id6_0000.mp4", "Other/x.mp4", "Celeb-synthesis/x.mp4")
    videos, reasons = read("celebdf", root)
    assert len(videos) == 5
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == {
        "Celeb-real/id5_0000.mp4": "contradictory labels", "Celeb-real/id6_0000.mp4": "contradictory labels",
        "List_of_testing_videos.txt:7": "bad line", "List_of_testing_videos.txt:9": "bad line", "Other/x.mp4": "unknown name",
        "Celeb-synthesis/x.mp4": "unknown name", "YouTube-real/99999.mp4": "missing file",
    }  # fmt: skip
    (root / "List_of_testing_videos.txt").unlink()
    with pytest.raises(ValueError, match="the test videos would be trained on"):
        read("celebdf", root)


# kinetics


def test_kinetics(miniature):
    videos, rejections = read("kinetics", miniature("kinetics"))
    assert not rejections
    found = {v.path.split("/")[-1]: (v.label, v.split, v.method, v.identities) for v in videos.values()}
    assert found == {
        "---0dWlqevI_000019_000029.mp4": (0, "train", "riding a bike", ("---0dWlqevI",)),
        "-0AAAAAAAAA_000000_000010.mp4": (1, "train", "singing, loudly", ("-0AAAAAAAAA",)),
        "-0aaaaaaaaa_000005_000015.mp4": (0, "val", "riding a bike", ("-0aaaaaaaaa",)),
        "zzzzzzzzzz__000001_000011.mp4": (1, "test", "singing, loudly", ("zzzzzzzzzz_",)),
        "zzzzzzzzzz__000030_000040.mp4": (0, "test", "riding a bike", ("zzzzzzzzzz_",)),
    }


def test_kinetics_ids_stay_when_files_are_sorted_into_folders(miniature, tmp_path):
    before, _ = read("kinetics", miniature("kinetics"))
    root = tmp_path / "raw"
    (root / "test/riding a bike").mkdir(parents=True)
    (root / "zzzzzzzzzz__000030_000040.mp4").rename(root / "test/riding a bike/zzzzzzzzzz__000030_000040.mp4")
    assert set(read("kinetics", root)[0]) == set(before)


def test_kinetics_refusals(miniature):
    root = miniature("kinetics")
    rows = [("riding a bike,longgone000,1,11,train,0"), ("riding a bike,badtimes000,x,11,train,0"), "short,row", ",nolabel0000,1,11,test,0",
            ("riding a bike,twolabels00,1,11,train,0"), ('"singing, ' 'loudly",twolabels00,1,11,train,0'), ("riding a bike,twosplits00,1,11,train,0"),
            ("riding a bike,twosplits00,1,11,test,0"), ("riding a bike,infolder000,1,11,train,0"), ("riding a bike,twoplaces00,1,11,train,0"),
            "riding a bike,floats00000,1.0,11.0,train,0"]  # fmt: skip
    with (root / "annotations/kinetics_3.csv").open("a") as stream:
        stream.write("\n".join(rows))
    names = (
        "nolabel0000 twolabels00 twosplits00 1/twoplaces00 2/twoplaces00 extra000000 floats00000".split()
        + ["train/singing, loudly/infolder000"]
    )
    put(root, *(f"{name}_000001_000011.mp4" for name in names))
    videos, reasons = read("kinetics", root)
    assert len(videos) == 6 and any(v.path.startswith("floats") for v in videos.values())
    assert {path.replace("_000001_000011.mp4", ""): reason.split(":")[0] for path, reason in reasons.items()} == {
        "longgone000": "missing file", "annotations/kinetics_3.csv:8": "bad line", "annotations/kinetics_3.csv:9": "bad line",
        "nolabel0000": "no label", "twolabels00": "contradictory labels", "twosplits00": "contradictory splits",
        ("train/singing, loudly/infolder000"): "contradictory labels", "1/twoplaces00": "ambiguous name", "extra000000": "no label",
    }  # fmt: skip


def test_kinetics_a_set_without_labels_is_all_test(tmp_path):
    put(tmp_path, "aaaaaaaaaaa_000001_000011.mp4")
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\naaaaaaaaaaa,1,11,test\n")
    videos, _ = read("kinetics", tmp_path)
    assert [(v.label, v.split, v.method) for v in videos.values()] == [(0, "test", "unknown")]


def test_kinetics_path_label_lists(miniature):
    root = miniature("kinetics_lists")
    videos, rejections = read("kinetics", root)
    assert not rejections
    assert {v.path: (v.label, v.split, v.identities) for v in videos.values()} == {
        "clips/a.mp4": (0, "train", ()), "clips/b c.mp4": (2, "train", ()),
        "clips/---0dWlqevI_000019_000029.mp4": (1, "test", ("---0dWlqevI",)), "clips/---0dWlqevI_000029_000039.mp4": (1, "test", ("---0dWlqevI",)),
    }  # fmt: skip
    with (root / "train.csv").open("a") as stream:
        stream.write("clips/a.mp4,3\nclips/b c.mp4 1\nclips/none.mp4 1\nclips/a.mp4 00\n")
    videos, reasons = read("kinetics", root)
    assert len(videos) == 3 and reasons["train.csv:3"].endswith("this one has commas")
    assert reasons["clips/b c.mp4"] == "contradictory labels: '2' and '1'" and reasons[
        "clips/none.mp4"
    ].startswith("missing file")
    (root / "validate.csv").write_text("label,youtube_id,time_start,time_end,split\n")
    with pytest.raises(ValueError, match="both kinds of list"):
        read("kinetics", root)


# folder


def test_folder_real_and_fake(tmp_path):
    put(
        tmp_path,
        "real/a.mp4",
        "fake/a.mp4",
        "real/anna/b_c.mp4",
        "fake/readme.txt",
        "loose.mp4",
        "real/p.jpg",
        ".hidden/x.mp4",
        "real/._a.mp4",
    )
    videos, rejections = read("folder", tmp_path)
    assert facts(videos, "label", "folder", "method", "split") == {
        "real__a": (0, "", "real", ""), "fake__a": (1, "", "unknown", ""), "real__anna__b_c": (0, "anna", "real", ""),
    }  # fmt: skip
    assert (
        "beside the class folders" in rejections["loose.mp4"]
        and "image" in rejections["real/p.jpg"]
        and len(rejections) == 2
    )


def test_folder_only_fakes_are_still_fakes(tmp_path):
    put(tmp_path, "fake/a.mp4")
    assert facts(read("folder", tmp_path)[0], "label") == {"fake__a": 1}


def test_folder_many_classes(tmp_path):
    put(tmp_path, "swap/a.mp4", "pristine/a.mp4", "reenact/a.mp4")
    assert {v.method: v.label for v in read("folder", tmp_path)[0].values()} == {
        "pristine": 0,
        "reenact": 1,
        "swap": 2,
    }
    videos, rejections = read("folder", tmp_path, classes=("pristine", "swap"))
    assert {v.method: v.label for v in videos.values()} == {"pristine": 0, "swap": 1} and rejections[
        "reenact/a.mp4"
    ].startswith("unknown class")


def test_folder_with_its_own_split(miniature):
    videos, _ = read("folder", miniature("folder"))
    assert {(v.split, v.label, v.folder) for v in videos.values()} == {
        ("train", 0, "anna"), ("train", 1, "bob"), ("test", 0, "carl"), ("test", 1, "dora"),
    }  # fmt: skip


def test_folder_unlabelled(tmp_path):
    put(tmp_path, "a.mp4", "b.MOV", "c.jpg", "README.md", "-odd.mp4", "Bildschirmfoto um 10.00\u202fAM.mp4")
    videos, rejections = read("folder", tmp_path)
    assert {(v.label, v.split, v.method) for v in videos.values()} == {(0, "test", "unknown")} and len(
        videos
    ) == 4
    assert "a" in videos and list(rejections) == ["c.jpg"]


@pytest.mark.parametrize("dataset", ["dfdc", "dfdcp", "ffpp", "dfd", "celebdf", "kinetics", "folder"])
def test_empty_folder_says_what_was_expected(tmp_path, dataset):
    with pytest.raises(ValueError, match="expected "):
        DATASETS.get(dataset)(tmp_path)
