"""`helm upgrade` from a previous release under load: chats, models, servers and secrets come through."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import tests.support.chart
from tests.support.chart import ready
from tests.support.cluster import wait_for
from tests.support.helm import CHART
from tests.support.looping import Loop, chat
from tests.support.release import IMAGES, Person, Release, installed

pytestmark = pytest.mark.timeout(1200)
NEEDS = ("csi", *IMAGES)

BEFORE, AFTER = "0.0.9-test", "0.1.0-test"
DRAIN = 240  # seconds: longer than the answer that is under way
LINGERED = 40  # seconds that a gateway has waited when that answer may end: more than the thirty it waits by default
EVENTS, PAUSE = 600, 0.5
"""Of that answer, if nobody ends it."""

SLOW = f"""
import http.server, json, sys, threading
over = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer("application/json")
        self.wfile.write(b'{{"object": "list", "data": [{{"id": "slow", "object": "model"}}]}}')
    def do_POST(self):
        if b"Stop." in self.rfile.read(int(self.headers["Content-Length"])):
            over.set()
        self.answer("text/event-stream")
        for number in range({EVENTS}):
            delta = {{"choices": [{{"index": 0, "delta": {{"content": f"{{number}} "}}}}]}}
            self.wfile.write(b"data: " + json.dumps(delta).encode() + b"\\n\\n")
            if over.wait({PAUSE}):
                break
        self.wfile.write(b"data: [DONE]\\n\\n")
    def answer(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory) -> Path:
    """The chart as it was: another version of it and of its images."""
    copy = tmp_path_factory.mktemp("previous") / "llmos"
    shutil.copytree(CHART, copy)
    text = (copy / "Chart.yaml").read_text()
    (copy / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 0.0.9", text))
    return copy


@pytest.fixture(scope="module")
def release(cluster, previous) -> Iterator[Release]:
    """The previous version, in use."""
    if cluster.directory is None:
        pytest.skip("the images get a second name in the nodes of our own cluster alone")
    cluster.images(*IMAGES)
    for socket in cluster.directory.glob("state/node*/run/containerd.sock"):
        for name in IMAGES:
            names = [f"registry.local/llmos-{name}:{tag}" for tag in (AFTER, BEFORE)]
            command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "tag", "--force", *names]
            subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    gateway = {"drainSeconds": DRAIN}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.support.chart, "CHART", previous)
        with installed(cluster, "upgrade", images={"tag": BEFORE}, gateway=gateway) as made:
            patch.undo()
            yield made


@pytest.fixture(scope="module")
def ada(release) -> Iterator[Person]:
    """Somebody in the middle of something: a variable in a kernel, two models, a Credential."""
    with release.person("ada") as person:
        assert not person.kernel.run("answer = 41").error
        with release.client(person.token) as client:
            client.credentials.create({"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": "hf_secret"}}})
            client.serve("demo://tiny", name="tiny", timeout=240)
            spec = {"engine": "custom", "args": ["/opt/llmos/bin/python", "-c", SLOW, "{port}"]}
            client.modelservices.create({"metadata": {"name": "slow"}, "spec": spec})
            client.modelservices.wait_ready("slow", timeout=240)
        yield person


@dataclass
class Stream(threading.Thread):
    """A long answer on its way."""

    url: str
    token: str
    text: str = ""
    error: str = ""
    ended: bool = False
    began: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "Count."}]}
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False
            ) as answer:
                if answer.status_code != 200:
                    self.error = f"{answer.status_code} {answer.read().decode()}"
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        self.ended = True
                    elif line.startswith("data: "):
                        self.text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                        self.began.set()
        except httpx.HTTPError as error:
            self.error = f"{type(error).__name__}: {error}"


class Lingering(threading.Thread):
    """The times that gateways stay after they were told to end.

    Attributes
    ----------
    seconds
        By pod, as far as seen.
    """

    def __init__(self, release: Release) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[str, float] = {}
        self._release = release
        self._over = threading.Event()

    def run(self) -> None:
        told: dict[str, float] = {}
        while not self._over.wait(1):
            for pod in self._release.pods(component="gateway"):
                if "deletionTimestamp" in pod["metadata"]:
                    name = pod["metadata"]["name"]
                    self.seconds[name] = time.monotonic() - told.setdefault(name, time.monotonic())

    def end(self) -> None:
        self._over.set()
        self.join(timeout=60)


