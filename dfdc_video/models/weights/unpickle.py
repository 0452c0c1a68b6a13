"""Caffe2 files of PySlowFast (`.pkl`): a pickle of arrays, read without executing any of its code.

A pickle is a program. Here it may build numeric arrays and Python's built-in containers, strings and numbers,
and call nothing else.
"""

from __future__ import annotations

import codecs
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

LEGACY_START = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
NUMBERS = "fiub"  # kinds of dtype: an array of objects could hold anything


class Refused(Exception):
    """A pickle requested something that is not allowed."""


def _dtype(*code: Any) -> np.dtype:
    kind = np.dtype(*code)
    if kind.kind not in NUMBERS or kind.fields:
        raise Refused(f"an array of {kind}")
    return kind


def _bytes(text: str, encoding: str) -> bytes:
    """Bytes in protocol 2 pickles of Python 3; latin1 only, since other encodings would import modules."""
    if encoding != "latin1":
        raise Refused(f"bytes in {encoding}")
    return codecs.latin_1_encode(text)[0]


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _bytes,
}
# the functions that arrays and scalars are pickled with, before and since numpy 2
for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED |= {
        (core, "_reconstruct"): np.zeros(0).__reduce__()[0],
        (core, "scalar"): np.float64(0).__reduce__()[0],
    }


def is_torch(path: Path) -> bool:
    """Whether a file is in torch's zip format or in that before torch 1.6, judged by content, not by name."""
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    return start.startswith(b"PK") or start == LEGACY_START


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise Refused(f"{module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a reference to something outside the file")


def read_caffe2(path: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor for the `blobs` of a Caffe2 pickle; Python 2 strings are read as latin-1.

    ValueError if the file is damaged, contains anything but numeric arrays, or has no `blobs`; none of its
    code has been executed then.
    """
    try:
        content = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Refused as error:
        raise ValueError(
            f"{path} is a pickle that asks for {error}: refused, no code was executed; expected numeric "
            "arrays only"
        ) from error
    except Exception as error:  # damaged data can raise any error of the constructors that it calls
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:80]
        raise ValueError(f"{path} is no pickle or is damaged ({reason}); download it again") from error
    blobs = content.get("blobs") if isinstance(content, dict) else None
    if not isinstance(blobs, dict) or not blobs:
        raise ValueError(
            f"{path} holds no 'blobs': expected a Caffe2 file of PySlowFast, a pickle of {{'blobs': "
            f"{{name: array}}}}"
        )
    strange = [
        str(n)
        for n, value in blobs.items()
        if not isinstance(n, str) or np.asarray(value).dtype.kind not in NUMBERS
    ]
    if strange:
        raise ValueError(
            f"{path}: {', '.join(strange[:3])} among the blobs: not a numeric array; expected a Caffe2 "
            "file of PySlowFast"
        )
    # copies in native byte order
    return {
        name: torch.from_numpy(np.array(value, dtype=np.asarray(value).dtype.newbyteorder("=")))
        for name, value in blobs.items()
    }
