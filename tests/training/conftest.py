"""Small layers throughout: see `one_thread`."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_layers(one_thread):
    """One thread for every test of the room."""
