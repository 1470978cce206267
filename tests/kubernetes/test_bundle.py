"""A bundle, as somebody without internet installs it: images into the nodes, chart, models, and an answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml

import llmos
from llmos_hub.sources import demo
from tests.support.cluster import Cluster, wait_for
from tests.support.hub_endpoint import HubRepository, hub_endpoint
from tests.support.release import IMAGES, Release

pytestmark = pytest.mark.timeout(900)
NEEDS = ("csi", "netpol", *IMAGES)

MODEL = "hf://ada/tiny-GGUF"
IMPORTED = re.compile(r"docker\.io/library/llmos-[a-z-]+:0\.1\.0-test")


def sockets(cluster: Cluster) -> list[Path]:
    """Return the sockets of the nodes' containerds."""
    assert cluster.directory is not None
    return sorted(cluster.directory.glob("state/node*/run/containerd.sock"))


def ctr(socket: Path, *words: str) -> str:
    done = subprocess.run(
        ["ctr", "--address", socket, "--namespace", "k8s.io", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def forget_images(cluster: Cluster) -> None:
    for socket in sockets(cluster):
        if names := IMPORTED.findall(ctr(socket, "images", "ls", "-q")):
            ctr(socket, "images", "rm", *names)


@pytest.fixture(scope="module")
def bundle(cluster, tmp_path_factory) -> Path:
    """Return the output of `llmos bundle` on a machine with internet; the model hub it downloads from is gone afterwards."""
    if cluster.directory is None:
        pytest.skip("the archives of the images are made for our own cluster alone")
    cluster.images(*IMAGES)
    here = tmp_path_factory.mktemp("archives")
    for name in IMAGES:  # by links of our own: another build may replace them meanwhile
        os.link(cluster.directory / "images" / f"llmos-{name}.tar", here / f"{name}.tar")
    directory = tmp_path_factory.mktemp("usb") / "llmos"
    with hub_endpoint() as hub:
        hub.repositories["ada/tiny-GGUF"] = HubRepository({"tiny-Q8_0.gguf": demo._SHIPPED.read_bytes()})
        command = [sys.executable, "-m", "llmos_hub.app", "bundle", str(directory), "--models", MODEL, "demo://tiny"]
        done = subprocess.run(
            [*command, "--images", *(str(here / f"{name}.tar") for name in IMAGES)],
            env={**os.environ, "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    print(f"\n{done.stdout}")
    yield directory
    shutil.rmtree(directory)


def install(cluster: Cluster, bundle: Path, *words: str, **environ: str) -> str:
    done = subprocess.run(
        ["sh", bundle / "install.sh", *words],
        env={**cluster.environment, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def release(cluster, bundle, tmp_path_factory) -> Iterator[Release]:
    """Installed as the bundle's README says, with volumes and ports of this cluster."""
    cluster.addons("csi", "netpol")
    forget_images(cluster)
    for socket in sockets(cluster):
        install(cluster, bundle, "check", "images", CONTAINERD_ADDRESS=str(socket))
        assert len(set(IMPORTED.findall(ctr(socket, "images", "ls", "-q")))) == len(IMAGES)
    block, ports = {"storage": {"storageClass": "csi-block"}}, {"service": {"type": "NodePort"}}
    values = {
        "gateway": ports,
        "proxy": ports,
        "hub": {"db": block},
        "valkey": block,
        "mirror": block,
        "users": {"network": {"internet": False}, "models": {"storageClass": "csi-shared", "size": "1Gi"}},
    }
    site = tmp_path_factory.mktemp("site") / "values.yaml"
    site.write_text(yaml.safe_dump(values))
    made = Release(cluster, cluster.namespace("bundle"), values)
    try:
        print(install(cluster, bundle, "chart", "models", "-n", made.namespace, "-f", str(site)))
        made.wait()
        yield made
    finally:
        made.uninstall()
        forget_images(cluster)


@pytest.fixture(scope="module")
def token(release) -> str:
    """A person's, of a name that no other release's people have."""
    name = f"ada-{release.namespace.rsplit('-', 1)[-1]}"
    release.add_user(name)
    return release.token(name)


@pytest.fixture(scope="module")
def ada(release, token) -> Iterator[llmos.Client]:
    with release.client(token) as client:
        yield client


def test_every_pod_runs_from_the_bundles_images(release):
    pods = release.cluster.get("pods", "-n", release.namespace)["items"]
    assert {c["image"] for pod in pods for c in pod["spec"]["containers"]} == {"llmos-hub:0.1.0-test"}
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= {"hub", "gateway", "mirror"}


def test_a_model_comes_from_the_bundle_and_answers(release, ada, token):
    service = ada.serve(MODEL, name="chat", timeout=240)
    assert service.status.phase == "Ready"
    with openai.OpenAI(base_url=f"{release.gateway_url}/v1", api_key=token, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
    assert answer.usage.completion_tokens > 0
    # and from nowhere else: its pods reach the name service and the mirror
    (pod,) = release.pods(ada.namespace(), kind="ModelService", model="chat", **{"llmos.ai/part": "serve"})
    assert pod["spec"]["containers"][0]["image"] == "llmos-engine-cpu:0.1.0-test"
    policies = release.cluster.get("networkpolicies", "-n", ada.namespace(), "-l", "llmos.ai/name=chat")["items"]
    targets = [peer for policy in policies for rule in policy["spec"]["egress"] for peer in rule["to"]]
    assert targets
    assert not [peer for peer in targets if "ipBlock" in peer]


def test_what_is_not_in_the_bundle_is_said_not_to_be(ada):
    ada.modelservices.create({"metadata": {"name": "other"}, "spec": {"model": "hf://ada/other-GGUF"}})

    def status() -> str:
        text = json.dumps(ada.modelservices.get("other").status.model_dump(mode="json"))
        return text if "doesn't have" in text else ""

    text = wait_for(status, "the reason in the status", timeout=120, pause=1.0)
    assert "The mirror of models at llmos-mirror" in text
    assert "doesn't have hf://ada/other-GGUF either" in text
    ada.modelservices.delete("other")


def test_a_second_run_copies_nothing_and_changes_nothing(release, bundle):
    before = {pod["metadata"]["uid"] for pod in release.cluster.get("pods", "-n", release.namespace)["items"]}
    secret = release.secret()
    out = install(release.cluster, bundle, "check", "chart", "models", "-n", release.namespace)
    assert "model file" not in out
    assert release.secret() == secret
    pods = release.cluster.get("pods", "-n", release.namespace)["items"]
    jobs = {pod["metadata"]["uid"] for pod in pods if "batch.kubernetes.io/job-name" in pod["metadata"]["labels"]}
    assert {pod["metadata"]["uid"] for pod in pods} - jobs == before - jobs


def test_a_damaged_copy_is_not_installed(release, bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("images"))
    sums = [line for line in (copy / "SHA256SUMS").read_text().splitlines() if "images/" not in line]
    (copy / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    (copy / "values.yaml").write_text("images: {tag: other}\n")
    done = subprocess.run(
        ["sh", copy / "install.sh", "-n", release.namespace],
        env=release.cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "values.yaml: FAILED" in done.stdout
    assert "copy the bundle again" in done.stderr
