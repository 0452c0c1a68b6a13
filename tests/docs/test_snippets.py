"""What the pages show is true: commands parse and name what exists, settings are settings, paths and modules
are there, links lead somewhere, Python compiles.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from markdown_pages import LINK, ROOT, Block, blocks, commands, files, inline, pages

from dfdc_video.cli import build_parser
from dfdc_video.commands.generate import TASKS
from dfdc_video.config import complete, keyword_arguments, merge, parse_overrides, resolve, with_bases
from dfdc_video.registry import (
    ALL,
    BENCHMARKS,
    DATASETS,
    DETECTORS,
    EXPERIMENTS,
    MODELS,
    POOLINGS,
    SPLITS,
    top_level,
)
from dfdc_video.runs.experiment import split_settings

# Words in capitals stand for something of the reader's own; each is tried with an example.
PLACEHOLDERS = {
    "ADDRESS": "local",
    "CONFIG": "frame_small",
    "DATASET": "dfdc",
    "FILE": "weights.ckpt",
    "FILE.pyth": "weights.pyth",
    "FILE.tflite": "model.tflite",
    "FILE.yaml": "settings.yaml",
    "FOLDER": "folder",
    "KIND": "identity",
    "LABELS": "labels",
    "OUT": "out",
    "OUT2": "out2",
    "NEW": "new",
    "RAW": "raw",
    "ROOT": "raw",
    "RULE": "kfold",
    "RUN": "run",
}
# NAME and … depend on the verb: what NAME is, and the arguments that … leaves out
NAMES = {
    "bench": "train_step",
    "configs": "frame_b7",
    "experiments": "mask_head",
    "models": "x3d_s",
    "run": "mask_head",
}
LEFT_OUT = {
    "prepare": ["dfdc", "--root", "raw", "--out", "out"],
    "merge": ["folder"],
    "train": ["frame_small"],
    "run": ["mask_head"],
    "compare": ["run"],
}
NOT_COMMANDS = {"VERB …", "--debug VERB …", "VERB", "--help"}
OPTIONS = re.compile(r"^--[a-z][\w-]*( |$)")
PAIRS = re.compile(r"^([A-Z]+\.[A-Z_]+ \S+)( [A-Z]+\.[A-Z_]+ \S+)*$")
PATHS = re.compile(
    r"^(dfdc_video|configs|datasets|docs|experiments|benchmarks|tests)/[\w./*-]+$|^[a-z]+/[\w/]+\.py$"
)
MODULE = re.compile(r"^dfdc_video(\.[a-z_0-9]+)+$")
SECTIONS_OF = {"MODEL": "slowfast_small", "SAMPLER": "frame_small"}


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return build_parser()


def filled(words: list[str]) -> list[str]:
    """The words of a command (without the program) with every placeholder replaced."""
    verb = words[0]
    shortened = "…" in words
    words = [PLACEHOLDERS.get(w, w) for w in words if w != "…"]
    kind = words[1] if verb == "list" and len(words) > 1 else verb
    words = [NAMES[kind] if w == "NAME" and kind in NAMES else w for w in words]
    if "KIND" in words:
        words.remove("KIND")
    if shortened and verb in LEFT_OUT:
        missing = LEFT_OUT[verb]
        if len(words) < 2 or words[1].startswith("-"):
            words[1:1] = missing[:1]
        for flag, value in zip(missing[1::2], missing[2::2], strict=True):
            words += [] if flag in words else [flag, value]
    if len(words) % 2 and verb in ("train", "run") and words[-1] == "DATA.PATH":
        words.append("prepared")
    if words[-1] == "DATA.PATH":
        words.append("prepared")
    return words


def added_names(text: str) -> set[str]:
    """Components and configs that a page adds: names that its snippets register, and files that it shows."""
    registered = re.findall(r'^@[A-Z]+\.register\(name="(\w+)"\)', text, re.MULTILINE)
    return {*registered, *(Path(name).stem for name in files(text))}


def command_problem(parser: argparse.ArgumentParser, words: list[str], added: set[str]) -> str:
    """Why a command of a page (without the program) cannot be right, or nothing. `added` are names that the
    page itself adds.
    """
    if " ".join(words) in NOT_COMMANDS or (len(words) == 1 and words[0] in verbs_of(parser)):
        return ""  # a verb that is spoken of
    words = filled(words)
    try:
        args, extra = parser.parse_known_args(words)
    except SystemExit:
        return f"{' '.join(words)}: does not parse"
    if extra:
        return f"{' '.join(words)}: unknown option {extra[0]}"
    if any(word in added for word in words):
        return ""  # of docs/extending.md, test_recipes runs them
    try:
        check_names(args)
    except (ValueError, OSError) as error:
        return f"{' '.join(words)}: {error}"
    return ""


def check_names(args: argparse.Namespace) -> None:
    """ValueError where a command names a config, component, experiment or setting that does not exist."""
    if args.verb == "train" and args.config:
        resolve(args.config, overrides=args.settings)
    elif args.verb == "run":
        declared = EXPERIMENTS.get(args.experiment)
        own, rest = split_settings(declared, args.settings)
        experiment = declared(**own)
        for arm in args.arms or experiment.arms:
            if arm not in experiment.arms:
                raise ValueError(f"{args.experiment} has no arm {arm!r}")
            resolve(experiment.base, arm=experiment.arms[arm], overrides=rest)
    elif args.verb == "bench":
        keyword_arguments(BENCHMARKS.get(args.benchmark), args.settings)
    elif args.verb == "generate":
        module, function = TASKS[args.task]
        found = importlib.import_module(f"dfdc_video.synthetic.{module}")
        keyword_arguments(getattr(found, function), args.settings)
    elif args.verb == "compare" and args.pooling:
        POOLINGS.get(args.pooling)
    elif args.verb == "list":
        check_kind(args.kind, args.name)
    elif args.verb in ("prepare", "merge"):
        for name, registry, settings in (
            (getattr(args, "dataset", None), DATASETS, "dataset_settings"),
            (getattr(args, "detector", None), DETECTORS, "detector_settings"),
            (getattr(args, "split", None), SPLITS, "split_settings"),
        ):
            if name:
                keyword_arguments(registry.get(name), getattr(args, settings, None) or [])


def check_kind(kind: str, name: str) -> None:
    """ValueError for a kind or a name that `dfdc-video list` does not have."""
    plurals = {r.kind.removesuffix("s") + "s": r for r in ALL}
    wanted = kind.lower().replace("-", " ")
    if wanted.startswith("config") or wanted in ("", "prepare settings"):
        if name:
            resolve(name)
    elif wanted not in plurals:
        raise ValueError(f"no kind {kind!r}")
    elif name and plurals[wanted] is MODELS:
        if name not in MODELS.names() and not (top_level("configs") / f"model/{name}.yaml").is_file():
            raise ValueError(f"no model {name!r}")
    elif name:
        plurals[wanted].get(name)


def inline_problem(parser: argparse.ArgumentParser, code: str) -> str:
    """Why a piece of inline code cannot be right, or nothing. Commands are looked at elsewhere."""
    flags = flags_of(parser)
    if OPTIONS.match(code):
        unknown = [w for w in shlex.split(code) if re.match(r"--[a-z]", w) and w not in flags]
        return f"{code}: no verb has {unknown[0]}" if unknown else ""
    if PAIRS.match(code):
        return settings_problem(code.replace("…", "x").split())
    if MODULE.match(code):
        parent, _, last = code.rpartition(".")
        there = is_module(code) or (is_module(parent) and hasattr(importlib.import_module(parent), last))
        return "" if there else f"{code}: no such module"
    if PATHS.match(code) and not re.search(r"[A-Z]{3}|runs/|prepared/", code.replace("README", "")):
        built = code.startswith("docs/_")  # there once `make docs` has run
        there = built or any(list(base.glob(code)) for base in (ROOT, ROOT / "dfdc_video"))
        return "" if there else f"{code}: no such file"
    if code.startswith("make "):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if code.split()[1] in targets else f"{code}: no such target"
    return ""


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Verb -> its parser."""
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag of every verb."""
    verbs = verbs_of(parser).values()
    return {flag for verb in verbs for action in verb._actions for flag in action.option_strings}


def settings_problem(words: list[str]) -> str:
    """Why KEY VALUE pairs are no settings of any model's config, or nothing."""
    words = [PLACEHOLDERS.get(w, w) for w in words]
    tree = parse_overrides([w if i % 2 == 0 else w for i, w in enumerate(words)])
    try:
        complete(merge({"MODEL": {"NAME": "frame"}}, tree))
    except ValueError as error:
        # a setting of another component than the defaults: any that has it will do
        section = next(iter(tree))
        key = next(iter(tree[section]))
        known = {
            name.upper()
            for r in ALL
            for component in map(r.get, r.names())
            for name in getattr(component, "__kwdefaults__", None) or {}
        }
        return "" if key in known and "unknown key" in str(error) else str(error)
    return ""


