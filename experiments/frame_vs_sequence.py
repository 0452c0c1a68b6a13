"""The demo's experiment; findings are in frame_vs_sequence.md."""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment


@EXPERIMENTS.register
def frame_vs_sequence() -> Experiment:
    """Does a model that sees the order of frames beat a model that sees the same frames one by one?"""
    return Experiment(
        base="frame_small",
        arms={
            "frame": {},
            "slowfast": {"_BASE_": "model/slowfast_small"},
            "efficientnet3d": {"_BASE_": "model/efficientnet3d_small"},
            "cnn_lstm": {"_BASE_": "model/cnn_lstm_small"},
        },
        baseline="frame",
    )
