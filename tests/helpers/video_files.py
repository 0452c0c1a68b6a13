"""Edits video files and pictures in ways that no encoder offers."""

from __future__ import annotations

import struct

import numpy as np


def rotate_in_place(path, matrix):
    """Overwrite the display matrix in the track header of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(
        ">9i", *(int(v * (1 << (30 if i % 3 == 2 else 16))) for i, v in enumerate(matrix))
    )
    path.write_bytes(data)


def i420(planes) -> np.ndarray:
    """Planes (Y, U, V) of 4:2:0 video as one (3/2 H, W) array, the layout that an encoder takes."""
    return np.concatenate([p.ravel() for p in planes]).reshape(-1, planes[0].shape[1])
