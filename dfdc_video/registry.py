"""Registries: the extension points of the framework.

A registry is filled by decorators. The files that hold decorated components are found by scanning their room,
so that a new component is one new file, and are imported on the first look-up, so that `import dfdc_video`
and `dfdc-video --help` stay fast. Settings of a component are its **keyword-only** parameters: what stands
before the `*` of its signature is supplied by the caller, what stands behind it can be set in a config.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fvcore.common.registry import Registry as FvcoreRegistry

PACKAGE = Path(__file__).resolve().parent
TOP_LEVEL = ("configs", "experiments", "datasets", "benchmarks")
DECORATOR = re.compile(r"^@[A-Z]+\.register\b", re.MULTILINE)


def top_level(name: str) -> Path:
    """One of the folders of TOP_LEVEL: beside setup.py in a checkout, inside the package in a wheel."""
    checkout = PACKAGE.parent
    folder = (checkout if (checkout / "setup.py").is_file() else PACKAGE) / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the folder {name}/ was expected at {folder}; reinstall dfdc_video, its data files are missing"
        )
    return folder


def registering_modules(pattern: str) -> list[str]:
    """Names of the modules of the package that register something, of the files that `pattern` finds below it
    ("models/*.py").

    Files of the top-level folders are modules of the package, too: `datasets/dfdc/reader.py` is
    `dfdc_video.datasets.dfdc.reader`.
    """
    folder, rest = pattern.split("/", 1)
    root = top_level(folder) if folder in TOP_LEVEL else PACKAGE / folder
    found = sorted(p for p in root.glob(rest) if DECORATOR.search(p.read_text(encoding="utf-8")))
    return [".".join((PACKAGE.name, folder, *p.relative_to(root).with_suffix("").parts)) for p in found]


def nearest(name: object, known: Iterable[str], *, count: int = 3) -> str:
    """End of an error message about an unknown name: the nearest known names, or all where none is near. A
    name that a YAML file gave may be a number.
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + (", ".join(known) if known else "none")


def summary_of(component: Any) -> str:
    """First line of a docstring."""
    return (inspect.getdoc(component) or "").strip().split("\n")[0]


def settings_of(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a component: the settings that a config may give it."""
    parameters = inspect.signature(component).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


class Registry(FvcoreRegistry):
    """Name -> component. Look-ups import the modules that register, and name the nearest entries when they
    fail.
    """

    def __init__(self, kind: str, files: str) -> None:
        """`kind` is the noun of error messages; `files` is the pattern of the files that may hold components
        (`registering_modules`).
        """
        super().__init__(kind)
        self.kind = kind
        self._files = files
        self._loaded = False

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            for module in registering_modules(self._files):
                importlib.import_module(module)
        except BaseException:
            self._loaded = False
            raise

    def register(self, obj: Any = None, *, name: str = "") -> Any:
        """Decorator, with or without `name=`; a name that is taken is an error."""
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or obj.__name__
        if key in self._obj_map:
            raise ValueError(
                f"{self.kind} '{key}' is registered twice: by {self._obj_map[key].__module__} and by "
                f"{obj.__module__}"
            )
        self._obj_map[key] = obj
        return obj

    def get(self, name: str) -> Any:
        self._load()
        if name not in self._obj_map:
            raise ValueError(f"unknown {self.kind} '{name}'; {nearest(name, self._obj_map)}")
        return self._obj_map[name]

    def names(self) -> list[str]:
        self._load()
        return sorted(self._obj_map)

    def items(self) -> list[tuple[str, Any]]:
        """(name, component) in the order of registration."""
        self._load()
        return list(self._obj_map.items())


DATASETS = Registry("dataset", "datasets/*/reader.py")
EXPERIMENTS = Registry("experiment", "experiments/*.py")
BENCHMARKS = Registry("benchmark", "benchmarks/*.py")
SPLITS = Registry("split rule", "preparation/*.py")
DECODERS = Registry("decoder", "media/*.py")
DETECTORS = Registry("face detector", "faces/*.py")
MODELS = Registry("model", "models/*.py")
AUGMENTATIONS = Registry("augmentation", "data/*.py")
SAMPLERS = Registry("sampler", "data/*.py")
LOSSES = Registry("loss", "training/*.py")
OPTIMIZERS = Registry("optimizer", "training/*.py")
FREEZING = Registry("freezing rule", "training/*.py")
SCHEDULES = Registry("schedule", "training/*.py")
POOLINGS = Registry("pooling", "evaluation/*.py")
METRICS = Registry("metric", "evaluation/*.py")

ALL = (
    DATASETS,
    EXPERIMENTS,
    BENCHMARKS,
    SPLITS,
    DECODERS,
    DETECTORS,
    MODELS,
    AUGMENTATIONS,
    SAMPLERS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    FREEZING,
    POOLINGS,
    METRICS,
)
