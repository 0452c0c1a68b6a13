"""The interface of every model: one function of a clip, uint8 frames in, logits out.

Axes: B clips, C = 3 colour channels (RGB), T frames, H x W pixels, K classes. Normalisation, the split into
pathways and the folding of frames into the batch happen inside, so that a frame model and its sequence twin
receive exactly the same tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from dfdc_video.models.stages import group_by_stage
from dfdc_video.models.weights.from_timm import backbone_config, fetched
from dfdc_video.registry import MODELS, nearest, settings_of


class VideoClassifier(nn.Module):
    """Normalises a clip and passes it to `network`, which maps a float clip (B, C, T, H, W) to logits (B, K).

    - `head_names`: prefixes of the modules that map features to classes, re-initialised for another task.
    - `new_names`: prefixes of the modules that a 2D checkpoint of the same backbone cannot contain, such as a
      recurrent network.
    - `unused`: prefix -> reason, for tensors of such a checkpoint that this model does not use.
    - `cam_layer`: the module on whose output class activation maps are computed.
    - `uses_time`: False for models that ignore the order of the frames.
    - `map_layers`: the modules, first to last, whose outputs are feature maps, where a mask head can be
      attached (see `mask`).
    - `frozen_names`: prefixes of modules that never train: no gradients, always in evaluation mode (batch
      norms included).
    """

    mean: torch.Tensor  # (1, C, 1, 1, 1), of pixels between 0 and 1
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        clip_shape: tuple[int, int, int, int],
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        head_names: tuple[str, ...],
        cam_layer: str,
        uses_time: bool,
        new_names: tuple[str, ...] = (),
        unused: dict[str, str] | None = None,
        map_layers: tuple[str, ...] = (),
        frozen_names: tuple[str, ...] = (),
    ) -> None:
        """`clip_shape` is the (C, T, H, W) that the model was built for: the shape of the example input of
        exports and FLOP counts.
        """
        super().__init__()
        self.network = network
        self.clip_shape, self.num_classes = clip_shape, num_classes
        self.head_names, self.new_names = head_names, new_names
        self.unused = {"mask_head": "the file's mask head; this model has none", **(unused or {})}
        self.cam_layer, self.uses_time, self.map_layers = cam_layer, uses_time, map_layers
        self.mask_head: nn.Module | None = None  # see `mask.add_mask_head`
        self.frozen_names = frozen_names
        for frozen in frozen_names:
            self.get_submodule(frozen).requires_grad_(False).eval()
        # part of the architecture, not learned: not in the state dict
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, -1, 1, 1, 1), persistent=False)

    def normalise(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, T, H, W) -> normalised float clip of the same shape."""
        if frames.ndim != 5 or frames.shape[1] != self.clip_shape[0] or frames.dtype != torch.uint8:
            given = f"{str(frames.dtype).removeprefix('torch.')} {tuple(frames.shape)}"
            wanted = f"uint8 (B, {', '.join(map(str, self.clip_shape))})"
            raise ValueError(
                f"the model was given {given}, expected {wanted} = (batch, colour, time, height, width)"
            )
        return (frames.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 frames (B, C, T, H, W) -> logits (B, K)."""
        return self.network(self.normalise(frames))

    def train(self, mode: bool = True) -> VideoClassifier:
        super().train(mode)
        for frozen in self.frozen_names:
            self.get_submodule(frozen).eval()
        return self

    @property
    def embeds(self) -> bool:
        """Whether all trainable layers work on frozen per-frame features, which need computing only once
        (`embed`, `from_embeddings`).
        """
        return bool(self.frozen_names) and hasattr(self.network, "from_embeddings")

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 frames (B, C, T, H, W) -> per-frame embeddings (B, T, D) of the frozen backbone."""
        self.need_embeddings()
        return self.network.embed(self.normalise(frames))  # type: ignore[operator]

    def from_embeddings(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, T, D) -> logits (B, K): the trainable part of `forward`."""
        self.need_embeddings()
        return self.network.from_embeddings(embeddings)  # type: ignore[operator]

    def embedding_key(self) -> str:
        """Hash (16 hex digits) of everything that `embed` depends on: the frozen modules and their weights,
        which of their features are used, the normalisation and the frame size.
        """
        self.need_embeddings()
        taken = self.network.embedding_name()  # type: ignore[operator]
        digest = hashlib.sha256(
            repr((taken, self.mean.tolist(), self.std.tolist(), self.clip_shape[2:])).encode()
        )
        for frozen in self.frozen_names:
            module = self.get_submodule(frozen)
            digest.update(f"{frozen} {module}".encode())
            for name, tensor in module.state_dict().items():
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def need_embeddings(self) -> None:
        """ValueError for a model without embeddings."""
        if not self.embeds:
            raise ValueError(
                f"{type(self.network).__name__} trains its backbone: it has no embeddings to keep; "
                "embedding_lstm and aggregator do"
            )

    def channels_last(self) -> VideoClassifier:
        """Convert 2D and 3D convolution weights to the channels-last memory format, which is faster and gives
        the same results (`Module.to` accepts only one of the two formats).
        """
        for parameter in self.parameters():
            if parameter.ndim in (4, 5):
                layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=layout)
        return self

    def parameters_by_stage(self) -> dict[str, list[str]]:
        """Stage -> names of its parameters, from the `stem` to the `head`; each is in exactly one stage."""
        return group_by_stage(
            (name for name, _ in self.named_parameters()), heads=(*self.head_names, "mask_head")
        )

    def frame_logits(self, clip: torch.Tensor) -> torch.Tensor:
        """Normalised float clip (B, C, T, H, W) -> per-frame logits (B, T, K); ValueError for a family
        without.
        """
        per_frame = getattr(self.network, "frame_logits", None)
        if per_frame is None:
            raise ValueError(
                f"{type(self.network).__name__} has no logits per frame; the families frame and "
                "efficientnet3d do"
            )
        return per_frame(clip)


def build_classifier(
    name: str, num_classes: int, num_frames: int, size: tuple[int, int], **settings: object
) -> VideoClassifier:
    """The registered model `name`, for clips of `num_frames` frames of `size` = (height, width) pixels."""
    builder = MODELS.get(name)
    known = settings_of(builder)
    for setting in settings:
        if setting not in known:
            raise ValueError(f"model {name} has no setting '{setting}'; {nearest(setting, known)}")
    return builder(num_classes, num_frames, size, **settings)


def fold(clip: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B·T, C, H, W): fold frames into the batch of a 2D network."""
    return clip.transpose(1, 2).flatten(0, 1)


def timm_backbone(
    backbone: str,
    *,
    num_classes: int,
    size: tuple[int, int],
    pretrained: bool,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> tuple[Any, dict]:
    """A timm network and its data settings (mean, std, name of its classifier).

    `num_classes` 0 leaves out the classifier. ValueError for an unknown name, settings that the network does
    not take, and pretrained weights that cannot be downloaded.
    """
    config = backbone_config(backbone)
    options: dict = {"num_classes": num_classes, "drop_rate": dropout}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if config.fixed_input_size:
        options["img_size"] = size  # vision transformers have one position embedding per patch
    try:
        network: Any = (
            fetched(backbone, config, **options)
            if pretrained
            else timm.create_model(backbone, pretrained=False, **options)
        )
    except TypeError as error:
        raise ValueError(
            f"backbone {backbone} does not take these settings: {str(error).splitlines()[0]}"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(f"MODEL.PRETRAINED: {error}, with MODEL.PRETRAINED False") from error
    return network, network.pretrained_cfg


def classifier_names(config: dict, prefix: str) -> tuple[str, ...]:
    """Full names of a timm network's classifier modules; some networks have two of them."""
    names = config["classifier"]
    return tuple(f"{prefix}{n}" for n in ((names,) if isinstance(names, str) else names))


def stage_modules(network: Any, prefix: str) -> tuple[str, ...]:
    """Full names of the last module of each stage of a timm network."""
    return tuple(prefix + stage["module"] for stage in timm_stages(network))


def timm_stages(network: Any) -> list[dict]:
    """timm's table of the stages of a network, first to last: module name, number of channels, reduction."""
    info = network.feature_info
    return list(info.info if hasattr(info, "info") else info)