@dataclass
class Upgrade:
    """The state before an upgrade, and the events during it."""

    platform: dict[str, str]
    models: dict[str, str]
    servers: dict[str, str]
    secret: dict[str, str]
    stream: Stream
    fresh: Loop
    kept: Loop
    page: Loop
    lingering: dict[str, float]
    began: float
    took: float


def answers(release: Release, person: Person, message: str = "Count.") -> bool:
    """Return whether the slow model answers."""
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": message}]}
    headers = {"Authorization": f"Bearer {person.token}"}
    url = f"{release.gateway_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30, trust_env=False) as answer:
        return answer.status_code == 200


def listing(release: Release, person: Person) -> str:
    """Runs in a kernel: asks the API by its Service every fifth of a second and notes what goes wrong."""
    return f"""
import os, threading, time, httpx
failures, asked, over = [], [0], threading.Event()
def ask():
    url = "http://{release.name}-api.{release.namespace}.svc/apis/llmos.ai/v1alpha1/namespaces/{person.namespace}/modelservices"
    headers = {{"Authorization": "Bearer {person.token}"}}
    while not over.wait(0.2):
        asked[0] += 1
        try:
            answer = httpx.get(url, headers=headers, timeout=10, trust_env=False)
            if answer.status_code != 200:
                failures.append(f"{{answer.status_code}} {{answer.text[:200]}}")
        except httpx.HTTPError as error:
            failures.append(repr(error))
thread = threading.Thread(target=ask)
thread.start()
"""


