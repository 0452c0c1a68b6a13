"""CNN-LSTM: a recurrent network over per-frame features of a 2D network, trained end to end or on a frozen
backbone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dfdc_video.models.classifier import (
    VideoClassifier,
    classifier_names,
    fold,
    stage_modules,
    timm_backbone,
    timm_stages,
)
from dfdc_video.registry import MODELS, nearest

RNNS = {"lstm": nn.LSTM, "gru": nn.GRU}
POOLS = ("avg", "grid")
READOUTS = ("mean", "last")


class GridFeatures(nn.Module):
    """(N, C, H, W) -> (N, F·g·g): maps of a backbone stage averaged over a coarse g x g grid, which keeps
    position.

    The backbone is an argument of each call, so that it is a child of the network only and its parameters
    have the same names as in a frame model.
    """

    def __init__(self, backbone: Any, *, stage: int, grid: int) -> None:
        super().__init__()
        self.stage = stage % len(timm_stages(backbone))
        self.dim = timm_stages(backbone)[self.stage]["num_chs"] * grid * grid
        backbone.prune_intermediate_layers([self.stage], prune_norm=True, prune_head=True)
        self.pool = nn.AdaptiveAvgPool2d(grid)

    def forward(self, backbone: Any, frames: torch.Tensor) -> torch.Tensor:
        (features,) = backbone.forward_intermediates(
            frames, indices=[self.stage], stop_early=True, intermediates_only=True
        )
        return self.pool(features).flatten(1)


class CNNLSTMNetwork(nn.Module):
    """(B, C, T, H, W) -> backbone per frame -> (B, T, F) -> recurrent network -> mean or last state -> (B,
    K).
    """

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
        # A recurrent network on tens of thousands of correlated inputs overfits, hence the projection; the
        # normalisation keeps its gates out of saturation.
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

    def embedding_name(self) -> str:
        """Which features of the backbone `embed` returns."""
        return (
            f"grid {self.grid.pool.output_size} of stage {self.grid.stage}"
            if self.grid
            else "pooled features"
        )

    def embed(self, clip: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> per-frame features (B, T, F)."""
        frames = fold(clip)  # (B·T, C, H, W)
        features = self.grid(self.backbone, frames) if self.grid else self.backbone(frames)
        return features.unflatten(0, (clip.shape[0], clip.shape[2]))

    def from_embeddings(self, features: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, K)."""
        features = self.projection(features)  # (B, T, hidden)
        if self.difference:
            # zero for the first frame
            change = features - torch.cat((features[:, :1], features[:, :-1]), dim=1)
            features = torch.cat((features, change), dim=2)
        states, _ = self.rnn(features)  # (B, T, hidden or 2·hidden)
        if self.readout == "mean":
            state = states.mean(1)
        elif self.bidirectional:
            # the backward direction ends at the first frame
            forward, backward = states.chunk(2, dim=2)
            state = torch.cat((forward[:, -1], backward[:, 0]), dim=1)
        else:
            state = states[:, -1]
        return self.head(self.dropout(state))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.from_embeddings(self.embed(clip))


def check_settings(name: str, settings: dict[str, Any]) -> None:
    for setting, known in (("pool", POOLS), ("rnn", tuple(RNNS)), ("readout", READOUTS)):
        if settings[setting] not in known:
            raise ValueError(f"{name}: {setting} '{settings[setting]}'; {nearest(settings[setting], known)}")
    if settings["pool"] == "avg" and settings["stage"] != -1:
        raise ValueError(
            f"{name}: stage {settings['stage']} with pool avg, which uses the backbone's final features; "
            "set pool grid or stage -1"
        )


def on_timm_features(
    name: str,
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    backbone: str,
    pretrained: bool,
    drop_path: float = 0.0,
    frozen: bool,
    **settings: Any,
) -> VideoClassifier:
    """A recurrent network with `settings` (see `CNNLSTMNetwork`) over the features of a timm network.

    `name`: the registered name, for error messages. `frozen`: whether the backbone is.
    """
    check_settings(name, settings)
    stage = settings["stage"]
    net, config = timm_backbone(
        backbone, num_classes=0, size=size, pretrained=pretrained, drop_path=drop_path
    )
    layers = stage_modules(net, "network.backbone.")
    if not -len(layers) <= stage < len(layers):
        raise ValueError(
            f"{name}: stage {stage} of {backbone}: it has {len(layers)} stages, expected {-len(layers)} "
            f"to {len(layers) - 1}"
        )
    layers = layers[: stage % len(layers) + 1]
    modules = dict(net.named_modules(prefix="backbone"))
    before = {tensor.rsplit(".", 1)[0] for tensor in net.state_dict()}
    network = CNNLSTMNetwork(net, num_classes=num_classes, **settings)
    pruned = before - {tensor.rsplit(".", 1)[0] for tensor in net.state_dict()}
    last = layers[-1].removeprefix("network.")
    while last in modules and last not in dict(network.named_modules()):
        last = last.rpartition(".")[0]  # pruning replaces a block by what is left of it
    unused = dict.fromkeys(
        classifier_names(config, "network.backbone."), "classifier of the frame model; a CNN-LSTM has its own"
    )
    for module in sorted(pruned):
        unused[f"network.backbone.{module}"] = f"beyond stage {stage}, where the features are taken"
    return VideoClassifier(
        network,
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=config["mean"],
        std=config["std"],
        head_names=("network.head",),
        cam_layer=f"network.{last}",
        uses_time=True,
        new_names=("network.projection", "network.rnn"),
        unused=unused,
        map_layers=() if frozen else (*layers[:-1], f"network.{last}"),
        frozen_names=("network.backbone",) if frozen else (),
    )


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

    `pool="avg"` uses the globally pooled features of the backbone (Güera and Delp 2018); `pool="grid"` keeps
    position, as a `grid` x `grid` map of the features of `stage` (timm's numbering, -1 the last; later stages
    are removed). `difference` appends the frame-to-frame change of the features. `dropout` acts before the
    head and between `layers`.
    """
    return on_timm_features(
        "cnn_lstm",
        num_classes,
        num_frames,
        size,
        backbone=backbone,
        pretrained=pretrained,
        drop_path=drop_path,
        frozen=False,
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


@MODELS.register(name="embedding_lstm")
def embedding_lstm(
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
) -> VideoClassifier:
    """CNN-LSTM on a frozen backbone: an LSTM or GRU over frame embeddings (Güera and Delp 2018).

    The embeddings need computing only once. The backbone keeps the weights that it is loaded with: ImageNet's
    (`pretrained`, as published), or those of a frame model or a CNN-LSTM (MODEL.INIT_FROM). Settings and
    parameter names are those of cnn_lstm.
    """
    return on_timm_features(
        "embedding_lstm",
        num_classes,
        num_frames,
        size,
        backbone=backbone,
        pretrained=pretrained,
        frozen=True,
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
