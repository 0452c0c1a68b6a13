"""Learned pooling of frames compared with their mean; findings are in frame_aggregation.md."""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment


@EXPERIMENTS.register
def frame_aggregation(*, weights: str = "weights/frame_small.ckpt", suffix: str = "small") -> Experiment:
    """On a frozen frame model, is learned pooling or an LSTM better than the mean over frames?"""
    start = {"INIT_FROM": weights, "PRETRAINED": False}
    aggregators = {
        f"{inputs}_{pool}": {"MODEL": {"INPUTS": inputs, "POOL": pool, **start}}
        for inputs in ("predictions", "features")
        for pool in ("mean", "attention", "order")
    }
    lstm = {"_BASE_": f"model/embedding_lstm_{suffix}", "MODEL": start}
    return Experiment(
        base=f"aggregator_{suffix}",
        arms={**aggregators, "embedding_lstm": lstm},
        seeds=(0, 1, 2),
        baseline="predictions_mean",
    )
