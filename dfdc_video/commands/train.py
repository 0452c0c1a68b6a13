"""`dfdc-video train`: train a config on a prepared data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dfdc_video.commands import Interrupted

ORDER = 60
HELP = "train a config on a prepared data set, score its test split, and write a run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", default="", help="name from `dfdc-video list configs`, or a YAML file"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY VALUE", help="for example DATA.PATH prepared OPTIM.LR 0.01"
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/<config>-seed<n>)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue an interrupted run folder")


def run(args: argparse.Namespace) -> int:
    from dfdc_video.config import merge_overrides, resolve
    from dfdc_video.folders.run import RunFolder

    if args.resume:
        words = [args.config, *args.settings] if args.config else []
        cfg, folder = merge_overrides(RunFolder(args.resume).config(), words), args.resume
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
    print_report(folder, report)
    return 0


def print_report(folder: Path, report: dict[str, Any]) -> None:
    """Print the metrics of a run with their intervals, and the AUC per method."""

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
