"""The command line: `dfdc-video VERB …`. The verbs are the modules of `dfdc_video.commands`.

An expected error is one line and a non-zero exit code; `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import sys
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import dfdc_video.commands
from dfdc_video import __version__
from dfdc_video.commands import Interrupted
from dfdc_video.registry import nearest

# libraries that log about themselves at INFO
NOISY = (
    "lightning lightning.pytorch lightning.fabric pytorch_lightning fvcore httpx matplotlib fontTools".split()
)


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def find_verbs() -> dict[str, Any]:
    """Verb -> its module, for every module of `dfdc_video.commands`, in the order of the data flow."""
    room = dfdc_video.commands
    names = [m.name for m in pkgutil.iter_modules(room.__path__)]
    modules = {name: importlib.import_module(f"{room.__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: item[1].ORDER))


def build_parser(chosen: Collection[str] | None = None) -> argparse.ArgumentParser:
    """The parser of all verbs, with the arguments of the `chosen` ones (None: all).

    Those of `prepare` and `merge` come from its settings, and their modules take a second to import.
    """
    parser = _Parser(
        prog="dfdc-video",
        description="Controlled experiments with video classifiers, made for deepfake detection.",
    )
    parser.add_argument("--version", action="version", version=f"dfdc-video {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    group = parser.add_subparsers(
        title="verbs, in the order of the data flow", dest="verb", metavar="VERB", parser_class=_Parser
    )
    for name, module in find_verbs().items():
        verb = group.add_parser(name, help=module.HELP, description=module.HELP)
        verb.set_defaults(run_verb=module.run)
        verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        if chosen is None or name in chosen:
            module.add_arguments(verb)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 2 an expected error, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in words if not word.startswith("-")), "")
    parser = build_parser([verb])
    if not words:
        parser.print_help()
        return 2
    if verb and verb not in find_verbs():
        return _error(f"unknown verb '{verb}'; {nearest(verb, find_verbs())}")
    args, extra = parser.parse_known_args(words)
    if not args.verb:
        parser.error("no verb given")
    if extra and (any(e.startswith("--") for e in extra) or not hasattr(args, "settings")):
        return _error(f"unknown option {extra[0]}; see `dfdc-video {verb} --help`")
    if extra:  # a value such as -1, which argparse parses as an option
        args.settings = [*args.settings, *extra]
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return int(args.run_verb(args) or 0)
    except Interrupted as stop:
        print(f"interrupted; continue with {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt as stop:
        text = str(stop) or "interrupted; everything that was finished is kept, the same command continues"
        print(text, file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        return _error(" ".join(str(error).split()))


def _error(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2
