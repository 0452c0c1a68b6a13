"""The five recipes of docs/extending.md, followed to the letter: its files are written into a copy of the
checkout, and its commands are run there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks, commands, files, section

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PROGRAMS = {
    "dfdc-video": ["-m", "dfdc_video"],
    "pytest": ["-m", "pytest", "-p", "no:xdist"],
    "python": [],
}
COPIED = (
    "dfdc_video configs experiments datasets benchmarks tests/models tests/helpers tests/conftest.py "
    "setup.py pyproject.toml README.md docs/models.md"
).split()


def run(checkout: Path, text: str) -> str:
    """Run every command of a text in the checkout; returns what they print."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    output = []
    found = [words for block in blocks(text) for words in commands(block, tuple(PROGRAMS))]
    assert found, "no command"
    for program, *words in found:
        done = subprocess.run(
            [sys.executable, *PROGRAMS[program], *words],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {words}\n{done.stdout}\n{done.stderr}"
        output.append(done.stdout)
    return "\n".join(output)


def follow(checkout: Path, title: str) -> str:
    """Write the files of a recipe and run its commands."""
    recipe = section(PAGE, title)
    for name, text in files(recipe).items():
        target = checkout / name
        assert not target.exists(), f"{name} is new"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return run(checkout, recipe)


@pytest.fixture(scope="module")
def prepared_checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with the small data set that the page starts from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    run(folder, PAGE[: PAGE.index("## A model")])
    return folder


def test_a_model(prepared_checkout):
    printed = follow(prepared_checkout, "A model")
    assert "Differences of neighbouring frames" in printed and " passed" in printed
    assert (prepared_checkout / "runs/frame_change_small-seed0/report.json").is_file()


def test_an_augmentation(prepared_checkout):
    assert "lowest 30, highest 95" in follow(prepared_checkout, "An augmentation")
    assert "LOWEST: 20" in (prepared_checkout / "runs/jpeg/config.yaml").read_text()


def test_a_metric(prepared_checkout):
    follow(prepared_checkout, "A metric")
    assert "brier" in (prepared_checkout / "runs/frame/report.json").read_text()
    assert "brier" in (prepared_checkout / "comparison/table.csv").read_text()
    assert "Brier score" in (prepared_checkout / "comparison/report.html").read_text()


def test_a_detector(prepared_checkout):
    import pandas as pd

    assert "share 0.66" in follow(prepared_checkout, "A detector")
    tracks = pd.read_parquet(prepared_checkout / "prepared_whole/tracks.parquet")
    videos = pd.read_parquet(prepared_checkout / "prepared_whole/manifest.parquet")
    readable = videos[videos["status"] != "unreadable"]
    assert set(tracks["video_id"]) == set(readable["video_id"]), "one face in every frame of every video"


def test_a_data_set(prepared_checkout):
    import pandas as pd

    follow(prepared_checkout, "A data set")
    videos = pd.read_parquet(prepared_checkout / "prepared_mine/manifest.parquet")
    assert set(videos["dataset"]) == {"mine"} and set(videos["label"]) == {0, 1}
    assert videos.groupby("identities")["split"].nunique().max() == 1


def test_every_recipe_is_followed():
    titles = [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")]
    assert titles == ["A model", "An augmentation", "A metric", "A detector", "A data set"]
