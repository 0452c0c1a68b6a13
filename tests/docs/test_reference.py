"""The generated references say something about everything that can be set."""

from __future__ import annotations

import re
import sys

import pytest
from markdown_pages import ROOT

from dfdc_video.commands.prepare import HELP as PREPARE_HELP
from dfdc_video.config.schema import PLAIN, SHARED
from dfdc_video.registry import ALL

sys.path.insert(0, str(ROOT / "docs"))
import generate


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    cells = [
        re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| `")
    ]
    assert cells
    return cells


def test_every_key_of_a_config_has_its_default_and_its_meaning():
    page = generate.configuration_page()
    keys = {f"{section}.{key}" for tree in (PLAIN, SHARED) for section, keys in tree.items() for key in keys}
    shown = {row[0].strip("`"): row for row in rows(page)}
    assert keys <= set(shown)
    assert not [key for key in keys if len(shown[key]) != 3 or not shown[key][2].strip()]


def test_every_flag_has_its_help():
    page = generate.cli_page()
    assert PREPARE_HELP in page
    assert not [row for row in rows(page) if len(row) < 2 or not row[1].strip("; |")]


def test_every_component_is_described():
    page = generate.components_page()
    for registry in ALL:
        for name in registry.names():
            described = re.search(rf"^### {re.escape(name)}\n\n(?!###|\|)\S", page, re.MULTILINE)
            assert described, f"{registry.kind} {name}"


def test_a_key_without_a_comment_has_no_meaning(tmp_path):
    module = tmp_path / "schema.py"
    module.write_text(
        'A: dict = {\n  "S": {\n    "X": 1,  # one\n    # two\n    "Y": 2,\n    "Z": 3,\n  },\n}\n'
    )
    assert generate.comments_of(module, ("A",)) == {"S.X": "one", "S.Y": "two", "S.Z": ""}
    with pytest.raises(ValueError, match="no dictionary B"):
        generate.comments_of(module, ("A", "B"))
