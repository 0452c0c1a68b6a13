"""`timm:NAME`: timm's weights by name, from a hub cache that the test fills, without a network."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest
import timm
import torch
from safetensors.torch import save_file
from weights_files import accounted, make, saved

from dfdc_video.models.weights import from_timm
from dfdc_video.models.weights.fetch import find_weights
from dfdc_video.models.weights.load import load_weights

NAMES = ("test_efficientnet", "test_resnet", "test_vit")


def full_name(name):
    return f"{name}.{timm.get_pretrained_cfg(name).tag}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The folder of a hub's cache with networks of timm in it, and their state dicts."""
    folder, states = tmp_path_factory.mktemp("hub"), {}
    for name in NAMES:
        repository = folder / f"models--timm--{full_name(name)}"
        snapshot = repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        torch.manual_seed(len(states))
        states[name] = timm.create_model(name).state_dict()
        save_file(states[name], snapshot / "model.safetensors")
    return folder, states


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(from_timm, "_unreachable", lambda url: "no network here")


@pytest.fixture
def cached(monkeypatch, offline, hub):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub[0]))
    return hub[1]


@pytest.mark.parametrize(
    ("name", "tagged"),
    [("frame", True), ("cnn_lstm", False), ("embedding_lstm", False), ("efficientnet3d", False)],
)
def test_every_timm_family_loads_timm_weights_by_name(cached, name, tagged):
    model, state = make(name, backbone="test_efficientnet"), cached["test_efficientnet"]
    source = "timm:" + (full_name("test_efficientnet") if tagged else "test_efficientnet")
    assert find_weights(source) == source
    report = load_weights(model, source)
    assert (
        report.path == source
        and report.source == f"timm {full_name('test_efficientnet')}"
        and not report.notes
    )
    accounted(report, model, state)
    assert {n.removeprefix("network.backbone.") for n in report.left_out} == {
        "classifier.weight",
        "classifier.bias",
    }
    ours = {
        n.removeprefix("network.backbone."): t
        for n, t in model.state_dict().items()
        if n.startswith("network.backbone.")
    }
    for weight in ("conv_stem.weight", "blocks.3.0.conv_pw.weight", "bn1.running_var"):
        found = ours[weight].sum(2) if ours[weight].ndim == 5 else ours[weight]
        torch.testing.assert_close(found, state[weight])
    assert bool(report.inflated) == (name == "efficientnet3d")


def test_a_head_that_fits_is_kept(cached):
    model = make("frame", 1000, backbone="test_resnet")
    report = load_weights(model, "timm:test_resnet", keep_head=True)
    assert not report.left_out and not report.missing
    assert all(
        torch.equal(t, cached["test_resnet"][n.removeprefix("network.backbone.")])
        for n, t in model.state_dict().items()
    )
    with pytest.raises(ValueError, match=r"fc.weight has the shape \(1000, .*set MODEL.KEEP_HEAD False"):
        load_weights(make("frame", 2, backbone="test_resnet"), "timm:test_resnet", keep_head=True)


def test_a_vision_transformer_gets_positions_for_its_size_from_the_name_as_from_the_file(cached, hub):
    by_name, by_file = make("frame", backbone="test_vit"), make("frame", backbone="test_vit")
    wanted = timm.create_model(
        "test_vit",
        pretrained=True,
        img_size=(64, 64),
        pretrained_cfg_overlay={"state_dict": dict(cached["test_vit"])},
    )
    assert wanted.pos_embed.shape != cached["test_vit"]["pos_embed"].shape
    load_weights(by_name, "timm:test_vit")
    report = load_weights(by_file, next(hub[0].glob("models--timm--test_vit*/snapshots/*/model.safetensors")))
    assert torch.equal(by_name.network.backbone.pos_embed, wanted.pos_embed)
    assert torch.equal(by_file.network.backbone.pos_embed, wanted.pos_embed)
    assert report.notes == ["position embeddings interpolated from 10 x 10 to 4 x 4 patches"]


def test_another_normalisation_is_noted(cached):
    model = make("frame", backbone="test_resnet")
    model.mean.fill_(0.25)
    assert "set MODEL.BACKBONE test_resnet." in str(load_weights(model, "timm:test_resnet"))


def test_another_architecture_is_refused(cached):
    for model in (make("frame", backbone="test_efficientnet"), make("slow", width=8)):
        before = {n: t.clone() for n, t in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"timm:test_resnet \(timm test_resnet\..*another architecture"):
            load_weights(model, "timm:test_resnet")
        assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_loading_does_not_advance_the_random_generator(cached):
    import huggingface_hub.constants

    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    find_weights("timm:test_resnet")
    assert torch.equal(torch.rand(3), wanted)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False and socket.getdefaulttimeout() is None


