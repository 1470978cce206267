"""LLMOSKubeSpawner in a real cluster, on JupyterHub 6 and 5.5: a Hub in a pod with the least rights starts servers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, ClusterMissing, wait_for
from tests.support.images import image
from tests.support.spawner_hub import HubPod, NamespaceControllerThread, WritableHomes

pytestmark = pytest.mark.timeout(600)
NEEDS = ("hub", "hub-5", "notebook")

SIZES = [
    {"name": "small", "title": "Small", "cpu": 0.5, "memory": "400Mi", "memory_request": "128Mi"},
    {"name": "medium", "title": "Medium", "cpu": 0.5, "memory": "700Mi", "memory_request": "128Mi"},
    {"name": "huge", "title": "Huge", "cpu": 500, "memory": "600Mi", "cpu_request": 500, "memory_request": "128Mi"},
]
IMAGES = [
    {"name": "lab", "title": "Jupyter", "image": image("notebook")},
    {"name": "gone", "title": "Not there", "image": "registry.local/NOT-a-name:1"},
    {"name": "broken", "title": "No server in it", "image": "registry.local/python:1"},
]
QUOTA = {"limits.memory": "1000Mi", "pods": "10", "persistentvolumeclaims": "2"}


@pytest.fixture(scope="module", params=["hub", "hub-5"])
def hub(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[HubPod]:
    """A Hub in a pod, and the controller that prepares people's namespaces."""
    if request.param == "hub-5" and cluster.directory is None:
        pytest.skip("the image with JupyterHub 5.5 is only made for our own cluster")
    try:
        cluster.images(request.param, "notebook")
    except ClusterMissing as error:
        pytest.fail(str(error))
    pod = HubPod(cluster, cluster.namespace("k4"), request.param, SIZES, IMAGES)
    with NamespaceControllerThread(cluster, pod.options(QUOTA), pod.namespace), WritableHomes(pod), pod.running():
        yield pod
        if request.session.testsfailed:
            print(pod.logs())


@pytest.fixture(scope="module")
def ada(hub: HubPod) -> str:
    """A person."""
    return hub.user("ada")


@pytest.fixture(scope="module")
def server(hub: HubPod, ada: str) -> list[dict]:
    """Her default server; what was said while it started."""
    answer = hub.start(ada, size="small", image="lab")
    assert answer.status_code in (201, 202), answer.text + hub.logs()
    heard = hub.progress(ada)
    assert heard[-1].get("ready"), (heard, hub.logs())
    return heard


def the_pod(hub: HubPod, user: str, server: str = "") -> dict:
    name = f"jupyter-{user}--{server}" if server else f"jupyter-{user}"
    return hub.cluster.get("-n", f"user-{user}", "pod", name)


def in_server(hub: HubPod, user: str, *command: str) -> str:
    return hub.cluster.kubectl("-n", f"user-{user}", "exec", f"jupyter-{user}", "--", *command)


def test_the_start_says_what_it_does(server: list[dict]) -> None:
    said = [event["message"] for event in server]
    assert "Starting Jupyter" in said, said
    assert [event["progress"] for event in server] == sorted(event["progress"] for event in server)


def test_the_server_has_what_it_needs(hub: HubPod, ada: str, server: list[dict]) -> None:
    environment = dict(line.split("=", 1) for line in in_server(hub, ada, "env").splitlines() if "=" in line)
    assert environment["OPENAI_BASE_URL"] == "http://llmos-gateway/v1"
    assert environment["LLMOS_URL"] == "http://llmos-api"
    scopes = hub.whoami(environment["OPENAI_API_KEY"]).json()["scopes"]
    assert [scope for scope in scopes if not scope.startswith("read:users:")] == ["custom:llmos:invoke"]
    assert hub.whoami(environment["JUPYTERHUB_API_TOKEN"]).status_code in (200, 403)
    assert in_server(hub, ada, "id", "-u").strip() == "1000"
    in_server(hub, ada, "python", "-c", "import llmos_widgets, llmos, openai; openai.OpenAI()")
    in_server(hub, ada, "sh", "-c", "echo kept >~/note")


def test_tokens_are_in_a_secret_that_goes_with_the_pod_and_not_in_the_pod(
    hub: HubPod, ada: str, server: list[dict]
) -> None:
    pod = the_pod(hub, ada)
    name = f"{pod['metadata']['name']}-environment"
    secret = hub.cluster.get("-n", f"user-{ada}", "secret", name)
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert {"JUPYTERHUB_API_TOKEN", "OPENAI_API_KEY"} <= set(values)
    assert not [key for key, value in values.items() if value in json.dumps(pod)]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]


def test_the_pod_may_little(hub: HubPod, ada: str, server: list[dict]) -> None:
    pod = the_pod(hub, ada)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "llmos"
    assert not [volume for volume in spec["volumes"] if "projected" in volume]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    labels = pod["metadata"]["labels"]
    assert labels["llmos.ai/kind"] == "Server"
    assert labels["app.kubernetes.io/component"] == "singleuser-server"
    assert "llmos.ai/part" not in labels
    owner = hub.cluster.get("namespace", f"user-{ada}")["metadata"]
    assert owner["annotations"]["llmos.ai/owner"] == ada
    assert owner["labels"]["app.kubernetes.io/managed-by"] == "llmos"


