"""Declares what learned pooling of frames is worth over their mean; what was found is in
frame_aggregation.md.
"""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment


@EXPERIMENTS.register
def frame_aggregation(*, weights: str = "weights/frame_small.ckpt", suffix: str = "small") -> Experiment:
    """On one frozen frame model: is a learned aggregator, or an LSTM over its embeddings, better than the
    mean of its frames?
    """
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