def test_pretrained_is_served_by_the_cache_too(cached):
    model = make("frame", backbone="test_resnet", pretrained=True)
    assert torch.equal(
        model.network.backbone.state_dict()["conv1.0.weight"], cached["test_resnet"]["conv1.0.weight"]
    )


@pytest.mark.parametrize(
    "load", [find_weights, lambda source: load_weights(make("frame", backbone="test_resnet"), source)]
)
def test_without_network_and_cache_the_error_names_download_and_setting(offline, load):
    with pytest.raises(
        FileNotFoundError,
        match=r"could not be downloaded .*no network here.*https://.*/timm/test_resnet\..*INIT_FROM",
    ) as error:
        load("timm:test_resnet")
    assert "\n" not in str(error.value) and str(error.value).count("model.safetensors") == 1
    with pytest.raises(
        ValueError,
        match=r"MODEL.PRETRAINED: .*no network here.*INIT_FROM to the file, with MODEL.PRETRAINED False",
    ) as error:
        make("frame", backbone="test_resnet", pretrained=True)
    assert "\n" not in str(error.value)


def test_the_file_that_the_error_names_is_one_that_loads(cached, hub):
    path = next(hub[0].glob("models--timm--test_resnet*/snapshots/*/model.safetensors"))
    assert from_timm.weights_url(timm.get_pretrained_cfg("test_resnet")).endswith(f"/{path.name}")
    report = load_weights(make("frame", backbone="test_resnet"), path)
    assert report.matched == load_weights(make("frame", backbone="test_resnet"), "timm:test_resnet").matched


def test_a_damaged_file_in_the_cache_is_not_called_a_missing_network(cached, hub, monkeypatch, tmp_path):
    import shutil

    import huggingface_hub.constants

    shutil.copytree(hub[0], tmp_path / "hub")
    next((tmp_path / "hub").glob("models--timm--test_resnet*/snapshots/*/model.safetensors")).write_bytes(
        b"short"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=r"downloaded or read \(.*header") as error:
        find_weights("timm:test_resnet")
    assert "no network" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet19", "timm has no weights 'resnet19'; did you mean resnet18"),
        ("resnet18.a9_in1k", r"did you mean resnet18\.a\d_in1k"),
        ("botnet50ts_256", "timm has the architecture botnet50ts_256 but no pretrained weights for it"),
        ("", r"timm has no weights ''; timm.list_pretrained\(\)"),
        ("§§§", r"timm has no weights '§§§'; timm.list_pretrained\(\)"),
        ("../resnet18", "did you mean resnet18"),
    ],
)
def test_names_without_weights_in_timm(offline, name, problem):
    for load in (find_weights, lambda source: load_weights(make("frame", backbone="test_resnet"), source)):
        with pytest.raises(ValueError, match=f"MODEL.INIT_FROM: .*{problem}") as error:
            load(f"timm:{name}")
        assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_names_from_before_timm_had_tags():
    assert from_timm.find_timm("timm:tf_efficientnet_b7_ns")[0] == "tf_efficientnet_b7.ns_jft_in1k"
    assert (
        from_timm.find_timm("timm:tf_efficientnet_b7.ns_jft_in1k")[1].hf_hub_id
        == "timm/tf_efficientnet_b7.ns_jft_in1k"
    )


def test_a_backbone_with_an_unknown_tag():
    with pytest.raises(
        ValueError, match=r"unknown timm backbone 'resnet18.a9_in1k'; did you mean resnet18\.a"
    ):
        make("frame", backbone="resnet18.a9_in1k")


def test_the_url_of_weights_outside_the_hub():
    config = timm.get_pretrained_cfg("gcvit_tiny")
    assert not config.hf_hub_id and from_timm.weights_url(config) == config.url


def test_any_answer_means_that_there_is_a_network():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        assert from_timm._unreachable(f"http://127.0.0.1:{running.server_port}/x") == ""
        running.shutdown()
    assert "refused" in from_timm._unreachable(f"http://127.0.0.1:{running.server_port}/x")
    assert from_timm._unreachable("http://no.such.host.invalid/x")


def test_a_checkpoint_of_ours_for_images_of_another_size(tmp_path):
    """Position embeddings in a file with our names; the rest of the network does not depend on the size."""
    from dfdc_video.models.classifier import build_classifier

    source, target = (
        make("frame", backbone="test_vit"),
        build_classifier("frame", 2, 8, (96, 64), backbone="test_vit").eval(),
    )
    report = load_weights(target, saved(tmp_path, source.state_dict()), keep_head=True)
    assert report.notes == ["position embeddings interpolated from 4 x 4 to 6 x 4 patches"]
    differ = [n for n, t in source.state_dict().items() if t.shape != target.state_dict()[n].shape]
    assert differ == ["network.backbone.pos_embed"]
    assert target(torch.zeros(1, 3, 2, 96, 64, dtype=torch.uint8)).isfinite().all()
