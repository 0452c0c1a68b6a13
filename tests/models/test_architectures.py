"""Special cases in which a network must agree with another: timm's 2D network, pytorchvideo's hub, a loop."""

from __future__ import annotations

import pytest
import timm
import torch
from pytorchvideo.models.hub import slowfast_r50

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.efficientnet3d import TemporalConv, inflated, parse_blocks
from dfdc_video.models.slowfast import slow_indices


def warm(module):
    """Running statistics as after training; initial ones would hide a wrong norm."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in module.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var"):
            tensor.copy_(1 + 0.3 * torch.rand(tensor.shape, generator=generator))
    return module


def clip(batch=2, num_frames=9, size=(64, 64)):
    return torch.randn(batch, 3, num_frames, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("backbone", "blocks", "count", "size"),
    [
        ("test_efficientnet", "all", 4, (64, 64)),  # two fused and two plain MBConv
        ("tf_efficientnet_b0", "5-6", 5, (64, 64)),  # 4 + 1 blocks
        # fused, with TensorFlow's padding, which differs at odd sizes
        ("tf_efficientnetv2_b0", "1-2", 4, (75, 62)),
    ],
)
@pytest.mark.parametrize("padding", ["zero", "replicate"])
def test_inflated_network_is_the_2d_network_on_a_constant_clip(backbone, blocks, count, size, padding):
    """Frames beyond the reach of the padding; with replicate padding all frames."""
    torch.manual_seed(0)
    twin = warm(timm.create_model(backbone, num_classes=2)).eval()
    torch.manual_seed(0)
    model = build_classifier(
        "efficientnet3d", 2, 15, size, backbone=backbone, padding=padding, blocks=blocks
    ).eval()
    state = twin.state_dict()
    for name, module in model.network.backbone.named_modules():
        if isinstance(module, TemporalConv):
            state[name + ".weight"] = inflated(state[name + ".weight"], 3)
    model.network.backbone.load_state_dict(state)
    assert sum(isinstance(m, TemporalConv) for m in model.modules()) == count
    image = clip(num_frames=1, size=size)
    with torch.no_grad():
        wanted = twin(image[:, :, 0])
        logits = model.frame_logits(image.expand(-1, -1, 15, -1, -1))  # (B, T, K)
    reach = count if padding == "zero" else 0  # each expansion lets the border in by one frame
    inner = logits[:, reach : 15 - reach]
    torch.testing.assert_close(inner, wanted[:, None].expand_as(inner), rtol=1e-4, atol=1e-5)
    if padding == "zero":
        assert (logits[:, 0] - wanted).abs().max() > 1e-4


def test_difference_start_responds_to_change_in_every_second_channel():
    """On a constant clip those channels are silent and the others are the 2D network's; on a changing one
    they are the 2D change.
    """
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False)
    temporal = TemporalConv.inflate(conv, kernel=3, padding="replicate", start="difference")
    temporal.num_frames = 5
    still = torch.randn(1, 4, 8, 8).expand(5, -1, -1, -1)
    moving = torch.randn(5, 4, 8, 8)
    with torch.no_grad():
        assert temporal(still)[:, 1::2].abs().max() < 1e-5
        torch.testing.assert_close(temporal(still)[:, ::2], conv(still)[:, ::2])
        torch.testing.assert_close(
            temporal(moving)[1:, 1::2], (conv(moving)[1:] - conv(moving)[:-1])[:, 1::2], rtol=1e-4, atol=1e-5
        )


def test_every_expansion_of_efficientnet_b0_becomes_3d():
    """B0 has 16 MBConv blocks; the first does not expand."""
    model = build_classifier("efficientnet3d", 2, 7, (64, 64), backbone="tf_efficientnet_b0")
    convs = [m for m in model.modules() if isinstance(m, TemporalConv)]
    assert len(convs) == 15
    assert all(c.kernel_size == (3, 1, 1) and c.padding == (1, 0, 0) and c.bias is None for c in convs)


def test_temporal_receptive_field_is_one_frame_per_expansion():
    """A change of one frame reaches the two neighbours through each of two expansions, and no further."""
    torch.manual_seed(0)
    model = build_classifier(
        "efficientnet3d", 2, 9, (64, 64), backbone="test_efficientnet", blocks="3-4"
    ).eval()
    one = clip(batch=1)
    other = one.clone()
    other[:, :, 4] += 1
    with torch.no_grad():
        changed = (model.frame_logits(one) - model.frame_logits(other)).abs().amax(2)[0] > 1e-7
    assert changed.tolist() == [False, False, True, True, True, True, True, False, False]


def test_clips_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    for name in ("frame", "efficientnet3d"):
        model = build_classifier(name, 2, 9, (64, 64), backbone="test_efficientnet").eval()
        pair = clip()
        with torch.no_grad():
            torch.testing.assert_close(model.network(pair)[1:], model.network(pair[1:]), rtol=1e-4, atol=1e-5)


def test_block_ranges():
    assert parse_blocks("all", 3) == [0, 1, 2]
    assert parse_blocks("1-3,5", 7) == [1, 2, 3, 5]
    assert parse_blocks("2", 7) == [2]


def test_frame_model_is_the_mean_of_timm_frame_logits():
    torch.manual_seed(0)
    model = build_classifier("frame", 2, 3, (64, 64), backbone="test_resnet").eval()
    frames = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    config = model.network.backbone.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        by_hand = torch.stack(
            [model.network.backbone((frames[:, :, t] / 255 - mean) / std) for t in range(3)]
        ).mean(0)
        torch.testing.assert_close(model(frames), by_hand)


def test_cnn_lstm_is_lstm_over_timm_features():
    torch.manual_seed(0)
    model = build_classifier(
        "cnn_lstm", 2, 4, (64, 64), backbone="test_resnet", hidden=8, difference=True
    ).eval()
    net, x = model.network, clip(num_frames=4)
    with torch.no_grad():
        features = [net.projection(net.backbone(x[:, :, t])) for t in range(4)]
        state, outputs = None, []
        for t in range(4):
            change = features[t] - features[max(t - 1, 0)]
            output, state = net.rnn(torch.cat((features[t], change), 1)[:, None], state)
            outputs.append(output[:, 0])
        torch.testing.assert_close(net(x), net.head(torch.stack(outputs).mean(0)), rtol=1e-4, atol=1e-5)


def test_grid_features_keep_position_and_pooled_features_lose_it():
    """A pattern moved by whole strides of the network, on an empty and wide ground: the pooled features are
    the same, the grid's are not.
    """
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 256, 256)
    image[..., 96:128, 64:96] = torch.randn(3, 32, 32)
    moved = image.roll(64, -1)
    avg = build_classifier("cnn_lstm", 2, 1, (256, 256), backbone="test_resnet", hidden=8).eval().network
    grid = (
        build_classifier("cnn_lstm", 2, 1, (256, 256), backbone="test_resnet", hidden=8, pool="grid")
        .eval()
        .network
    )
    with torch.no_grad():
        torch.testing.assert_close(avg.backbone(image), avg.backbone(moved), rtol=1e-3, atol=1e-5)
        a, b = grid.grid(grid.backbone, image), grid.grid(grid.backbone, moved)
    assert (a - b).abs().max() > 0.05 * a.abs().max()


def test_slow_pathway_frames():
    assert slow_indices(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slow_indices(32, 8).tolist() == [0, 10, 20, 31]
    assert slow_indices(4, 4).tolist() == [0]


def test_slowfast_is_the_hub_network_by_name_and_shape():
    """SlowFast 8x8 R50 of pytorchvideo's hub; 34,566,488 parameters with 400 classes in the original."""
    with torch.device("meta"):
        hub = slowfast_r50()
        model = build_classifier("slowfast", 400, 32, (224, 224), depth=50, alpha=4)
    assert sum(p.numel() for p in model.parameters()) == 34_566_488
    assert [(n, p.shape) for n, p in model.network.body.state_dict().items()] == [
        (n, p.shape) for n, p in hub.state_dict().items()
    ]


def test_slowfast_has_the_outputs_of_the_hub_network():
    """A quarter of the width; clips of the size that the hub's head pools."""
    hub = warm(slowfast_r50(stem_dim_outs=(16, 2))).eval()
    model = build_classifier("slowfast", 400, 32, (224, 224), depth=50, alpha=4, width=16).eval()
    model.network.body.load_state_dict(hub.state_dict())
    x = clip(batch=1, num_frames=32, size=(224, 224))
    with torch.no_grad():
        wanted = hub([x[:, :, slow_indices(32, 4)], x])
        torch.testing.assert_close(model.network(x), wanted, rtol=1e-4, atol=1e-5)
        # the list of pathways is new each time
        torch.testing.assert_close(model.network(x), wanted, rtol=1e-4, atol=1e-5)


def test_slowfast_refuses_a_clip_that_alpha_does_not_divide():
    model = build_classifier("slowfast", 2, 8, (64, 64), depth=18, width=16, alpha=4)
    with pytest.raises(ValueError, match="10 frames with alpha 4"):
        model(torch.zeros(1, 3, 10, 64, 64, dtype=torch.uint8))
