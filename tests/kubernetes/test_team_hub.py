"""LLMOS added to a Hub that a team ran before, by docs/how-to/join-an-existing-jupyterhub.md.

It is configured with what `helm get notes` prints. The Hub is configured as Zero to JupyterHub's chart does it and runs JupyterHub 5.5; see `tests.support.team_hub`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from llmos.names import slug
from llmos_hub.controllers import server_sweep
from llmos_hub.controllers.server_sweep import ServerSweep
from llmos_hub.identity.people import HubPeople
from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.chart import ready
from tests.support.cluster import Cluster, wait_for
from tests.support.looping import Loop, chat
from tests.support.people import Kernel
from tests.support.release import IMAGES, Release, installed
from tests.support.team_hub import PASSWORD, TeamHub, commands

pytestmark = pytest.mark.timeout(1200)
NEEDS = ("csi", "netpol", "hub-5", *IMAGES)

OPERATOR = "0" * 31 + "1" * 33
GRADER = "2" * 64
JOIN = "how-to/join-an-existing-jupyterhub.md"
TO_YOURS, TO_OURS = (commands(JOIN, "Change the spawner")[part] for part in (slice(3), slice(3, None)))
MESSAGES = [{"role": "user", "content": "Hello"}]


def values(suffix: str, storage_class: str) -> dict[str, Any]:
    """The team's own values: an authenticator, services, roles, a hook, variables, a storage class."""
    return {
        "proxy": {"secretToken": "3" * 64},
        "hub": {
            "db": {"pvc": {"storageClassName": storage_class}},
            "config": {
                "JupyterHub": {"authenticator_class": "dummy"},
                "DummyAuthenticator": {"password": PASSWORD},
                "KubeSpawner": {"http_timeout": 120, "start_timeout": 300},  # seconds, where much runs at once
                "Authenticator": {
                    "admin_users": [f"boss-{suffix}"],
                    "allowed_users": [f"grace-{suffix}", f"ada-{suffix}"],
                },
            },
            "services": {
                "operator": {"apiToken": OPERATOR},
                "grader": {"apiToken": GRADER, "url": "http://grader:9999"},
            },
            "loadRoles": {
                "operator": {
                    "scopes": [
                        "admin:users",
                        "admin:servers",
                        "tokens",
                        "access:servers",
                        "list:services",
                        "read:roles",
                    ],
                    "services": ["operator"],
                },
                "grader": {"scopes": ["list:users"], "services": ["grader"]},
                "user": {"scopes": ["self", "list:services"]},
            },
            "extraConfig": {
                "10-team": (
                    "def greet(spawner):\n"
                    "    spawner.environment['TEAM_HOOK'] = spawner.user.name\n"
                    "c.KubeSpawner.pre_spawn_hook = greet\n"
                )
            },
        },
        "singleuser": {
            "memory": {"guarantee": "200M"},
            "extraEnv": {"TEAM": "vision"},
            "networkTools": {"image": "registry.local/busybox:1"},
            "cloudMetadata": {"blockWithIptables": False},
            "storage": {"dynamic": {"storageClass": storage_class} if storage_class else {}},
        },
    }


@pytest.fixture(scope="module")
def team(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamHub]:
    """The Hub before LLMOS came."""
    if cluster.directory is None:
        pytest.skip("the image with JupyterHub 5.5 is only made for our own cluster")
    cluster.images("hub", "hub-5", "notebook", "engine-cpu")
    cluster.addons("csi", "netpol")
    namespace = cluster.namespace("team")
    own = values(namespace.rsplit("-", 1)[1], "csi-block")
    hub = TeamHub(cluster, namespace, own, tmp_path_factory.mktemp("team"))
    hub.install()
    yield hub
    print(hub.log())


@dataclass
class Worker:
    """Somebody who worked there before LLMOS came: a server that runs, and a file in the home."""

    name: str
    token: str
    pod: str

    @property
    def namespace(self) -> str:
        return f"user-{slug(self.name)}"


