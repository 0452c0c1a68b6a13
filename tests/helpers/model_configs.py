"""The configs in configs/model: what the tests that run over all models know of them."""

from __future__ import annotations

from typing import Any

import yaml

from dfdc_video.registry import top_level


def model_configs() -> dict[str, dict[str, Any]]:
    """Name -> sections of every config in configs/model."""
    paths = sorted((top_level("configs") / "model").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


def model_settings(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The registered name that a config builds, and its settings."""
    settings = {key.lower(): value for key, value in config["MODEL"].items()}
    return settings.pop("name"), settings


def small_settings() -> dict[str, dict[str, Any]]:
    """Registered name -> settings of its CPU-sized config NAME_small, or else of the first of its configs."""
    found: dict[str, dict[str, Any]] = {}
    for stem, config in model_configs().items():
        name, settings = model_settings(config)
        if stem == f"{name}_small" or name not in found:
            found[name] = settings
    return found
