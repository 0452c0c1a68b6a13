"""Registries: lazy, complete, and helpful when a name is wrong."""

import subprocess
import sys

import pytest

from dfdc_video.registry import ALL, Registry, load_file, settings_of, summary_of, top_level


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_every_component_says_what_it_is(registry):
    assert registry.names(), f"no {registry.kind} registered"
    for name in registry.names():
        component = registry.get(name)
        assert len(summary_of(component)) > 10, f"{registry.kind} {name} has no docstring"
        for setting, parameter in settings_of(component).items():
            assert parameter.annotation is not parameter.empty, f"{registry.kind} {name}: setting {setting} has no type"


def test_unknown_and_duplicate_names():
    registry = Registry("thing")

    @registry.register(name="resnet")
    def first():
        """One."""

    with pytest.raises(ValueError, match="unknown thing 'resnt'; did you mean resnet"):
        registry.get("resnt")
    with pytest.raises(ValueError, match="known: resnet"):
        registry.get("zzz")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register(first, name="resnet")


def test_help_does_not_import_the_heavy_libraries():
    code = "import sys, dfdc_video.cli as c; c.build_parser(); print([m for m in ('torch', 'lightning', 'mediapipe', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_file_of_a_top_level_folder_is_loaded_once(tmp_path):
    path = tmp_path / "data" / "thing" / "prepare.py"
    path.parent.mkdir(parents=True)
    path.write_text("VALUE = []\n")
    assert load_file(path) is load_file(path)
    broken = path.with_name("broken.py")
    broken.write_text("raise ValueError('no')\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            load_file(broken)


def test_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        top_level("nothing_here")
