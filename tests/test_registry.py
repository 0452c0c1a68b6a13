"""Registries: lazy, complete, and helpful when a name is wrong."""

import subprocess
import sys

import pytest

from dfdc_video.registry import ALL, Registry, registering_modules, settings_of, summary_of, top_level


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_every_component_says_what_it_is(registry):
    assert registry.names(), f"no {registry.kind} registered"
    for name in registry.names():
        component = registry.get(name)
        summary = summary_of(component)  # its line in `dfdc-video list`: a whole sentence
        assert len(summary) > 10 and summary.endswith((".", "?")), f"{registry.kind} {name}: {summary!r}"
        for setting, parameter in settings_of(component).items():
            assert parameter.annotation is not parameter.empty, (
                f"{registry.kind} {name}: setting {setting} has no type"
            )


def test_unknown_and_duplicate_names():
    registry = Registry("thing", "nothing/*.py")

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
    code = (
        "import sys, dfdc_video.cli as c; c.build_parser([]); print([m for m in ('torch', 'lightning', "
        "'mediapipe', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_components_are_found_by_scanning_their_room(tmp_path, monkeypatch):
    """A file that registers something is found, what is beside it is not imported; a file that fails is tried
    again.
    """
    room = tmp_path / "package" / "things"
    room.mkdir(parents=True)
    (room / "plain.py").write_text('"""@THINGS.register is only named here."""\nraise AssertionError\n')
    (room / "first.py").write_text(
        "from sys import modules\nTHINGS = modules[__name__.split('.')[0]].THINGS\n@THINGS.register\ndef "
        "one():\n    pass\n"
    )
    (tmp_path / "package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("dfdc_video.registry.PACKAGE", tmp_path / "package")
    import package

    package.THINGS = registry = Registry("thing", "things/*.py")
    assert registering_modules("things/*.py") == ["package.things.first"]
    assert registry.names() == ["one"]
    broken = Registry("thing", "things/*.py")
    (room / "broken.py").write_text("raise ValueError('no')\n@THINGS.register\ndef two():\n    pass\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            broken.names()


def test_files_of_top_level_folders_are_modules_of_the_package():
    from dfdc_video.datasets.dfdc import reader

    assert (
        reader.__name__ in registering_modules("datasets/*/reader.py")
        and reader.read_dfdc.__module__ == "dfdc_video.datasets.dfdc.reader"
    )


def test_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        top_level("nothing_here")
