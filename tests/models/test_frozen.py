"""Models on a frozen backbone: what training may change, embeddings, pooling against explicit formulas, and
weights.
"""

from __future__ import annotations

import copy

import pytest
import torch
from weights_files import accounted, frame, make, saved

from dfdc_video.models.aggregator import QUANTILES, in_canonical_order, order_statistics
from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.weights.load import load_weights

FROZEN = [
    ("embedding_lstm", {"backbone": "test_resnet", "hidden": 8, "difference": True}),
    (
        "embedding_lstm",
        {"backbone": "test_efficientnet", "pool": "grid", "grid": 2, "stage": 2, "rnn": "gru", "hidden": 8},
    ),
    ("embedding_lstm", {"backbone": "test_vit", "bidirectional": True, "readout": "last", "hidden": 8}),
    ("aggregator", {"backbone": "test_resnet", "hidden": 8}),
    ("aggregator", {"backbone": "test_vit", "pool": "order", "hidden": 8}),
    (
        "aggregator",
        {"backbone": "test_efficientnet", "inputs": "predictions", "pool": "attention", "hidden": 8},
    ),
    ("aggregator", {"backbone": "test_resnet", "inputs": "predictions", "pool": "order", "hidden": 8}),
    ("aggregator", {"backbone": "test_resnet", "pool": "mean", "hidden": 8}),
]
BAGS = [v for v in FROZEN if v[0] == "aggregator"]
ids = "{0[0]}-{0[1][backbone]}".format
each = pytest.mark.parametrize(("name", "settings"), FROZEN, ids=map(ids, FROZEN))
each_bag = pytest.mark.parametrize("settings", [s for _, s in BAGS], ids=map(ids, BAGS))


def of(name, settings, num_classes=2):
    torch.manual_seed(0)
    return build_classifier(name, num_classes, 6, (64, 64), **settings)


def clip(batch=2, num_frames=6, seed=0):
    return torch.randint(
        0,
        256,
        (batch, 3, num_frames, 64, 64),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )


def bag(model, batch=2, num_frames=6, seed=0):
    """Random embeddings of the width that `model` has; log-probabilities where it takes them."""
    values = torch.randn(
        batch, num_frames, model.embed(clip(1, 1)).shape[2], generator=torch.Generator().manual_seed(seed)
    )
    return values.log_softmax(2) if getattr(model.network, "inputs", "") == "predictions" else values


@each
def test_a_training_step_leaves_the_backbone_and_its_statistics_as_they_were(name, settings):
    model = of(name, settings)
    before = copy.deepcopy(model.state_dict())
    backbone = model.get_submodule("network.backbone")
    assert model.training and not any(m.training for m in backbone.modules())
    assert all(
        p.requires_grad == (not n.startswith("network.backbone.")) for n, p in model.named_parameters()
    )
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    model(clip()).square().sum().backward()
    optimizer.step()
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed and not any(n.startswith("network.backbone.") for n in changed)
    assert {n.rsplit(".", 1)[0] for n in changed} >= set(model.head_names)


@each
def test_embeddings_and_trained_layers_make_up_the_model(name, settings):
    model = of(name, settings).eval()
    assert model.embeds and not model.embed(clip(num_frames=1)).requires_grad
    for num_frames in (1, 2, 6):
        frames = clip(num_frames=num_frames)
        with torch.no_grad():
            embeddings = model.embed(frames)
            assert embeddings.ndim == 3 and embeddings.shape[:2] == (2, num_frames)
            assert torch.equal(model.from_embeddings(embeddings), model(frames))
            alone = torch.cat([model.embed(frames[:, :, t : t + 1]) for t in range(num_frames)], dim=1)
        torch.testing.assert_close(alone, embeddings, rtol=1e-5, atol=1e-6)


@each
def test_training_on_embeddings_equals_training_on_frames(name, settings):
    """A step on embeddings has the gradients of a step on frames."""
    model, frames = of(name, settings).train(), clip()
    model(frames).square().sum().backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.from_embeddings(model.embed(frames)).square().sum().backward()
    for n, gradient in wanted.items():
        torch.testing.assert_close(model.get_parameter(n).grad, gradient, msg=n)


def test_a_model_that_trains_its_backbone_has_no_embeddings():
    model = make("cnn_lstm", backbone="test_resnet", hidden=8)
    assert not model.embeds
    with pytest.raises(ValueError, match="trains its backbone"):
        model.embed(clip())


