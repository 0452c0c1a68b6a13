"""The pages that describe folders, on disk and in the repository, name what is there."""

from __future__ import annotations

import ast
import re

import pytest
from markdown_pages import ROOT, section

from dfdc_video.folders.manifest import TRACK_COLUMNS, VIDEO_COLUMNS
from dfdc_video.folders.prepared import NAMES
from dfdc_video.folders.run import PREDICTION_COLUMNS
from dfdc_video.registry import PACKAGE

FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
FILE_NAME = re.compile(r"[a-z_]+\.(?:json|yaml|csv|txt|html)")


def columns(title: str) -> list[str]:
    """The names in the first column of the table below "### title"."""
    text = FORMATS[FORMATS.index(f"### {title}") :].split("\n#")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]


@pytest.mark.parametrize(
    ("title", "written"), [("manifest.parquet", VIDEO_COLUMNS), ("tracks.parquet", TRACK_COLUMNS)]
)
def test_the_columns_of_a_table_are_those_that_are_written(title, written):
    assert sorted(columns(title)) == sorted(written)


def test_every_name_in_a_prepared_folder_is_described():
    text = section(FORMATS, "A prepared data set")
    assert not [name for name in NAMES if not re.search(rf"(^|[ /]){re.escape(name)}\b", text, re.MULTILINE)]


def test_every_file_of_a_run_is_described():
    tree = ast.parse((PACKAGE / "folders" / "run.py").read_text(encoding="utf-8"))
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    names = {s for s in strings if FILE_NAME.fullmatch(s)}
    text = section(FORMATS, "A run")
    assert {"config.yaml", "report.json", "predictions.csv"} <= names
    assert not [name for name in names if name not in text]
    assert ",".join(PREDICTION_COLUMNS) in text


def test_every_room_is_in_the_table_of_rooms():
    text = section((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "Rooms")
    rooms = [p.name + "/" for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()]
    files = [p.name for p in PACKAGE.glob("*.py") if not p.name.startswith("__")]
    assert len(rooms) >= 12 and not [
        name for name in rooms + files if f"`{name}`" not in text.replace("dfdc_video/", "")
    ]