def name(team: TeamHub, first: str) -> str:
    return f"{first}-{team.namespace.rsplit('-', 1)[1]}"


def start(team: TeamHub, who: str, token: str) -> None:
    try:
        team.start_server(who, token)
    except BaseException:
        print(
            team.log(),
            team.cluster.attempt("kubectl", "get", "events", "-A", "--sort-by=.lastTimestamp").stdout[-4000:],
        )
        raise


@pytest.fixture(scope="module")
def grace(team: TeamHub) -> Worker:
    who = name(team, "grace")
    with team.browser(who, PASSWORD):
        token = team.token(who)
    start(team, who, token)
    pod = team.server_pod(who)
    assert pod
    script = "echo kept >/home/jovyan/note"
    team.cluster.kubectl("-n", team.namespace, "exec", pod["metadata"]["name"], "--", "sh", "-c", script)
    return Worker(who, token, pod["metadata"]["uid"])


@pytest.fixture(scope="module")
def release(team: TeamHub, grace: Worker) -> Iterator[Release]:
    """LLMOS, and the team's Hub upgraded with the printed values."""
    external = {"namespace": team.namespace}
    with installed(team.cluster, "joins", hub={"enabled": False}, externalHub=external, publicUrl=team.hub_url) as made:
        team.joined_by(made)
        _, *join = commands(JOIN, "Add LLMOS")
        team.follow(join)
        ready(made.cluster, made.namespace)
        yield made


# What was there stays


def test_the_hub_says_what_was_added_and_nothing_is_missing(team: TeamHub, release: Release) -> None:
    said = team.type("kubectl -n jhub logs deployment/hub | grep ^LLMOS").splitlines()
    assert "LLMOS: service llmos at http://llmos-api." in "\n".join(said)
    assert "LLMOS: the site's role user extended" in said
    assert not [line for line in said if "could not" in line]


def test_services_and_roles_of_the_team_are_as_they_were(team: TeamHub, release: Release) -> None:
    services = team.hub("GET", "/services").json()
    assert {"operator", "grader", "jupyterhub-idle-culler", "llmos", "llm"} <= set(services)
    assert services["grader"]["roles"] == ["grader"]
    assert team.hub("GET", "/users", token=GRADER).status_code == 200
    assert team.hub("POST", "/users/somebody", token=GRADER).status_code == 403
    # what the team had given to everybody
    grace = team.token(name(team, "grace"))
    assert team.hub("GET", "/services", token=grace).status_code == 200


def test_who_worked_goes_on_working(team: TeamHub, grace: Worker, release: Release) -> None:
    pod = team.server_pod(grace.name)
    assert pod
    assert pod["metadata"]["uid"] == grace.pod
    assert team.hub("GET", f"/users/{grace.name}").json()["servers"][""]["ready"]
    headers = {"Authorization": f"token {grace.token}"}
    assert httpx.get(team.server_url(grace.name) + "api/status", headers=headers, timeout=30).status_code == 200


# What is new


@pytest.fixture(scope="module")
def boss(team: TeamHub, release: Release) -> Iterator[tuple[str, str, Kernel]]:
    """The team's admin, with a server that LLMOS' spawner started and a kernel in it."""
    who = name(team, "boss")
    with team.browser(who, PASSWORD) as page:
        token = team.token(who)
        start(team, who, token)
        with team.kernel(page, who) as kernel:
            yield who, token, kernel


