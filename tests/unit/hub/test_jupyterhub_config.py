"""`configure(c)` on JupyterHub 5.5 and 6: it adds settings, keeps the site's, and reports what could not be added."""

import pytest
from traitlets.config import Config

from llmos_hub.jupyterhub_config import SERVER_TOKEN_SCOPES, USER_SCOPES, Tokens, configure

TOKENS = Tokens(llmos="a" * 64, llm="b" * 64)


def run(c, version=(6, 1, 1)):
    return configure(c, api_url="http://api:1", gateway_url="http://gateway:2", tokens=TOKENS, hub_version=version)


def service(c, name):
    return next(s for s in c.JupyterHub.services if s["name"] == name)


def test_an_empty_configuration_gets_everything():
    c = Config()
    lines = run(c)
    assert service(c, "llmos")["url"] == "http://api:1"
    assert service(c, "llm")["api_token"] == "b" * 64
    assert service(c, "llm")["timeout"] == 1
    assert set(c.JupyterHub.custom_scopes) == {"custom:llmos:manage", "custom:llmos:invoke"}
    assert c.JupyterHub.extra_user_scopes == set(USER_SCOPES)
    assert c.Spawner.server_token_scopes == list(SERVER_TOKEN_SCOPES)
    assert not [line for line in lines if "could not" in line]


def test_a_server_may_not_pass_on_its_owners_right_to_call_models_by_its_own_token():
    # calling models is for the other token, which may do nothing else
    assert "custom:llmos:invoke" not in SERVER_TOKEN_SCOPES


def test_what_the_site_has_set_stays():
    c = Config()
    c.JupyterHub.services = [{"name": "grader", "url": "http://x"}]
    c.JupyterHub.custom_scopes = {"custom:site:read": {"description": "x"}}
    c.JupyterHub.extra_user_scopes = {"list:users"}
    c.JupyterHub.load_roles = [{"name": "teacher", "scopes": ["users"]}]
    c.Spawner.server_token_scopes = ["users:activity!user", "read:users!user"]
    before = c.JupyterHub.services
    run(c)
    assert [s["name"] for s in c.JupyterHub.services] == ["grader", "llmos", "llm"]
    assert before == [{"name": "grader", "url": "http://x"}]
    assert "custom:site:read" in c.JupyterHub.custom_scopes
    assert c.JupyterHub.extra_user_scopes == {"list:users", *USER_SCOPES}
    assert c.JupyterHub.load_roles[0] == {"name": "teacher", "scopes": ["users"]}
    assert c.Spawner.server_token_scopes[:2] == ["users:activity!user", "read:users!user"]
    assert set(SERVER_TOKEN_SCOPES) <= set(c.Spawner.server_token_scopes)


@pytest.mark.parametrize("version", [(5, 5, 0), (6, 1, 1)])
def test_a_redefined_user_role_is_appended_to(version):
    c = Config()
    c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", "list:groups"]}]
    run(c, version)
    role = c.JupyterHub.load_roles[0]
    assert role["scopes"] == ["self", "list:groups", *USER_SCOPES]
    assert "extra_user_scopes" not in c.JupyterHub


def test_an_older_hub_gets_the_role_and_no_setting_it_does_not_know():
    c = Config()
    run(c, (5, 5, 0))
    role = next(role for role in c.JupyterHub.load_roles if role["name"] == "user")
    assert role["scopes"] == ["self", *USER_SCOPES]
    assert "timeout" not in service(c, "llmos")
    assert "extra_user_scopes" not in c.JupyterHub


def test_twice_is_once():
    c = Config()
    run(c)
    lines = run(c)
    assert [s["name"] for s in c.JupyterHub.services] == ["llmos", "llm"]
    assert len({role["name"] for role in c.JupyterHub.load_roles}) == len(c.JupyterHub.load_roles)
    assert len([line for line in lines if line.startswith("could not add service")]) == 2


def test_what_cannot_be_merged_is_said():
    c = Config()
    c.Spawner.server_token_scopes = lambda spawner: []
    lines = run(c)
    assert callable(c.Spawner.server_token_scopes)
    assert [line for line in lines if "could not extend Spawner.server_token_scopes" in line]


