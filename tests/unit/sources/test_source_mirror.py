"""Models from a mirror, before and in place of their source."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llmos.errors import SourceFailed, UsageError
from llmos_hub.mirror import make_app
from llmos_hub.sources import fetch
from llmos_hub.sources.base import FetchProgress, ModelFiles
from llmos_hub.sources.cache import Cache
from llmos_hub.sources.mirror import Mirror, MirrorEntry, add_to_mirror
from tests.support.asgi import serving
from tests.support.gguf_builder import build_gguf
from tests.support.hub_endpoint import HubRepository, hub_endpoint

MODEL = build_gguf(tensors=[("token_embd.weight", (256, 8192), 12)])
URI = "hf://ada/tiny-GGUF"


def quiet(_: FetchProgress) -> None:
    return None


@pytest.fixture
def mirrored(tmp_path, monkeypatch) -> Path:
    """A mirror's directory with a model of a hub that is gone."""
    directory = tmp_path / "mirror"
    with hub_endpoint() as hub:
        hub.repositories["ada/tiny-GGUF"] = HubRepository({"tiny-Q4_K_M.gguf": MODEL})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        add_to_mirror(fetch.fetch_model(URI, directory, quiet), directory)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return directory


async def fetched(uri: str, cache: Path) -> ModelFiles:
    return await asyncio.to_thread(fetch.fetch_model, uri, cache, quiet)


async def test_what_the_mirror_has_needs_no_source(mirrored, tmp_path, monkeypatch):
    async with serving(make_app(mirrored)) as url:
        monkeypatch.setenv("LLMOS_MODELS_MIRROR", url)
        model = await fetched(URI, tmp_path / "cache")
        assert Path(model.path) == next((tmp_path / "cache" / "models").glob("*/tiny-Q4_K_M.gguf"))
        assert Path(model.path).read_bytes() == MODEL
        assert (model.uri, model.revision) == (URI, "c" * 40)
        assert model.header.parameters == 256 * 8192
        for path in mirrored.glob("blobs/*"):
            path.unlink()
        assert await fetched(URI, tmp_path / "cache") == model  # not again
    again = await fetched(URI, tmp_path / "cache")  # nor where the mirror is away
    assert (again.path, again.note) == (model.path, "127.0.0.1 can't be reached; this was fetched before")


async def test_a_model_of_this_machine_and_of_several_parts(tmp_path, monkeypatch):
    names = [f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(build_gguf(tensors=[(f"blk.{number}.weight", (256, 16), 12)]))
    uri = f"file://{tmp_path / names[0]}"
    entry = add_to_mirror(fetch.fetch_model(uri, tmp_path / "x", quiet), tmp_path / "mirror")
    assert [file.name for file in entry.files] == names
    contents = [(tmp_path / name).read_bytes() for name in names]
    for name in names:
        (tmp_path / name).unlink()
    async with serving(make_app(tmp_path / "mirror")) as url:
        monkeypatch.setenv("LLMOS_MODELS_MIRROR", url)
        model = await fetched(uri, tmp_path / "cache")
    paths = [Path(model.path).with_name(name) for name in names]
    assert [path.read_bytes() for path in paths] == contents
    assert Path(model.path) == paths[0]


async def test_what_it_does_not_have_comes_from_the_source(mirrored, tmp_path, monkeypatch):
    async with serving(make_app(mirrored)) as url:
        monkeypatch.setenv("LLMOS_MODELS_MIRROR", url)
        assert (await fetched("demo://tiny", tmp_path / "cache")).label
        with pytest.raises(SourceFailed, match=r"can't be looked up.*The mirror of models at 127.0.0.1 doesn't have"):
            await fetched("hf://ada/other-GGUF", tmp_path / "cache")


async def test_a_mirror_that_is_away_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOS_MODELS_MIRROR", "http://:secret@127.0.0.1:9/models")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceFailed, match=r"The mirror of models at 127.0.0.1 can't be reached \(") as raised:
        await fetched(URI, tmp_path / "cache")
    assert "secret" not in raised.value.message


async def test_a_file_that_is_not_what_it_should_be_is_refused(mirrored, tmp_path, monkeypatch):
    (blob,) = mirrored.glob("blobs/*")
    blob.write_bytes(MODEL[:-1] + b"x")
    async with serving(make_app(mirrored)) as url:
        monkeypatch.setenv("LLMOS_MODELS_MIRROR", url)
        with pytest.raises(SourceFailed, match="is not what it should be"):
            await asyncio.to_thread(Mirror(url).fetch, URI, tmp_path / "cache", quiet)
        blob.unlink()
        with pytest.raises(SourceFailed, match=r"HTTP 404 for tiny-Q4_K_M\.gguf, which it should have"):
            await asyncio.to_thread(Mirror(url).fetch, URI, tmp_path / "cache", quiet)


async def test_an_entry_of_another_uri_is_none(mirrored, tmp_path):
    entry = mirrored / MirrorEntry.path(URI)
    entry.rename(mirrored / MirrorEntry.path("hf://ada/else"))
    async with serving(make_app(mirrored)) as url:
        assert await asyncio.to_thread(Mirror(url).fetch, "hf://ada/else", tmp_path / "cache", quiet) is None


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": [{"name": "../x.gguf", "sha256": "a" * 64, "size": 1}]},
        {"files": [{"name": ".x", "sha256": "a" * 64, "size": 1}]},
        {"files": [{"name": "x.gguf", "sha256": "../../x", "size": 1}]},
        {"files": [{"name": "x.gguf", "sha256": "a" * 64, "size": "1"}]},
        {"files": [{"name": "x.gguf"}]},
        {"model": None},
        {"model": {"uri": URI}},
    ],
)
async def test_names_and_hashes_are_looked_at_closely(mirrored, tmp_path, change):
    entry = mirrored / MirrorEntry.path(URI)
    entry.write_text(json.dumps(json.loads(entry.read_text()) | change))
    async with serving(make_app(mirrored)) as url:
        with pytest.raises(SourceFailed, match="with an invalid entry"):
            await asyncio.to_thread(Mirror(url).fetch, URI, tmp_path / "cache", quiet)


def test_what_is_no_address_is_refused_by_its_name():
    with pytest.raises(UsageError, match='LLMOS_MODELS_MIRROR: "/models" is not an address'):
        Mirror.at("/models")


async def test_an_empty_address_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOS_MODELS_MIRROR", " ")
    assert (await fetched("demo://tiny", tmp_path / "cache")).label


def test_files_of_the_cache_are_not_copied(tmp_path):
    model = fetch.fetch_model("demo://tiny", tmp_path, quiet)
    before = {path: path.stat().st_ino for path in (tmp_path / "blobs").iterdir()}
    entry = add_to_mirror(model, tmp_path)
    assert {path: path.stat().st_ino for path in (tmp_path / "blobs").iterdir()} == before
    assert Cache(tmp_path).blob(entry.files[0].sha256) in before