def test_the_hub_may_nothing_beyond_what_it_needs(hub: HubPod, ada: str, server: list[dict]) -> None:
    account = f"system:serviceaccount:{hub.namespace}:hub"

    def may(verb: str, what: str, namespace: str) -> bool:
        words = ("kubectl", "auth", "can-i", verb, what, "-n", namespace, f"--as={account}")
        return hub.cluster.attempt(*words).stdout.strip() == "yes"

    assert may("create", "pods", f"user-{ada}")
    assert not may("create", "pods", "kube-system")
    assert not may("get", "secrets", f"user-{ada}")
    assert not may("list", "secrets", "kube-system")
    assert not may("delete", "namespaces", "default")


def test_more_than_the_quota_leaves_is_refused_with_what_is_used_and_left(
    hub: HubPod, ada: str, server: list[dict]
) -> None:
    said = hub.refusal(ada, "second", size="medium", image="lab")
    assert "600 MiB of your 1000 MiB of memory are left (400 MiB in use), and this server needs 700 MiB" in said
    assert "Running: the default server (400 MiB)" in said
    assert "Choose a smaller size" in said


def test_what_no_node_has_is_waited_for_with_the_reason(hub: HubPod, ada: str, server: list[dict]) -> None:
    hub.start(ada, "second", size="huge", image="lab")
    try:
        heard = hub.progress(ada, "second", until="Waiting for room", timeout=60)
        assert "too few free cores on" in heard[-1]["message"], heard
    finally:
        hub.stop(ada, "second")


def test_a_gpu_that_no_node_has_is_named(hub: HubPod, ada: str, server: list[dict]) -> None:
    hub.start(ada, "second", size="small", image="lab", gpu="one")
    try:
        heard = hub.progress(ada, "second", until="Waiting for a GPU", timeout=60)
        assert "no free GPU on" in heard[-1]["message"], heard
    finally:
        hub.stop(ada, "second")


@pytest.mark.parametrize(("name", "words"), [("gone", "can't be pulled"), ("broken", "ended with exit code")])
def test_what_cannot_succeed_is_given_up_early_with_the_reason(
    hub: HubPod, ada: str, server: list[dict], name: str, words: str
) -> None:
    began = time.monotonic()
    assert words in hub.refusal(ada, "second", size="small", image=name)
    assert time.monotonic() - began < 90
    wait_for(lambda: not second_pods(hub, ada), "the pod is gone", timeout=30)
    secrets = hub.cluster.get("-n", f"user-{ada}", "secret")["items"]
    assert not [secret for secret in secrets if "second" in secret["metadata"]["name"]]


def second_pods(hub: HubPod, user: str) -> list:
    return [p for p in hub.cluster.get("-n", f"user-{user}", "pod")["items"] if "second" in p["metadata"]["name"]]


def test_an_option_that_there_is_not_is_refused(hub: HubPod, ada: str, server: list[dict]) -> None:
    assert 'size: "enormous" is not among small, medium, huge' in hub.refusal(ada, "second", size="enormous")


def test_a_namespace_of_somebody_else_is_not_used(hub: HubPod) -> None:
    eve = hub.user("eve")
    labels = {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": hub.namespace}
    meta = {
        "name": f"user-{eve}",
        "labels": {**labels, "llmos.ai/owner-kind": "user"},
        "annotations": {"llmos.ai/owner": eve, "llmos.ai/owner-created": "2001-01-01T00:00:00.000000Z"},
    }
    hub.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    assert "belongs to an earlier person of that name" in hub.refusal(eve, size="small")


def test_tokens_end_with_the_server_also_after_the_hub_was_killed(hub: HubPod, ada: str, server: list[dict]) -> None:
    environment = dict(line.split("=", 1) for line in in_server(hub, ada, "env").splitlines() if "=" in line)
    tokens = [environment[name] for name in ("JUPYTERHUB_API_TOKEN", "OPENAI_API_KEY")]
    uid = the_pod(hub, ada)["metadata"]["uid"]
    hub.kill()
    notes = [t["note"] for t in hub.http.get(f"/hub/api/users/{ada}/tokens").json()["api_tokens"]]
    assert f"llmos-invoke {ada}/" in notes
    assert hub.http.get(f"/hub/api/users/{ada}").json()["servers"][""]["ready"]
    assert the_pod(hub, ada)["metadata"]["uid"] == uid
    hub.stop(ada)
    assert [hub.whoami(token).status_code for token in tokens] == [403, 403]
    assert hub.http.get(f"/hub/api/users/{ada}/tokens").json()["api_tokens"] == []
    left = hub.cluster.get("-n", f"user-{ada}", "secret")["items"]
    assert not [secret for secret in left if secret["metadata"]["name"].endswith("-environment")]


def test_the_home_is_kept_for_the_next_server(hub: HubPod, ada: str) -> None:
    answer = hub.start(ada, size="small")
    assert answer.status_code in (201, 202), answer.text + hub.logs()
    assert hub.progress(ada)[-1].get("ready")
    assert in_server(hub, ada, "cat", "/home/llmos/note").strip() == "kept"
    hub.stop(ada)