def uids(release: Release, namespace: str | None = None, **labels: str) -> dict[str, str]:
    """Names and uids of pods that aren't of jobs."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in release.pods(namespace, **labels)
        if "batch.kubernetes.io/job-name" not in pod["metadata"]["labels"]
    }


@pytest.fixture(scope="module")
def upgrade(release, ada) -> Upgrade:
    """The upgrade to the chart as it is now, with answers under way and clients in a loop."""
    platform = uids(release, **{"app.kubernetes.io/instance": "llmos"})
    models, servers = uids(release, ada.namespace, kind="ModelService"), uids(release, ada.namespace, kind="Server")
    secret = release.secret()
    ask = chat(release.gateway_url, ada.token, "tiny")

    def page(client: httpx.Client) -> None:
        assert client.get(f"{release.hub_url}/hub/login").status_code == 200

    assert not ada.kernel.run(listing(release, ada)).error
    fresh, kept = Loop(ask, fresh=True, pause=0.1), Loop(ask, clients=2, pause=0.1)
    pages = Loop(page, fresh=True, pause=0.2, timeout=5.0)
    # one answer under way at each gateway, or nearly so: which one a connection reaches is chance
    # every gateway has heard of the model and is let through to it
    wait_for(lambda: all(answers(release, ada) for _ in range(8)), "all gateways reach the model", timeout=120)
    streams = [Stream(release.gateway_url, ada.token) for _ in range(4)]
    for stream in streams:
        stream.start()
        assert stream.began.wait(30), stream.error
    lingering = Lingering(release)
    lingering.start()
    with fresh, kept, pages:
        began = time.monotonic()
        release.install(verb="upgrade", images={**release.values["images"], "tag": AFTER})
        took = time.monotonic() - began
        time.sleep(5)
    wait_for(
        lambda: max(lingering.seconds.values(), default=0) > LINGERED, "a gateway waits for its answers", timeout=60
    )
    assert answers(release, ada, "Stop.")
    for stream in streams:
        stream.join(60)
    lingering.end()
    broken = next((stream for stream in streams if not stream.ended), streams[0])
    return Upgrade(platform, models, servers, secret, broken, fresh, kept, pages, lingering.seconds, began, took)


def test_everything_of_the_platform_was_replaced(release, upgrade):
    # those that end their last answers are still there
    deadline = time.monotonic() + DRAIN + 60
    while set(upgrade.platform.values()) & set(uids(release, **{"app.kubernetes.io/instance": "llmos"}).values()):
        assert time.monotonic() < deadline
        time.sleep(2)
    pods = release.pods(**{"app.kubernetes.io/instance": "llmos"})
    images = {c["image"] for pod in pods for c in pod["spec"]["containers"]}
    assert images == {f"registry.local/llmos-hub:{AFTER}"}
    print(f"\nthe upgrade took {upgrade.took:.0f} s")


def test_an_answer_under_way_comes_to_its_end(upgrade):
    assert upgrade.stream.error == ""
    assert upgrade.stream.ended
    words = upgrade.stream.text.split()
    assert words == [str(number) for number in range(len(words))]
    assert LINGERED / PAUSE / 2 < len(words) < EVENTS
    print(f"\na gateway stayed for {max(upgrade.lingering.values()):.0f} s to end its answers")


def test_no_request_fails(upgrade):
    print(f"\na connection for each: {upgrade.fresh.words(upgrade.began)}")
    print(f"connections kept: {upgrade.kept.words(upgrade.began)}")
    assert len(upgrade.fresh.outcomes) > 50
    assert upgrade.fresh.errors == []
    # a kept connection may be closed in the moment in which a request is on its way: clients try again then
    assert len(upgrade.kept.errors) <= 2


def test_the_hub_is_away_for_seconds_only(upgrade):
    print(f"\nthe log-in page: {upgrade.page.words(upgrade.began)}")
    errors = upgrade.page.errors
    assert not errors or errors[-1].over - errors[0].at < 60


def test_models_go_on_in_the_same_pods(release, ada, upgrade):
    assert uids(release, ada.namespace, kind="ModelService") == upgrade.models
    assert len(upgrade.models) == 2
    with release.client(ada.token) as client:
        assert {service.status.phase for service in client.modelservices.list()} == {"Ready"}


def test_a_notebook_goes_on_in_the_same_pod_with_its_kernel(release, ada, upgrade):
    assert uids(release, ada.namespace, kind="Server") == upgrade.servers
    assert len(upgrade.servers) == 1
    ada.kernel.__exit__()
    with ada.kernel:  # as JupyterLab does by itself
        assert ada.kernel.run("print(answer + 1)").text == "42\n"
        shown = ada.kernel.run("%load_ext llmos\n%llmos ps")
        assert "Ready" in shown.shown, shown.shown


def test_the_api_fails_nobody_in_a_notebook(ada, upgrade):
    ada.kernel.__exit__()
    with ada.kernel:
        ada.kernel.run("over.set(); thread.join()")
        asked, failures = ada.kernel.run("print(asked[0], len(failures), *failures[:2])").text.split(maxsplit=1)
    print(f"\n{asked} requests to the API, failures: {failures}")
    assert int(asked) > 50
    assert failures.strip() == "0"


def test_tokens_secrets_and_what_was_stored_stay(release, ada, upgrade):
    assert release.secret() == upgrade.secret
    assert release.hub("GET", "/user", token=ada.token).json()["name"] == ada.name
    with release.client(ada.token) as client:
        assert [item.metadata.name for item in client.credentials.list()] == ["hub"]
        assert client.whoami().name == ada.name


def test_a_model_that_starts_anew_runs_from_the_new_image(release, ada, upgrade):
    with release.client(ada.token) as client:
        client.modelservices.stop("tiny")
        release.gone(ada.namespace, "pods", timeout=60, kind="ModelService", model="tiny", **{"llmos.ai/part": "serve"})
        client.modelservices.start("tiny")
        client.modelservices.wait_ready("tiny", timeout=120)
    pods = release.pods(ada.namespace, kind="ModelService", model="tiny", **{"llmos.ai/part": "serve"})
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {f"registry.local/llmos-engine-cpu:{AFTER}"}


def test_back_to_the_previous_release(release, ada, upgrade):
    release.cluster.run("helm", "rollback", release.name, "1", "-n", release.namespace, "--wait", timeout=600)
    ready(release.cluster, release.namespace)
    assert release.secret() == upgrade.secret
    with httpx.Client(timeout=30, trust_env=False) as client:
        chat(release.gateway_url, ada.token, "tiny")(client)
