"""Files of volumes over HTTP and through the SDK and the command, on real directories."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.cli.entry import main
from llmos.client import AsyncClient, transfers
from llmos.errors import Conflict, Invalid, NotFound, Unsupported
from llmos.resources import Volume
from llmos_hub.names import DataDir
from llmos_hub.volumes.base import VolumeRef
from llmos_hub.volumes.local import directory_of

from .conftest import BASE, Api, status_of, token_of

FILES = f"{BASE}/namespaces/user-ada/volumes/data/files"
ID = "0123456789abcdef"


class Stop(Exception):
    """The end of a transfer by whom it is shown to."""


@pytest.fixture
async def volume(api: Api, ada: httpx.AsyncClient) -> Path:
    """Make a volume, and return its directory, which its controller would make."""
    body = {"metadata": {"name": "data"}, "spec": {"size": "1Gi"}}
    made = (await ada.post(f"{BASE}/namespaces/user-ada/volumes", json=body)).json()
    directory = directory_of(DataDir(api.workloads).volumes, VolumeRef("user-ada", "data", made["metadata"]["uid"]))
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url, token_of("ada")) as made:
        yield made


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "PIECE", 1000)
    monkeypatch.setattr("llmos.client._async.files.PIECE", 1000)
    monkeypatch.setattr("llmos.client._sync.files.PIECE", 1000)


def piece(content: bytes, **query: Any) -> dict[str, Any]:
    query = {"upload": ID, "offset": 0, "total": len(content), "sha256": hashlib.sha256(content).hexdigest(), **query}
    return {"params": query, "content": content}


async def test_a_tree_there_and_back(client: AsyncClient, volume: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    contents = {"a.bin": os.urandom(3500), "sub/b.bin": os.urandom(1000), "sub/empty": b"", "sub/ü ö.txt": b"x" * 999}
    for name, content in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "link").symlink_to("/etc/passwd")
    seen: list[transfers.Transfer] = []
    files = client.volumes.files("data")
    total = await files.upload(source, "in", on_progress=seen.append)
    assert total == sum(map(len, contents.values()))
    assert (seen[-1].done, seen[-1].total, seen[-1].files) == (total, total, 4)
    found = {str(p.relative_to(volume / "in")): p.read_bytes() for p in (volume / "in").rglob("*") if p.is_file()}
    assert found == contents
    assert await files.download("in", tmp_path / "back") == total
    assert {n: (tmp_path / "back" / n).read_bytes() for n in contents} == contents
    assert not list(tmp_path.rglob("*.part"))
    assert [(each.name, each.type) async for each in files.list("in/sub")] == [
        ("b.bin", "file"), ("empty", "file"), ("ü ö.txt", "file")
    ]  # fmt: skip
    await files.remove("in/a.bin")
    with pytest.raises(NotFound, match=r'"in/a\.bin"'):
        await files.stat("in/a.bin")
    assert (await files.make_directory("new/one")).type == "directory"


async def test_an_interrupted_upload_sends_only_what_is_missing(
    client: AsyncClient, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big").write_bytes(content := os.urandom(4500))
    files = client.volumes.files("data")

    def stop(transfer: transfers.Transfer) -> None:
        if transfer.done == 3000:
            raise Stop

    with pytest.raises(Stop):
        await files.upload(tmp_path / "big", "big", on_progress=stop)
    assert not (volume / "big").exists()
    seen: list[int] = []
    await files.upload(tmp_path / "big", "big", on_progress=lambda t: seen.append(t.done))
    assert seen[0] == 3000
    assert (volume / "big").read_bytes() == content


async def test_an_interrupted_download_continues_and_a_changed_file_is_noticed(
    client: AsyncClient, volume: Path, tmp_path: Path
) -> None:
    (volume / "big").write_bytes(content := os.urandom(4500))
    files = client.volumes.files("data")

    def stop(transfer: transfers.Transfer) -> None:
        if transfer.done == 2000:
            raise Stop

    with pytest.raises(Stop):
        await files.download("big", tmp_path / "big", on_progress=stop)
    seen: list[int] = []
    await files.download("big", tmp_path / "big", on_progress=lambda t: seen.append(t.done))
    assert seen[0] == 2000
    assert (tmp_path / "big").read_bytes() == content

    def change(transfer: transfers.Transfer) -> None:
        if transfer.done == 2000:
            (volume / "big").write_bytes(b"other" * 900)

    with pytest.raises(Conflict, match="was changed while it was read"):
        await files.download("big", tmp_path / "again", on_progress=change)
    assert not (tmp_path / "again").exists()


async def test_damaged_and_wrong_pieces_are_refused_and_leave_nothing(ada: httpx.AsyncClient, volume: Path) -> None:
    content = f"{FILES}/content"
    assert status_of(await ada.put(content, **piece(b"x" * 10, path="f", sha256="0" * 64)))[:2] == (422, "invalid")
    assert (await ada.get(FILES, params={"path": "f", "upload": ID})).json() == {"received": 0}
    assert status_of(await ada.put(content, **piece(b"x" * 10, path="f", offset=5, total=15)))[0] == 409
    assert status_of(await ada.put(content, **piece(b"x" * 10, path="f", total=5)))[0] == 422
    assert status_of(await ada.put(content, **piece(b"x", path="f", upload="../../../x")))[0] == 422
    assert status_of(await ada.put(content, **piece(b"x", path="f", sha256="x")))[0] == 400
    assert status_of(await ada.put(content, **piece(b"x", path="f", offset="-1")))[0] == 400
    assert not (volume / "f").exists()
    assert (await ada.put(content, **piece(b"x", path="f"))).json()["file"]["size"] == 1


@pytest.mark.parametrize("path", ["../../../secrets.json", "/etc/passwd", "a/../../x", "..", "x\0y", "n" * 300])
async def test_paths_that_lead_out_are_refused_by_every_route(ada: httpx.AsyncClient, volume: Path, path: str) -> None:
    content = f"{FILES}/content"
    for answer in (
        await ada.get(FILES, params={"path": path}),
        await ada.get(content, params={"path": path}),
        await ada.put(content, **piece(b"x", path=path)),
        await ada.post(FILES, params={"path": path}),
        await ada.delete(FILES, params={"path": path, "recursive": "1"}),
    ):
        assert status_of(answer)[:2] == (422, "invalid")
    assert not list(volume.iterdir())


async def test_nobody_else_reaches_them(
    api: Api, grace: httpx.AsyncClient, nobody: httpx.AsyncClient, volume: Path
) -> None:
    (volume / "mine").write_text("s3cret")
    for other, codes in ((grace, {403, 404}), (nobody, {401})):
        for answer in (
            await other.get(FILES),
            await other.get(f"{FILES}/content", params={"path": "mine"}),
            await other.put(f"{FILES}/content", **piece(b"x", path="mine")),
            await other.post(FILES, params={"path": "d"}),
            await other.delete(FILES, params={"path": "mine"}),
        ):
            assert answer.status_code in codes
            assert "s3cret" not in answer.text
    assert [path.name for path in volume.iterdir()] == ["mine"]


async def test_content_is_never_a_page(ada: httpx.AsyncClient, volume: Path) -> None:
    (volume / "x.html").write_text("<script>alert(1)</script>")
    answer = await ada.get(f"{FILES}/content", params={"path": "x.html"})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_rests_is_out_of_reach(client: AsyncClient, volume: Path) -> None:
    await client.volumes.delete("data")
    with pytest.raises(Conflict, match="llmos volume undelete data"):
        await client.volumes.files("data").stat()
    with pytest.raises(Unsupported, match="have no files"):
        client.credentials.files("x")
    assert Volume.has_files


async def test_commands(
    api: Api, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMOS_URL", api.url)
    monkeypatch.setenv("LLMOS_TOKEN", token_of("ada"))

    async def run(*words: str, code: int = 0) -> str:
        found = await asyncio.to_thread(main, ["volume", *words])
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out + err

    source = tmp_path / "set"
    source.mkdir()
    for name in ("one", "two"):
        (source / name).write_bytes(os.urandom(2500))
    assert "5.0 kB copied" in await run("cp", str(source), "data:")
    assert (volume / "set" / "two").read_bytes() == (source / "two").read_bytes()
    await run("cp", str(source / "one"), "data:set/three")
    listed = await run("ls", "data:set")
    assert [row.split()[0] for row in listed.splitlines()] == ["NAME", "one", "three", "two"]
    assert "set/" in await run("ls", "data")
    await run("cp", "data:set", str(tmp_path / "back"))
    assert (tmp_path / "back" / "three").read_bytes() == (source / "one").read_bytes()
    assert "not empty" in await run("rm", "data:set", code=1)
    assert "data:set removed" in await run("rm", "data:set", "-r", "--yes")
    assert "There is no" in await run("cp", str(tmp_path / "nothing"), "data:", code=1)
    assert "One side is a place in a volume" in await run("cp", str(source), str(tmp_path / "x"), code=2)
    assert "Write NAME:PATH" in await run("rm", "data", code=2)
    with pytest.raises(Invalid):
        raise Invalid(await run("rm", "data:../x", code=1))
