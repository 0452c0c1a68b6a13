"""The command line: `dfdc-video VERB …`. Errors for people are one line and a non-zero exit; `--debug` shows
the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dfdc_video import __version__

VERBS = """verbs, in the order in which data flows:
  doctor     versions, decoders, GPU, precision self-test, disk: what is missing and how to get it
  list       every config, experiment and component with one line about it
  generate   make a synthetic labelled video data set: deepfakes in DFDC's layout, or motions in that of Kinetics
  prepare    raw videos -> faces -> tracks -> face videos, splits, Kinetics-style lists
  merge      parts of `prepare` -> one data set; or another split of the same faces
  train      one config on one prepared data set -> a run folder
  test       score a run's test (or val) split again
  run        a registered experiment: every arm and seed, then the comparison
  compare    finished runs side by side -> table, CSV, report.html
  export     a run's best weights in another program's format
  bench      a fixed ruler of benchmarks/: detectors, extraction, memory, training step
  demo       generate, prepare, run frame_vs_sequence, compare: the whole way in one command
"""

# of `generate`: module and function
TASKS = {"deepfake": ("deepfakes", "generate"), "motions": ("motions", "generate_motions")}


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, like ours."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The parser; the flags of `prepare` are its function's settings, which are read only when that verb was
    `chosen`.
    """
    parser = _Parser(prog="dfdc-video", description=("Controlled experiments " "with video " "classifiers, made " "for deepfake detection."), epilog=VERBS,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--version", action="version", version=f"dfdc-video {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        return sub

    verb("doctor", _doctor, "check the installation")
    sub = verb("list", _list, "configs, experiments and components")
    sub.add_argument(
        "kind",
        nargs="?",
        default="",
        help="only this kind, with its settings; for example datasets, face-detectors, models",
    )
    sub.add_argument(
        "name",
        nargs="?",
        default="",
        help="only this one, in full; for example models x3d_s, configs frame_b7",
    )
    sub = verb(
        "generate",
        _generate,
        "make a synthetic data set (datasets/synthetic/README.md explains both tasks and their settings)",
    )
    sub.add_argument("--root", required=True, type=Path, help="folder to make")
    tasks = (
        "deepfake: three methods of faking, in DFDC's layout; motions: eight motions, in that of "
        "Kinetics (default deepfake)"
    )
    sub.add_argument("--task", default="deepfake", choices=tuple(TASKS), help=tasks)
    sub.add_argument("settings", nargs="*", metavar="KEY VALUE", help="for example num_identities 100 seed 1")
    sub = verb("prepare", _prepare, "raw videos -> prepared data set; running it again continues")
    if chosen == "prepare":
        _add_prepare(sub)
    sub = verb(
        "merge",
        _merge,
        (
            "parts of `prepare` -> one data set; or one data set split anew (settings: as it was prepared, "
            "unless given)"
        ),
    )
    if chosen == "merge":
        _add_merge(sub)
    sub = verb("train", _train, "train one config; ends with the test of its best checkpoint")
    sub.add_argument(
        "config", nargs="?", default="", help="name from `dfdc-video list configs`, or a YAML file"
    )
    sub.add_argument(
        "settings", nargs="*", metavar="KEY VALUE", help="for example DATA.PATH prepared OPTIM.LR 0.01"
    )
    sub.add_argument("--out", type=Path, help="run folder (default runs/<config>-seed<n>)")
    sub.add_argument("--resume", type=Path, metavar="RUN", help="continue an interrupted run folder")
    sub = verb("test", _test, "score a run with its best checkpoint")
    sub.add_argument("run", type=Path)
    sub.add_argument("--split", default="test", choices=("test", "val"))
    sub = verb("run", _run, "launch a registered experiment; running it again finishes what is missing")
    sub.add_argument("experiment")
    text = (
        "for every arm, for example DATA.PATH prepared; in lower case a setting of the experiment, "
        "from `dfdc-video list experiments`"
    )
    sub.add_argument("settings", nargs="*", metavar="KEY VALUE", help=text)
    sub.add_argument("--out", type=Path, help="folder of its runs (default runs/<experiment>)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[], help="instead of the experiment's own")
    sub.add_argument("--arms", nargs="+", default=[], help="only these arms")
    sub = verb("compare", _compare, "compare finished runs on the same split")
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    sub.add_argument(
        "--out", type=Path, default=Path("comparison"), help="folder for report.html and table.csv"
    )
    sub.add_argument("--baseline", help="name of the run that differences are taken to (default: the first)")
    sub.add_argument("--pooling", help="pool clips to videos by another rule than the runs did")
    sub.add_argument(
        "--allow-different-frames",
        action="store_true",
        help="compare runs that saw different frames of a video",
    )
    sub = verb("export", _export, "write the best weights of a run for another program")
    sub.add_argument("run", type=Path)
    sub.add_argument("--out", type=Path, required=True, help="file to write")
    sub.add_argument(
        "--format",
        default="pyslowfast",
        choices=("pyslowfast",),
        help="pyslowfast: model_state with its names, a .pyth file",
    )
    sub = verb("bench", _bench, "run a ruler of `dfdc-video list benchmarks`; prints a Markdown table")
    sub.add_argument("benchmark")
    sub.add_argument("settings", nargs="*", metavar="KEY VALUE", help="for example num_videos 100")
    sub.add_argument("--out", type=Path, help="also write the table to this file")
    sub = verb("demo", _demo, "synthetic data, all four families, one report; about ten minutes on two cores")
    sub.add_argument("--out", type=Path, default=Path("demo"))
    sub.add_argument("--open", action="store_true", help="open the report in a browser, where there is one")
    sub.add_argument(
        "--small",
        action="store_true",
        help="a few videos and one epoch: a check of the way, not of the numbers",
    )
    return parser


def _add_prepare(sub: argparse.ArgumentParser) -> None:
    from dfdc_video.preparation.prepare import EXTRACTION, FREE_SETTINGS, HELP, all_settings

    sub.add_argument("dataset", help="reader, from `dfdc-video list datasets`")
    sub.add_argument("--root", required=True, type=Path, help="folder of the raw videos")
    sub.add_argument("--out", required=True, type=Path, help="folder to make")
    settings = all_settings()
    free = sub.add_argument_group("how much is done, and how (never changes what a video gives)")
    faces = sub.add_argument_group("faces")
    _add_settings(free, {k: settings.pop(k) for k in FREE_SETTINGS}, HELP)
    _add_settings(faces, {k: settings.pop(k) for k in ("dataset_settings", *EXTRACTION)}, HELP)
    _add_settings(sub.add_argument_group("cleaning, splits, exports"), settings, HELP)


def _add_merge(sub: argparse.ArgumentParser) -> None:
    from dfdc_video.preparation.assemble import HELP, finish
    from dfdc_video.registry import settings_of

    sub.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders made by `dfdc-video prepare` with the same settings",
    )
    sub.add_argument(
        "--out", type=Path, help="folder to make (default: the folder itself, where only one is given)"
    )
    _add_settings(sub, settings_of(finish), HELP, keep=True)


def _add_settings(
    sub: argparse._ActionsContainer, settings: dict[str, Any], texts: dict[str, str], *, keep: bool = False
) -> None:
    """One flag per keyword of a function. With `keep`, what is not given is left out instead of taking its
    default.
    """
    for name, parameter in settings.items():
        default, text = parameter.default, texts[name]
        kind: dict[str, Any] = {"type": type(default)}
        if default is None:
            name, kind = (
                name.removesuffix("_settings") + "_set",
                {"nargs": "+", "metavar": ("KEY", "VALUE"), "dest": name},
            )
        elif isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"nargs": len(default) or "+", "type": type(default[0]) if default else str}
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += "" if keep or shown in ("", None) or isinstance(default, bool) else f" (default {shown})"
        flag = "--" + name.replace("_", "-")
        sub.add_argument(
            flag, default=argparse.SUPPRESS if keep else default, help=text.replace("%", "%%"), **kind
        )


def _given(
    args: argparse.Namespace, settings: dict[str, Any], components: dict[str, Callable[..., Any]]
) -> dict[str, Any]:
    """The flags of `_add_settings` as keyword arguments; KEY VALUE pairs are checked against the component
    that they are for.
    """
    from dfdc_video.config import keyword_arguments

    given = {k: getattr(args, k) for k in settings if hasattr(args, k)}
    for name, component in components.items():
        if given.get(name) is not None:
            given[name] = keyword_arguments(component, given[name])
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def _doctor(args: argparse.Namespace) -> int:
    from dfdc_video.commands.doctor import doctor

    return doctor()


def _list(args: argparse.Namespace) -> int:
    from dfdc_video.commands.listing import show

    show(args.kind, args.name)
    return 0


def _generate(args: argparse.Namespace) -> int:
    from dfdc_video.config import keyword_arguments

    module, function = TASKS[args.task]
    generate = getattr(importlib.import_module(f"dfdc_video.synthetic.{module}"), function)
    summary = generate(args.root, **keyword_arguments(generate, args.settings))
    print(f"{args.root}: {summary}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from dfdc_video.preparation.prepare import all_settings, prepare
    from dfdc_video.registry import DATASETS, DETECTORS, SPLITS

    components = {
        "dataset_settings": DATASETS.get(args.dataset),
        "detector_settings": DETECTORS.get(args.detector),
        "split_settings": SPLITS.get(args.split),
    }
    given = _given(args, all_settings(), components)
    manifest = prepare(args.dataset, args.root, args.out, **given)
    return _print_manifest(manifest) if manifest else 0


def _merge(args: argparse.Namespace) -> int:
    from dfdc_video.preparation.assemble import finish, merge_parts
    from dfdc_video.preparation.shards import read_settings
    from dfdc_video.registry import SPLITS, settings_of

    if not args.out and len(args.folders) > 1:
        raise ValueError("several folders are merged into a new one: give it as --out")
    rule = getattr(args, "split", None) or read_settings(args.folders[0])["split"]
    given = _given(args, settings_of(finish), {"split_settings": SPLITS.get(rule)})
    if "split" in given:
        given.setdefault("split_settings", None)
    return _print_manifest(merge_parts(args.folders, args.out or args.folders[0], **given))


def _print_manifest(manifest: Any) -> int:
    counts = (manifest.videos["split"] + " " + manifest.videos["status"]).value_counts().sort_index()
    print(
        f"{manifest.root}: {len(manifest.videos)} videos, {len(manifest.tracks)} tracks, split "
        f"{manifest.split_hash}"
    )
    print("  " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    refused = sum(manifest.summary["quarantine"].values())
    print(f"  {refused} entries in quarantine.csv; {manifest.root / 'summary.html'} shows the set")
    return 0


def _export(args: argparse.Namespace) -> int:
    from dfdc_video.models.weights.write import save_pyslowfast
    from dfdc_video.runs.run import load_run

    print(save_pyslowfast(load_run(args.run), args.out))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from dfdc_video.config import keyword_arguments
    from dfdc_video.registry import BENCHMARKS

    ruler = BENCHMARKS.get(args.benchmark)
    text = ruler(**keyword_arguments(ruler, args.settings))
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text.rstrip() + "\n", encoding="utf-8")
    return 0


def _train(args: argparse.Namespace) -> int:
    from dfdc_video.config import load_dump, merge_overrides, resolve

    if args.resume:
        words = [args.config, *args.settings] if args.config else []
        cfg, folder = merge_overrides(load_dump(args.resume / "config.yaml"), words), args.resume
    elif not args.config:
        raise ValueError("name a config (see `dfdc-video list configs`) or --resume RUN")
    else:
        cfg = resolve(args.config, overrides=args.settings)
        folder = args.out or Path("runs") / f"{Path(args.config).stem}-seed{cfg.SEED}"
    from dfdc_video.runs.run import train

    try:
        report = train(cfg, folder, name=folder.name, resume=bool(args.resume))
    except KeyboardInterrupt:
        raise Interrupted(f"dfdc-video train --resume {folder}") from None
    _print_report(folder, report)
    return 0


def _test(args: argparse.Namespace) -> int:
    from dfdc_video.runs.run import score

    _print_report(
        args.run if args.split == "test" else args.run / args.split, score(args.run, split=args.split)
    )
    return 0


def _print_report(folder: Path, report: dict[str, Any]) -> None:
    def show(entry: dict[str, Any]) -> str:
        if entry["value"] is None:
            return "undefined"
        return f"{entry['value']:.3f}" + (
            f" [{entry['low']:.3f}, {entry['high']:.3f}]" if entry["low"] is not None else ""
        )

    print(f"{folder} ({report['split']} split, {report['coverage']})")
    print("  " + "  ".join(f"{k.removeprefix('video/')} {show(v)}" for k, v in report["metrics"].items()))
    for method, metrics in report["per_method"].items():
        print(f"  {method}: auc {show(metrics['auc'])}")


def _run(args: argparse.Namespace) -> int:
    from dfdc_video.registry import EXPERIMENTS
    from dfdc_video.runs.experiment import launch

    EXPERIMENTS.get(args.experiment)
    out = args.out or Path("runs") / args.experiment
    try:
        comparison = launch(args.experiment, out, overrides=args.settings, seeds=args.seeds, arms=args.arms)
    except KeyboardInterrupt:
        raise Interrupted(
            f"the same command: finished runs in {out} are kept, the interrupted one continues"
        ) from None
    _show(comparison, out)
    return 0


def _show(comparison: Any, out: Path) -> None:
    from dfdc_video.report.terminal import print_comparison

    print_comparison(comparison)
    print(f"{out / 'report.html'}\n{out / 'table.csv'}")


def _compare(args: argparse.Namespace) -> int:
    from dfdc_video.evaluation.compare import compare
    from dfdc_video.report.page import write_page

    comparison = compare(
        args.runs,
        baseline=args.baseline,
        pooling=args.pooling,
        allow_different_frames=args.allow_different_frames,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    comparison.to_csv(args.out / "table.csv")
    command = "dfdc-video compare " + " ".join(str(r) for r in args.runs)
    write_page(args.out / "report.html", comparison, title="Comparison of runs", command=command)
    _show(comparison, args.out)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from dfdc_video.commands.demo import demo

    try:
        comparison = demo(args.out, small=args.small)
    except KeyboardInterrupt:
        raise Interrupted("the same command: it continues where it was") from None
    report = args.out / "runs" / "report.html"
    _show(comparison, report.parent)
    if args.open:
        import webbrowser

        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
            webbrowser.open(report.resolve().as_uri())
        else:
            print("no display here: open the report.html above in a browser")
    return 0


class Interrupted(Exception):
    """Ctrl-C, with the words that continue."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 an error for people, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words else "")
    if not words:
        parser.print_help()
        return 2
    known = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    if not words[0].startswith("-") and words[0] not in known:
        from dfdc_video.registry import nearest

        print(f"error: unknown verb '{words[0]}'; {nearest(words[0], known)}", file=sys.stderr)
        return 2
    args, extra = parser.parse_known_args(words)
    if extra and any(e.startswith("--") for e in extra) or (extra and not hasattr(args, "settings")):
        print(f"error: unknown option {extra[0]}; see `dfdc-video {words[0]} --help`", file=sys.stderr)
        return 2
    if extra:  # a value such as -1, which argparse takes for an option
        args.settings = [*args.settings, *extra]
    # of libraries, about themselves
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "pytorch_lightning",
        "fvcore",
        "httpx",
        "matplotlib",
        "fontTools",
    ):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        return int(args.function(args) or 0)
    except Interrupted as stop:
        print(f"interrupted; continue with {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt as stop:
        print(
            str(stop) or "interrupted; nothing that was finished is lost, the same command continues",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
