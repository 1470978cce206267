"""Logs that a process holds open."""

import stat

import pytest

from llmos_hub.processes import logs
from llmos_hub.processes.logs import append, last_lines, rotate, rotate_all


def test_a_log_is_rotated_under_its_writer(tmp_path):
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not rotate(path, max_bytes=100, keep=3)
        writer.write(b"b")
        assert rotate(path, max_bytes=100, keep=3)
        writer.write(b"c")
    assert path.read_bytes() == b"c"
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 100 + b"b"
    for _ in range(5):
        path.write_bytes(b"d" * 101)
        rotate(path, max_bytes=100, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]


def test_a_copy_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.log"
    for content in (b"a" * 101, b"b" * 101):
        path.write_bytes(content)
        rotate(path, max_bytes=100, keep=3)
    path.write_bytes(b"c" * 101)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(source, target, block):
        target.write(source.read(50))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        rotate(path, max_bytes=100, keep=3)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    rotate_all(tmp_path, max_bytes=100, keep=3)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_all_logs_below_a_directory_are_rotated_and_private(tmp_path):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.log", tmp_path / "a" / "y.log", tmp_path / "other.txt"):
        path.write_bytes(b"a" * 101)
    for directory in (tmp_path, tmp_path / "nowhere"):
        rotate_all(directory, max_bytes=100, keep=1)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.1"))
    assert found == ["a/y.log.1", "x.log.1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.1")} == {0o600}
    assert not rotate(tmp_path / "none.log", max_bytes=0, keep=1)


def test_a_line_is_added_at_the_end_and_a_log_that_cannot_be_written_is_no_error(tmp_path):
    path = tmp_path / "x.log"
    append(path, "one\n")
    append(path, "two\n")
    append(tmp_path / "nowhere" / "x.log", "lost\n")
    assert last_lines(path, 5) == ["one", "two"]
    assert last_lines(path, 1) == ["two"]
    assert last_lines(tmp_path / "nowhere" / "x.log", 5) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_the_newest_start_counts(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("of the first start\nof the second\n")
    assert last_lines(path, 20, start=19) == ["of the second"]
    assert last_lines(path, 20, start=999) == ["of the first start", "of the second"]
