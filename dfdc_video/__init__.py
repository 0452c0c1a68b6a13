"""dfdc_video: controlled experiments with spatiotemporal video classifiers, made for deepfake detection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfdc_video.api import LoadReport, VideoClassifier, build_model, load_weights, save_pyslowfast

__version__ = "0.1.0"
# In a checkout experiments/, datasets/ and benchmarks/ stand beside the package, in a wheel inside of it.
# Either way their files are modules of the package (`dfdc_video.datasets.dfdc.reader`), which import each
# other and are unpickled by worker processes like any other.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "setup.py").is_file():
    __path__.append(str(_CHECKOUT))
__all__ = ["LoadReport", "VideoClassifier", "__version__", "build_model", "load_weights", "save_pyslowfast"]


def __getattr__(name: str) -> Any:
    """The functions of `api`, imported on first use: they bring torch with them, which the command line's
    help does not need.
    """
    if name not in __all__:
        raise AttributeError(f"module 'dfdc_video' has no attribute '{name}'")
    from dfdc_video import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
