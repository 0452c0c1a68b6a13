"""The owner of the image trees in a prepared folder: face images for image classifiers.

<split>/<class>/<video_id>_<track>_<frame>.jpg   torchvision's ImageFolder reads the folder of a split
index.csv                                        a row per image; written once all images are there
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dfdc_video.files import is_partial, whole_file, write_atomic

INDEX = "index.csv"
SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class ImageTree:
    """Images by their path below `root`. The index is the last file that is written."""

    root: Path

    def is_complete(self, index: str) -> bool:
        """Whether the images were all written, for an index of this very text."""
        path = self.root / INDEX
        return path.is_file() and path.read_bytes() == index.encode()

    def begin(self, wanted: Collection[str]) -> None:
        """Remove the index, images that are not `wanted`, leftovers of a killed run, and emptied folders."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / INDEX).unlink(missing_ok=True)
        for parent, _, names in os.walk(self.root, topdown=False):
            for path in (Path(parent, name) for name in names):
                image = path.suffix in SUFFIXES and path.relative_to(self.root).as_posix() not in wanted
                if image or is_partial(path):
                    path.unlink()
            if Path(parent) != self.root and not any(Path(parent).iterdir()):
                Path(parent).rmdir()

    def add_class(self, split: str, name: str) -> None:
        """Make a class, also one without images: without its folder ImageFolder would renumber the others."""
        (self.root / split / name).mkdir(parents=True, exist_ok=True)

    def modified(self, image: str) -> int:
        """Time of an image in ns, or -1 where it is not there."""
        try:
            return (self.root / image).stat().st_mtime_ns
        except FileNotFoundError:
            return -1

    def write(self, image: str, data: bytes) -> None:
        path = self.root / image
        with whole_file(path, sync=False) as temporary:
            temporary.write_bytes(data)
        path.touch()  # equal bytes leave the file alone, and it is to be younger than its face video

    def finish(self, index: str) -> None:
        """Write the index, once all images are there."""
        write_atomic(self.root / INDEX, index)
