"""Every message that the FAQ quotes is still one that the code raises."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from markdown_pages import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
QUOTES = [quote.strip() for _, quote in re.findall(r"^> (`+)(.+?)\1$", PAGE, re.MULTILINE)]


@cache
def templates() -> list[str]:
    """Every string of the code, with `…` for what is filled in, and the text of the Makefile."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for folder in ("dfdc_video", "datasets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def is_raised(quote: str) -> bool:
    """Whether one string of the code holds the words of a quotation in their order; `…` may be anything."""
    words = [part.strip() for part in quote.split("…") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, words)), re.DOTALL)
    return any(len(text) < 2000 and pattern.search(text) for text in templates())


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_in_the_code(quote):
    assert is_raised(quote)


def test_a_message_that_no_code_raises_is_noticed():
    assert len(QUOTES) >= 20
    assert not is_raised("no folder at …; --root is the folder with the cooked videos of '…'")
    assert not is_raised("the runs saw different frames (…); train both with … --allow-equal-frames")
