"""Nothing happens at import: logging levels and warning filters belong to the program, not to its modules."""

import subprocess
import sys

SCRIPT = """
import importlib, logging, sys, warnings
from pathlib import Path

calls = []

def watched(original):
    def call(*args, **kwargs):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("dfdc_video"):  # libraries do as they like
            calls.append(f"{caller} calls {original.__name__}")
        return original(*args, **kwargs)
    return call

for owner, name in (
    (warnings, "filterwarnings"), (warnings, "simplefilter"), (logging, "basicConfig"), (logging, "disable"),
    (logging.Logger, "setLevel"), (logging.Logger, "addHandler"), (logging.Logger, "addFilter"),
):
    setattr(owner, name, watched(getattr(owner, name)))
import dfdc_video
root = Path(dfdc_video.__file__).parent
names = [".".join(p.relative_to(root.parent).with_suffix("").parts) for p in sorted(root.rglob("*.py"))]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))
print(len(names), calls)
from dfdc_video.runs.build import silence_lightning
silence_lightning()
print(sorted(set(calls)))
"""


def test_no_module_sets_logging_or_warnings_when_it_is_imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    at_import, on_call = done.stdout.strip().splitlines()[-2:]
    count, calls = at_import.split(" ", 1)
    assert int(count) > 50 and calls == "[]", at_import
    assert "dfdc_video.runs.build calls setLevel" in on_call, "the test would not see a call"
