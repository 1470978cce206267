"""The main path on a cluster: the chart, a log-in, a notebook, a model, an answer outside, and nothing left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.release import IMAGES, Person, Release, installed

pytestmark = pytest.mark.timeout(600)
NEEDS = ("csi", *IMAGES)

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def release(cluster) -> Iterator[Release]:
    with installed(cluster, "path", hub={"concurrentSpawnLimit": 1}) as made:
        yield made


@pytest.fixture(scope="module")
def ada(release) -> Iterator[Person]:
    with release.person("ada") as person:
        yield person


@pytest.fixture(scope="module")
def served(ada) -> str:
    """Return the output of the magic in the notebook while a model started."""
    out = ada.kernel.run("%llmos serve demo://tiny", timeout=240)
    assert not out.error, out.shown
    return out.shown


def models(release: Release, person: Person, base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=person.token, max_retries=0, timeout=60)


def test_the_server_is_a_pod_of_the_persons_own(release, ada):
    pods = release.pods(ada.namespace, kind="Server")
    assert [pod["status"]["phase"] for pod in pods] == ["Running"]
    assert pods[0]["spec"]["containers"][0]["image"].startswith("registry.local/llmos-notebook:")
    out = ada.kernel.run("import os, getpass, pathlib\nprint(os.getuid(), getpass.getuser(), pathlib.Path.home())")
    assert out.text == "1000 llmos /home/llmos\n"


def test_the_magic_serves_a_model_from_the_notebook(release, ada, served):
    last = served.strip().splitlines()[-1]
    assert last.startswith("tiny   Ready"), served
    assert "crashed" not in served
    assert [pod["status"]["phase"] for pod in release.pods(ada.namespace, kind="ModelService")][-1] == "Running"
    shown = ada.kernel.run("%llmos ps").shown.split()
    assert "Ready" in shown
    assert "1/1" in shown


def test_the_notebook_chats_with_it(ada, served):
    out = ada.kernel.run("%%chat tiny\nHello", timeout=60)
    assert not out.error
    assert out.shown.strip()
    code = (
        "import openai\nanswer = openai.OpenAI().chat.completions.create(model='tiny', max_tokens=8,"
        " messages=[{'role': 'user', 'content': 'Hello'}])\nprint(answer.usage.completion_tokens)"
    )
    assert int(ada.kernel.run(code).text) > 0


@pytest.mark.parametrize("way", ["proxy", "gateway"])
def test_a_client_outside_the_cluster_gets_a_streamed_answer(release, ada, served, way):
    base_url = f"{release.hub_url}/services/llm/v1" if way == "proxy" else f"{release.gateway_url}/v1"
    with models(release, ada, base_url) as client:
        whole = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=16, temperature=0)
        began, times, text = time.monotonic(), [], ""
        for chunk in client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=16, temperature=0, stream=True
        ):
            times.append(time.monotonic() - began)
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert text == whole.choices[0].message.content != ""
    assert len(times) > 2
    print(f"\nfirst of {len(times)} pieces by the {way} after {times[0]:.3f} s, all after {times[-1]:.3f} s")


def test_another_person_sees_and_uses_none_of_it(release, ada, served):
    grace = f"grace-{ada.name.split('-')[1]}"
    release.add_user(grace)
    token = release.token(grace)
    path = f"/apis/llmos.ai/v1alpha1/namespaces/{ada.namespace}/modelservices"
    answer = httpx.get(release.api_url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code in (403, 404), answer.text
    with (
        openai.OpenAI(base_url=f"{release.gateway_url}/v1", api_key=token, max_retries=0) as client,
        pytest.raises(openai.NotFoundError),
    ):
        client.chat.completions.create(model="tiny", messages=MESSAGES)


def test_kubectl_reads_well(release, ada, served):
    lines = release.cluster.kubectl("get", "modelservices", "-n", ada.namespace).splitlines()
    print("\n" + "\n".join(lines))
    assert lines[0].split()[:2] == ["NAME", "MODEL"]
    assert "Ready" in lines[1].split()


def test_the_machines_and_what_is_on_them_are_shown(release, ada, served):
    with release.client(release.admin_token) as client:
        nodes = client.nodes()
    assert len(nodes) == len(release.cluster.get("nodes")["items"])
    assert ada.kernel.run("!llmos nodes").shown.strip()


def test_deleting_it_cleans_up_everything(release, ada, served):
    out = ada.kernel.run("%llmos delete modelservice tiny", timeout=60)
    assert not out.error, out.shown
    kinds = ("deployments", "replicasets", "services", "pods", "jobs", "poddisruptionbudgets", "networkpolicies")
    release.gone(ada.namespace, *kinds, kind="ModelService", model="tiny")
    assert release.cluster.get("modelservices", "-n", ada.namespace)["items"] == []
    with models(release, ada, f"{release.gateway_url}/v1") as client, pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="tiny", messages=MESSAGES)


def test_a_stopped_server_leaves_no_pod_no_secret_and_no_key(release):
    with release.person("hopper") as person:
        key = person.kernel.run("import os; print(os.environ['OPENAI_API_KEY'])").text.strip()
        hub_token = person.kernel.run("print(os.environ['JUPYTERHUB_API_TOKEN'])").text.strip()
        url = f"{release.gateway_url}/v1/models"
        assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=30).status_code == 200
        manifests = str(release.pods(person.namespace))
        assert key not in manifests
        assert hub_token not in manifests
    release.gone(person.namespace, "pods", "secrets", kind="Server")
    for token in (key, hub_token):
        assert release.hub("GET", "/user", token=token).status_code == 403
    # the gateway remembers who a key belongs to for some seconds
    deadline = time.monotonic() + 60
    while httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=30).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(1)
    # the home stays
    assert [item["metadata"]["name"] for item in release.cluster.get("pvc", "-n", person.namespace)["items"]] == [
        "home"
    ]


def test_the_sdk_serves_from_outside_too(release, ada):
    with release.client(ada.token) as client:
        service = client.serve("demo://tiny", name="outside", timeout=240)
        assert service
        assert client.modelservices.get("outside").status.phase == "Ready"
        client.modelservices.delete("outside")
    release.gone(ada.namespace, "deployments", "pods", kind="ModelService", model="outside")
    assert release.cluster.get("modelservices", "-n", ada.namespace)["items"] == []


def test_those_who_start_together_wait_for_their_turn_and_nobody_is_refused(release):
    names = [f"pupil{number}-{release.namespace.rsplit('-', 1)[-1]}" for number in range(3)]
    for name in names:
        release.add_user(name)
    tokens = {name: release.token(name) for name in names}

    def start(name: str) -> str:
        """Return the progress messages on the page of a person who starts a server, until it runs."""
        answer = release.hub("POST", f"/users/{name}/server", token=tokens[name])
        assert answer.status_code in (201, 202), answer.text
        headers = {"Authorization": f"Bearer {tokens[name]}"}
        return httpx.get(f"{release.hub_url}/hub/api/users/{name}/server/progress", headers=headers, timeout=300).text

    try:
        with ThreadPoolExecutor(len(names)) as pool:
            told = list(pool.map(start, names))
        assert all('"ready": true' in events for events in told), told
        assert sum("Waiting: others are starting" in events for events in told) >= 1, told
    finally:
        for name in names:
            release.stop_server(name, tokens[name])
