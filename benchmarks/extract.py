"""Speed from a 1080p file to face videos, against decoding alone and a loop of OpenCV and mediapipe.

    dfdc-video bench extract [grain 4.0] [repeats 5]

The videos are synthetic: a person moves in front of a textured wall, with sensor noise of `grain` grey
levels, which determines the bit rate and with it the speed of the decoder: a few Mbit/s, like DFDC's (470 GB
for 119,000 clips of 10 s: 3). The steps after decoding take the same time at any bit rate. All methods take
turns in one run, so that other load on the machine affects all of them; medians are printed.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.detect import quiet_stderr
from dfdc_video.faces.extract import extract as extract_faces
from dfdc_video.media.reader import iter_luma
from dfdc_video.preparation.settings import PrepareSettings
from dfdc_video.records import Stream, Track
from dfdc_video.registry import BENCHMARKS, settings_of
from dfdc_video.synthetic import deepfakes

FPS = 30
STAGES = ("probe", "decode", "detect", "crop", "encode")


def make_video(path: str, identity: int, num_frames: int, height: int, width: int, grain: float) -> None:
    """Write one H.264 file with key frames as far apart as in DFDC.

    The person takes up two thirds of the height, the face a quarter.
    """
    import av

    settings = {"seed": 0, "seconds": num_frames / FPS, "clip_seconds": 1.07}
    settings |= {"strength": 1.0, "spatial_strength": 1.0}
    inner = (height * 2 // 3 // 2 * 2, width * 9 // 16 // 2 * 2)
    video: dict[str, Any] = {"identity": identity, "donor": None, "second": None, "take": 0}
    video |= {"fps": FPS, "method": "real", "size": inner}
    rng = np.random.default_rng(identity)
    noise = rng.normal(0, grain, (height + 64, width + 64)).astype(np.float32)
    wall = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 2)
    wall = cv2.merge([100 + 60 * wall / np.abs(wall).max()] * 3)
    top, left = height - inner[0], (width - inner[1]) // 2
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", height, width
        stream.options = {"crf": "23", "preset": "fast"}
        for person in deepfakes.frames_of(video, settings):
            frame = wall.copy()
            frame[top:, left : left + inner[1]] = person
            row, column = rng.integers(64, size=2)
            noisy = np.clip(frame + noise[row : row + height, column : column + width, None], 0, 255)
            picture = av.VideoFrame.from_ndarray(noisy.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def decode(path: str, out: str, settings: dict[str, Any]) -> dict[str, float]:
    """The upper limit: PyAV, one thread, no conversion."""
    import av

    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = sum(1 for _ in container.decode(container.streams.video[0]))
    return {"frames": frames}


def extract_one(path: str, out: str, settings: dict[str, Any]) -> dict[str, float]:
    """The work of `prepare` on a video."""
    found = extract_faces(path, out, video_id=Path(path).stem, **settings)
    if not found.tracks:
        raise ValueError(f"no face found in {path}: nothing to measure")
    return {"frames": found.stream.num_frames, **found.seconds}


_originals: dict[str, tuple[Stream, list[Track]]] = {}


def extract_fake(path: str, out: str, settings: dict[str, Any]) -> dict[str, float]:
    """The work of `prepare` on a fake after its original.

    Here it is the same file, its faces coded differently, so that both have to be compared.
    """
    stem = Path(path).stem
    if path not in _originals:
        other = {**settings, "crf": settings["crf"] + 1}
        original = extract_faces(path, out, video_id=f"{stem}_original", **other)
        _originals[path] = (original.stream, original.tracks)
    found = extract_faces(path, out, video_id=f"{stem}_fake", original=_originals[path], **settings)
    return {"frames": found.stream.num_frames, **found.seconds}


_plain: list[Any] = []


def plain_loop(path: str, out: str, settings: dict[str, Any]) -> dict[str, float]:
    """The usual script: OpenCV reads, mediapipe detects on every frame, the box is cropped and written."""
    if not _plain:
        with quiet_stderr():
            from mediapipe.python.solutions.face_detection import FaceDetection

            _plain.append(FaceDetection(model_selection=1, min_detection_confidence=0.5))
            _plain[0].process(np.zeros((64, 64, 3), dtype=np.uint8))
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    size, frames = settings["size"], 0
    writer = cv2.VideoWriter(
        f"{out}/{Path(path).stem}_plain.mp4", cv2.VideoWriter.fourcc(*"mp4v"), FPS, (size, size)
    )
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames += 1
        found = _plain[0].process(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).detections
        if found:
            box = found[0].location_data.relative_bounding_box
            height, width = frame.shape[:2]
            half = settings["margin"] * max(box.width * width, box.height * height) / 2
            x, y = (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height
            crop = frame[max(int(y - half), 0) : int(y + half), max(int(x - half), 0) : int(x + half)]
            writer.write(cv2.resize(crop, (size, size)))
    writer.release()
    capture.release()
    return {"frames": frames}


METHODS: dict[str, Callable[[str, str, dict[str, Any]], dict[str, float]]] = {
    "decode alone": decode,
    "extract": extract_one,
    "extract, fake with its original's boxes": extract_fake,
    "plain OpenCV + mediapipe loop": plain_loop,
}


def _job(method: str, path: str, out: str, settings: dict[str, Any]) -> dict[str, float]:
    cv2.setNumThreads(1)
    return METHODS[method](path, out, settings)


def psnr(a: Path, b: Path) -> list[float]:
    """PSNR of the luma of every frame of two face videos, in dB."""
    return [
        10 * np.log10(255**2 / max(np.mean((x.astype(np.float64) - y) ** 2), 1e-9))
        for x, y in zip(iter_luma(a), iter_luma(b), strict=True)
    ]


def _quality(paths: list[str], out: str, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Format -> bytes of every face video, and "psnr" -> dB of every frame in the default format, compared
    with lossless.
    """
    found: dict[str, list[float]] = {"psnr": []}
    for path in paths:
        crops = {}
        for name in (settings["format"], "lossless", "png"):
            result = extract_faces(
                path, f"{out}/{name}", video_id=Path(path).stem, **{**settings, "format": name}
            )
            crops[name] = [Path(out, name, t.crop_path) for t in result.tracks]
            sizes = [
                sum(f.stat().st_size for f in p.iterdir()) if p.is_dir() else p.stat().st_size
                for p in crops[name]
            ]
            found.setdefault(name, []).extend(sizes)
        for a, b in zip(crops[settings["format"]], crops["lossless"], strict=True):
            found["psnr"] += psnr(a, b)
    return found