@each_bag
def test_a_bag_has_no_order_to_the_last_bit(settings):
    model = of("aggregator", settings).eval()
    for num_frames in (1, 2, 3, 300):
        embeddings = bag(model, num_frames=num_frames)
        embeddings[:, : num_frames // 2] = embeddings[:, :1]  # frames that are the same
        generator = torch.Generator().manual_seed(1)
        other = bag(model, num_frames=num_frames, seed=9)
        with torch.no_grad():
            logits = model.from_embeddings(embeddings)
            assert logits.shape == (2, 2) and logits.isfinite().all()
            for _ in range(20):
                order = torch.randperm(num_frames, generator=generator)
                assert torch.equal(model.from_embeddings(embeddings[:, order]), logits)
            assert (model.from_embeddings(other) - logits).abs().min() > 1e-6


def test_canonical_order_is_an_order_of_whole_frames():
    values = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0)).relu()
    values[:, 10:20] = 0
    values[1, 30] = values[1, 31]
    # two frames that differ in one bit
    values[1, 30, 3] = torch.nextafter(values[1, 30, 3], torch.tensor(1e9))
    ordered = in_canonical_order(values)
    for number in range(3):
        assert sorted(ordered[number].tolist()) == sorted(values[number].tolist())
    assert not torch.equal(ordered, values)
    for seed in range(20):
        order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(in_canonical_order(values[:, order]), ordered)


def test_order_statistics_are_those_of_torch():
    for num_frames in (1, 2, 3, 8, 300):
        values = torch.randn(2, num_frames, 5, generator=torch.Generator().manual_seed(0))
        found, quantiles = order_statistics(values), values.quantile(torch.tensor(QUANTILES), dim=1)
        torch.testing.assert_close(found[:, :5], quantiles.transpose(0, 1))
        assert torch.equal(found[:, 0], values.amin(1)) and torch.equal(found[:, 4], values.amax(1))
        torch.testing.assert_close(found[:, 5], values.mean(1))
        torch.testing.assert_close(found[:, 6], values.std(1, correction=0), rtol=1e-5, atol=1e-6)


def test_attention_is_the_written_out_formula():
    """Equations 8 and 9 of the paper as a loop over frames, after the projection."""
    model = of("aggregator", {"backbone": "test_resnet", "hidden": 8}).eval()
    net, embeddings = model.network, bag(model)
    value, gate, score = (net.attention.get_parameter(f"{n}.weight") for n in ("value", "gate", "score"))
    with torch.no_grad():
        for number in range(2):
            hidden = [net.projection(embeddings[number, t]) for t in range(6)]
            scores = [
                score[0]
                @ (
                    (value @ h + net.attention.value.bias).tanh()
                    * (gate @ h + net.attention.gate.bias).sigmoid()
                )
                for h in hidden
            ]
            total = sum(s.exp() for s in scores)
            pooled = sum(s.exp() / total * h for s, h in zip(scores, hidden, strict=True))
            logits = net.head.weight @ pooled + net.head.bias
            torch.testing.assert_close(
                model.from_embeddings(embeddings)[number], logits, rtol=1e-4, atol=1e-6
            )
        torch.testing.assert_close(net.attention.weights(net.projection(embeddings)).sum(1), torch.ones(2, 1))


