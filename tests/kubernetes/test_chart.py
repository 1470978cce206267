"""The chart on a real cluster: valid, least rights, ready, and upgraded and removed without loss."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest
import yaml

from tests.support.chart import (
    install,
    open_host_paths,
    port_forward,
    ready,
    values_for,
    write_schemas,
)
from tests.support.cluster import wait_for
from tests.support.helm import CHART, render
from tests.support.release import Release

pytestmark = pytest.mark.timeout(900)
NEEDS = ("hub",)

VALUES = {
    "defaults": {},
    "everything": {
        "backup": {"enabled": True, "beforeUpgrade": True},
        "gateway": {"autoscaling": {"enabled": True}, "service": {"type": "LoadBalancer", "nodePort": 30080}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "hub.example.org",
            "gatewayHost": "models.example.org",
            "tls": {"enabled": True, "secretName": "certificate"},
        },
        "httpRoute": {
            "enabled": True,
            "host": "hub.example.org",
            "gatewayHost": "m.example.org",
            "parentRefs": [{"name": "g"}],
        },
        "images": {"registry": "registry.example.org", "pullSecrets": ["pull"]},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
        "hub": {
            "extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "extraVolumes": [{"name": "v", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
            "affinity": {"nodeAffinity": {}},
        },
        "users": {"gpus": {"runtimeClass": "nvidia"}},
    },
    "another hub": {"hub": {"enabled": False}, "externalHub": {"apiUrl": "http://hub.jhub.svc:8081/hub/api"}},
    "external parts": {
        "valkey": {"enabled": False, "external": {"url": "rediss://:p@redis.example.org:6380/0", "port": 6380}},
        "hub": {"db": {"type": "url", "url": "postgresql+psycopg://llmos:p@db.example.org/llmos"}},
        "networkPolicy": {"enabled": False},
    },
}


def manifests(values, namespace) -> str:
    # kinds of the Gateway API are no part of Kubernetes itself
    objects = [o for o in render(values, namespace=namespace) if o["kind"] != "HTTPRoute"]
    return yaml.safe_dump_all(objects)


def test_helm_finds_nothing_to_complain_about(cluster):
    out = cluster.run("helm", "lint", "--strict", "--kube-version", "1.34.0", CHART)
    assert "0 chart(s) failed" in out


@pytest.fixture(scope="module")
def schemas(cluster, tmp_path_factory):
    return write_schemas(cluster, tmp_path_factory.mktemp("schemas"))


@pytest.mark.parametrize("name", VALUES)
def test_objects_are_valid_to_the_last_field(cluster, schemas, name):
    words = ["kubeconform", "-strict", "-summary", "-schema-location", schemas]
    out = cluster.run(*words, stdin=manifests(VALUES[name], "llmos"))
    assert re.search(r"Valid: \d\d+, Invalid: 0, Errors: 0, Skipped: 0", out), out


def test_the_check_finds_a_misspelt_field(cluster, schemas):
    wrong = manifests({}, "llmos").replace("periodSeconds", "periodSecond", 1)
    done = cluster.attempt("kubeconform", "-strict", "-schema-location", schemas, stdin=wrong)
    assert done.returncode == 1
    assert "periodSecond" in done.stdout


@pytest.mark.parametrize("name", VALUES)
def test_the_api_server_takes_every_object(cluster, name):
    namespace = cluster.namespace("chart")
    done = cluster.attempt("kubectl", "apply", "--dry-run=server", "-f", "-", stdin=manifests(VALUES[name], namespace))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


# A release


class AskedRelease(Release):
    """One that tells what runs and what its accounts may do."""

    def running(self) -> dict[str, tuple[str, int]]:
        """Uid and restarts of each pod but those of jobs."""
        return {
            item["metadata"]["name"]: (item["metadata"]["uid"], item["status"]["containerStatuses"][0]["restartCount"])
            for item in self.pods(instance=self.name)
            if "batch.kubernetes.io/job-name" not in item["metadata"]["labels"]
        }

    def can(self, account: str, verb: str, resource: str, namespace: str | None = None) -> bool:
        """Return whether it may; `resource` is ``plural.group``, ``plural/name`` or ``plural:subresource``."""
        resource, _, subresource = resource.partition(":")
        where = ["-n", namespace] if namespace else ["-A"]
        if subresource:
            where.append(f"--subresource={subresource}")
        user = f"system:serviceaccount:{self.namespace}:llmos-{account}"
        done = self.cluster.attempt("kubectl", "auth", "can-i", verb, resource, "--as", user, *where)
        assert done.stdout.strip() in ("yes", "no"), done.stderr
        return done.stdout.strip() == "yes"

    def as_account(self, account: str, *words: str, stdin: str | None = None):
        user = f"system:serviceaccount:{self.namespace}:llmos-{account}"
        return self.cluster.attempt("kubectl", *words, "--as", user, stdin=stdin)


@pytest.fixture(scope="module")
def release(cluster) -> Iterator[AskedRelease]:
    cluster.images("hub")
    namespace = cluster.namespace("chart")
    open_host_paths(cluster, cluster.namespace("chart-volumes"))
    made = AskedRelease(cluster, namespace, values_for(backup={"enabled": True}))
    install(cluster, made.name, namespace, made.values)
    try:
        ready(cluster, namespace)
        yield made
    finally:
        cluster.attempt("helm", "uninstall", made.name, "-n", namespace, "--wait=false")
        owned = f"app.kubernetes.io/managed-by=llmos,app.kubernetes.io/instance={made.instance}"
        cluster.attempt("kubectl", "delete", "namespace", "-l", owned, "--wait=false")


NO_FINALIZERS = '{"metadata": {"finalizers": null}}'


def own_namespace(release: Release) -> str:
    """A namespace as LLMOS makes them for people."""
    name = f"user-{release.namespace}"
    labels = {
        "app.kubernetes.io/managed-by": "llmos",
        "app.kubernetes.io/instance": release.instance,
        "llmos.ai/owner-kind": "user",
    }
    metadata = {"name": name, "labels": labels, "annotations": {"llmos.ai/owner": release.namespace}}
    release.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    bound = f"llmos:{release.instance}-hub-in-namespace:llmos-hub"
    release.cluster.kubectl("wait", "--for=create", f"rolebinding/{bound}", "-n", name, "--timeout=60s")
    return name


@pytest.fixture(scope="module")
def person(release) -> Iterator[str]:
    name = own_namespace(release)
    yield name
    release.cluster.attempt("kubectl", "delete", "namespace", name, "--wait=false")


def test_the_first_admin_logs_in_and_calls_api_and_gateway(release):
    password = release.secret()["admin-password"]
    with (
        port_forward(release.cluster, release.namespace, "llmos-proxy") as hub,
        port_forward(release.cluster, release.namespace, "llmos-gateway") as gateway,
        httpx.Client(base_url=hub, follow_redirects=True, timeout=30) as client,
    ):
        page = release.log_in(client, "admin", password)
        assert page.url.path == "/hub/change-password"
        headers = {"Authorization": f"Bearer {release.first_admin_token(client, page)}"}
        path = "/services/llmos/apis/llmos.ai/v1alpha1/namespaces/user-admin/modelservices"
        # a Hub that has just started makes the services' routes a moment after it answers
        wait_for(lambda: client.get(path, headers=headers).status_code == 200, "the API under the Hub", timeout=30)
        assert client.get(path, headers=headers).json()["items"] == []
        assert client.get("/services/llm/v1/models", headers=headers).json()["data"] == []
        assert httpx.get(f"{gateway}/v1/models", headers=headers, timeout=30).json()["data"] == []
        assert httpx.get(f"{gateway}/v1/models", timeout=30).status_code == 401


@pytest.mark.parametrize("what", ["hub", "valkey"])
def test_backups_are_made_while_everything_runs(release, what):
    cluster, where = release.cluster, ("-n", release.namespace)
    cluster.kubectl(*where, "create", "job", "backup-now-" + what, f"--from=cronjob/llmos-backup-{what}")
    cluster.kubectl(*where, "wait", f"job/backup-now-{what}", "--for=condition=Complete", "--timeout=120s")
    said = cluster.kubectl(*where, "logs", f"job/backup-now-{what}")
    assert re.match(rf"/backup/{what}-\d{{8}}T\d{{6}}Z\.\w+\.gz \(\d+\.\d MB\); 0 older deleted", said), said


# Rights: what is needed, and that there is no more


YES = [
    ("hub", "watch", "pods", None),
    ("hub", "list", "events", None),
    ("hub", "create", "namespaces", None),
    ("api", "create", "modelservices.llmos.ai", None),
    ("api", "update", "modelservices.llmos.ai:status", None),
    ("api", "get", "pods:log", None),
    ("controllers", "update", "modelservices.llmos.ai:status", None),
    ("controllers", "delete", "modelservices.llmos.ai", None),
    ("controllers", "delete", "namespaces", None),
    ("controllers", "create", "deployments.apps", None),
    ("controllers", "list", "pods.metrics.k8s.io", None),
    ("controllers", "create", "networkpolicies.networking.k8s.io", None),
    ("controllers", "update", "leases.coordination.k8s.io/llmos-controllers", "OWN"),
    ("gateway", "watch", "modelservices.llmos.ai", None),
    ("gateway", "watch", "namespaces", None),
]
NO = [
    ("hub", "get", "secrets", None),
    ("hub", "get", "secrets", "OWN"),
    *[
        (account, verb, "secrets", where)
        for account in ("api", "controllers")
        for verb in ("get", "list")
        for where in (None, "OWN", "kube-system")
    ],
    ("hub", "create", "pods", None),
    ("hub", "create", "pods", "OWN"),
    ("hub", "create", "pods", "kube-system"),
    ("hub", "delete", "namespaces", None),
    ("hub", "create", "rolebindings.rbac.authorization.k8s.io", None),
    ("hub", "get", "modelservices.llmos.ai", None),
    ("api", "create", "pods", None),
    ("api", "create", "pods:exec", None),
    ("api", "create", "deployments.apps", None),
    ("api", "impersonate", "users", None),
    ("api", "create", "rolebindings.rbac.authorization.k8s.io", None),
    ("api", "delete", "namespaces", None),
    ("controllers", "create", "pods:exec", None),
    ("controllers", "create", "clusterroles.rbac.authorization.k8s.io", None),
    ("controllers", "bind", "clusterroles.rbac.authorization.k8s.io/cluster-admin", None),
    ("controllers", "escalate", "roles.rbac.authorization.k8s.io", None),
    ("controllers", "create", "clusterrolebindings.rbac.authorization.k8s.io", None),
    ("controllers", "update", "leases.coordination.k8s.io/other", "OWN"),
    ("controllers", "update", "nodes", None),
    ("gateway", "update", "modelservices.llmos.ai", None),
    ("gateway", "get", "secrets", None),
    ("gateway", "list", "pods", None),
    ("proxy", "list", "pods", None),
    ("valkey", "list", "pods", None),
]


@pytest.mark.parametrize(("account", "verb", "resource", "where"), YES)
def test_what_is_needed_is_allowed(release, account, verb, resource, where):
    assert release.can(account, verb, resource, release.namespace if where == "OWN" else where)


@pytest.mark.parametrize(("account", "verb", "resource", "where"), NO)
def test_what_is_not_needed_is_refused(release, account, verb, resource, where):
    assert not release.can(account, verb, resource, release.namespace if where == "OWN" else where)


def test_in_peoples_namespaces_the_hub_may_start_servers_and_read_no_secret(release, person):
    for verb, resource in (("create", "pods"), ("delete", "pods"), ("create", "persistentvolumeclaims")):
        assert release.can("hub", verb, resource, person)
    for verb, resource in (("create", "secrets"), ("update", "secrets"), ("delete", "secrets")):
        assert release.can("hub", verb, resource, person)
    for verb, resource in (
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods:exec"),
        ("delete", "persistentvolumeclaims"),
    ):
        assert not release.can("hub", verb, resource, person)


def test_secrets_are_read_in_peoples_namespaces_alone(release, person):
    for account in ("api", "controllers"):
        for verb in ("get", "list", "watch", "create", "patch", "delete"):
            assert release.can(account, verb, "secrets", person)
            assert not release.can(account, verb, "secrets", "default")


def test_names_are_claimed_in_peoples_namespaces_alone(release, person):
    for verb in ("get", "create", "delete"):
        assert release.can("api", verb, "leases.coordination.k8s.io", person)
        assert not release.can("api", verb, "leases.coordination.k8s.io", "default")
        assert not release.can("api", verb, "leases.coordination.k8s.io", release.namespace)


def test_nothing_is_written_outside_of_llmos_own_namespaces(release, person):
    role = f"{release.namespace}.{release.name}-controllers-in-namespace"
    objects = {
        "api": {
            "apiVersion": "llmos.ai/v1alpha1",
            "kind": "ModelService",
            "metadata": {"name": "planted"},
            "spec": {"model": "demo://tiny"},
        },
        "controllers": {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "planted"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [
                {"kind": "ServiceAccount", "name": "llmos-controllers", "namespace": release.namespace},
            ],
        },
    }
    for account, object_ in objects.items():
        text = json.dumps(object_)
        for namespace in ("kube-system", "default"):
            done = release.as_account(account, "create", "-n", namespace, "-f", "-", stdin=text)
            assert done.returncode, done.stdout
            assert (
                f"LLMOS writes only into its own namespace and those it has made, not into {namespace}" in done.stderr
            )
        done = release.as_account(account, "create", "-n", person, "-f", "-", "--dry-run=server", stdin=text)
        assert done.returncode == 0, done.stderr
    # neither by taking a namespace over, nor by letting one go
    taken = release.as_account("controllers", "label", "namespace", "kube-system", "app.kubernetes.io/managed-by=llmos")
    assert "only namespaces with its own labels, not kube-system" in taken.stderr
    removed = release.as_account("controllers", "delete", "namespace", release.namespace, "--dry-run=server")
    assert "only namespaces with its own labels" in removed.stderr
    assert release.as_account("hub", "create", "namespace", "planted").returncode


# Upgrade and removal


def test_an_upgrade_changes_no_secret_and_no_pod_that_need_not_change(release):
    before, pods = release.secret(), release.running()
    install(release.cluster, release.name, release.namespace, release.values, "--timeout", "5m", verb="upgrade")
    ready(release.cluster, release.namespace)
    assert release.secret() == before
    assert release.running() == pods
    # the hook has brought the definitions up to date, and is gone with all it needed
    fields = release.cluster.get("crd", "modelservices.llmos.ai")
    managers = release.cluster.kubectl(
        "get",
        "crd",
        fields["metadata"]["name"],
        "--show-managed-fields",
        "-o",
        "jsonpath={.metadata.managedFields[*].manager}",
    )
    assert "llmos-chart" in managers
    assert release.cluster.attempt("kubectl", "get", "clusterrole", f"{release.instance}-crds").returncode


def test_a_change_of_one_part_leaves_the_others_running(release):
    pods = release.running()
    values = {**release.values, "hub": {"namedServerLimit": 3}}
    install(release.cluster, release.name, release.namespace, values, verb="upgrade")
    ready(release.cluster, release.namespace)
    changed = set(pods.items()) ^ set(release.running().items())
    assert {name.rsplit("-", 2)[0] for name, _ in changed} == {"llmos-hub"}


def test_a_wrong_value_changes_nothing(release):
    done = release.cluster.attempt(
        "helm", "upgrade", release.name, CHART, "-n", release.namespace, "--reuse-values", "--set", "gateway.replica=3"
    )
    assert done.returncode
    assert "gateway" in done.stderr
    assert "replica" in done.stderr


def test_no_part_asked_for_more_than_it_may(release):
    where = ("-n", release.namespace, "-l", "app.kubernetes.io/part-of=llmos")
    said = release.cluster.kubectl("logs", *where, "--all-containers", "--tail=-1", "--max-log-requests=50")
    assert "llmos" in said
    assert [line for line in said.splitlines() if "system:serviceaccount" in line and "cannot" in line] == []


def test_what_cannot_be_had_again_stays_when_the_release_goes(cluster):
    namespace = cluster.namespace("chart")
    gone = AskedRelease(cluster, namespace, values_for(backup={"enabled": True}))
    install(cluster, gone.name, namespace, gone.values)
    before = gone.secret()
    claims = ["llmos-hub", "data-llmos-valkey-0"]
    for claim in claims:
        cluster.kubectl("wait", "--for=create", f"pvc/{claim}", "-n", namespace, "--timeout=60s")
    theirs = own_namespace(gone)
    metadata = {"name": "kept", "namespace": theirs, "finalizers": ["llmos.ai/workloads", "example.org/other"]}
    service = {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "metadata": metadata}
    cluster.apply({**service, "spec": {"model": "demo://tiny", "replicas": 0}})
    cluster.run("helm", "uninstall", gone.name, "-n", namespace)
    # the model stays, and nothing of ours holds it: the namespace could be deleted
    assert cluster.get("modelservice", "kept", "-n", theirs)["metadata"]["finalizers"] == ["example.org/other"]
    cluster.kubectl("patch", "modelservice", "kept", "-n", theirs, "--type=merge", "-p", NO_FINALIZERS)
    cluster.kubectl("delete", "namespace", theirs, "--timeout=60s")
    assert cluster.attempt("kubectl", "get", "clusterrole", f"{gone.instance}-uninstall").returncode
    assert gone.secret() == before
    assert {item["metadata"]["name"] for item in cluster.get("pvc", "-n", namespace)["items"]} >= set(claims)
    assert cluster.get("crd", "modelservices.llmos.ai")
    assert cluster.get("clusterroles", "-l", "app.kubernetes.io/part-of=llmos")
    # installed anew it goes on with them
    install(cluster, gone.name, namespace, gone.values)
    assert gone.secret() == before
    cluster.run("helm", "uninstall", gone.name, "-n", namespace)