def python_problem(block: Block) -> str:
    """Why a Python block does not compile, or nothing."""
    try:
        ast.parse(block.text)
    except SyntaxError as error:
        return f"Python: {error}"
    return ""


def yaml_problem(block: Block) -> str:
    """Why a block of YAML is no config, or nothing."""
    try:
        tree = yaml.safe_load(block.text)
        if "_BASE_" in tree and not any(b.startswith("model/frame_change") for b in tree["_BASE_"]):
            complete(with_bases(tree))
    except (ValueError, yaml.YAMLError) as error:
        return f"YAML: {error}"
    return ""


def link_problem(page: Path, link: str) -> str:
    """Why a relative link leads nowhere, or nothing. Pages that are generated exist in the site only."""
    target, _, anchor = link.partition("#")
    if re.match(r"[a-z]+:", link) or target.startswith("_generated/"):
        return ""
    path = (page.parent / target).resolve() if target else page
    if not path.exists():
        return f"link to {link}: nothing there"
    if anchor and path.suffix == ".md":
        titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
        return "" if anchor in slugs else f"link to {link}: no such heading"
    return ""


def problems(parser: argparse.ArgumentParser, page: Path, text: str) -> Iterator[str]:
    """Everything that is wrong on a page."""
    added, shown = added_names(text), files(text)
    for block in blocks(text):
        for words in commands(block):
            yield command_problem(parser, words[1:], added)
        if block.language == "python":
            yield python_problem(block)
        if block.language == "yaml":
            yield yaml_problem(block)
    for code in inline(text):
        if code.startswith("dfdc-video "):
            yield command_problem(parser, shlex.split(code)[1:], added)
        elif code not in shown:
            yield inline_problem(parser, code)
    for link in LINK.findall(text):
        yield link_problem(page, link)


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_shows_what_exists(parser, page):
    found = [p for p in problems(parser, page, page.read_text(encoding="utf-8")) if p]
    assert not found, "\n".join(found)


