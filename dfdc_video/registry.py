"""Registries: every extension point of the framework, one line each.

A registry is filled by decorators; the modules that hold the decorated components are imported on the first look-up, so that
`import dfdc_video` and `dfdc-video --help` stay fast. Settings of a component are its **keyword-only** parameters: what stands
before the `*` of its signature is supplied by the caller, what stands behind it can be set in a config.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from fvcore.common.registry import Registry as FvcoreRegistry

PACKAGE = Path(__file__).resolve().parent


def top_level(name: str) -> Path:
    """Folder `configs`, `experiments`, `datasets` or `benchmarks`: beside setup.py in a checkout, inside the package in a wheel."""
    checkout = PACKAGE.parent
    folder = (checkout if (checkout / "setup.py").is_file() else PACKAGE) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {name}/ was expected at {folder}; reinstall dfdc_video, its data files are missing")
    return folder


def load_file(path: Path) -> ModuleType:
    """Import one file of a top-level folder, once. These folders are not packages: `datasets` would shadow a well-known one."""
    path = Path(path).resolve()
    name = "dfdc_video_files." + ".".join((*path.parent.parts[-2:], path.stem)).replace("-", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def call_in_file(path: str, function: str, *args: Any, **kwargs: Any) -> Any:
    """`function(*args)` of the file at `path`: what a spawned worker can unpickle although the file is in no package."""
    return getattr(load_file(Path(path)), function)(*args, **kwargs)


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """The tail of an error about an unknown name: the nearest known names, or all of them where none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
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
    """Name -> component. Look-ups import the modules that register, and name the nearest entries when they fail."""

    def __init__(self, kind: str, *, modules: tuple[str, ...] = (), files: str = "") -> None:
        """`kind` is the noun of error messages, `modules` are imported on the first look-up, `files` is a pattern of top-level files."""
        super().__init__(kind)
        self.kind = kind
        self._modules = modules
        self._files = files
        self._loaded = False

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            for module in self._modules:
                importlib.import_module(module)
            if self._files:
                folder, pattern = self._files.split("/", 1)
                for path in sorted(top_level(folder).glob(pattern)):
                    load_file(path)
        except BaseException:
            self._loaded = False
            raise

    def register(self, obj: Any = None, *, name: str = "") -> Any:
        """Decorator, with or without `name=`; a name that is taken is an error."""
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or obj.__name__
        if key in self._obj_map:
            raise ValueError(f"{self.kind} '{key}' is registered twice: by {self._obj_map[key].__module__} and by {obj.__module__}")
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


DATASETS = Registry("dataset", files="datasets/*/prepare.py")
EXPERIMENTS = Registry("experiment", files="experiments/*.py")
BENCHMARKS = Registry("benchmark", files="benchmarks/*.py")
SPLITS = Registry("split rule", modules=("dfdc_video.splits",))
DECODERS = Registry("decoder", modules=("dfdc_video.video",))
DETECTORS = Registry("face detector", modules=tuple(f"dfdc_video.faces.{m}" for m in ("detect", "tiled", "kitti")))
MODEL_FILES = ("frame", "cnn_lstm", "aggregator", "efficientnet3d", "slowfast", "video3d", "mvit")
MODELS = Registry("model", modules=tuple(f"dfdc_video.models.{m}" for m in MODEL_FILES))
AUGMENTATIONS = Registry("augmentation", modules=("dfdc_video.data.transforms",))
SAMPLERS = Registry("sampler", modules=("dfdc_video.data.samplers",))
LOSSES = Registry("loss", modules=("dfdc_video.training.losses",))
OPTIMIZERS = Registry("optimizer", modules=("dfdc_video.training.optim",))
FREEZING = Registry("freezing rule", modules=("dfdc_video.training.freezing",))
SCHEDULES = Registry("schedule", modules=("dfdc_video.training.optim",))
POOLINGS = Registry("pooling", modules=("dfdc_video.evaluation.pooling",))

ALL = (
    DATASETS, EXPERIMENTS, BENCHMARKS, SPLITS, DECODERS, DETECTORS, MODELS, AUGMENTATIONS, SAMPLERS, LOSSES, OPTIMIZERS, SCHEDULES,
    FREEZING, POOLINGS,
)  # fmt: skip
