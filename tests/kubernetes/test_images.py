"""The images in a real cluster: each runs without root and holds what its pods are started with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cluster import Cluster, wait_for
from tests.support.images import image

pytestmark = pytest.mark.timeout(600)
NEEDS = ("hub", "notebook", "engine-cpu")

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
FIND_MODEL = 'exec python -I -m llmos_hub.engines.llamacpp_server --socket 0.0.0.0:8080 --model "$(find /models -name "*.gguf" | head -1)"'


@pytest.fixture(scope="module", autouse=True)
def images(cluster: Cluster) -> None:
    """All three, quick where nothing has changed."""
    cluster.images("hub", "notebook", "engine-cpu")


def pod(
    name: str, namespace: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "models", "emptyDir": {}}, {"name": "home", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "models", "mountPath": "/models"}]
    mounts.append({"name": "home", "mountPath": "/home/llmos"})
    common = {"securityContext": CONTAINER, "volumeMounts": mounts, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": RESTRICTED,
            "volumes": volumes,
            "initContainers": [{**common, "name": f"init-{n}", **one} for n, one in enumerate(init)],
            "containers": [{**common, "name": f"main-{n}", **one} for n, one in enumerate(containers)],
        },
    }


def output(cluster: Cluster, namespace: str, name: str, image_name: str, script: str) -> str:
    """Return the output of a script in a pod of that image, started by the image's own entry point."""
    cluster.apply(pod(name, namespace, {"image": image(image_name), "args": ["sh", "-ec", script]}))

    def ended() -> bool:
        return cluster.get("-n", namespace, "pod", name)["status"]["phase"] in ("Succeeded", "Failed")

    wait_for(ended, f"{name} ends", timeout=120, pause=0.5)
    logs = cluster.kubectl("-n", namespace, "logs", name)
    assert cluster.get("-n", namespace, "pod", name)["status"]["phase"] == "Succeeded", logs
    return logs


def test_an_engine_fetches_a_model_and_answers(cluster: Cluster, namespace: str) -> None:
    fetch = {"image": image("engine-cpu"), "args": ["llmos-hub", "fetch", "demo://tiny", "/models"]}
    serve = {
        "image": image("engine-cpu"),
        "args": ["sh", "-ec", FIND_MODEL],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
    }
    cluster.apply(pod("engine", namespace, serve, init=(fetch,)))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/engine", "--timeout=120s", timeout=150)
    done = json.loads(cluster.kubectl("-n", namespace, "logs", "engine", "-c", "init-0").splitlines()[-1])
    assert done["type"] == "done"
    ask = (
        "import json, urllib.request as u; r = u.Request('http://127.0.0.1:8080/v1/chat/completions',"
        " json.dumps({'messages': [{'role': 'user', 'content': 'hello'}], 'max_tokens': 4}).encode(),"
        " {'Content-Type': 'application/json'}); print(u.urlopen(r, timeout=60).read().decode())"
    )
    answer = cluster.kubectl("-n", namespace, "exec", "engine", "-c", "main-0", "--", "python", "-c", ask)
    assert json.loads(answer)["usage"]["completion_tokens"] >= 1


def test_a_notebook_image_starts_servers_and_knows_llmos(cluster: Cluster, namespace: str) -> None:
    said = output(
        cluster,
        namespace,
        "notebook",
        "notebook",
        "id -u; jupyterhub-singleuser --version; python -c 'import llmos_widgets, llmos_server_ext, llmos, openai; "
        "print(llmos.__version__)'; jupyter kernelspec list; python -m pip --version; command -v git curl; "
        "jupyter server extension list 2>&1; python -c 'import redis' 2>&1 | tail -1",
    )
    lines = said.splitlines()
    assert lines[0] == "1000"
    assert lines[1].split(".")[0] in ("5", "6")
    assert "python3" in said
    assert "llmos_server_ext" in said
    assert lines[-1] == "ModuleNotFoundError: No module named 'redis'"  # nothing of the control plane


def test_a_persons_own_packages_lie_in_the_home_before_the_images(cluster: Cluster, namespace: str) -> None:
    said = output(
        cluster,
        namespace,
        "layer",
        "notebook",
        "python -I -c 'from llmos.python.layer import Layer; Layer.of().ensure()'; "
        "$HOME/.llmos/python3.*/bin/python -c 'import sys, pandas, sklearn; print(sys.prefix)'; "
        "$HOME/.llmos/python3.*/bin/pip --version; python -m pip install x 2>&1 || echo refused with $?; "
        "jupyter kernelspec list; bash -l -c 'command -v pip llmos'",
    )
    lines = said.splitlines()
    assert lines[0].startswith("/home/llmos/.llmos/python3.")
    assert "externally-managed-environment" in said
    assert "refused with 1" in said
    assert "/opt/llmos/share/llmos/jupyter/kernels/python3" in said
    assert lines[-2].startswith("/home/llmos/.llmos/python3.")
    assert lines[-1] == "/opt/llmos/bin/llmos"


def test_a_hub_image_runs_every_part_of_the_control_plane(cluster: Cluster, namespace: str) -> None:
    said = output(
        cluster,
        namespace,
        "hub",
        "hub",
        "id -u; llmos-hub --help; llmos-hub api 2>&1 || echo refused with $?; jupyterhub --version; "
        "configurable-http-proxy --version; valkey-server --version; python -c 'import llmos_spawners.kubernetes, "
        "llmos_hub.api.app, llmos_hub.gateway.app, llmos_hub.controllers.runner, oauthenticator, psycopg; print(42)'; "
        "python -m jupyterhub_idle_culler --help >/dev/null && echo culler",
    )
    assert said.startswith("1000\n")
    assert "usage: llmos" in said
    assert "refused with 2" in said  # it wants its settings, and says which
    assert "LLMOS_REDIS_URL is not set" in said
    assert "\n42\n" in said
    assert "Valkey server v=" in said
    assert said.rstrip().endswith("culler")


@pytest.mark.parametrize("name", ["hub", "notebook", "engine-cpu"])
def test_nothing_of_the_build_is_left_in_an_image(cluster: Cluster, namespace: str, name: str) -> None:
    said = output(
        cluster,
        namespace,
        f"left-{name}",
        name,
        "ls /tmp /src /mnt /root/.cache /var/lib/apt/lists 2>/dev/null || true; cat /etc/pip.conf /etc/uv/uv.toml 2>/dev/null || true; "
        "env; find /opt/llmos -newermt 2026-01-02 | head; command -v uv gcc || true; echo end",
    )
    lowered = said.lower()
    tools = () if name == "notebook" else ("/uv\n",)  # a person's `uv pip install` goes into their own layer
    for word in ("proxy=", "index_url", "cert", "install.sh", "/opt/llmos/lib/", "gcc", *tools):
        assert word not in lowered, said