def test_servers_are_in_namespaces_of_their_own_and_keep_the_teams_settings(
    team: TeamHub, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    who, _, kernel = boss
    pod = team.server_pod(who, f"user-{slug(who)}")
    assert pod
    assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == release.instance
    assert pod["spec"]["tolerations"][0]["key"] == "hub.jupyter.org/dedicated"
    assert pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    claim = team.cluster.get("pvc", "home", "-n", f"user-{slug(who)}")
    assert claim["spec"]["storageClassName"] == "csi-block"
    code = "import os; print(os.environ['TEAM'], os.environ['TEAM_HOOK'], os.environ['JUPYTERHUB_API_URL'])"
    assert kernel.run(code).text.split() == ["vision", who, f"http://hub.{team.namespace}.svc:8081/hub/api"]


def test_a_server_tells_the_hub_that_it_is_used(team: TeamHub, boss: tuple[str, str, Kernel]) -> None:
    """From another namespace than before, through the rule that the values add: else the culler would end it."""
    code = (
        "import os, httpx, datetime\n"
        "now = datetime.datetime.now(datetime.timezone.utc).isoformat()\n"
        "token = {'Authorization': 'token ' + os.environ['JUPYTERHUB_API_TOKEN']}\n"
        "body = {'servers': {'': {'last_activity': now}}, 'last_activity': now}\n"
        "print(httpx.post(os.environ['JUPYTERHUB_ACTIVITY_URL'], json=body, headers=token, timeout=10).status_code)"
    )
    assert boss[2].run(code).shown.strip() == "200"


def test_a_model_is_served_from_the_notebook_and_answers(
    team: TeamHub, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    _, token, kernel = boss
    out = kernel.run("%llmos serve demo://tiny --replicas 2", timeout=240)
    assert not out.error, out.shown
    assert out.shown.strip().splitlines()[-1].startswith("tiny   Ready"), out.shown
    with_client = (
        "import openai\nanswer = openai.OpenAI().chat.completions.create(model='tiny', max_tokens=8,"
        " messages=[{'role': 'user', 'content': 'Hello'}])\nprint(answer.usage.completion_tokens)"
    )
    assert int(kernel.run(with_client).text) > 0
    # the team's own proxy leads there, too
    headers = {"Authorization": f"Bearer {token}"}
    found = httpx.get(f"{team.hub_url}/services/llm/v1/models", headers=headers, timeout=30)
    assert [model["id"] for model in found.json()["data"]] == ["tiny"], found.text
    path = f"/services/llmos/apis/llmos.ai/v1alpha1/namespaces/user-{slug(boss[0])}/modelservices"
    listed = httpx.get(team.hub_url + path, headers=headers, timeout=30)
    assert [item["metadata"]["name"] for item in listed.json()["items"]] == ["tiny"], listed.text
    url = f"{team.hub_url}/services/llm/v1"
    with openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=60) as client:
        pieces = list(client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=16, stream=True))
    assert len(pieces) > 2


