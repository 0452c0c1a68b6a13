"""`dfdc-video merge`: folders prepared in parts become one data set, or one data set gets another split."""

from __future__ import annotations

import argparse
from pathlib import Path

from dfdc_video.commands.prepare import add_flags, check_components, given_flags, print_manifest

ORDER = 50
HELP = "parts of `prepare` -> one data set; or another split of the same faces"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from dfdc_video.preparation.settings import FinishingSettings

    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders made by `dfdc-video prepare` with the same settings",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to make (default: the folder itself, where only one is given)"
    )
    group = parser.add_argument_group("settings (where not given: as the folders were prepared)")
    add_flags(group, FinishingSettings, defaults=False)


def run(args: argparse.Namespace) -> int:
    from dfdc_video.folders.prepared import PreparedFolder
    from dfdc_video.preparation.assemble import merge_parts
    from dfdc_video.preparation.settings import FinishingSettings

    if not args.out and len(args.folders) > 1:
        raise ValueError("several folders are merged into a new one: give it as --out")
    flags = given_flags(args, FinishingSettings)
    if "split" in flags:  # another rule: the settings of the one before do not apply
        flags.setdefault("split_settings", None)
    before = PreparedFolder(args.folders[0]).settings()
    settings = check_components({"split": before["split"], **flags}, before["dataset"])
    return print_manifest(merge_parts(args.folders, args.out or args.folders[0], **settings))
