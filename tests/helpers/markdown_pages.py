"""The Markdown pages of the repository, and what tests read in them: code blocks, inline code, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "datasets/README.md",
    "datasets/*/README.md",
    "experiments/*.md",
    "benchmarks/results/*.md",
)
FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S[^\n]*\n?)+", re.MULTILINE)
INLINE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"^File `([^`]+)`[^\n]*:\n\n```[\w-]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True)
class Block:
    """A code block: the word behind its fence ("" for none and for an indented block), and its text."""

    language: str
    text: str


def pages() -> list[Path]:
    """Every page that a reader of the repository is shown."""
    return sorted(p for pattern in PAGES for p in ROOT.glob(pattern))


def blocks(text: str) -> list[Block]:
    """Code blocks in their order: fenced ones, then indented ones."""
    indented = INDENTED.findall(FENCE.sub("", text))
    return [
        *(Block(language, body) for language, body in FENCE.findall(text)),
        *(Block("", re.sub(r"^ {4}", "", body, flags=re.MULTILINE)) for body in indented),
    ]


def inline(text: str) -> list[str]:
    """Inline code, outside of blocks and quotations, with its line breaks as blanks."""
    prose = re.sub(r"^> .*", "", INDENTED.sub("", FENCE.sub("", text)), flags=re.MULTILINE)
    return [" ".join(code.split()) for _, code in INLINE.findall(prose)]


def commands(block: Block, programs: tuple[str, ...] = ("dfdc-video",)) -> Iterator[list[str]]:
    """The words of every command of a shell block that starts with one of `programs`. Two blanks end it:
    what follows is a remark.
    """
    if block.language not in SHELL:
        return
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        for part in line.removeprefix("$ ").split(" && "):
            if part.split()[:1] and part.split()[0] in programs:
                yield shlex.split(re.split(r"\s{2,}", part)[0], comments=True)


def files(text: str) -> dict[str, str]:
    """Path -> content of every block that is introduced as a file: "File `PATH`:" before it."""
    return dict(FILE.findall(text))


def section(text: str, title: str) -> str:
    """The text below the heading "## title", up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"no section {title!r}")
    return found[1]
