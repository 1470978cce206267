"""The chart on a real cluster without Helm's own hand: by Argo CD's phases, and by ``helm template | kubectl apply``."""

import re
import subprocess

import pytest
import yaml

from tests.kubernetes.test_chart import AskedRelease, own_namespace
from tests.support.chart import install, open_host_paths, ready, values_for
from tests.support.cluster import wait_for
from tests.support.helm import CHART, pod_specs, render
from tests.support.images import REGISTRY, TAG
from tests.support.phases import phases

pytestmark = pytest.mark.timeout(900)
NEEDS = ("hub",)
NEXT = "0.1.1-test"
APPLY = ("kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-")


@pytest.fixture(scope="module")
def tags(cluster):
    """The hub's image by two tags."""
    if cluster.directory is None:
        pytest.skip("the image gets a second name in the nodes of our own cluster alone")
    cluster.images("hub")
    open_host_paths(cluster, cluster.namespace("applied-volumes"))
    for socket in cluster.directory.glob("state/node*/run/containerd.sock"):
        names = [f"{REGISTRY}/llmos-hub:{tag}" for tag in (TAG, NEXT)]
        command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "tag", "--force", *names]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return TAG, NEXT


@pytest.fixture
def release(cluster):
    """A namespace with a Secret of the site's own, and the values that name it."""
    namespace = cluster.namespace("applied")
    made = next(o for o in render() if o["kind"] == "Secret" and o["metadata"]["name"] == "llmos")
    cluster.apply({**made, "metadata": {"name": "mine", "namespace": namespace}})
    values = values_for(existingSecret="mine", backup={"enabled": True, "beforeUpgrade": True})
    found = AskedRelease(cluster, namespace, values)
    yield found
    shared = [
        f"{o['kind'].lower()}/{o['metadata']['name']}"
        for o in render(values, namespace=namespace)
        if "namespace" not in o["metadata"]
    ]
    cluster.attempt("kubectl", "delete", "--ignore-not-found", "--wait=false", *shared)
    cluster.attempt("kubectl", "delete", "deployments,statefulsets", "--all", "-n", namespace, "--wait=false")
    owned = f"app.kubernetes.io/managed-by=llmos,app.kubernetes.io/instance={found.instance}"
    cluster.attempt("kubectl", "delete", "namespace", "-l", owned, "--wait=false")


def rendered(release, tag, *options):
    values = {**release.values, "images": {**release.values["images"], "tag": tag}}
    return render(values, *options, namespace=release.namespace)


def apply(release, objects):
    release.cluster.run(*APPLY, stdin=yaml.safe_dump_all(objects), timeout=300)


def complete(release, objects):
    """Wait for the jobs, as a phase ends; then they go, as their annotations have it."""
    jobs = [o["metadata"]["name"] for o in objects if o["kind"] == "Job"]
    for job in jobs:
        release.cluster.kubectl(
            *("wait", f"job/{job}", "-n", release.namespace, "--for=condition=Complete", "--timeout=120s"), timeout=150
        )
    return jobs


def run_phase(release, waves):
    """Wave after wave; the hooks go at its end."""
    objects = [o for found in waves.values() for o in found]
    for found in waves.values():
        apply(release, found)
        complete(release, found)
    release.cluster.run("kubectl", "delete", "-f", "-", stdin=yaml.safe_dump_all(objects), timeout=120)


def test_argo_cds_phases_install_upgrade_and_remove_it(tags, release):
    for tag in tags:
        found = phases(rendered(release, tag, "--include-crds"))
        run_phase(release, found["PreSync"])
        for objects in found["Sync"].values():
            apply(release, objects)
        ready(release.cluster, release.namespace)
        images = {c["image"] for pod in release.pods(instance="llmos") for c in pod["spec"]["containers"]}
        assert f"{REGISTRY}/llmos-hub:{tag}" in images
    theirs = own_namespace(release)
    metadata = {"name": "kept", "namespace": theirs, "finalizers": ["llmos.ai/workloads", "example.org/other"]}
    service = {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "metadata": metadata}
    release.cluster.apply({**service, "spec": {"model": "demo://tiny", "replicas": 0}})
    gone = [o for objects in found["Sync"].values() for o in objects if o["kind"] != "CustomResourceDefinition"]
    release.cluster.run("kubectl", "delete", "-f", "-", stdin=yaml.safe_dump_all(gone), timeout=180)
    run_phase(release, found["PostDelete"])
    kept = release.cluster.get("modelservice", "kept", "-n", theirs)
    assert kept["metadata"]["finalizers"] == ["example.org/other"]
    none = '{"metadata": {"finalizers": null}}'
    release.cluster.kubectl("patch", "modelservice", "kept", "-n", theirs, "--type=merge", "-p", none)


