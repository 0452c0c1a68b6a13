"""The import rule: who may import whom. A module imports only modules of lower layers, or those named for its
own room.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dfdc_video"
# Lowest first. A room (folder) counts as one; modules of one row never import each other unless ALLOWED says
# so.
LAYERS = [
    {"registry", "records", "environment"},
    {
        "video",
        "writer",
        "manifest",
        "splits",
        "models",
        "evaluation",
        "config",
        "readers",
        "duplicates",
        "audit",
    },
    {"faces", "data", "training", "report", "exports"},
    {"parts"},
    {"finish", "build"},
    {"run", "prepare", "doctor", "api"},
    {"experiment", "listing"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
ALLOWED = {("records", "registry"), ("splits", "audit"), ("writer", "video")}
ONLY_LOWEST = {"models": {"registry"}, "evaluation": {"registry", "records"}}


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of dfdc_video that a file imports, anywhere in it: at the top, in functions, and by name in
    registries.
    """
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [node.module] if node.module != "dfdc_video" else [f"dfdc_video.{a.name}" for a in node.names]
            )
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "dfdc_video" and len(parts) > 1 and parts[1] != "__version__":
                rooms.add(parts[1])
    return rooms


def layer(room: str) -> int:
    for level, rooms in enumerate(LAYERS):
        if room in rooms:
            return level
    raise AssertionError(f"dfdc_video/{room} has no place in the layers of this test: give it one")


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_downwards(path):
    room = room_of(path)
    for other in imported_rooms(path) - {room}:
        assert layer(other) < layer(room) or (room, other) in ALLOWED, f"{path.name} ({room}) imports {other}"
        if room in ONLY_LOWEST:
            assert other in ONLY_LOWEST[room], f"{room} may import only {ONLY_LOWEST[room]}, not {other}"


def test_library_never_imports_what_is_built_on_it():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in (
                    "experiments",
                    "benchmarks",
                    "tests",
                    "datasets",
                    "configs",
                ), path


def test_the_rule_sees_a_breach(tmp_path):
    file = tmp_path / "late.py"
    file.write_text("def f():\n    from dfdc_video.run import train\n    import dfdc_video.cli\n")
    assert imported_rooms(file) == {"run", "cli"}


def test_top_level_folders_are_no_packages():
    for folder in ("datasets", "configs", "experiments"):
        assert not (ROOT / folder / "__init__.py").exists(), (
            f"{folder}/__init__.py would shadow another library"
        )


def test_settings_stop_at_the_door():
    """Only `config`, `build`, `run`, `api`, `experiment`, `listing`, `cli` know config trees; everything else
    takes plain keyword arguments.
    """
    for path in FILES:
        if room_of(path) not in ("config", "build", "run", "api", "experiment", "listing", "cli", "demo"):
            assert "config" not in imported_rooms(path), path
            assert "from yacs" not in path.read_text(encoding="utf-8"), path
