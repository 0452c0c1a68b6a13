"""The pages of the site that are made at build time: the references, from the code, and copies of the
Markdown files that lie elsewhere in the repository.

    write(Path("docs/_generated"))

Nothing on these pages is written twice: verbs and flags come from the parsers of `dfdc_video.cli`, settings
from `dfdc_video.config.schema`, the signatures of registered components and the settings of `prepare`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import re
import tokenize
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dfdc_video.cli import build_parser
from dfdc_video.config import schema as config
from dfdc_video.preparation.settings import GROUPS, default_text
from dfdc_video.registry import ALL, Registry, settings_of, summary_of

ROOT = Path(__file__).resolve().parents[1]
# Markdown files of the repository that are pages of the site, too
COPIED = (
    "experiments/*.md",
    "datasets/README.md",
    "datasets/*/README.md",
    "benchmarks/results/*.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def write(folder: Path) -> None:
    """Write every generated page below `folder`; files that would not change are left as they are."""
    pages = {
        "cli.md": cli_page(),
        "configuration.md": configuration_page(),
        "components.md": components_page(),
    }
    for pattern in COPIED:
        for source in sorted(ROOT.glob(pattern)):
            pages[source.relative_to(ROOT).as_posix()] = source.read_text(encoding="utf-8")
    for name, text in pages.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for file in folder.rglob("*.md"):
        if file.relative_to(folder).as_posix() not in pages:
            file.unlink()


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars and line breaks inside of cells are escaped."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"

    header = list(header)
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)]) + "\n"


def code(text: object) -> str:
    """Text as inline code; nothing stays nothing."""
    return f"`{text}`" if str(text) else ""


def cli_page() -> str:
    """Every verb with its usage and arguments."""
    parser = build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    help_of = {action.dest: action.help or "" for action in verbs._choices_actions}
    parts = [
        "# Command line",
        "Generated from the parsers. `KEY VALUE` are settings: see [](configuration.md).",
        table(("verb", "what it does"), ((f"[`{v}`](#dfdc-video-{v})", help_of[v]) for v in verbs.choices)),
    ]
    for verb, sub in verbs.choices.items():
        usage = sub.format_usage().removeprefix("usage: ")
        parts += [f"## dfdc-video {verb}", help_of[verb], f"```text\n{usage.rstrip()}\n```"]
        for group in sub._action_groups:
            rows = [_argument(action) for action in group._group_actions if action.help != argparse.SUPPRESS]
            rows = [row for row in rows if row[0] != "`-h`, `--help`"]
            if rows:
                parts += [f"**{group.title}**", table(("argument", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _argument(action: argparse.Action) -> tuple[str, str]:
    """Name (with what it takes) and help of one argument."""
    metavar = action.metavar or (action.dest if not action.option_strings else action.dest.upper())
    words = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if not action.option_strings:
        name = code(words)
    elif action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        name = ", ".join(map(code, action.option_strings))
    else:
        more = " …" if action.nargs in ("+", "*") else ""
        name = ", ".join(code(f"{flag} {words}{more}") for flag in action.option_strings)
    text = (action.help or "").replace("%%", "%")
    if action.choices is not None:
        text += f"; one of {', '.join(map(code, action.choices))}"
    if action.required and action.option_strings:
        text += " (required)"
    return name, text


def configuration_page() -> str:
    """Every section of a config, its keys and defaults; and the settings of `prepare`."""
    comments = comments_of(Path(inspect.getfile(config)), ("PLAIN", "SHARED"))
    parts = [
        "# Configuration reference",
        "Generated from the code. How configs are composed: [](../training.md). `dfdc-video list configs "
        "NAME` prints a complete config with every default filled in.",
        "## Sections of a run's config",
        "`SEED` (default 0) is the seed of weights, sampling and augmentation. A section with a `NAME` is a "
        "registered component: its other keys are that component's settings, listed in [](components.md).",
    ]
    for section in config.SECTIONS:
        if section in config.PLAIN:
            rows = _rows(config.PLAIN[section], comments, section)
            parts += [f"### {section}", table(("key", "default", "meaning"), rows)]
        elif section in config.COMPONENTS:
            registry, default = config.COMPONENTS[section]
            names = ", ".join(map(code, registry.names()))
            text = f"`{section}.NAME` is one of {names}; "
            text += f"default {code(default)}." if default else "it has no default."
            parts += [f"### {section}", text]
            if shared := config.SHARED.get(section):
                parts += [
                    "Keys that every component of the section has:",
                    table(("key", "default", "meaning"), _rows(shared, comments, section)),
                ]
    return "\n\n".join(parts) + "\n\n" + prepare_section()


def _rows(keys: dict[str, Any], comments: dict[str, str], section: str) -> Iterator[tuple[str, str, str]]:
    for key, default in keys.items():
        allowed = config.CHOICES.get(f"{section}.{key}")
        text = comments.get(f"{section}.{key}", "")
        if allowed and not all(word in text for word in allowed):
            text += f" ({', '.join(allowed)})"
        yield code(f"{section}.{key}"), code(_shown(default)), text.strip()


def _shown(value: Any) -> str:
    if isinstance(value, float) and value == 1 / 15:
        return "1/15"
    return '""' if value == "" else str(value)


def comments_of(path: Path, names: Iterable[str]) -> dict[str, str]:
    """The comments on the keys of the nested dictionaries `names` of a module, by "SECTION.KEY".

    A comment stands on the line of its key or on the line above. ValueError for a missing dictionary.
    """
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    wanted, found, texts = set(names), set(), {}
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if not isinstance(target, ast.Name) or target.id not in wanted:
            continue
        found.add(target.id)
        assert isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for section, body in zip(node.value.keys, node.value.values, strict=True):
            for inner in (n for n in ast.walk(body) if isinstance(n, ast.Dict)):
                for key in inner.keys:
                    if isinstance(section, ast.Constant) and isinstance(key, ast.Constant):
                        above = key.lineno - 1
                        text = comments.get(key.lineno) or (
                            comments.get(above, "") if lines[above - 1].strip().startswith("#") else ""
                        )
                        texts[f"{section.value}.{key.value}"] = text
    if missing := wanted - found:
        raise ValueError(f"{path.name} has no dictionary {', '.join(sorted(missing))}")
    return texts


def prepare_section() -> str:
    """The settings of `prepare`: its flags, keys of a YAML file, keyword arguments in Python."""
    parts = [
        "## Settings of prepare",
        "Flags of `dfdc-video prepare` (`--timeout-seconds`), and keys of the file that `--settings` names; "
        "those of a prepared folder are in its `settings.json`.",
    ]
    for group in GROUPS:
        rows = [(code(f.name), code(default_text(f)), f.metadata["help"]) for f in dataclasses.fields(group)]
        parts += [
            f"### {group.title[0].upper()}{group.title[1:]}",
            table(("setting", "default", "meaning"), rows),
        ]
    return "\n\n".join(parts) + "\n"


def components_page() -> str:
    """Every registered component with its settings."""
    parts = [
        "# Components",
        "Generated from the registries. A component's settings are its keyword-only parameters. In a config "
        "they are the other keys of its section, in upper case (`MODEL.BACKBONE`); on the command line of "
        "`prepare` they follow `--dataset-set`, `--detector-set` or `--split-set`.",
    ]
    for registry in ALL:
        parts.append(f"## {_title(registry)}")
        for name in registry.names():
            parts += [f"### {name}", *_component(registry.get(name))]
    return "\n\n".join(parts) + "\n"


def _title(registry: Registry) -> str:
    title = registry.kind if registry.kind.endswith("s") else f"{registry.kind}s"
    return title[0].upper() + title[1:]


def _component(component: Callable[..., Any]) -> list[str]:
    """Docstring and table of settings."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(component) or summary_of(component))
    texts = [" ".join(p.split()).replace("<", "&lt;") for p in paragraphs]
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component)
    rows = [
        (
            code(name),
            code(_kind(hints.get(name, Any))),
            code(_shown(p.default)) if p.default is not p.empty else "required",
        )
        for name, p in settings_of(component).items()
    ]
    return [*texts, table(("setting", "type", "default"), rows)] if rows else texts


def _kind(kind: Any) -> str:
    return (
        kind.__name__
        if isinstance(kind, type) and not typing.get_args(kind)
        else str(kind).replace("typing.", "")
    )


if __name__ == "__main__":
    write(Path(__file__).parent / "_generated")
