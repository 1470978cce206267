"""The chart's jupyterhub_config.py, with a real configuration object, database and JupyterHub's own traits."""

import json
import runpy
import sqlite3

import pytest
from jupyterhub.app import JupyterHub
from llmos_spawners.kubernetes import LLMOSKubeSpawner
from traitlets.config import Config

from tests.support.helm import CHART

TOKENS = {"LLMOS_SERVICE_TOKEN": "a" * 64, "LLM_SERVICE_TOKEN": "b" * 64, "LLMOS_ADMIN_PASSWORD": "first-password"}


@pytest.fixture
def module(tmp_path):
    found = runpy.run_path(str(CHART / "files" / "jupyterhub_config.py"))
    found["passwords"].__globals__["FIRST_PASSWORD"] = tmp_path / "first-password"
    return found


@pytest.fixture
def environ(tmp_path):
    return {**TOKENS, "LLMOS_HUB_DB_URL": f"sqlite:///{tmp_path}/hub.sqlite"}


@pytest.fixture
def settings():
    """As the chart renders them."""
    return {
        "admin": "ada",
        "apiUrl": "http://llmos-api.llmos.svc",
        "gatewayUrl": "http://llmos-gateway.llmos.svc",
        "hubConnectUrl": "http://llmos-hub.llmos.svc:8081",
        "proxyApiUrl": "http://llmos-proxy-api:8001",
        "namedServerLimit": 10,
        "concurrentSpawnLimit": 64,
        "culler": {"enabled": True, "timeout": 7200, "every": 600, "maxAge": 0},
        "spawner": {
            "namespaceLabels": {"app.kubernetes.io/managed-by": "llmos"},
            "image": "llmos-notebook:0.1.0",
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecrets": [],
            "priorityClass": "llmos-users",
            "nodeSelector": {},
            "tolerations": [],
            "caCertificates": "",
            "storageCapacity": "10Gi",
            "storageClass": "",
        },
        "config": {},
        "extraConfig": {},
    }


def load(module, settings, environ):
    c = Config()
    module["load"](c, settings, environ)
    return c


def test_servers_are_pods_with_the_platforms_addresses(module, settings, environ):
    c = load(module, settings, environ)
    assert c.JupyterHub.spawner_class == "llmos_spawners.kubernetes.LLMOSKubeSpawner"
    assert c.LLMOSKubeSpawner.openai_base_url == "http://llmos-gateway.llmos.svc/v1"
    assert c.LLMOSKubeSpawner.llmos_url == "http://llmos-api.llmos.svc/services/llmos"
    assert [size["name"] for size in c.LLMOSKubeSpawner.sizes] == ["small", "medium", "large"]
    assert c.KubeSpawner.image == "llmos-notebook:0.1.0"
    assert c.LLMOSKubeSpawner.ca_certificates == ""
    assert (c.LLMOSKubeSpawner.concurrent_starts, c.JupyterHub.concurrent_spawn_limit) == (64, 0)
    assert "storage_class" not in c.KubeSpawner  # the cluster's default


def test_with_another_spawner_the_hub_bounds_the_starts_itself(module, settings, environ):
    settings["config"] = {"JupyterHub": {"spawner_class": "kubespawner.KubeSpawner"}}
    assert load(module, settings, environ).JupyterHub.concurrent_spawn_limit == 64


def test_the_hub_takes_all_of_it(module, settings, environ, caplog):
    """Every name is a trait that JupyterHub and the spawner have."""
    c = load(module, settings, environ)
    known = set(JupyterHub.class_trait_names(config=True))
    assert set(c.JupyterHub) <= known
    assert set(c.KubeSpawner) | set(c.LLMOSKubeSpawner) <= set(LLMOSKubeSpawner.class_trait_names(config=True))


def test_services_are_ours_and_the_culler(module, settings, environ):
    c = load(module, settings, environ)
    services = {service["name"]: service for service in c.JupyterHub.services}
    assert services["llmos"]["url"] == "http://llmos-api.llmos.svc"
    assert services["llm"]["api_token"] == "b" * 64
    assert "--timeout=7200" in services["idle-culler"]["command"]
    settings["culler"]["enabled"] = False
    names = {service["name"] for service in load(module, settings, environ).JupyterHub.services}
    assert names == {"llmos", "llm"}


def test_a_sites_own_settings_win_and_llmos_is_merged_in_last(module, settings, environ):
    settings["config"] = {
        "JupyterHub": {"authenticator_class": "github", "services": [{"name": "theirs", "api_token": "c" * 64}]},
        "GitHubOAuthenticator": {"client_id": "id", "allowed_organizations": ["example"]},
    }
    settings["extraConfig"] = {"b": "c.JupyterHub.named_server_limit_per_user = 3", "a": "c.KubeSpawner.cmd = ['x']"}
    c = load(module, settings, environ)
    assert c.JupyterHub.authenticator_class == "github"
    assert c.GitHubOAuthenticator.allowed_organizations == ["example"]
    assert c.JupyterHub.named_server_limit_per_user == 3
    assert {"theirs", "llmos", "llm"} == {service["name"] for service in c.JupyterHub.services}
    assert "template_vars" not in c.JupyterHub  # nothing of the log-in by password is left


def test_a_wrong_line_of_extra_config_is_told_with_its_name(module, settings, environ):
    settings["extraConfig"] = {"mine": "x = (1"}
    with pytest.raises(SyntaxError) as caught:
        load(module, settings, environ)
    assert caught.value.filename == "hub.extraConfig.mine"


def test_the_first_admin_gets_the_secrets_password_once(module, settings, environ, tmp_path):
    c = load(module, settings, environ)
    file = tmp_path / "first-password"
    assert c.Authenticator.admin_users == {"ada"}
    assert c.LLMOSAuthenticator.first_password_file == str(file)
    assert json.loads(file.read_text()) == {"password": "first-password", "one_time": True}
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    from llmos_hub.accounts.passwords import PasswordRow

    with sqlite3.connect(tmp_path / "hub.sqlite") as database:
        database.execute(f"create table {PasswordRow.__tablename__} (user_id integer, hash text, one_time boolean)")
        database.execute(f"insert into {PasswordRow.__tablename__} values (1, 'x', 0)")
    database.close()
    c = load(module, settings, environ)
    assert not file.exists()
    assert "first_password_file" not in c.LLMOSAuthenticator
