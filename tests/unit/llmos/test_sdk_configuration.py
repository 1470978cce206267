"""Sources of addresses and tokens, and addresses that tokens are never sent to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.configuration import client_file, load
from llmos.errors import NotConfigured
from llmos_hub.names import DataDir, default_data_dir

URL = "http://127.0.0.1:8000/services/llmos"


def _file(tmp_path: Path, **more: Any) -> dict[str, str]:
    content = {
        "url": URL,
        "gateway_url": "http://127.0.0.1:8010",
        "hub_url": "http://127.0.0.1:8000",
        "token": "file-token",
    }
    (tmp_path / "client.json").write_text(json.dumps({**content, **more}))
    return {"LLMOS_DATA_DIR": str(tmp_path)}


def test_a_spawned_server_needs_nothing_set_by_hand():
    found = load(
        environ={
            "LLMOS_URL": URL + "/",
            "JUPYTERHUB_API_TOKEN": "server-token",
            "OPENAI_BASE_URL": "http://127.0.0.1:8010/v1",
            "OPENAI_API_KEY": "invoke-token",
        }
    )
    assert (found.url, found.token, found.source) == (URL, "server-token", "LLMOS_URL")
    assert (found.gateway_url, found.gateway_token) == ("http://127.0.0.1:8010/v1", "invoke-token")


def test_the_one_who_runs_the_platform_needs_nothing_either(tmp_path: Path):
    found = load(environ=_file(tmp_path))
    assert (found.url, found.token) == (URL, "file-token")
    assert (found.gateway_url, found.gateway_token) == ("http://127.0.0.1:8010/v1", "file-token")


def test_a_shells_own_openai_settings_do_not_lead_away_from_the_local_platform(tmp_path: Path):
    environ = _file(tmp_path) | {"OPENAI_BASE_URL": "https://elsewhere.example/v1", "OPENAI_API_KEY": "sk-elsewhere"}
    found = load(environ=environ)
    assert (found.gateway_url, found.gateway_token) == ("http://127.0.0.1:8010/v1", "file-token")


def test_arguments_come_before_everything(tmp_path: Path):
    found = load(
        url="https://hub.example.org/services/llmos", token="mine", environ=_file(tmp_path) | {"LLMOS_URL": URL}
    )
    assert (found.url, found.token) == ("https://hub.example.org/services/llmos", "mine")
    assert found.gateway_url == "https://hub.example.org/services/llm/v1"


def test_the_files_token_goes_to_the_files_address_only(tmp_path: Path):
    found = load(environ=_file(tmp_path) | {"LLMOS_URL": "http://other.example/services/llmos"})
    assert found.token == ""
    with pytest.raises(NotConfigured, match="LLMOS_TOKEN"):
        found.require_api()


def test_a_servers_own_token_goes_to_its_own_address_only():
    environ = {"LLMOS_URL": URL, "JUPYTERHUB_API_TOKEN": "server-token"}
    assert load(url="http://other.example/services/llmos", environ=environ).token == ""


def test_with_nothing_set_it_says_what_to_set(tmp_path: Path):
    found = load(environ={"LLMOS_DATA_DIR": str(tmp_path)})
    with pytest.raises(NotConfigured, match=r"make up.*LLMOS_URL.*LLMOS_TOKEN"):
        found.require_api()
    with pytest.raises(NotConfigured, match=r"OPENAI_BASE_URL.*OPENAI_API_KEY"):
        found.require_gateway()


def test_tokens_are_in_no_repr_and_no_message(tmp_path: Path):
    found = load(environ=_file(tmp_path))
    assert "file-token" not in repr(found)
    for environ in ({"LLMOS_URL": URL, "LLMOS_TOKEN": "se cret"}, {"LLMOS_URL": URL, "LLMOS_TOKEN": "secret\x1b"}):
        with pytest.raises(NotConfigured) as error:
            load(environ=environ)
        assert "cret" not in str(error.value)
    with pytest.raises(NotConfigured) as error:
        load(environ={"LLMOS_URL": "http://ada:hunter2@hub.example/services/llmos"})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/y", "http://", "http://[::1", "http://host:port"])
def test_what_is_no_address_is_named(url: str):
    with pytest.raises(NotConfigured, match=r"LLMOS_URL.*is not an address"):
        load(environ={"LLMOS_URL": url})


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "client.json").write_text(content)
    with pytest.raises(NotConfigured, match=r"client\.json"):
        load(environ={"LLMOS_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize("variables", [{}, {"XDG_DATA_HOME": "/x"}, {"LLMOS_DATA_DIR": "~/somewhere"}])
@pytest.mark.parametrize("uid", [0, 1000])
def test_the_file_is_where_the_platform_writes_it(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], uid: int):
    for name in ("LLMOS_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert client_file() == DataDir(default_data_dir()).client