def measure(
    folder: str,
    *,
    num_videos: int,
    shape: tuple[int, int, int],
    grain: float,
    repeats: int,
    processes: tuple[int, ...],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """rates[method, processes] in frames/s, stages[processes] in ms per frame, quality (see `_quality`), and
    mbit, the bit rate of the videos in Mbit/s.
    """
    paths = [f"{folder}/v{n}.mp4" for n in range(num_videos)]
    context = multiprocessing.get_context("spawn")
    rates: dict[tuple[str, int], list[float]] = {}
    stages: dict[int, list[dict[str, float]]] = {n: [] for n in processes}
    pools = {n: ProcessPoolExecutor(n, mp_context=context) for n in processes}
    try:
        makers = pools[max(processes)]
        for job in [makers.submit(make_video, p, i, *shape, grain) for i, p in enumerate(paths)]:
            job.result()
        for turn in range(repeats + 1):  # the first one, which loads libraries and models, does not count
            for n, pool in pools.items():
                for method in METHODS:
                    started = time.perf_counter()
                    jobs = [pool.submit(_job, method, p, folder, settings) for p in paths]
                    results = [job.result() for job in jobs]
                    seconds = time.perf_counter() - started
                    if turn:
                        rates.setdefault((method, n), []).append(sum(r["frames"] for r in results) / seconds)
                    if turn and method == "extract":
                        stages[n] += [{s: 1000 * r[s] / r["frames"] for s in STAGES} for r in results]
        quality = makers.submit(_quality, paths, folder, settings).result()
    finally:
        for pool in pools.values():
            pool.shutdown()
    mbit = statistics.mean(os.path.getsize(p) * 8 * FPS / shape[0] / 1e6 for p in paths)
    return {
        "rates": {key: statistics.median(values) for key, values in rates.items()},
        "stages": {
            n: {s: statistics.median(r[s] for r in rows) for s in STAGES} for n, rows in stages.items()
        },
        "quality": quality,
        "mbit": mbit,
    }


def _table(found: dict[str, Any], processes: tuple[int, ...]) -> list[str]:
    rates, stages = found["rates"], found["stages"]
    lines = [
        "| frames/s | " + " | ".join(f"{n} process{'es' * (n > 1)} | of decoding" for n in processes) + " |",
        "|---|" + "---|---|" * len(processes),
    ]
    for method in METHODS:
        cells = [
            f"{rates[method, n]:.0f} | {rates[method, n] / rates['decode alone', n]:.0%}" for n in processes
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += [
        "",
        "| `extract`, ms per frame | " + " | ".join((*STAGES[:3], "crop without encode", "encode")) + " |",
        "|---|" + "---|" * 5,
    ]
    for n, row in stages.items():
        times = (row["probe"], row["decode"], row["detect"], row["crop"] - row["encode"], row["encode"])
        lines.append(f"| {n} process{'es' * (n > 1)} | " + " | ".join(f"{t:.2f}" for t in times) + " |")
    return lines


@BENCHMARKS.register(name="extract")
def extract(
    *,
    num_videos: int = 2,
    num_frames: int = 300,
    height: int = 1080,
    width: int = 1920,
    grain: float = 4.0,
    repeats: int = 5,
    detector: str = "blazeface_full",
) -> str:
    """Speed from file to face videos, compared with decoding alone; size and PSNR of the face videos."""
    processes = (1, 2)
    defaults = PrepareSettings(detector=detector).extraction()
    settings = {k: v for k, v in defaults.items() if k in settings_of(extract_faces)}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            folder,
            num_videos=num_videos,
            shape=(num_frames, height, width),
            grain=grain,
            repeats=repeats,
            processes=processes,
            settings=settings,
        )
    lines = [
        f"{num_videos} synthetic videos, {width}x{height}, {num_frames} frames, H.264 at {found['mbit']:.1f} "
        f"Mbit/s; medians of {repeats} turns; {platform.processor() or platform.machine()}, {os.cpu_count()} "
        f"cores; detector {detector} on every {settings['every']}th frame, crops of {settings['size']} px. "
        "Decoding alone is PyAV on one thread per process without any conversion.",
        "",
        *_table(found, processes),
        "",
        "`decode` includes the thumbnails for cuts, the signature and the copy of every frame.",
        "",
        f"| face videos of {settings['size']} px | kB per video | bytes per frame | luma PSNR |",
        "|---|---|---|---|",
        *_quality_rows(found["quality"], num_frames, settings),
    ]
    return "\n".join(lines) + "\n"


def _quality_rows(found: dict[str, list[float]], num_frames: int, settings: dict[str, Any]) -> Iterator[str]:
    db = found["psnr"]
    for kind, values in found.items():
        if kind == "psnr":
            continue
        lossy = kind == settings["format"]
        quality = f"{statistics.mean(db):.1f} dB, worst frame {min(db):.1f}" if lossy else "as the crop"
        label = f"{kind}, crf {settings['crf']}, gop {settings['gop']}" if kind == "h264" else kind
        size = statistics.mean(values)
        yield f"| {label} | {size / 1000:.0f} | {size / num_frames:.0f} | {quality} |"