def test_kubectl_applies_it_twice_and_lets_go_of_nothing(tags, release):
    """With its hooks, which whoever leaves out ``--no-hooks`` gets as plain objects."""
    seen = set()
    for tag in tags:
        objects = rendered(release, tag, "--include-crds")
        apply(release, objects)
        ready(release.cluster, release.namespace)
        jobs = complete(release, objects)
        (uninstall,) = [name for name in jobs if "uninstall" in name]
        said = release.cluster.kubectl("logs", f"job/{uninstall}", "-n", release.namespace)
        assert said.startswith("llmos-controllers is there: the release is installed")
        seen.add(uninstall)
    assert len(seen) == 2
    plain = rendered(release, TAG, "--include-crds", "--no-hooks")
    assert not [name for name, _ in pod_specs(plain) if name.startswith("Job/")]
    apply(release, plain)  # as the guide has it
    ready(release.cluster, release.namespace)
    # and away again by the guide
    kubectl, where = release.cluster.kubectl, ("-n", release.namespace)
    kinds = "deployment,statefulset,service,networkpolicy,poddisruptionbudget,cronjob,job"
    kubectl(*where, "delete", kinds, "-l", "app.kubernetes.io/instance=llmos", timeout=180)
    apply(release, rendered(release, TAG, "--show-only", "templates/uninstall/release.yaml"))
    component = ("-l", "app.kubernetes.io/component=uninstall")
    kubectl(*where, "wait", "job", *component, "--for=condition=Complete", "--timeout=2m", timeout=150)
    assert "is there" not in kubectl(*where, "logs", *component)
    claims = {item["metadata"]["name"] for item in release.cluster.get("pvc", *where)["items"]}
    assert {"llmos-hub", "data-llmos-valkey-0", "llmos-backup-hub"} <= claims


def printed(notes):
    return yaml.safe_load(re.search(r"^# ---8<---\n(.*)^# --->8---$", notes, re.MULTILINE | re.DOTALL)[1])


def test_a_hub_that_still_has_llmos_holds_the_uninstall_up_and_keeps_what_it_needs(cluster):
    cluster.images("hub")
    hubs, namespace = cluster.namespace("jhub"), cluster.namespace("applied")
    release = AskedRelease(cluster, namespace, values_for(hub={"enabled": False}, externalHub={"namespace": hubs}))
    install(cluster, release.name, namespace, release.values)
    notes = cluster.run("helm", "get", "notes", release.name, "-n", namespace)
    values = printed(notes)
    # the file for the other spawner, before anything is changed
    other = "externalHub.keepSpawner=true"
    words = ("helm", "upgrade", release.name, CHART, "-n", namespace, "--reset-then-reuse-values", "--dry-run")
    dry = printed(cluster.run(*words, "--set", other))
    assert "keep_spawner(" in dry["hub"]["extraConfig"]["zz-llmos"]
    env = [{"name": name, **source} for name, source in values["hub"]["extraEnv"].items()]
    hub = {"name": "hub", "image": "registry.local/busybox:1", "command": ["sleep", "3600"], "env": env}
    labels = {"component": "hub", "app": "jupyterhub"}
    spec = {"containers": [hub], "terminationGracePeriodSeconds": 0}
    metadata = {"name": "hub", "namespace": hubs, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def hub_starts():
        cluster.kubectl("wait", "pod/hub", "-n", hubs, "--for=condition=Ready", "--timeout=60s")
        return cluster.kubectl("exec", "hub", "-n", hubs, "--", "sh", "-c", "echo $LLMOS_SERVICE_TOKEN").strip()

    token = hub_starts()
    done = cluster.attempt("helm", "uninstall", release.name, "-n", namespace, timeout=180)
    assert done.returncode
    assert "hub-still-uses-llmos" in done.stderr
    assert cluster.get("deployments", "-n", namespace)["items"], "nothing is gone"
    # whoever insists: the Hub still starts, with all that its spawner needs
    cluster.run("helm", "uninstall", release.name, "-n", namespace, "--no-hooks", timeout=180)
    wait_for(lambda: not cluster.get("deployments", "-n", namespace)["items"], "the release's end")
    cluster.kubectl("delete", "pod", "hub", "-n", hubs)
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert hub_starts() == token
    may = ("kubectl", "auth", "can-i", "list", "pods", "-A", "--as", f"system:serviceaccount:{hubs}:hub")
    assert cluster.attempt(*may).stdout.strip() == "yes"
    # installed again it is the same release; without the Hub it goes
    install(cluster, release.name, namespace, release.values)
    cluster.kubectl("delete", "pod", "hub", "-n", hubs)
    cluster.run("helm", "uninstall", release.name, "-n", namespace, timeout=180)
    shared = [f"{release.instance}-hub", f"{release.instance}-hub-in-namespace"]
    cluster.kubectl("delete", "clusterrole", *shared)
    cluster.kubectl("delete", "clusterrolebinding", shared[0])


def test_kubectl_tells_the_replicas_that_are_wanted_and_why_a_model_is_not_ready(cluster):
    namespace = cluster.namespace("columns", release="nobody")
    service = {
        "apiVersion": "llmos.ai/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "chat", "namespace": namespace},
    }
    cluster.apply({**service, "spec": {"model": "demo://tiny", "replicas": 2}})
    ready = {"type": "Ready", "status": "False", "reason": "OutOfMemory", "message": "m"}
    ready |= {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Failed", "message": "It needs 9 GiB.", "readyReplicas": 1, "conditions": [ready]}
    patch = yaml.safe_dump({"status": status})
    cluster.kubectl(
        "patch", "modelservice", "chat", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )
    shown = cluster.kubectl("get", "modelservices", "-n", namespace).splitlines()
    assert shown[0].split() == ["NAME", "MODEL", "ENGINE", "STATE", "READY", "DESIRED", "REASON", "AGE"]
    assert re.search(r"chat +demo://tiny +Failed +1 +2 +OutOfMemory", shown[1]), shown[1]
    assert "It needs 9 GiB." in cluster.kubectl("get", "modelservices", "-n", namespace, "-o", "wide")
