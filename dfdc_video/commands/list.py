"""`dfdc-video list`: configs, experiments and components with a one-line summary each, or one in full."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfdc_video.config import config_names, config_summary, dump, find_config, read_tree, resolve
from dfdc_video.registry import ALL, EXPERIMENTS, MODELS, Registry, nearest, settings_of, summary_of

ORDER = 20
HELP = "list configs, experiments and components with a one-line summary; or show one in full"
BASES = ("model", "data", "train")  # folders of configs/ with the reusable parts that _BASE_ names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        default="",
        help="list only this kind, with settings; for example datasets, face-detectors, models",
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="",
        help="show only this one, in full; for example models x3d_s, configs frame_b7",
    )


def run(args: argparse.Namespace) -> int:
    show(args.kind, args.name)
    return 0


def show(kind: str = "", name: str = "") -> None:
    """Print all summaries, one `kind` with settings, or, with `name`, one entry in full. ValueError for an
    unknown kind or name.
    """
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    wanted = kind.lower().replace("-", " ")
    names = ["configs", "config bases", *(plural(r.kind) for r in ALL), "prepare settings"]
    if wanted and wanted not in names:
        raise ValueError(f"unknown kind '{kind}'; {nearest(wanted, names)}")
    if name:
        return _show_one(console, wanted, name)
    kinds = {
        "configs": _configs(),
        "config bases": {n: line for base in BASES for n, line in _configs(base).items()},
    }
    if wanted == "prepare settings":
        from dfdc_video.preparation.settings import setting_lines

        kinds[wanted] = setting_lines()
    for registry in ALL:
        if wanted in ("", plural(registry.kind)):
            more = _settings_text if wanted else lambda component: ""
            kinds[plural(registry.kind)] = {
                n: summary_of(registry.get(n)) + more(registry.get(n)) for n in registry.names()
            }
    for title, entries in kinds.items():
        if wanted in ("", title):
            table = Table(
                title=title,
                title_justify="left",
                title_style="bold",
                show_header=False,
                box=None,
                pad_edge=False,
            )
            for entry, text in entries.items():
                table.add_row(f"  {entry}", text)
            console.print(table)
    if wanted == "models":
        _print_costs(console)


def plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"


def _configs(base: str = "") -> dict[str, str]:
    return {n: config_summary(p) for n, p in config_names(base).items()}


def _settings_text(component: Callable[..., Any]) -> str:
    """The settings of a component, as a line below its summary."""
    settings = (
        f"{name} {p.default!r}" if p.default is not p.empty else name
        for name, p in settings_of(component).items()
    )
    return "".join(f"\n[dim]{text}[/dim]" for text in [", ".join(settings)] if text)


def _show_one(console: Console, kind: str, name: str) -> None:
    if kind.startswith("config"):
        known = [n for base in (BASES if kind == "config bases" else ("",)) for n in config_names(base)]
        if name not in known:
            raise ValueError(f"unknown config '{name}'; {nearest(name, known)}")
        path = find_config(name)
        print(dump(resolve(name)) if kind == "configs" else path.read_text(encoding="utf-8"), end="")
    elif kind == "prepare settings":
        from dfdc_video.preparation.settings import setting_lines

        lines = setting_lines()
        if name not in lines:
            raise ValueError(f"unknown setting '{name}'; {nearest(name, lines)}")
        console.print(f"[bold]{name}[/bold] {escape(lines[name])}")
    elif kind == "models" and f"model/{name}" in config_names("model"):
        _print_model(console, name)
    else:
        registry: Registry = next(r for r in ALL if plural(r.kind) == kind)
        if kind == "models" and name not in registry.names():
            known = [*registry.names(), *(n.removeprefix("model/") for n in config_names("model"))]
            raise ValueError(f"unknown model '{name}'; {nearest(name, known)}")
        component = registry.get(name)
        console.print(
            f"[bold]{name}[/bold]\n{escape(inspect.getdoc(component) or '')}{_settings_text(component)}"
        )
        if registry is EXPERIMENTS:
            experiment = component()
            print(
                f"base: {experiment.base}, seeds: {', '.join(map(str, experiment.seeds))}, baseline: "
                f"{experiment.baseline or 'the first arm'}"
            )
            for arm, settings in experiment.arms.items():
                print(f"  {arm}: {settings or 'the base as it is'}")


def _on_meta(name: str) -> Any:
    """The model of configs/model/NAME on the meta device: no download, no memory."""
    import torch

    from dfdc_video.api import build_model

    settings = settings_of(MODELS.get(read_tree(find_config(f"model/{name}"))["MODEL"]["NAME"]))
    with torch.device("meta"):
        return build_model(name, **({"pretrained": False} if "pretrained" in settings else {}))


def _cost(model: Any) -> tuple[str, str, str]:
    """Parameters in millions, multiply-adds in billions, and the input, as text."""
    from dfdc_video.models.summary import summarise

    cost = summarise(model)
    return f"{cost['parameters'] / 1e6:.2f}", f"{cost['flops'] / 1e9:.2f}", ", ".join(map(str, cost["input"]))


def _print_costs(console: Console) -> None:
    from dfdc_video.models.summary import source_of

    table = Table(title="configs/model, two classes", title_justify="left", title_style="bold", box=None)
    for column in ("config", "model", "parameters, M", "multiply-adds, G", "input C, T, H, W", "source"):
        table.add_column(column)
    for name in (n.removeprefix("model/") for n in sorted(config_names("model"))):
        model_name = read_tree(find_config(f"model/{name}"))["MODEL"]["NAME"]
        table.add_row(
            name,
            model_name,
            *_cost(_on_meta(name)),
            source_of(model_name, config_summary(find_config(f"model/{name}"))),
        )
    console.print(table)
    console.print(
        "`dfdc-video list models NAME` shows a network's stages (freezing, rates), activation maps and "
        "mask heads"
    )


def _print_model(console: Console, name: str) -> None:
    """One configuration of configs/model: its cost, and the layer names that settings use."""
    from dfdc_video.models.summary import source_of

    registered = read_tree(find_config(f"model/{name}"))["MODEL"]["NAME"]
    model = _on_meta(name)
    parameters, flops, shape = _cost(model)
    summary = config_summary(find_config(f"model/{name}"))
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    console.print(
        f"[bold]{name}[/bold] {escape(summary)}\n{escape(inspect.getdoc(MODELS.get(registered)) or '')}\n"
    )
    console.print(
        f"input C, T, H, W     {shape}\nparameters, M        {parameters}\n"
        f"multiply-adds, G     {flops} per clip, two classes"
    )
    console.print(f"source               {source_of(registered, summary)}")
    console.print(f"uses frame order     {'yes' if model.uses_time else 'no: a bag of frames'}")
    console.print(
        f"activation maps of   {model.cam_layer}\nreplaced head        {', '.join(model.head_names)}"
    )
    if model.frozen_names:
        console.print(f"always frozen        {', '.join(model.frozen_names)}")
    places = [f"{i}  {layer}" for i, layer in enumerate(model.map_layers)] or ["none: no mask head"]
    console.print("MASK.STAGE           " + f"\n{'':21}".join(places) + "\n")
    table = Table(
        "stage",
        "parameters",
        "in",
        box=None,
        title="stages, for FREEZE and OPTIM.LR_FACTORS",
        title_justify="left",
        title_style="bold",
    )
    for stage, names in model.parameters_by_stage().items():
        modules = [f"{n.rpartition('.')[0]}." for n in names]
        table.add_row(
            stage, f"{sum(sizes[n] for n in names):,}", os.path.commonprefix(modules).rpartition(".")[0]
        )
    console.print(table)
