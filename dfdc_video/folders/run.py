"""Run folders and experiment folders on disk: the only code that knows the names of their files.

A run folder, written by `dfdc-video train`:

    config.yaml              every setting, complete
    data.json                the prepared folder and its split hash
    environment.json         versions, hardware, commit, precision of the training
    parameters.txt           which stage trains when, at which rate
    init_from.txt            which weights the model started from, where it did
    train_seconds.txt        training time, summed over resumptions
    wandb_id.txt             id of the W&B run, so that a resumed run stays one run
    checkpoints/             best.ckpt, last.ckpt (end of an epoch), step.ckpt (within one)
    logs/version_<n>/        Lightning's CSV log of each (resumed) part; metrics.csv joins them
    samples/                 the first training clips as the model sees them
    predictions.csv          one row per test clip, with its logits
    videos.csv  scores.csv   every video of the test split; its pooled score
    report.json              metrics with intervals and what they were made with
    val/                     the last four files for another split, in a folder named after it

An experiment folder holds one run folder per arm and seed (<arm>/seed<n>), table.csv and report.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from yacs.config import CfgNode

from dfdc_video.config import config_hash, dump, load_dump
from dfdc_video.files import load_json, whole_file, write_atomic

PREDICTION_COLUMNS = ("video_id", "track_id", "start_frame", "label")  # and logit_0 … logit_{K-1}
SCORED_COLUMNS = ("video_id", "label", "method", "group_id", "status")  # of videos.csv
TEXT_COLUMNS = ("video_id", "track_id", "method", "group_id", "status")
REPORT_KEYS = ("name", "split", "split_hash", "clip", "pooling")  # without them no comparison is possible
KEPT_KEYS = ("name", "train_seconds", "experiment", "arm")  # of a report, when its split is scored again


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    """ValueError that names the `columns` which the table `what` lacks."""
    missing = [c for c in columns if c not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise ValueError(f"{what} lacks the columns {', '.join(missing)}; it has {found}")


def _read_log(file: Path, *, cure: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(file)
        require_columns(table, ("epoch", "step"), "it")
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {str(error).splitlines()[0][:120]}; {cure}") from error
    return table


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Every file is written whole or not at all."""

    path: Path

    LOGS = "logs"  # CSVLogger makes version_<n> in it
    BEST, LAST, STEP = "best", "last", "step"  # checkpoint names without .ckpt

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())

    # Settings

    @property
    def _config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def started(self) -> bool:
        """Whether the folder already holds a run, finished or not."""
        return self._config_file.is_file()

    def config(self) -> CfgNode:
        """The settings of the run; FileNotFoundError where the folder holds none."""
        return load_dump(self._config_file)

    def claim(self, cfg: CfgNode, *, data: dict[str, Any], resume: bool) -> None:
        """Make the folder and record settings and data, or, with `resume`, check that it belongs to them.

        ValueError where the folder holds another run, or a run at all without `resume`.
        """
        if resume:
            stored = config_hash(self.config())
            if stored != config_hash(cfg):
                raise ValueError(
                    f"{self.path} was started with other settings (config hash {stored}, now "
                    f"{config_hash(cfg)}); resume it with its own settings, or choose another --out"
                )
            return
        if self.started:
            raise ValueError(
                f"{self.path} already holds a run; continue it with --resume {self.path}, or choose "
                "another --out"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomic(self._config_file, dump(cfg))
        write_atomic(self.path / "data.json", json.dumps(data) + "\n")

    def data(self) -> dict[str, Any]:
        """What the run was trained on: `path` of the prepared folder, its `split_hash`, `merged`."""
        found = load_json(self.path / "data.json", keys=("split_hash",))
        if found is None:
            raise ValueError(
                f"{self.path / 'data.json'} is missing or damaged: the split that the run was trained on is "
                "unknown; train it again"
            )
        return found

    # Training

    @property
    def checkpoints(self) -> Path:
        """The folder that Lightning writes checkpoints to."""
        return self.path / "checkpoints"

    def checkpoint(self, name: str) -> Path:
        """File of a checkpoint: BEST, LAST or STEP."""
        return self.checkpoints / f"{name}.ckpt"

    def best_checkpoint(self) -> Path:
        """The checkpoint with the lowest validation loss; FileNotFoundError before the first epoch's end."""
        file = self.checkpoint(self.BEST)
        if not file.is_file():
            raise FileNotFoundError(
                f"{self.path} has no checkpoints/best.ckpt: the run did not finish an epoch; continue it "
                f"with `dfdc-video train --resume {self.path}`"
            )
        return file

    def newest_checkpoint(self) -> Path | None:
        """The later of last.ckpt and step.ckpt; None where the run was stopped before the first."""
        files = [p for p in (self.checkpoint(self.LAST), self.checkpoint(self.STEP)) if p.is_file()]
        return max(files, key=lambda p: p.stat().st_mtime_ns) if files else None

    def write_environment(self, environment: dict[str, Any]) -> None:
        """environment.json: what the run is trained with."""
        write_atomic(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def write_parameters(self, table: str) -> None:
        """parameters.txt: what trains when."""
        write_atomic(self.path / "parameters.txt", f"{table}\n")

    def write_initial_weights(self, text: str) -> None:
        """init_from.txt: which weights the model started from, and which of its layers are new."""
        write_atomic(self.path / "init_from.txt", f"{text}\n")

    def sample(self, video_id: str, label: int) -> Path:
        """File for a clip of samples/, as small video."""
        return self.path / "samples" / f"{video_id}_label{label}.mp4"

    def wandb_id(self, generate: Callable[[], str]) -> str:
        """Id of the run's W&B run: the recorded one, or a generated one that is recorded now."""
        file = self.path / "wandb_id.txt"
        if not file.is_file():
            write_atomic(file, generate() + "\n")
        return file.read_text(encoding="utf-8").strip()

    def add_train_seconds(self, seconds: float) -> float:
        """Add to the recorded training time; returns the total over all parts of a resumed run."""
        file = self.path / "train_seconds.txt"
        try:
            total = seconds + (float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0)
        except ValueError as error:
            raise ValueError(
                f"{file} is damaged; delete it, and the time of earlier parts is lost"
            ) from error
        write_atomic(file, f"{total:.1f}\n")
        return total

    @property
    def _curves_file(self) -> Path:
        return self.path / "metrics.csv"

    def join_logs(self) -> None:
        """Join the CSV logs of all (resumed) parts in metrics.csv; the last of equal steps counts."""
        files = sorted(
            self.path.glob(f"{self.LOGS}/version_*/metrics.csv"),
            key=lambda p: int(p.parent.name.split("_")[1]),
        )
        parts = [_read_log(p, cure="delete it: its curves are lost") for p in files if p.stat().st_size]
        if parts:
            table = pd.concat(parts, ignore_index=True).groupby(["epoch", "step"], as_index=False).last()
            write_atomic(self._curves_file, table.to_csv(index=False))

    def curves(self) -> pd.DataFrame | None:
        """metrics.csv; None where the run was only tested, or nothing was logged."""
        file = self._curves_file
        if not file.is_file() or file.stat().st_size == 0:
            return None
        return _read_log(file, cure="delete it to compare without curves")

    # Scores

    def of_split(self, split: str) -> RunFolder:
        """Where predictions and report of a split are: the run folder itself for test, else RUN/<split>."""
        return self if split == "test" else RunFolder(self.path / split)

    @property
    def _report_file(self) -> Path:
        return self.path / "report.json"

    def write_predictions(self, predictions: pd.DataFrame, videos: pd.DataFrame) -> None:
        """predictions.csv and videos.csv of a scored split: all that follows needs no model."""
        self.path.mkdir(exist_ok=True)
        self._write_table("predictions.csv", predictions)
        self._write_table("videos.csv", videos)

    def write_report(self, scores: pd.DataFrame, report: dict[str, Any]) -> None:
        """scores.csv (a row per video) and report.json, which makes the run a finished one."""
        self._write_table("scores.csv", scores)
        write_atomic(self._report_file, json.dumps(report, indent=2) + "\n")

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        with whole_file(self.path / name) as temporary:
            table.to_csv(temporary, index=False)

    def kept_entries(self) -> dict[str, Any]:
        """What a new report takes over from the one that is there: name, training time, experiment, arm."""
        previous = load_json(self._report_file) or {}
        return {k: previous[k] for k in KEPT_KEYS if k in previous}

    def is_finished(self, expected_hash: str) -> bool:
        """Whether the folder holds a scored run of exactly these settings; ValueError for other settings."""
        report = load_json(self._report_file)
        if report is None:
            return False
        if report.get("config_hash") != expected_hash:
            raise ValueError(
                f"{self.path} holds a run of other settings (config hash {report.get('config_hash')}, now "
                f"{expected_hash}); choose another --out"
            )
        return True

    def report(self) -> dict[str, Any]:
        """report.json, with the entries that a comparison needs.

        FileNotFoundError where there is none, ValueError where it is damaged or incomplete.
        """
        file, cure = self._report_file, "run `dfdc-video test` on the run again"
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"no run folder at {self.path}; expected a folder that `dfdc-video train` wrote"
            )
        if not file.is_file():
            raise self._without_report()
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}); {cure}") from error
        missing = [key for key in REPORT_KEYS if not isinstance(report, dict) or key not in report]
        if missing:
            raise ValueError(f"{file} lacks {', '.join(missing)}; {cure}")
        for key in ("clip", "pooling"):
            if not isinstance(report[key], dict):
                raise ValueError(f"{file}: {key} is {report[key]!r}, expected a table of settings")
        return report

    def _without_report(self) -> Exception:
        if (load_json(self.path / "data.json") or {}).get("merged"):
            return ValueError(
                f"{self.path} was trained with its test split merged into train: it has no test scores to "
                "compare"
            )
        inside = sorted(p.parent.name for p in self.path.glob("*/report.json"))
        found = f"it contains the runs {', '.join(inside[:4])}: name them"
        return FileNotFoundError(
            f"{self.path} has no report.json; {found if inside else 'run `dfdc-video test` on it first'}"
        )

    def predictions(self) -> pd.DataFrame:
        """predictions.csv; a logit that is not a number becomes NaN."""
        table = self._read_table("predictions.csv", PREDICTION_COLUMNS)
        for column in (c for c in table.columns if c.startswith("logit_")):
            table[column] = pd.to_numeric(table[column], errors="coerce")
        return table

    def videos(self) -> pd.DataFrame:
        """videos.csv: every video of the scored split, with label, method, group and status."""
        return self._read_table("videos.csv", SCORED_COLUMNS)

    def _read_table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        file, cure = self.path / name, "`dfdc-video test RUN` writes it"
        if not file.is_file():
            raise FileNotFoundError(f"no {name} in {self.path}; {cure}")
        # ids are text: "007" is not a number, and "NA" is an id like any other
        text = {c: str for c in TEXT_COLUMNS if c in columns}
        try:
            table = pd.read_csv(
                file, dtype=text, keep_default_na=False, na_values={"label": [""]}, low_memory=False
            )
        # EmptyDataError, ParserError and UnicodeDecodeError are ValueErrors
        except (ValueError, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise ValueError(f"{file} is damaged: {reason}; {cure} again") from error
        require_columns(table, columns, str(file))
        return table


@dataclass(frozen=True)
class ExperimentFolder:
    """The runs of an experiment and their comparison; `dfdc-video compare` writes only the latter."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def run(self, arm: str, seed: int) -> RunFolder:
        """Folder of one arm with one seed."""
        return RunFolder(self.path / arm / f"seed{seed}")

    @property
    def table(self) -> Path:
        """The comparison as CSV."""
        return self.path / "table.csv"

    @property
    def page(self) -> Path:
        """The comparison as a self-contained page."""
        return self.path / "report.html"