@each_bag
def test_gradients_are_finite_on_constant_clips(settings):
    model = of("aggregator", settings).train()
    for num_frames in (1, 2, 6):
        constant = bag(model, num_frames=1).expand(-1, num_frames, -1).clone().requires_grad_()
        model.from_embeddings(constant).square().sum().backward()
        assert constant.grad.isfinite().all() and constant.grad.any()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_attention_learns_to_find_the_informative_frame():
    """One of sixteen frames, at a random position, has the sign of the class in one channel; the mean over
    frames hardly shows it.
    """
    model = of("aggregator", {"backbone": "test_resnet", "hidden": 32}).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 3e-3)
    width = model.embed(clip(1, 1)).shape[2]

    def sample(seed, batch=32):
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (batch,), generator=generator)
        values = torch.randn(batch, 16, width, generator=generator)
        place = torch.randint(0, 16, (batch,), generator=generator)
        values[torch.arange(batch), place, 0] = 8.0
        values[torch.arange(batch), place, 1] = 8.0 * (2 * label - 1)
        return values, label

    for seed in range(150):
        values, label = sample(seed)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.from_embeddings(values), label).backward()
        optimizer.step()
    values, label = sample(1000, batch=200)
    net = model.eval().network
    with torch.no_grad():
        assert (model.from_embeddings(values).argmax(1) == label).float().mean() > 0.95
        attended = net.attention.weights(net.projection(values))[..., 0].argmax(1)
    assert (attended == values[:, :, 0].argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("inputs", "pool"), [("features", "attention"), ("features", "order"), ("predictions", "order")]
)
def test_frame_checkpoint_becomes_the_backbone_of_the_aggregator(tmp_path, inputs, pool):
    source = frame(backbone="test_resnet").eval()
    target = make("aggregator", backbone="test_resnet", inputs=inputs, pool=pool, hidden=8).eval()
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    accounted(report, target, source.state_dict())
    classifier = {"network.backbone.fc.weight", "network.backbone.fc.bias"}
    assert set(report.left_out) == (set() if inputs == "predictions" else classifier)
    assert {n.split(".")[1] for n in report.missing} == {"projection", "head"} | (
        {"attention"} if pool == "attention" else set()
    )
    frames, net = clip(), source.network.backbone
    with torch.no_grad():
        if inputs == "predictions":
            wanted = source.frame_logits(source.normalise(frames)).log_softmax(2)
        else:
            images = source.normalise(frames).transpose(1, 2).flatten(0, 1)
            wanted = net.forward_head(net.forward_features(images), pre_logits=True).unflatten(0, (2, 6))
        torch.testing.assert_close(target.embed(frames), wanted)


def test_predictions_of_a_frame_checkpoint_by_hand(tmp_path):
    """With a head set to read the median log-probabilities the output is the median of the frame model's
    probabilities.
    """
    source = frame(backbone="test_resnet").eval()
    target = make("aggregator", backbone="test_resnet", inputs="predictions", pool="order", hidden=2).eval()
    load_weights(target, saved(tmp_path, source.state_dict()))
    net, median = target.network, QUANTILES.index(0.5)
    with torch.no_grad():
        for parameter in (*net.projection.parameters(), *net.head.parameters()):
            parameter.zero_()
        net.projection[0].weight[:, 2 * median : 2 * median + 2] = torch.eye(2)
        net.projection[0].bias.fill_(100.0)  # above 0 for the ReLU
        net.head.weight.copy_(torch.eye(2))
        net.head.bias.fill_(-100.0)
        frames = clip(num_frames=5)
        probabilities = source.frame_logits(source.normalise(frames)).softmax(2)
        torch.testing.assert_close(target(frames).exp(), probabilities.median(1).values, rtol=1e-4, atol=1e-5)


def test_a_classifier_of_other_classes_makes_no_predictions(tmp_path):
    target = make("aggregator", backbone="test_resnet", inputs="predictions")
    with pytest.raises(ValueError, match=r"fc.weight has the shape \(5, \d+\), expected \(2, \d+\)"):
        load_weights(target, saved(tmp_path, frame(5, backbone="test_resnet").state_dict()))


@pytest.mark.parametrize("pool", ["avg", "grid"])
def test_embedding_lstm_reads_frame_timm_and_cnn_lstm_weights(tmp_path, pool):
    settings = {"backbone": "test_resnet", "hidden": 8, "pool": pool, "stage": -1 if pool == "avg" else 2}
    torch.manual_seed(1)
    trained = make("cnn_lstm", **settings).eval()
    source = frame(backbone="test_resnet")
    bare = {n.removeprefix("network.backbone."): t for n, t in source.state_dict().items()}
    for state in (source.state_dict(), bare):
        target = make("embedding_lstm", **settings)
        assert set(target.state_dict()) == set(trained.state_dict())
        report = load_weights(target, saved(tmp_path, state))
        accounted(report, target, state)
        assert torch.equal(target.network.backbone.conv1[0].weight, source.network.backbone.conv1[0].weight)
        assert {n.split(".")[1] for n in report.missing} == {"projection", "rnn", "head"}
        assert all("frame model" in r or "beyond stage" in r or "head" in r for r in report.left_out.values())
    target = make("embedding_lstm", **settings).eval()
    report = load_weights(target, saved(tmp_path, trained.state_dict()), keep_head=True)
    assert not report.missing and not report.left_out
    with torch.no_grad():
        assert torch.equal(target(clip()), trained(clip()))
