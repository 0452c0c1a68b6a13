"""Weights from a URL: downloaded once, checked by their hash."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest
import torch
from weights_files import frame, saved

from dfdc_video.models.weights.fetch import find_weights, resolve_weights
from dfdc_video.models.weights.load import load_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDC_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """A server of the files of `tmp_path`: its address and the paths that it was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def test_weights_are_downloaded_once_and_loaded(tmp_path, cache, server):
    source, target = frame(), frame()
    path = saved(tmp_path, source.state_dict(), "x.pyth")
    address, asked = server
    url = f"{address}/x.pyth#sha256={sha256(path).upper()}"
    report = load_weights(target, url, keep_head=True)
    assert torch.equal(target.network.backbone.conv_stem.weight, source.network.backbone.conv_stem.weight)
    assert report.path == url
    found = find_weights(url)
    assert found.read_bytes() == path.read_bytes() and found.suffix == ".pyth" and files_in(cache) == [found]
    assert len(asked) == 1
    assert resolve_weights(path.as_uri(), sha256=sha256(path)) == found  # the same file from elsewhere
    found.write_bytes(b"changed")
    with pytest.raises(ValueError, match="now has the SHA-256"):
        find_weights(url)


def test_wrong_hash_is_refused_and_not_kept(tmp_path, cache, server):
    path = saved(tmp_path, {"a": torch.ones(1)}, "x.pth")
    for url in (f"{server[0]}/x.pth", path.as_uri()):
        with pytest.raises(
            ValueError, match=f"has the SHA-256 {sha256(path)}, expected {'0' * 64}: not kept"
        ):
            resolve_weights(url, sha256="0" * 64)
    assert not files_in(cache)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.pyth", "http://no.such.host.invalid/x.pyth", "file:///no/such/x.pyth"]
)
def test_without_a_network_the_error_names_url_and_target(cache, url):
    with pytest.raises(FileNotFoundError, match="could not download .*x.pyth.*put it at .*x.pyth") as error:
        find_weights(f"{url}#sha256={'a' * 64}")
    assert "\n" not in str(error.value) and not files_in(cache)
    target = cache / "weights" / ("a" * 16) / "x.pyth"
    assert str(target) in str(error.value) and url in str(error.value)


def test_missing_page_is_an_error(cache, server):
    with pytest.raises(FileNotFoundError, match=r"could not download .*404|could not download .*Not Found"):
        resolve_weights(f"{server[0]}/none.pth", sha256="a" * 64)
    assert not files_in(cache)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("https://host/x.pyth", "expected 64 hex digits"),
        ("https://host/x.pyth#sha256=abc", "SHA-256 'abc', expected 64 hex digits"),
        ("ftp://host/x.pyth#sha256=" + "a" * 64, "cannot download by 'ftp'"),
    ],
)
def test_bad_urls(cache, text, problem):
    with pytest.raises(ValueError, match=problem):
        find_weights(text)
    with pytest.raises(ValueError, match=problem):
        load_weights(frame(), text)


def test_find_weights_of_a_path(tmp_path):
    path = saved(tmp_path, {"a": torch.ones(1)})
    assert find_weights(str(path)) == find_weights(path) == path
    with pytest.raises(FileNotFoundError, match="no file at nowhere.pth.*INIT_FROM"):
        find_weights("nowhere.pth")
