"""`dfdc-video bench`: measurements under fixed conditions, so that numbers can be compared."""

from __future__ import annotations

import argparse
from pathlib import Path

ORDER = 110
HELP = "run a benchmark of detectors, extraction, memory or the training step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", help="name from `dfdc-video list benchmarks`")
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="for example num_videos 100")
    parser.add_argument("--out", type=Path, help="also write the table to this file")


def run(args: argparse.Namespace) -> int:
    from dfdc_video.config import keyword_arguments
    from dfdc_video.registry import BENCHMARKS

    benchmark = BENCHMARKS.get(args.benchmark)
    text = benchmark(**keyword_arguments(benchmark, args.settings))
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text.rstrip() + "\n", encoding="utf-8")
    return 0
