"""CNN-LSTM: features of every frame from a 2D network, a recurrent network over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dfdc_video.models.classifier import VideoClassifier, classifier_names, fold, stages, timm_backbone
from dfdc_video.registry import MODELS, nearest

RNNS = {"lstm": nn.LSTM, "gru": nn.GRU}
POOLS = ("avg", "grid")
READOUTS = ("mean", "last")


class GridFeatures(nn.Module):
    """(N, C, H, W) -> (N, F·g·g): a stage of the backbone, averaged over a coarse grid so that *where* survives.

    The backbone is handed over at each call: it stays a child of the network alone, under the name that it has in a frame model.
    """

    def __init__(self, backbone: Any, *, stage: int, grid: int) -> None:
        super().__init__()
        self.stage = stage % len(stages(backbone))
        self.dim = stages(backbone)[self.stage]["num_chs"] * grid * grid
        backbone.prune_intermediate_layers([self.stage], prune_norm=True, prune_head=True)
        self.pool = nn.AdaptiveAvgPool2d(grid)

    def forward(self, backbone: Any, frames: torch.Tensor) -> torch.Tensor:
        (features,) = backbone.forward_intermediates(frames, indices=[self.stage], stop_early=True, intermediates_only=True)
        return self.pool(features).flatten(1)


class CNNLSTMNetwork(nn.Module):
    """(B, C, T, H, W) -> backbone per frame -> (B, T, F) -> recurrent network -> mean or last state -> (B, K)."""

    def __init__(
        self,
        backbone: Any,
        *,
        num_classes: int,
        pool: str,
        grid: int,
        stage: int,
        rnn: str,
        hidden: int,
        layers: int,
        bidirectional: bool,
        readout: str,
        difference: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grid = GridFeatures(backbone, stage=stage, grid=grid) if pool == "grid" else None
        self.backbone = backbone
        dim = self.grid.dim if self.grid else backbone.num_features
        # A recurrent network over tens of thousands of correlated inputs overfits: project first. The norm keeps its gates in range.
        self.projection = nn.Sequential(nn.Linear(dim, hidden), nn.LayerNorm(hidden))
        self.difference, self.readout, self.bidirectional = difference, readout, bidirectional
        self.rnn = RNNS[rnn](
            hidden * (2 if difference else 1),
            hidden,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), num_classes)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        frames = fold(clip)  # (B·T, C, H, W)
        features = self.grid(self.backbone, frames) if self.grid else self.backbone(frames)
        features = self.projection(features).unflatten(0, (clip.shape[0], clip.shape[2]))  # (B, T, hidden)
        if self.difference:
            change = features - torch.cat((features[:, :1], features[:, :-1]), dim=1)  # the first frame has changed by nothing
            features = torch.cat((features, change), dim=2)
        states, _ = self.rnn(features)  # (B, T, hidden or 2·hidden)
        if self.readout == "mean":
            state = states.mean(1)
        elif self.bidirectional:
            # The backward pass ends at the first frame.
            forward, backward = states.chunk(2, dim=2)
            state = torch.cat((forward[:, -1], backward[:, 0]), dim=1)
        else:
            state = states[:, -1]
        return self.head(self.dropout(state))


def _check(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"cnn_lstm: {setting} '{value}'; {nearest(value, known)}")


@MODELS.register(name="cnn_lstm")
def cnn_lstm(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    backbone: str = "resnet18",
    pretrained: bool = False,
    pool: str = "avg",
    grid: int = 4,
    stage: int = -1,
    rnn: str = "lstm",
    hidden: int = 256,
    layers: int = 1,
    bidirectional: bool = False,
    readout: str = "mean",
    difference: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> VideoClassifier:
    """CNN-LSTM: timm features per frame, then an LSTM or GRU over the clip, trained end to end.

    `pool="avg"` feeds the backbone's pooled features (Güera and Delp 2018); `pool="grid"` keeps a `grid` x `grid` map of the
    features of `stage` (timm's numbering, -1 the last; later stages are dropped), since global pooling destroys position.
    `difference` feeds the frame-to-frame change of the features beside them. `dropout` acts before the head and between `layers`.
    """
    _check("pool", pool, POOLS)
    _check("rnn", rnn, tuple(RNNS))
    _check("readout", readout, READOUTS)
    if pool == "avg" and stage != -1:
        raise ValueError(f"cnn_lstm: stage {stage} with pool avg, which takes the backbone's own last features; set pool grid or stage -1")
    net, config = timm_backbone(backbone, num_classes=0, size=size, pretrained=pretrained, drop_path=drop_path)
    count = len(stages(net))
    if not -count <= stage < count:
        raise ValueError(f"cnn_lstm: stage {stage} of {backbone}: it has {count} stages, expected {-count} to {count - 1}")
    cam_layer = "network.backbone." + stages(net)[stage]["module"]
    before = {name.rsplit(".", 1)[0] for name in net.state_dict()}
    network = CNNLSTMNetwork(
        net,
        num_classes=num_classes,
        pool=pool,
        grid=grid,
        stage=stage,
        rnn=rnn,
        hidden=hidden,
        layers=layers,
        bidirectional=bidirectional,
        readout=readout,
        difference=difference,
        dropout=dropout,
    )
    pruned = before - {name.rsplit(".", 1)[0] for name in net.state_dict()}
    unused = dict.fromkeys(classifier_names(config, "network.backbone."), "classifier of the frame model; a CNN-LSTM has its own")
    unused.update({f"network.backbone.{name}": f"beyond stage {stage}, where the features are taken" for name in sorted(pruned)})
    return VideoClassifier(
        network,
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=config["mean"],
        std=config["std"],
        head_names=("network.head",),
        cam_layer=cam_layer,
        uses_time=True,
        new_names=("network.projection", "network.rnn"),
        unused=unused,
    )
