"""``file://``: models used in place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmos.errors import Invalid, SourceFailed
from llmos_hub.sources import source_of
from llmos_hub.sources.base import ModelFiles
from tests.support.gguf_builder import build_gguf


def fetch(path: Path | str, tmp_path: Path) -> ModelFiles:
    uri = f"file://{path}"
    return source_of(uri).fetch(uri, tmp_path / "cache", lambda _progress: None)


def test_a_file_is_used_where_it_lies(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(build_gguf())
    model = fetch(path, tmp_path)
    assert model.path == str(path)
    assert model.size == path.stat().st_size
    assert model.header.quantization == "Q4_K_M"
    assert not (tmp_path / "cache").exists()


def test_the_revision_changes_with_the_file(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(build_gguf())
    before = fetch(path, tmp_path).revision
    assert fetch(path, tmp_path).revision == before
    os.utime(path, (1, 1))
    assert fetch(path, tmp_path).revision != before


def test_a_name_with_a_space_can_be_written_encoded(tmp_path: Path):
    path = tmp_path / "my model.gguf"
    path.write_bytes(build_gguf())
    assert fetch(str(path).replace(" ", "%20"), tmp_path).path == str(path)


def test_a_path_does_not_lead_upwards_encoded_either(tmp_path: Path):
    (tmp_path / "m.gguf").write_bytes(build_gguf())
    with pytest.raises(SourceFailed, match=r'without "\.\."'):
        fetch(f"{tmp_path}/x/%2e%2e/m.gguf", tmp_path)
    with pytest.raises(SourceFailed, match=r'without "\.\."'):
        fetch(f"{tmp_path}/..%2f{tmp_path.name}/m.gguf", tmp_path)


def test_all_parts_are_found_from_any_of_them(tmp_path: Path):
    paths = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    paths[0].write_bytes(build_gguf())
    with pytest.raises(SourceFailed, match=r"m-00002-of-00002\.gguf"):
        fetch(paths[0], tmp_path)
    paths[1].write_bytes(build_gguf({"split.no": 1}))
    model = fetch(paths[1], tmp_path)
    assert model.path == str(paths[0])
    assert model.size == sum(p.stat().st_size for p in paths)
    assert model.header.parameters == 2048


def test_what_is_not_a_model_is_refused_without_showing_its_content(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("hunter2 is the password")
    with pytest.raises(Invalid, match="needs a GGUF file") as caught:
        fetch(path, tmp_path)
    assert "hunt" not in caught.value.message


def test_safetensors_are_called_by_their_name(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(Invalid, match="safetensors"):
        fetch(path, tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 2500000000\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (POINTER, "is a Git LFS pointer to the model of 2.5 GB, not the model. Where the repository was cloned, type: git lfs pull"),
        (b"<!DOCTYPE html>\n<html><head>", "is a web page, not a model"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "/resolve/ in it instead of /blob/"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"<html-is-not-this", "is not a GGUF model"),
    ],
)  # fmt: skip
def test_what_lies_there_in_place_of_a_model_is_named_with_what_to_do(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(Invalid) as caught:
        fetch(path, tmp_path)
    assert caught.value.message.startswith(f"{path} is ")
    assert words in caught.value.message


@pytest.mark.parametrize("name", ["no.gguf", "nowhere/no.gguf"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str):
    with pytest.raises(SourceFailed, match="There is no file"):
        fetch(tmp_path / name, tmp_path)


def test_a_directory_is_answered_with_what_it_holds(tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(build_gguf())
    with pytest.raises(SourceFailed, match=r"is a directory.*a\.gguf"):
        fetch(tmp_path, tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(SourceFailed, match="not a regular file"):
        fetch(tmp_path / "pipe.gguf", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root, who may read everything")
def test_a_file_without_permission_is_answered_with_how_to_allow_it(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(build_gguf())
    path.chmod(0)
    with pytest.raises(SourceFailed, match="chmod a\\+r"):
        fetch(path, tmp_path)


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(SourceFailed, match="demo://"):
        source_of("ftp://example.org/m.gguf")