def test_commands_are_found_on_the_pages():
    shown = [
        words
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"))
        for words in commands(block)
    ]
    assert len(shown) > 50 and {"prepare", "train", "run", "compare"} <= {words[1] for words in shown}


BAD = """
Run `dfdc-video tarin frame_small`, `dfdc-video train frame_smal`, or use `--no-such-flag 3`.
`OPTIM.LRR 0.1` and `dfdc_video.nowhere`, see `dfdc_video/nowhere.py`, `make nothing`,
[there](docs/nowhere.md) or [here](README.md#no-such-heading).

```sh
dfdc-video prepare dfdc --root raw --out out --split kfold --split-set fold 1 \\
  --no-such-option 1
dfdc-video prepare dfdc --root raw --out out --detector blazeface
dfdc-video run frame_vs_sequence DATA.PATH prepared --arms slowfats
dfdc-video list metrics aucc
```

```python
def broken(:
```

```yaml
_BASE_: [model/no_such_model]
```
"""


def test_every_kind_of_mistake_is_noticed(parser):
    found = [p for p in problems(parser, ROOT / "README.md", BAD) if p]
    wanted = (
        "tarin frame_small: does not parse",
        "did you mean frame_small",
        "no verb has --no-such-flag",
        "did you mean LR",
        "dfdc_video.nowhere: no such module",
        "dfdc_video/nowhere.py: no such file",
        "make nothing: no such target",
        "docs/nowhere.md: nothing there",
        "no such heading",
        "unknown option --no-such-option",
        "did you mean blazeface",
        "slowfats",
        "aucc",
        "Python: ",
        "YAML: ",
    )
    missed = [part for part in wanted if not any(part in p for p in found)]
    assert not missed and len(found) == len(wanted), (missed, found)


def test_the_snippet_of_the_quickstart_runs():
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (snippet,) = (b.text for b in blocks(text) if b.language == "python")
    namespace: dict[str, object] = {}
    exec(compile(snippet, "quickstart.md", "exec"), namespace)
    assert tuple(namespace["logits"].shape) == (2, 2)
