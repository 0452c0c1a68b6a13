"""files.py: written whole or not at all, and on disk before it has its name."""

import os

import pytest

from dfdc_video.files import load_json, whole_file, write_atomic


def test_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """File, rename, folder, in this order: after a power failure there is the old file or the new one."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (done.append(os.readlink(f"/proc/self/fd/{h}")), fsync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_atomic(tmp_path / "a.json", "{}")
    assert done == [str(tmp_path / ".a.json.part"), "rename", str(tmp_path)]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "a.json", '{"old": 1}')
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["a.json"] and load_json(tmp_path / "a.json") == {"old": 1}
    write_atomic(tmp_path / "a.json", '{"new": 1}')  # as many bytes
    assert load_json(tmp_path / "a.json") == {"new": 1}
