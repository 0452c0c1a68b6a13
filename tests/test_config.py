"""Settings: composition, defaults from signatures, types, names, and what must be refused."""

from pathlib import Path

import pytest
import yaml

from dfdc_video.config import (
    complete,
    config_hash,
    config_names,
    dump,
    load_dump,
    merge,
    merge_overrides,
    parse_overrides,
    resolve,
    to_dict,
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(config_names()))
def test_every_complete_config_resolves_and_survives_its_dump(name, tmp_path):
    cfg = resolve(name)
    assert cfg.is_frozen()
    path = write(tmp_path, "config.yaml", dump(cfg))
    assert to_dict(load_dump(path)) == to_dict(cfg)
    assert config_hash(load_dump(path)) == config_hash(cfg)
    first = config_names()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 20, "the first comment is its line in `dfdc-video list`"


def test_order_is_bases_file_arm_command_line(tmp_path):
    write(tmp_path, "a.yaml", "MODEL: {NAME: frame, BACKBONE: resnet18, DROPOUT: 0.1}\nTRAIN: {EPOCHS: 1}\n")
    write(tmp_path, "b.yaml", "TRAIN: {EPOCHS: 2, BATCH_SIZE: 5}\n")
    top = write(tmp_path, "top.yaml", "_BASE_: [a.yaml, b.yaml]\nTRAIN: {BATCH_SIZE: 6}\n")
    cfg = resolve(top)
    assert (cfg.TRAIN.EPOCHS, cfg.TRAIN.BATCH_SIZE, cfg.MODEL.DROPOUT) == (2, 6, 0.1)
    cfg = resolve(
        top, arm={"TRAIN": {"BATCH_SIZE": 7}, "SEED": 3}, overrides=["TRAIN.EPOCHS", "9", "SEED", "4"]
    )
    assert (cfg.TRAIN.EPOCHS, cfg.TRAIN.BATCH_SIZE, cfg.SEED) == (9, 7, 4)


def test_another_name_empties_the_section(tmp_path):
    top = write(
        tmp_path, "top.yaml", "MODEL: {NAME: frame, BACKBONE: resnet34, DROPOUT: 0.5, INIT_FROM: old.ckpt}\n"
    )
    cfg = resolve(top, overrides=["MODEL.NAME", "cnn_lstm"])
    assert cfg.MODEL.BACKBONE != "resnet34" and cfg.MODEL.INIT_FROM == ""
    assert merge({"DATA": {"PATH": "a"}}, {"DATA": {"CACHE": True}}) == {"DATA": {"PATH": "a", "CACHE": True}}


def test_defaults_come_from_the_signature(tmp_path):
    import inspect

    from dfdc_video.registry import MODELS, settings_of

    cfg = complete({"MODEL": {"NAME": "slowfast"}})
    for name, parameter in settings_of(MODELS.get("slowfast")).items():
        assert parameter.default is not inspect.Parameter.empty
        value = cfg.MODEL[name.upper()]
        assert (
            value == (list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default)
            or tuple(value) == parameter.default
        )


def test_numbers_take_the_type_of_their_setting():
    cfg = complete(
        {"MODEL": {"NAME": "frame"}, "OPTIM": {"LR": "1e-3", "WARMUP_EPOCHS": 1}, "TRAIN": {"EPOCHS": 4.0}}
    )
    assert (cfg.OPTIM.LR, type(cfg.OPTIM.WARMUP_EPOCHS), cfg.TRAIN.EPOCHS, type(cfg.TRAIN.EPOCHS)) == (
        1e-3,
        float,
        4,
        int,
    )


