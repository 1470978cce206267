"""Volumes as directories, on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llmos_hub.volumes.base import VolumeRef, VolumeWish
from llmos_hub.volumes.local import LocalVolumes, directory_of, measure

REF = VolumeRef("user-ada", "data", "0f3a-1")
GI = 2**30


class Provider:
    """A provider, and the volumes whose change it reported."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changed: asyncio.Queue[VolumeRef] = asyncio.Queue()
        self.volumes = LocalVolumes(root, root / ".links")
        self.volumes.subscribe(self.changed.put_nowait)


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    made = Provider(tmp_path / "volumes")
    yield made
    await made.volumes.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the free bytes of the disk."""

    def set_(free: int) -> None:
        found = os.statvfs_result((1, 1, free, free, free, 1000, 1000, 1000, 0, 255))
        monkeypatch.setattr("llmos_hub.volumes.local.os.statvfs", lambda _: found)

    return set_


async def test_a_new_one_is_a_private_directory_and_measured(provider: Provider) -> None:
    state = await provider.volumes.ensure(REF, VolumeWish(GI))
    assert (state.state, state.capacity, state.used) == ("Ready", GI, None)
    directory = directory_of(provider.root, REF)
    assert [path.stat().st_mode & 0o777 for path in (directory, *directory.parents[:2])] == [0o700] * 3
    (directory / "part").mkdir()
    (directory / "part" / "file").write_bytes(b"x" * 100_000)
    os.link(directory / "part" / "file", directory / "again")
    (directory / "out").symlink_to("/usr")
    assert await provider.changed.get() == REF
    assert 100_000 <= measure(directory) < 150_000  # neither the second name nor what the link leads to
    assert (await provider.volumes.ensure(REF, VolumeWish(GI, GI))).used is not None


async def test_one_whose_files_are_gone_is_not_made_again(provider: Provider) -> None:
    state = await provider.volumes.ensure(REF, VolumeWish(GI, had=GI))
    assert (state.state, state.reason, state.capacity) == ("Failed", "Lost", None)
    assert not directory_of(provider.root, REF).exists()


async def test_a_full_disk_is_said_before_it_is_made(provider: Provider, disk: Callable[[int], None]) -> None:
    disk(GI // 2)
    state = await provider.volumes.ensure(REF, VolumeWish(GI))
    assert (state.state, state.reason) == ("Failed", "InsufficientStorage")
    assert "data needs 1.0 GiB more, and the disk has 512 MiB free" in state.message
    assert not directory_of(provider.root, REF).exists()
    disk(2 * GI)
    assert (await provider.volumes.ensure(REF, VolumeWish(GI))).state == "Ready"


async def test_one_that_can_not_grow_keeps_its_size(provider: Provider, disk: Callable[[int], None]) -> None:
    await provider.volumes.ensure(REF, VolumeWish(GI))
    disk(2 * GI)
    state = await provider.volumes.ensure(REF, VolumeWish(8 * GI, had=GI))
    assert (state.state, state.capacity, state.reason) == ("Failed", GI, "InsufficientStorage")
    assert (await provider.volumes.ensure(REF, VolumeWish(2 * GI, had=GI))).capacity == 2 * GI


async def test_deleted_files_are_away_at_once_and_removed(provider: Provider) -> None:
    await provider.volumes.ensure(REF, VolumeWish(GI))
    await provider.changed.get()
    directory = directory_of(provider.root, REF)
    outside = provider.root.parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (directory / "link").symlink_to(outside)
    link = provider.root / ".links" / "user-ada" / "data"
    assert link.readlink() == directory
    await provider.volumes.hide(REF)
    assert not link.is_symlink()
    await provider.volumes.ensure(REF, VolumeWish(GI, had=GI))
    assert link.readlink() == directory
    assert await provider.volumes.delete(REF)
    assert not directory.exists()
    assert not link.is_symlink()
    await asyncio.gather(*provider.volumes._tasks.values())
    assert not any((provider.root / ".deleted").iterdir())
    assert (outside / "kept").exists()
    assert await provider.volumes.delete(REF)  # again, as after a crash


@pytest.mark.parametrize(
    "ref",
    [
        VolumeRef("..", "data", "1"),
        VolumeRef("user-ada", "../x", "1"),
        VolumeRef("user-ada", "data", "../../x"),
        VolumeRef("", "data", "1"),
    ],
)
def test_no_reference_leads_elsewhere(tmp_path: Path, ref: VolumeRef) -> None:
    with pytest.raises(ValueError, match="is no volume"):
        directory_of(tmp_path, ref)