def test_scopes_are_extended_where_the_sites_are_set():
    c = Config()
    c.KubeSpawner.server_token_scopes = ["users:activity!user"]
    lines = run(c)
    # c.KubeSpawner's take precedence over c.Spawner's
    assert set(c.KubeSpawner.server_token_scopes) == set(SERVER_TOKEN_SCOPES)
    assert "KubeSpawner.server_token_scopes extended" in lines


@pytest.mark.parametrize("version", [(5, 5, 0), (6, 1, 1)])
def test_spawner_authenticator_and_services_of_a_hub_configured_otherwise_are_not_touched(version):
    c = Config()
    c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
    c.JupyterHub.authenticator_class = "github"
    c.DockerSpawner.image = "team/lab:1"
    c.Authenticator.admin_users = {"ada"}
    c.JupyterHub.services = [{"name": "grader", "api_token": "g", "url": "http://grader"}]
    c.JupyterHub.load_roles = [{"name": "grader", "scopes": ["list:users"], "services": ["grader"]}]
    lines = run(c, version)
    assert c.JupyterHub.spawner_class == "dockerspawner.DockerSpawner"
    assert "concurrent_spawn_limit" not in c.JupyterHub
    assert c.JupyterHub.authenticator_class == "github"
    assert c.DockerSpawner == {"image": "team/lab:1"}
    assert c.Authenticator == {"admin_users": {"ada"}}
    assert c.JupyterHub.services[0] == {"name": "grader", "api_token": "g", "url": "http://grader"}
    assert c.JupyterHub.load_roles[0] == {"name": "grader", "scopes": ["list:users"], "services": ["grader"]}
    # every change is reported
    changed = (
        "scopes custom:",
        "service llmos",
        "service llm",
        "role llmos-service-llmos",
        "Spawner.server_token_scopes",
    )
    assert all(any(line.startswith(words) for line in lines) for words in changed), lines


@pytest.mark.parametrize(("name", "value"), [("base_url", "/lab/"), ("bind_url", "http://:8000/lab")])
def test_a_hub_that_does_not_serve_at_the_root_is_told_what_that_means(name, value):
    c = Config()
    c.JupyterHub[name] = value
    assert [line for line in run(c) if line.startswith("could not make API and gateway reachable") and "/lab" in line]
    c.JupyterHub[name] = value.replace("/lab", "")
    assert not [line for line in run(c) if "reachable" in line]


def test_what_a_site_only_appends_is_kept():
    c = Config()
    c.JupyterHub.services.append({"name": "grader", "url": "http://x"})
    c.JupyterHub.load_roles.append({"name": "user", "scopes": ["self", "list:groups"]})
    c.JupyterHub.custom_scopes.update({"custom:site:read": {"description": "x"}})
    run(c)
    assert [s["name"] for s in c.JupyterHub.services] == ["grader", "llmos", "llm"]
    assert c.JupyterHub.load_roles[0]["scopes"] == ["self", "list:groups", *USER_SCOPES]
    assert "custom:site:read" in c.JupyterHub.custom_scopes


@pytest.mark.parametrize(("said", "places"), [(None, 100), (64, 64), (0, None)])
def test_who_starts_a_pod_waits_for_a_turn_where_the_hub_would_refuse(said, places):
    c = Config()
    c.JupyterHub.spawner_class = "llmos_spawners.kubernetes.LLMOSKubeSpawner"
    if said is not None:
        c.JupyterHub.concurrent_spawn_limit = said
    lines = run(c)
    assert c.JupyterHub.concurrent_spawn_limit == 0
    assert c.LLMOSKubeSpawner.get("concurrent_starts") == places
    assert bool([line for line in lines if "wait for their turn" in line]) == bool(places)


def test_a_sites_own_subclass_and_number_count():
    from llmos_spawners.kubernetes import LLMOSKubeSpawner

    c = Config()
    c.JupyterHub.spawner_class = type("TeamSpawner", (LLMOSKubeSpawner,), {})
    c.LLMOSKubeSpawner.concurrent_starts = 7
    run(c)
    assert (c.JupyterHub.concurrent_spawn_limit, c.LLMOSKubeSpawner.concurrent_starts) == (0, 7)
