"""Files that are replaced whole."""

import os
import stat

import pytest

from llmos import files
from llmos.files import overwrite, replace_file, write_private


def test_a_private_file_is_private_whatever_was_there(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "found"), [(None, 0o640), (0o755, 0o755), (0o600, 0o600)])
def test_permissions(tmp_path, mode, found):
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "x", "text", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == found


def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "x", "text")


def test_a_file_is_overwritten_within_its_own_blocks(tmp_path):
    path = tmp_path / "x"
    path.write_text('{"state": "a longer one"}')
    overwrite(path, '{"state": "é"}')
    assert path.read_text() == '{"state": "é"}'.ljust(24)
    with pytest.raises(OSError, match="No space left"):
        overwrite(path, "x" * 2**20)
    assert path.read_text() == '{"state": "é"}'.ljust(24)
