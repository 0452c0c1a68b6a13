"""Small videos with known frames, and edits of video files that no encoder offers."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from dfdc_video.media.writer import VideoWriter


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


def numbered(count: int = 20, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose brightness encodes their number (see `number_of`), with a bright upper left corner."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    frames += (np.arange(count, dtype=np.uint8) * 8 + 20)[:, None, None, None]
    frames[:, : height // 3, : width // 3] = 250
    return frames


def write(path, frames, *, fps=25, times=None, crf=4, options=None):
    """Write RGB frames as a video; `options` are those of the container."""
    with VideoWriter(path, fps=fps, crf=crf) as writer:
        if options:
            writer.container.close()
            import av

            writer.container = av.open(str(writer.temporary), "w", options=options)
            writer.stream = writer.container.add_stream("libx264", rate=fps)
            writer.stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(frames):
            writer.add(frame, None if times is None else times[i])
    return path


def number_of(frames: np.ndarray) -> list[int]:
    """The numbers of frames of `numbered`."""
    return [round((float(f[-8:, -8:].mean()) - 20) / 8) for f in frames]


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    """Smooth colours, black, white, a red and a blue block, blurred so that 4:2:0 loses little colour."""
    y, x = np.mgrid[:height, :width]
    channels = (x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height))
    image = np.stack(channels, axis=-1).astype(np.uint8)
    image[20:50, 20:60], image[60:90, 70:110], image[:10], image[-10:] = (250, 30, 40), (20, 60, 240), 0, 255
    return cv2.GaussianBlur(image, (0, 0), 3)
