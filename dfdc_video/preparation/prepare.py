"""Raw folder -> prepared data set: read, hash, extract every video in a process of its own, then assemble."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dfdc_video.files import explain_full_disk
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.preparation.assemble import assemble, kinds_of
from dfdc_video.preparation.extraction import extract_all
from dfdc_video.preparation.hashing import hash_files
from dfdc_video.preparation.parts import Part, in_part, resolve_sources, write_part
from dfdc_video.preparation.settings import FinishingSettings, PrepareSettings, names_of
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

log = logging.getLogger(__name__)


def prepare(dataset: str, root: str | Path, out: str | Path, **settings: Any) -> Manifest | None:
    """Prepare a data set and return its manifest, which is on disk in `out`; None for one part of several.

    `settings` are those of `PrepareSettings`. Every frame is decoded; faces are detected on every `every`-th
    frame, tracked up to hard cuts and cut out as square videos of `size` pixels. What is refused is in
    quarantine.csv with the reason. Running it again with the same settings continues and leaves what is done
    as it is. Raises FileNotFoundError without a root, TypeError for an unknown setting, and ValueError for
    settings that cannot work, for an `out` made with others, and where no face is found.
    """
    given = PrepareSettings(**settings)
    root, out = Path(root).expanduser(), Path(out).expanduser()
    reader = partial(DATASETS.get(dataset), **given.dataset_settings)
    if not given.folders and not root.is_dir():
        raise FileNotFoundError(
            f"no folder at {root}; --root is the folder with the raw videos of '{dataset}'"
        )
    folder = PreparedFolder(out)
    fixed = {"dataset": dataset, "root": str(root.resolve()), **given.fixed()}
    with explain_full_disk(out):
        if given.folders:
            folder.claim(fixed, open_until_done=names_of(FinishingSettings))
            for number, name in enumerate(given.folders, start=1):
                log.info("folder %d of %d: %s", number, len(given.folders), name)
                _one_folder(reader, root, folder, name, given)
        else:
            videos, rejections = _read(reader, root, dataset)
            videos = _first(videos, given.limit)
            folder.claim(fixed, open_until_done=names_of(FinishingSettings))
            part, num_parts = given.part, given.num_parts
            name = "all" if num_parts == 1 else f"{part}-of-{num_parts}"
            mine = [v for v in videos if in_part(v, part, num_parts)]
            _extract_part(root, folder, name, mine, rejections, given)
        if given.num_parts > 1:
            log.info(
                "part %d of %d is done; when all are: dfdc-video merge FOLDER … --out OUT",
                given.part,
                given.num_parts,
            )
            return None
        return assemble(folder, given.finishing())


def _read(
    reader: Callable[[Path], tuple[list[Video], list[Rejection]]], root: Path, what: str
) -> tuple[list[Video], list[Rejection]]:
    videos, rejections = reader(root)
    videos, circular = resolve_sources(sorted(videos, key=lambda v: v.path))
    rejections = [*rejections, *circular]
    if not videos:
        reasons = "; ".join(f"{count} × {kind}" for kind, count in kinds_of(rejections).items())
        raise ValueError(f"'{what}' found no usable video in {root}{': ' + reasons if reasons else ''}")
    return videos, rejections


def _extract_part(
    root: Path,
    folder: PreparedFolder,
    part: str,
    videos: list[Video],
    rejections: list[Rejection],
    given: PrepareSettings,
) -> None:
    hashes, unread = hash_files(root, folder, part, videos, given.workers)
    videos = [v for v in videos if v.video_id in hashes]
    failures = extract_all(root, folder.root, videos, hashes, given)
    write_part(folder, Part(part, videos, [*rejections, *unread], hashes, failures))


def _one_folder(
    reader: Callable[[Path], Any], root: Path, folder: PreparedFolder, name: str, given: PrepareSettings
) -> None:
    """Fetch the folder `name` of the raw data, extract what is in it, delete it.

    One that was done without failures is not downloaded again.
    """
    raw = root / name
    if (done := folder.record(name)) and not done["failures"]:
        log.info("%s is already done", name)
        if raw.is_dir():
            _shell(given.delete, root, name)
        return
    _shell(given.fetch, root, name)
    if not raw.is_dir():
        raise FileNotFoundError(
            f"no folder at {raw}"
            + (f" after the fetch command {given.fetch!r}" if given.fetch else "; --fetch can fetch it")
        )
    videos, rejections = _read(reader, root, name)
    inside = f"{name.rstrip('/')}/"
    mine = [v for v in videos if v.path.startswith(inside)]
    if not mine:
        raise ValueError(f"the reader found no video below {raw}")
    refused = [r for r in rejections if r.path.startswith(inside)]
    _extract_part(root, folder, name, mine, refused, given)
    _shell(given.delete, root, name)


def _shell(command: str, root: Path, folder: str) -> None:
    """Run a shell command with {folder} and {root} filled in, and with FOLDER and ROOT in its environment."""
    if not command:
        return
    words = command.replace("{folder}", shlex.quote(folder)).replace("{root}", shlex.quote(str(root)))
    code = subprocess.run(
        words, shell=True, env={**os.environ, "FOLDER": folder, "ROOT": str(root)}
    ).returncode
    if code:
        raise ValueError(
            f"the command {words!r} ended with exit code {code}; what is done is kept, and the same "
            "command continues"
        )


def _first(videos: list[Video], limit: int) -> list[Video]:
    """The first `limit` videos, each original followed by its fakes."""
    if not limit or limit >= len(videos):
        return videos
    kept = sorted(videos, key=lambda v: (v.source_id or v.video_id, v.label, v.video_id))[:limit]
    return sorted(kept, key=lambda v: v.path)
