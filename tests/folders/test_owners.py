"""Only the owners in folders/ know the names of files inside a prepared folder, a run folder and a cache."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dfdc_video.folders import cache, images, prepared

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dfdc_video"
TOP_LEVEL = ("benchmarks", "datasets", "experiments")
OWNERS = PACKAGE / "folders"
FILE = re.compile(r"[\w.]+\.(json|csv|parquet|html|yaml|txt|ckpt)")
ENDINGS = (prepared.LANDMARKS_ENDING, f"{prepared.MASK_ENDING}.mp4")
UNITS = {"frames/s"}  # no paths
MAKE_PATHS = {"Path", "PurePosixPath", "joinpath", "glob", "rglob", "with_name"}


def names_of_owners() -> set[str]:
    """Names that the owners export, and every name of a file that their code spells."""
    spelled = {
        node.value
        for path in OWNERS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FILE.fullmatch(node.value)
    }
    return {*prepared.NAMES, *cache.NAMES, images.INDEX, *spelled}


NAMES = names_of_owners()


def is_part_of_a_path(node: ast.AST, parent: ast.AST | None) -> bool:
    """Whether a string is joined to a path: an operand of `/`, or an argument of a call that makes paths."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Div):
        return True
    function = getattr(parent, "func", None)
    return getattr(function, "attr", getattr(function, "id", "")) in MAKE_PATHS


def breaches(path: Path) -> list[str]:
    """Strings that are a name of the owners. Prose, which has blanks, may tell people of a file.

    A name with a suffix counts wherever it stands; "tracks" or "frames" only as a part of a path.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)) or " " in node.value:
            continue
        if node.value in UNITS:
            continue
        parent = parents.get(node)
        if isinstance(parent, ast.JoinedStr):
            node_in, inside = parents.get(parent), True
        else:
            node_in, inside = parent, False
        if inside and any(isinstance(v, ast.Constant) and " " in str(v.value) for v in parent.values):
            continue
        parts = node.value.split("/")
        joined = len(parts) > 1 or is_part_of_a_path(node, node_in)
        known = [p for p in parts if p in NAMES and (joined or "." in p)]
        if known or node.value.endswith(ENDINGS):
            found.append(f"{path.name}:{node.lineno}: {node.value!r}")
    return found


def test_no_module_but_the_owners_names_a_file_in_their_folders():
    files = [
        p for room in (PACKAGE, *(ROOT / name for name in TOP_LEVEL)) for p in sorted(room.rglob("*.py"))
    ]
    files = [p for p in files if OWNERS not in p.parents]
    assert len(files) > 50 and {"summary.json", "predictions.csv"} <= NAMES
    assert not (found := [line for path in files for line in breaches(path)]), "\n".join(found)


def test_the_rule_sees_a_breach(tmp_path):
    file = tmp_path / "late.py"
    for breach in (
        'out / "summary.json"',
        'Path(out, "frames")',
        'f"tracks/{video_id}/x.mp4"',
        'out.glob("work/*.json")',
        'name = "quarantine.csv"',
        'path.with_name(f"{path.stem}_landmarks.npz")',
        'root / "cache" / key',
    ):
        file.write_text(breach)
        assert breaches(file), breach
    for fine in (
        'result["tracks"]',
        'print(f"{n} entries in quarantine.csv, see there")',
        '"kitti"',
        "'x' / y",
    ):
        file.write_text(fine)
        assert not breaches(file), fine
