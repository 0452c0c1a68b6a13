"""The wheel carries the configs, experiments, readers and benchmarks, and finds them when it is installed
away from the repository.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json
from dfdc_video.config import config_names, resolve
from dfdc_video.registry import ALL, PACKAGE, top_level
names = sorted(config_names())
resolved = [resolve(n).MODEL.NAME for n in names]
parts = [n for p in ("model", "data", "train") for n in config_names(p)]
registries = {r.kind: r.names() for r in ALL}
found = {"package": str(PACKAGE), "configs": names, "models": resolved, "parts": parts}
print(json.dumps(found | {"registries": registries}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_runs_and_nothing_else(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {"dfdc_video/report/page.html"}
    suffixes = {"configs": "yaml", "experiments": "py", "datasets": "py", "benchmarks": "py"}
    for folder, suffix in suffixes.items():
        files = [p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob(f"*.{suffix}")]
        assert files, folder
        expected |= {f"dfdc_video/{file}" for file in files}
    assert expected <= inside, sorted(expected - inside)
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"dfdc_video", next(t for t in tops if t.endswith(".dist-info"))}
    dated = [name for name in inside if name.endswith(".md") or "/results/" in name]
    assert not dated, "cards, findings and dated results stay in the repository"


def test_an_installed_wheel_lists_and_resolves_everything_from_any_folder(wheel, tmp_path):
    """A new environment that borrows the installed dependencies, with the wheel in place of the checkout."""
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout.splitlines()[-1])
    assert found["package"].startswith(str(target)), "the wheel was used, not the checkout"
    assert found["configs"] == sorted(p.stem for p in (ROOT / "configs").glob("*.yaml"))
    assert sorted(found["parts"]) == sorted(
        p.relative_to(ROOT / "configs").with_suffix("").as_posix()
        for p in (ROOT / "configs").glob("*/*.yaml")
    )
    assert {"dfdc", "folder"} <= set(found["registries"]["dataset"]) and "frame_vs_sequence" in found[
        "registries"
    ]["experiment"]
    listed = subprocess.run(
        [sys.executable, "-m", "dfdc_video", "list"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0 and "slowfast_r50_8x8_transfer" in listed.stdout, listed.stderr