def test_the_teams_hub_has_the_rights_it_needs_and_no_more(
    team: TeamHub, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    def may(verb: str, what: str, namespace: str) -> bool:
        account = f"system:serviceaccount:{team.namespace}:hub"
        words = ("kubectl", "auth", "can-i", verb, what, "-n", namespace, f"--as={account}")
        return team.cluster.attempt(*words).stdout.strip() == "yes"

    assert may("create", "pods", f"user-{slug(boss[0])}")
    assert not may("get", "secrets", f"user-{slug(boss[0])}")
    assert not may("create", "pods", "default")
    assert not may("get", "secrets", release.namespace)


def test_tokens_end_with_the_server(team: TeamHub, release: Release, boss: tuple[str, str, Kernel]) -> None:
    who, token, kernel = boss
    code = "import os; print(os.environ['OPENAI_API_KEY'], os.environ['JUPYTERHUB_API_TOKEN'])"
    tokens = kernel.run(code).text.split()
    assert [team.hub("GET", "/user", token=one).status_code for one in tokens] == [200, 200]
    team.stop_server(who, token)
    assert [team.hub("GET", "/user", token=one).status_code for one in tokens] == [403, 403]


# Homes: none is lost, whatever is chosen


def note(team: TeamHub, who: Worker, namespace: str, home: str) -> str:
    pod = team.server_pod(who.name, namespace)
    assert pod, f"no server of {who.name} in {namespace}"
    words = ("-n", namespace, "exec", pod["metadata"]["name"], "--", "sh", "-c", f"cat {home}/note || true")
    return team.cluster.kubectl(*words).strip()


def test_the_next_start_is_in_a_namespace_of_the_persons_own_and_the_old_home_is_kept(
    team: TeamHub, grace: Worker, release: Release
) -> None:
    old = team.cluster.get("pvc", "-n", team.namespace)["items"]
    team.stop_server(grace.name, grace.token)
    start(team, grace.name, grace.token)
    assert team.server_pod(grace.name) is None
    assert note(team, grace, grace.namespace, "/home/llmos") == ""  # a new home
    pod = team.server_pod(grace.name, grace.namespace)
    assert pod
    script = "echo new >/home/llmos/note"
    team.cluster.kubectl("-n", grace.namespace, "exec", pod["metadata"]["name"], "--", "sh", "-c", script)
    kept = team.cluster.get("pvc", "-n", team.namespace)["items"]
    assert [item["metadata"]["uid"] for item in kept] == [item["metadata"]["uid"] for item in old]
    team.stop_server(grace.name, grace.token)


# The commands for changing the spawner, draining a node and leaving, as they are printed, while a model is in use


@contextmanager
def in_use(release: Release, boss: tuple[str, str, Kernel]) -> Iterator[None]:
    """Ask the admin's model all the time, a connection for each request; none fails."""
    with Loop(chat(release.gateway_url, boss[1], "tiny"), fresh=True, pause=0.1) as loop:
        yield
    assert len(loop.outcomes) > 10
    assert loop.errors == []


async def test_a_server_that_runs_while_the_spawner_changes_is_ended_after_a_warning(
    team: TeamHub,
    grace: Worker,
    release: Release,
    boss: tuple[str, str, Kernel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The controllers wait ten minutes; here their sweep looks at the same Hub and cluster with a clock set forward."""
    start(team, grace.name, grace.token)
    left = team.server_pod(grace.name, grace.namespace)
    assert left
    with in_use(release, boss):
        team.follow(TO_YOURS)
        ready(release.cluster, release.namespace)
    servers = lambda: team.hub("GET", f"/users/{grace.name}").json()["servers"]  # noqa: E731
    wait_for(lambda: not servers(), "the Hub's own spawner finds no server", timeout=280, pause=1)
    start(team, grace.name, grace.token)  # now in the Hub's namespace, under the same name
    now = datetime.now(UTC)
    api = KubernetesAPI(kubeconfig=team.cluster.kubeconfig)
    people = HubPeople(f"{team.hub_url}/hub/api", release.secret()["llmos-token"])
    sweep = ServerSweep(api, people, release.instance, clock=lambda: now)
    monkeypatch.setattr(server_sweep, "_SKEW", timedelta(0))
    try:
        await sweep.look(grace.namespace, grace.name, lambda: None)
        about = f"involvedObject.name={left['metadata']['name']},reason=NotListed"
        events = team.cluster.get("events", "-n", grace.namespace, "--field-selector", about)["items"]
        # the controllers, which the last command replaced, may have looked as well
        (message,) = {event["message"] for event in events}
        assert "it is stopped in 10 minutes. The home stays." in message
        pod = team.server_pod(grace.name, grace.namespace)
        assert pod
        assert "deletionTimestamp" not in pod["metadata"]
        now += timedelta(minutes=11)
        await sweep.look(grace.namespace, grace.name, lambda: None)
    finally:
        await people.close()
        await api.close()
    wait_for(lambda: team.server_pod(grace.name, grace.namespace) is None, "the server is gone", timeout=120, pause=1)
    assert team.cluster.get("pvc", "home", "-n", grace.namespace)["status"]["phase"] == "Bound"
    assert servers()[""]["ready"], "the one that the Hub lists runs on"
    team.stop_server(grace.name, grace.token)


def test_a_hub_that_keeps_its_spawner_keeps_the_homes_and_has_llmos(
    team: TeamHub, grace: Worker, release: Release
) -> None:
    start(team, grace.name, grace.token)
    assert note(team, grace, team.namespace, "/home/jovyan") == "kept"
    with team.browser(grace.name, PASSWORD) as page, team.kernel(page, grace.name) as kernel:
        out = kernel.run("import os; print(os.environ['TEAM_HOOK'], os.environ['OPENAI_API_KEY'])").text.split()
        assert out[0] == grace.name
        out_ = kernel.run("%llmos serve demo://tiny", timeout=240)
        assert out_.shown.strip().splitlines()[-1].startswith("tiny   Ready"), out_.shown
        assert not kernel.run("%%chat tiny\nHello", timeout=60).error
        assert not kernel.run("%llmos delete modelservice tiny", timeout=60).error
    assert team.hub("GET", "/user", token=out[1]).status_code == 200
    team.stop_server(grace.name, grace.token)
    assert team.hub("GET", "/user", token=out[1]).status_code == 403
    account = f"system:serviceaccount:{team.namespace}:hub"
    words = ("kubectl", "auth", "can-i", "list", "pods", "-A", f"--as={account}")
    assert team.cluster.attempt(*words).stdout.strip() == "no"


def test_back_to_llmos_spawner_the_homes_of_there_are_found(
    team: TeamHub, grace: Worker, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    with in_use(release, boss):
        team.follow(TO_OURS)
        ready(release.cluster, release.namespace)
    start(team, grace.name, grace.token)
    assert note(team, grace, grace.namespace, "/home/llmos") == "new"


def test_a_drained_node_costs_no_request_to_a_model_and_no_home(
    team: TeamHub, grace: Worker, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    (drain,) = commands("how-to/drain-nodes.md", "Drain a node")
    pod = team.server_pod(grace.name, grace.namespace)
    assert pod
    node = pod["spec"]["nodeName"]
    try:
        with in_use(release, boss):
            team.type(drain.replace("NODE", node))
            team.wait()
            ready(release.cluster, release.namespace)
    finally:
        team.cluster.kubectl("uncordon", node)
    model = ("-n", f"user-{slug(boss[0])}", "-l", "llmos.ai/kind=ModelService,llmos.ai/part=serve")
    pods = team.cluster.get("pods", *model)["items"]
    assert node not in {pod["spec"]["nodeName"] for pod in pods}
    assert team.server_pod(grace.name, grace.namespace) is None
    servers = lambda: team.hub("GET", f"/users/{grace.name}").json()["servers"]  # noqa: E731
    wait_for(lambda: not servers(), "the Hub notices that the server has ended", timeout=280, pause=1)
    start(team, grace.name, grace.token)
    assert note(team, grace, grace.namespace, "/home/llmos") == "new"
    team.stop_server(grace.name, grace.token)


def test_without_the_values_the_hub_is_what_it_was(
    team: TeamHub, grace: Worker, release: Release, boss: tuple[str, str, Kernel]
) -> None:
    own, *rest = commands(JOIN, "Take LLMOS out again")
    team.follow([own])
    assert "LLMOS" not in team.log()
    start(team, grace.name, grace.token)
    assert note(team, grace, team.namespace, "/home/jovyan") == "kept"
    assert "llmos" not in team.hub("GET", "/services").json()
    team.follow(rest)
    assert team.server_pod(grace.name), "servers run on"
    team.stop_server(grace.name, grace.token)
    secrets = team.cluster.get("secrets", "-n", team.namespace)["items"]
    assert {secret["metadata"]["name"] for secret in secrets if secret["type"] == "Opaque"} == {"hub"}
    everywhere = team.cluster.get("clusterroles,clusterrolebindings")["items"]
    assert not [item for item in everywhere if item["metadata"]["name"].startswith(release.instance)]
    # the models stay, and nothing holds their deletion up
    (model,) = team.cluster.get("modelservices", "-n", f"user-{slug(boss[0])}")["items"]
    assert "finalizers" not in model["metadata"]
