"""Detection in tests of this room: a detector of red squares, and a spawned worker for those of mediapipe."""

from __future__ import annotations

import multiprocessing

import pytest
from pebble import ProcessPool
from red_square import RedSquare

import dfdc_video.faces.extract as module


@pytest.fixture
def red(monkeypatch):
    """red(...) makes a RedSquare the only detector of this process."""

    def use(*args, **kwargs) -> RedSquare:
        detector = RedSquare(*args, **kwargs)
        monkeypatch.setattr(module, "_detector", lambda name, min_confidence, settings: detector)
        return detector

    return use


@pytest.fixture(scope="module")
def worker():
    """worker(function, *args, **kwargs): call it in one spawned process that keeps its detector."""
    with ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn")) as pool:

        def call(function, *args, **kwargs):
            return pool.schedule(function, args=args, kwargs=kwargs, timeout=120).result()

        yield call
