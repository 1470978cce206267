"""Copies of trees, and snapshots, clones and restores made of them, on a real disk."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from llmos_hub.volumes.base import DataSource, VolumeRef, VolumeState, VolumeWish
from llmos_hub.volumes.copying import Stopped, copy_tree
from llmos_hub.volumes.local import LocalVolumes, directory_of

GI = 2**30
DATA, SNAP, NEW = (VolumeRef("user-ada", name, f"uid-{name}") for name in ("data", "snap", "new"))


def fill(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "big").write_bytes(os.urandom(200_000))
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o755)
    os.utime(root / "run.sh", ns=(1, 1_000_000_000))
    (root / "out").symlink_to("/etc")
    (root / "in").symlink_to("run.sh")
    os.mkfifo(root / "pipe")


def tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        elif path.is_dir():
            found[name] = path.stat().st_mtime_ns
    return found


def test_all_of_a_tree_and_nothing_behind_its_links(tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    fill(source)
    told: list[int] = []
    copy_tree(source, tmp_path / "copy", told.append, threading.Event())
    assert tree(tmp_path / "copy") == tree(source)
    assert sum(told) == 200_009
    assert not (tmp_path / "copy" / "pipe").exists()


def test_it_stops_when_told(tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    fill(source)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        copy_tree(source, tmp_path / "copy", lambda _: None, stop)


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.changed: asyncio.Queue[VolumeRef] = asyncio.Queue()
        self.volumes = LocalVolumes(root, root / ".links")
        self.volumes.subscribe(self.changed.put_nowait)

    async def ended(self, work: object) -> VolumeState:
        """Call `work` until it is no longer under way."""
        while (state := await work()).state == "Working":  # type: ignore[operator]
            assert "copied" in state.message
            await self.changed.get()
        return state


@pytest.fixture
async def bench(tmp_path: Path):
    made = Bench(tmp_path / "volumes")
    await made.volumes.ensure(DATA, VolumeWish(GI))
    fill(directory_of(made.root, DATA))
    yield made
    await made.volumes.close()


async def test_snapshot_clone_and_restore(bench: Bench) -> None:
    volumes, data = bench.volumes, directory_of(bench.root, DATA)
    before = {name: value for name, value in tree(data).items() if name != "pipe"}
    state = await bench.ended(lambda: volumes.snapshot(SNAP, DATA))
    assert state.state == "Ready"
    assert (state.used or 0) >= 200_000
    (data / "run.sh").write_text("changed")
    (data / "more").touch()
    for source in (DataSource("snapshot", SNAP), DataSource("volume", DATA)):
        new = VolumeRef("user-ada", f"from-{source.kind}", f"uid-{source.kind}")
        assert (await bench.ended(lambda s=source, n=new: volumes.ensure(n, VolumeWish(GI, source=s)))).state == "Ready"
        found = tree(directory_of(bench.root, new))
        assert (found == before) == (source.kind == "snapshot")
        assert (bench.root / ".links" / "user-ada" / new.name / "a").is_dir()
    assert (await bench.ended(lambda: volumes.restore(DATA, SNAP, "1", VolumeWish(GI)))).state == "Ready"
    assert tree(data) == before
    assert (await volumes.restore(DATA, SNAP, "1", VolumeWish(GI))).state == "Ready"  # not again
    assert await volumes.delete_snapshot(SNAP)
    assert not directory_of(bench.root / ".snapshots", SNAP).exists()
    assert not list((bench.root / ".partial").iterdir())


async def test_a_copy_that_can_not_be_says_why_and_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((1, 1, 9, 9, 9, 9, 9, 9, 0, 255))
    monkeypatch.setattr("llmos_hub.volumes.local.can_clone", lambda _: False)
    with monkeypatch.context() as patched:
        patched.setattr("llmos_hub.volumes.local.os.statvfs", lambda _: full)
        state = await bench.ended(lambda: bench.volumes.snapshot(SNAP, DATA))
    assert (state.state, state.reason) == ("Failed", "CopyFailed")
    assert "the disk has 9 B free" in state.message
    assert (await bench.ended(lambda: bench.volumes.snapshot(SNAP, DATA))).state == "Ready"
    state = await bench.ended(lambda: bench.volumes.ensure(NEW, VolumeWish(GI, source=DataSource("snapshot", NEW))))
    assert "gone" in state.message


async def test_a_copy_that_was_cut_off_begins_again(bench: Bench) -> None:
    partial = bench.root / ".partial" / SNAP.uid
    partial.mkdir(parents=True)
    (partial / "half").touch()
    assert (await bench.ended(lambda: bench.volumes.snapshot(SNAP, DATA))).state == "Ready"
    assert not (directory_of(bench.root / ".snapshots", SNAP) / "half").exists()
