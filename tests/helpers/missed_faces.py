"""Work that a test hands to a spawned process, which has to import it."""

from __future__ import annotations

from dfdc_video.media.reader import iter_frames


def count_missed(paths: list[str], model: int) -> tuple[int, int]:
    """(frames, frames without a face), every fifth frame."""
    from mediapipe.python.solutions.face_detection import FaceDetection

    with FaceDetection(model_selection=model, min_detection_confidence=0.5) as detector:
        found = [
            bool(detector.process(frame).detections)
            for path in paths
            for frame in list(iter_frames(path))[::5]
        ]
    return len(found), found.count(False)
