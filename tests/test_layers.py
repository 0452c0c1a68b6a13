"""The import rule: a room imports only rooms below it; data flows down, from `prepare` to the report."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dfdc_video"
TOP_LEVEL = ("benchmarks", "datasets", "experiments")
# Lowest first. Rooms of one layer do not import each other. CONTRIBUTING.md shows the same picture.
LAYERS = [
    {"registry", "records"},
    {"config", "files", "environment"},
    {"folders", "media"},
    {"faces", "jobs", "synthetic", "data", "models", "evaluation"},
    {"report"},
    {"preparation", "training"},
    {"runs"},
    {"api"},
    {"commands", "datasets", "experiments", "benchmarks"},  # found by the registries, imported by nobody
    {"cli"},
    {"__main__"},
]
# The layers above settings: these know trees of settings, everything else takes plain keyword arguments.
READERS_OF_SETTINGS = {"config", "folders", "runs", "api", "commands", "experiments", "benchmarks"}
ONLY = {"models": {"registry", "files"}}


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of dfdc_video that a file imports, anywhere in it: at the top and inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module == "dfdc_video"
            names = [f"dfdc_video.{a.name}" for a in node.names] if whole else [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "dfdc_video" and len(parts) > 1 and parts[1] != "__version__":
                rooms.add(parts[1])
    return rooms


def layer(room: str) -> int:
    for level, rooms in enumerate(LAYERS):
        if room in rooms:
            return level
    raise AssertionError(f"{room} has no place in the layers of this test: give it one")


def breaches(path: Path, room: str) -> list[str]:
    """What a file of a room imports against the rule, one line each."""
    others = imported_rooms(path) - {room}
    upwards = [o for o in others if layer(o) >= layer(room)]
    outside = [o for o in others if room in ONLY and o not in ONLY[room]]
    return [f"{path.relative_to(path.parents[1])} ({room}) imports {o}" for o in sorted({*upwards, *outside})]


def files() -> list[Path]:
    package = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]
    return sorted([*package, *(p for folder in TOP_LEVEL for p in (ROOT / folder).rglob("*.py"))])


def test_imports_go_downwards():
    found = [line for path in files() for line in breaches(path, room_of(path))]
    assert not found, "\n".join(found)


def test_the_rule_sees_a_breach(tmp_path):
    file = tmp_path / "late.py"
    file.write_text("def f():\n    from dfdc_video.runs.run import train\n    import dfdc_video.cli\n")
    assert imported_rooms(file) == {"runs", "cli"}
    assert len(breaches(file, "data")) == 2 and len(breaches(file, "api")) == 1
    file.write_text("from dfdc_video.preparation import prepare")
    assert breaches(file, "training"), "siblings never import each other"
    file.write_text("from dfdc_video import records")
    assert breaches(file, "models") and not breaches(file, "data")


def test_layers_name_every_room_and_no_other():
    rooms = {room_of(path) for path in files()}
    assert set().union(*LAYERS) == rooms


def test_top_level_folders_are_no_packages():
    for folder in ("configs", *TOP_LEVEL):
        assert not (ROOT / folder / "__init__.py").exists(), (
            f"{folder}/__init__.py would shadow another library"
        )


def test_settings_stop_at_the_door():
    """Rooms below `runs` never see a tree of settings, save that a run folder reads and writes its own."""
    for path in files():
        if room_of(path) not in READERS_OF_SETTINGS:
            assert "config" not in imported_rooms(path), path
            assert "from yacs" not in path.read_text(encoding="utf-8"), path