BAD = [
    ({"MODELL": {"NAME": "frame"}}, "unknown section 'MODELL'; did you mean MODEL"),
    ({"MODEL": {"NAME": "slowfats"}}, "unknown model 'slowfats'; did you mean slowfast"),
    (
        {"MODEL": {"NAME": "frame", "BACKBON": "x"}},
        r"unknown key MODEL.BACKBON of frame; did you mean BACKBONE",
    ),
    ({"MODEL": {"NAME": "frame"}, "TRAIN": {"EPOCH": 3}}, "unknown key TRAIN.EPOCH; did you mean EPOCHS"),
    (
        {"MODEL": {"NAME": "frame"}, "TRAIN": {"EPOCHS": "many"}},
        r"TRAIN.EPOCHS = 'many' \(str\): expected int",
    ),
    ({"MODEL": {"NAME": "frame"}, "TRAIN": {"EPOCHS": True}}, "expected int"),
    ({"MODEL": {"NAME": "frame"}, "TRAIN": {"EPOCHS": 0}}, "expected 1 or more"),
    ({"MODEL": {"NAME": "frame"}, "OPTIM": {"LR": -1}}, "expected a rate above 0"),
    ({"MODEL": {"NAME": "frame"}, "OPTIM": {"SCHEDULE": "cosin"}}, "did you mean cosine"),
    ({"MODEL": {"NAME": "frame"}, "WANDB": {"MODE": "on"}}, "allowed: online, offline, disabled"),
    ({"MODEL": {"NAME": "frame"}, "CLIP": {"STRIDE_SECONDS": 0}}, "STRIDE_SECONDS above 0"),
    ({"MODEL": {"NAME": "frame"}, "TEST": {"POOLING": "median"}}, "unknown pooling"),
    ({"MODEL": "frame"}, "expected a section of keys"),
    ({"TRAIN": {"EPOCHS": 3}}, "MODEL.NAME is missing"),
]


@pytest.mark.parametrize(("tree", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_bad_settings_name_what_is_wrong(tree, message):
    with pytest.raises(ValueError, match=message):
        complete(tree)


def test_unknown_config_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean slowfast_small"):
        resolve("slowfst_small")
    with pytest.raises(FileNotFoundError, match="no config file"):
        resolve("/nowhere/at/all.yaml")


def test_base_loop_and_broken_yaml_are_refused(tmp_path):
    write(tmp_path, "a.yaml", "_BASE_: b.yaml\n")
    loop = write(tmp_path, "b.yaml", "_BASE_: a.yaml\n")
    with pytest.raises(ValueError, match="_BASE_ loop: b.yaml -> a.yaml -> b.yaml"):
        resolve(loop)
    with pytest.raises(ValueError, match="not valid YAML"):
        resolve(write(tmp_path, "c.yaml", "MODEL: {NAME: frame\n"))
    with pytest.raises(ValueError, match="expected sections"):
        resolve(write(tmp_path, "d.yaml", "- frame\n"))
    with pytest.raises(ValueError, match="_BASE_ = 5: expected the name of a config"):
        resolve(write(tmp_path, "e.yaml", "_BASE_: 5\n"))
    with pytest.raises(ValueError, match="unknown key CLIP.5; known: HEIGHT"):
        resolve(write(tmp_path, "f.yaml", "MODEL: {NAME: frame}\nCLIP: {5: 6}\n"))
    with pytest.raises(ValueError, match="TRAIN.EPOCHS: '2001-99-99' is not a YAML value"):
        resolve("frame_small", overrides=["TRAIN.EPOCHS", "2001-99-99"])


def test_a_value_that_aliases_multiply_is_shown_shortened(tmp_path):
    """Ten lists that each hold the one before ten times: a kilobyte of YAML, ten gigabytes of text."""
    text = "&l0 [x]"
    for n in range(1, 11):
        text = f"&l{n} [{text}, {', '.join([f'*l{n - 1}'] * 9)}]"
    with pytest.raises(ValueError, match="CLIP.HEIGHT = .*: expected int") as error:
        resolve(write(tmp_path, "bomb.yaml", f"MODEL: {{NAME: frame}}\nCLIP: {{HEIGHT: {text}}}\n"))
    assert len(str(error.value)) < 600


def test_a_config_never_runs_code(tmp_path):
    marker = tmp_path / "ran"
    text = yaml.dump({"SEED": 0}) + (
        f"MODEL: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]\n"
    )
    with pytest.raises(ValueError, match="not valid YAML"):
        resolve(write(tmp_path, "evil.yaml", text))
    assert not marker.exists()


def test_overrides_come_in_pairs():
    assert parse_overrides(["A.B", "[1, 2]", "A.C", "x"]) == {"A": {"B": [1, 2], "C": "x"}}
    with pytest.raises(ValueError, match="pairs KEY VALUE"):
        parse_overrides(["OPTIM.LR"])


def test_hash_ignores_where_and_sees_what():
    base = complete({"MODEL": {"NAME": "frame"}})
    assert config_hash(
        merge_overrides(base, ["DATA.PATH", "elsewhere", "DATA.NUM_WORKERS", "7", "WANDB.MODE", "disabled"])
    ) == config_hash(base)
    assert config_hash(merge_overrides(base, ["OPTIM.LR", "0.5"])) != config_hash(base)
