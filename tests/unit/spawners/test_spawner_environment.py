"""Servers of a Hub's own spawner: addresses, the token for models and its revocation, and the site's own hooks."""

from types import SimpleNamespace

import pytest
from llmos_spawners.environment import keep_spawner
from traitlets.config import Config

from llmos.names import invoke_note

ADDRESSES = {"openai_base_url": "http://gateway/v1", "llmos_url": "http://api/services/llmos"}


class FakeSpawner:
    """A stub of any spawner, with the Hub's tokens of its user."""

    def __init__(self, environment=None, server=""):
        self.name, self.environment = server, dict(environment or {})
        self.hub = SimpleNamespace(api_url="http://hub:8081/hub/api")
        self.tokens = [SimpleNamespace(note="of the person's own")]
        self.user = SimpleNamespace(name="ada", base_url="/user/ada/", new_api_token=self.mint)
        self.user.orm_user = SimpleNamespace(api_tokens=self.tokens)
        self.db = SimpleNamespace(delete=self.tokens.remove, commit=lambda: None)
        self.minted = []

    def mint(self, *, note, scopes):
        self.minted.append(scopes)
        self.tokens.append(SimpleNamespace(note=note))
        return f"token-{len(self.minted)}"

    @property
    def notes(self):
        return [token.note for token in self.tokens]


async def started(c, spawner, section="Spawner"):
    await c[section].pre_spawn_hook(spawner)
    return spawner.environment


async def test_servers_get_addresses_and_a_token_that_only_calls_models():
    c, spawner = Config(), FakeSpawner({"TEAM": "vision"})
    said = []
    assert keep_spawner(c, **ADDRESSES, report=said.append) == said
    assert await started(c, spawner) == {
        "TEAM": "vision",
        "OPENAI_BASE_URL": "http://gateway/v1",
        "OPENAI_API_KEY": "token-1",
        "LLMOS_URL": "http://api/services/llmos",
    }
    assert spawner.minted == [["custom:llmos:invoke"]]
    assert said == ["Spawner.pre_spawn_hook set", "Spawner.post_stop_hook set"]
    assert "spawner_class" not in c.JupyterHub


async def test_every_start_has_a_token_of_its_own_and_a_stop_ends_it():
    c, spawner = Config(), FakeSpawner()
    keep_spawner(c, **ADDRESSES)
    await started(c, spawner)
    assert (await started(c, spawner))["OPENAI_API_KEY"] == "token-2"
    assert spawner.notes.count(invoke_note("ada", "")) == 1
    await c.Spawner.post_stop_hook(spawner)
    assert spawner.notes == ["of the person's own"]


async def test_what_the_site_sets_itself_stays():
    c, spawner = Config(), FakeSpawner({"OPENAI_BASE_URL": "https://elsewhere"})
    keep_spawner(c, **ADDRESSES)
    await started(c, spawner)
    assert (await started(c, spawner))["OPENAI_BASE_URL"] == "https://elsewhere"


async def test_past_a_web_proxy_the_platform_is_asked_directly():
    proxy = {"HTTPS_PROXY": "http://proxy.example.org:3128", "no_proxy": "example.org"}
    c, spawner = Config(), FakeSpawner(proxy)
    keep_spawner(c, **ADDRESSES)
    first = dict(await started(c, spawner))
    hosts = first["NO_PROXY"].split(",")
    assert hosts[0] == "example.org"  # the site's own entries are kept
    assert {"hub", "gateway", "api", "localhost", ".svc", ".cluster.local"} <= set(hosts)
    assert first["no_proxy"] == first["NO_PROXY"]
    assert (await started(c, spawner))["NO_PROXY"] == first["NO_PROXY"]
    assert "NO_PROXY" not in await started(c, FakeSpawner({"TEAM": "vision"}))


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_sites_hooks_run_wherever_they_are_set(is_async):
    seen = []

    async def later(spawner):
        seen.append(dict(spawner.environment))

    def at_once(spawner):
        seen.append(dict(spawner.environment))

    c, spawner = Config(), FakeSpawner()
    c.KubeSpawner.pre_spawn_hook = c.KubeSpawner.post_stop_hook = later if is_async else at_once
    said = keep_spawner(c, **ADDRESSES)
    assert "LLMOS_URL" in await started(c, spawner, "KubeSpawner")
    assert seen == [{}]
    await c.KubeSpawner.post_stop_hook(spawner)
    assert len(seen) == 2
    assert spawner.notes == ["of the person's own"]
    assert "KubeSpawner.pre_spawn_hook wrapped; the existing hook still runs" in said
