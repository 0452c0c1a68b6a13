"""Content hashes of the raw files: they tell equal files, and whether a result is still that of its file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.records import Rejection, Video


def hash_files(
    root: Path, folder: PreparedFolder, part: str, videos: Sequence[Video], workers: int
) -> tuple[dict[str, str], list[Rejection]]:
    """SHA-256 by video_id, and the files that cannot be read.

    A file that an earlier run has hashed is read again only if its size or modification time has changed.
    """
    known = folder.hashes(part)
    current: dict[str, list[Any]] = {}
    hashes, rejections = {}, []

    def one(video: Video) -> list[Any]:
        file = root / video.path
        stat = file.stat()
        before = known.get(video.path)
        if before and before[:2] == [stat.st_size, stat.st_mtime_ns]:
            return before
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]

    with ThreadPoolExecutor(workers) as pool:
        futures = [(video, pool.submit(one, video)) for video in videos]
        for video, future in futures:
            try:
                current[video.path] = future.result()
                hashes[video.video_id] = current[video.path][2]
            except OSError as error:
                rejections.append(
                    Rejection(video.video_id, video.path, "read", f"unreadable file: {error.strerror}")
                )
    if current != known:
        folder.write_hashes(part, {**known, **current})
    return hashes, rejections
