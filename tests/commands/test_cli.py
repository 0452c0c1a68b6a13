"""The command line as people meet it: bad input is one line and a non-zero exit, never a traceback."""

import re
from pathlib import Path

import pytest

from dfdc_video.cli import build_parser, find_verbs, main


def run(capsys, *words) -> tuple[int, str, str]:
    try:
        code = main([str(w) for w in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_lists_every_verb_once_in_the_order_of_the_data(capsys):
    verbs = "doctor list generate prepare merge train test run compare export bench demo".split()
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert re.findall(r"^    ([a-z]+)  ", out, re.M) == verbs == list(find_verbs())
    for verb in verbs:
        assert run(capsys, verb, "--help")[0] == 0
    assert "--min-confidence" in run(capsys, "prepare", "--help")[1], "settings of prepare are its flags"
    assert "--min-confidence" in run(capsys, "--debug", "prepare", "--help")[1]


def test_all_verbs_have_their_arguments_in_a_complete_parser():
    group = next(a for a in build_parser()._actions if a.dest == "verb")
    assert {v: p.format_usage() for v, p in group.choices.items() if len(p._actions) < 3}.keys() == {"doctor"}


def bad_commands(tmp: Path, prepared: Path):
    empty = tmp / "empty"
    empty.mkdir()
    text = tmp / "text.ckpt"
    text.write_text("no weights")
    damaged = tmp / "damaged"
    damaged.mkdir()
    for name in ("manifest.parquet", "tracks.parquet", "summary.json"):
        (damaged / name).write_bytes(b"PAR1 half a file")
    data = ("DATA.PATH", prepared)
    return [
        (("tarin", "x"), "did you mean train"),
        (("train", "frame_smal"), "did you mean frame_small"),
        (("train", "frame_small", "OPTIM.LR"), "pairs KEY VALUE"),
        (("train", "frame_small", "OPTIM.LRR", "1"), "did you mean LR"),
        (("train", "frame_small", "TRAIN.EPOCHS", "ten"), "expected int"),
        (("train", "frame_small", "--nonsense"), "--nonsense"),
        (("train",), "name a config"),
        (
            ("train", "frame_small", "DATA.PATH", tmp / "nowhere"),
            "expected the --out folder of `dfdc-video prepare`",
        ),
        (("train", "frame_small", "DATA.PATH", damaged), "damaged"),
        (("train", "frame_small", *data, "MODEL.INIT_FROM", text), "text.ckpt"),
        (("train", "slowfast_r50_8x8_transfer", *data), "no file at weights/SLOWFAST_8x8_R50.pyth"),
        (("train", "--resume", empty), "no config.yaml"),
        (("test", empty), "no config.yaml"),
        (("test", tmp / "nowhere"), "no config.yaml"),
        (("run", "frame_versus_sequence"), "did you mean frame_vs_sequence"),
        (("run", "frame_vs_sequence", "DATA.PATH", tmp / "nowhere"), "nowhere"),
        (("run", "frame_vs_sequence", *data, "--arms", "slowfats"), "did you mean slowfast"),
        (("compare", empty), "no report.json"),
        (("prepare", "dfcd", "--root", empty, "--out", tmp / "out"), "did you mean dfd or dfdc"),
        (("prepare", "dfdc", "--root", empty, "--out", tmp / "out"), "empty"),
        (("prepare", "dfdc", "--root", tmp / "nowhere", "--out", tmp / "out"), "nowhere"),
        (("prepare", "dfdc", "--root", empty), "--out"),
        (("generate", "--root", tmp / "g", "num_identitys", "4"), "did you mean num_identities"),
        (("list", "modles"), "did you mean models"),
        (("list", "models", "x3d_q"), "did you mean x3d"),
        (("list", "configs", "frame_smal"), "did you mean frame_small"),
    ]


def test_bad_input_is_one_line_and_a_non_zero_exit(capsys, tmp_path, prepared_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in bad_commands(tmp_path, prepared_root):
        code, out, err = run(capsys, *words)
        assert code == 2, (words, out, err)
        lines = [line for line in err.strip().splitlines() if line]
        assert lines[-1].startswith("error: ") and message in lines[-1], (words, err)
        assert "Traceback" not in err and not (tmp_path / "runs").exists(), words


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="unknown config"):
        main(["--debug", "train", "nothing_like_this"])


def test_train_test_compare_by_command(capsys, tmp_path, prepared_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = (
        "DATA.CACHE false CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32 TRAIN.EPOCHS 1 "
        "OPTIM.WARMUP_EPOCHS 0 TEST.NUM_CLIPS 2 "
        "TEST.NUM_BOOTSTRAP 100 WANDB.MODE disabled"
    ).split()
    for seed in (0, 1):
        code, out, err = run(
            capsys, "train", "frame_small", *settings, "DATA.PATH", prepared_root, "SEED", seed
        )
        assert code == 0 and f"frame_small-seed{seed}" in out and "auc" in out, err
    code, out, _ = run(capsys, "test", "runs/frame_small-seed0", "--split", "val")
    assert code == 0 and "val split" in out
    code, out, _ = run(capsys, "compare", "runs/frame_small-seed0", "runs/frame_small-seed1")
    assert code == 0 and "frame_small-seed1" in out
    assert (tmp_path / "comparison" / "report.html").is_file() and (
        tmp_path / "comparison" / "table.csv"
    ).is_file()


def test_export_writes_what_pyslowfast_reads(capsys, tmp_path, prepared_root, monkeypatch):
    import torch

    import dfdc_video
    from dfdc_video.runs.run import load_model

    monkeypatch.chdir(tmp_path)
    clip = "DATA.CACHE false CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32".split()
    settings = (
        "TRAIN.EPOCHS 1 OPTIM.WARMUP_EPOCHS 0 TEST.NUM_CLIPS 1 TEST.NUM_BOOTSTRAP 50 WANDB.MODE disabled"
    ).split()
    for name in ("slowfast_small", "frame_small"):
        assert run(capsys, "train", name, *clip, *settings, "DATA.PATH", prepared_root, "--out", name)[0] == 0
    code, out, err = run(capsys, "export", "slowfast_small", "--out", "there.pyth")
    assert code == 0 and "there.pyth" in out, err
    names = torch.load("there.pyth", weights_only=True)["model_state"]
    assert "s1.pathway0_stem.conv.weight" in names and "head.projection.weight" in names
    ours, again = (
        load_model("slowfast_small"),
        dfdc_video.build_model("slowfast_small", num_frames=4, height=32, width=32).eval(),
    )
    dfdc_video.load_weights(again, "there.pyth", keep_head=True)
    frames = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(again(frames), ours(frames))
    code, _, err = run(capsys, "export", "frame_small", "--out", "none.pyth")
    assert code == 2 and "PySlowFast has no name" in err and not (tmp_path / "none.pyth").exists()
