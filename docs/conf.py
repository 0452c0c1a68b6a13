"""Sphinx settings of the site: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

from dfdc_video import __version__  # noqa: E402

project = "dfdc_video"
author = "the dfdc_video authors"
copyright = "2026, the dfdc_video authors"
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "images"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"dfdc_video {__version__}"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
smartquotes = False  # it would make a dash of the two hyphens of a flag

# Links that work in a checkout, where pages and cards lie apart -> the same pages inside of the site
OUTWARD = re.compile(r"\]\(\.\./((?:experiments|datasets|benchmarks|CONTRIBUTING|CHANGELOG)[^)]*\.md)")
INWARD = re.compile(r"\]\((?:\.\./)*docs/([^)]*\.md)")


def rewrite_links(app: Any, name: str, content: list[str]) -> None:
    """Point links between docs/ and the rest of the repository at the copies in _generated/."""
    if name.startswith("_generated/"):
        content[0] = INWARD.sub(r"](/\1", content[0])
    else:
        content[0] = OUTWARD.sub(r"](/_generated/\1", content[0])


def setup(app: Any) -> None:
    generate.write(HERE / "_generated")
    app.connect("source-read", rewrite_links)
