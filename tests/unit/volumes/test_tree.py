"""Files below a directory: no path, link or race leads out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.errors import AlreadyExists, Conflict, Insufficient, Invalid, NotFound
from llmos_hub.volumes.tree import Tree, Upload, parts_of

ID = "0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inner = tmp_path / "volume"
    inner.mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("s3cret")
    return inner


@pytest.fixture
def tree(root: Path) -> Tree:
    return Tree(root)


def put(tree: Tree, path: str, content: bytes, *, offset: int = 0, total: int | None = None) -> None:
    upload = Upload(ID, offset, len(content) if total is None else total)
    with tree.receive(path, upload) as fd:
        os.write(fd, content)
    if offset + len(content) == upload.total:
        tree.finish(path, upload)


OUT = [
    "../secret/key",
    "a/../../secret/key",
    "/etc/passwd",
    "..",
    ".",
    "a//b",
    "./a",
    "a/.",
    "x\0y",
    "x\ny",
    "\ud800",
    "a/" * 65,
]
LONG = ["n" * 256, "a/" + "é" * 128, "/".join(["n" * 200] * 25)]


@pytest.mark.parametrize("path", [*OUT, *LONG])
def test_paths_that_lead_out_or_are_none_are_refused_by_every_function(tree: Tree, root: Path, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tree.stat(path),
        lambda: tree.entries(path),
        lambda: tree.open(path),
        lambda: tree.make_directory(path),
        lambda: tree.remove(path, recursive=True),
        lambda: put(tree, path, b"x"),
        lambda: tree.finish(path, Upload(ID, 0, 0)),
    ]
    for call in calls:
        with pytest.raises(Invalid, match="path"):
            call()
    assert not list(root.iterdir())
    assert (root.parent / "secret" / "key").read_text() == "s3cret"


def test_links_are_seen_and_never_followed(tree: Tree, root: Path) -> None:
    outside = root.parent / "secret"
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "key")
    (root / "loop").symlink_to("loop")
    assert [(each.name, each.type) for each in tree.entries("")] == [
        ("file", "link"),
        ("loop", "link"),
        ("out", "link"),
    ]
    for path in ("out", "file", "loop"):
        with pytest.raises(Invalid, match="link"):
            tree.open(path)
    for call in (
        lambda: tree.entries("out"),
        lambda: tree.stat("out/key"),
        lambda: tree.open("out/key"),
        lambda: tree.remove("out/key"),
        lambda: tree.make_directory("out/new"),
        lambda: put(tree, "out/new", b"x"),
    ):
        with pytest.raises(Invalid, match="link"):
            call()
    put(tree, "file", b"mine")  # takes the link's place, and not that of what it leads to
    assert not (root / "file").is_symlink()
    tree.remove("out", recursive=True)
    assert (outside / "key").read_text() == "s3cret"
    assert [path.name for path in outside.iterdir()] == ["key"]


def test_a_directory_replaced_by_a_link_meanwhile_changes_nothing(tree: Tree, root: Path) -> None:
    (root / "a").mkdir()
    upload = Upload(ID, 0, 4)
    with tree.receive("a/new", upload) as fd:
        (root / "a").rename(root / "b")
        (root / "a").symlink_to(root.parent / "secret")
        os.write(fd, b"mine")
    with pytest.raises(Invalid, match="link"):
        tree.finish("a/new", upload)
    assert [path.name for path in (root.parent / "secret").iterdir()] == ["key"]


def test_what_lies_in_the_way_of_an_upload_is_not_written_to(tree: Tree, root: Path) -> None:
    put(tree, "x", b"ab", total=4)
    (part,) = root.iterdir()
    part.unlink()
    key = root.parent / "secret" / "key"
    part.symlink_to(key)
    with pytest.raises(Invalid, match="link"):
        put(tree, "x", b"ab", total=4)
    part.unlink()
    os.link(key, part)
    with pytest.raises(Invalid, match="in the way"):
        put(tree, "x", b"ab", total=4)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(Invalid):
        put(tree, "x", b"ab", total=4)
    assert key.read_text() == "s3cret"


def test_a_fifo_is_not_waited_for(tree: Tree, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(Invalid, match=r"is no file \(other\)"):
        tree.open("pipe")


def test_an_upload_goes_on_where_it_was_and_appears_when_complete(tree: Tree, root: Path) -> None:
    (root / "x").write_bytes(b"old")
    put(tree, "x", b"01", total=6)
    assert tree.progress("x", ID) == 2
    assert (root / "x").read_bytes() == b"old"
    with contextlib.suppress(RuntimeError), tree.receive("x", Upload(ID, 2, 6)) as fd:
        os.write(fd, b"torn")
        raise RuntimeError
    assert tree.progress("x", ID) == 2  # nothing of the torn piece is left
    with pytest.raises(Conflict, match="2 bytes"), tree.receive("x", Upload(ID, 4, 6)):
        pass
    with pytest.raises(Conflict, match="2 of 6"):
        tree.finish("x", Upload(ID, 0, 6))
    put(tree, "x", b"2345", offset=2, total=6)
    assert (root / "x").read_bytes() == b"012345"
    assert [path.name for path in root.iterdir()] == ["x"]
    assert (root / "x").stat().st_mode & 0o777 == 0o600


def test_directories(tree: Tree, root: Path) -> None:
    put(tree, "a/b/c.txt", b"1")
    assert [(each.name, each.type, each.size) for each in tree.entries("a/b")] == [("c.txt", "file", 1)]
    assert (root / "a").stat().st_mode & 0o777 == 0o700
    with pytest.raises(Invalid, match="not empty"):
        tree.remove("a")
    with pytest.raises(AlreadyExists):
        put(tree, "a", b"1")
    with pytest.raises(Invalid, match="file or a link"):
        tree.entries("a/b/c.txt")
    with pytest.raises(Invalid, match="whole volume"):
        tree.remove("", recursive=True)
    tree.remove("a", recursive=True)
    with pytest.raises(NotFound, match='"a"'):
        tree.stat("a")


def test_pages_by_name(tree: Tree, root: Path) -> None:
    for number in range(25):
        (root / f"{number:02}").touch()
    names: list[str] = []
    while page := tree.entries("", after=names[-1] if names else "", limit=10):
        names += [each.name for each in page]
    assert names == [f"{number:02}" for number in range(25)]


def test_a_full_disk_is_said(tree: Tree) -> None:
    with pytest.raises(Insufficient, match="disk is full"), tree.receive("x", Upload(ID, 0, 1)):
        raise OSError(28, "No space left on device")


def test_parts() -> None:
    assert parts_of("") == []
    assert parts_of("a/b/") == ["a", "b"]
    assert parts_of("…/名 前") == ["…", "名 前"]
