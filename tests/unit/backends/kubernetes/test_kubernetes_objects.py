"""The objects of workloads, compared with files that were reviewed by people."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from llmos_hub.backends.kubernetes.names import ref_of
from llmos_hub.backends.kubernetes.objects import make_objects, make_pvc, path_of_object
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.names import KEY_APPLIED, METADATA_SERVICES
from llmos_hub.workload import Mount, PodOptions, Probe, ProcessTemplate, Role, Workload, WorkloadRef

METADATA_V4 = [cidr for cidr in METADATA_SERVICES if ":" not in cidr]
GOLDEN = Path(__file__).parent / "golden"
MIB = 2**20
PYTHON = "/opt/llmos/bin/python"
REF = WorkloadRef("ModelService", "user-ada", "chat", "b7ce21ba-0000-4000-8000-000000000001")
HEALTH = Probe("/health")

FETCH = ProcessTemplate(
    (PYTHON, "-P", "-m", "llmos_hub.sources.fetch", "demo://tiny", "/models/shared"),
    env={"PYTHONUNBUFFERED": "1"},
    secret_env={"HF_TOKEN": "hf_secret"},
    grace=3.0,
    pod=PodOptions(image="fetch"),
)
LLAMACPP = ProcessTemplate(
    (
        PYTHON,
        "-I",
        "-m",
        "llmos_hub.engines.llamacpp_server",
        "--socket",
        "{socket}",
        "--model",
        "/models/shared/a.gguf",
    ),
    env={"PRICE": "$5 for $(nothing)"},
    secret_env={"PROVIDER_KEY": "sk-secret"},
    readiness=Probe("/health", period=1.0, timeout=5.0, failures=5),
    liveness=Probe("/health", period=10.0, timeout=10.0, failures=12),
    startup_timeout=64.0,
    memory_limit=812 * MIB,
    memory_request=300 * MIB + 1,
    cpus=1.5,
    init=(FETCH,),
    pod=PodOptions(
        image="llamacpp",
        overrides={
            "metadata": {"labels": {"example.org/team": "vision"}},
            "spec": {
                "nodeSelector": {"disk": "fast"},
                "containers": [{"name": "engine", "env": [{"name": "EXTRA", "value": "1"}]}],
            },
        },
    ),
)
VLLM = ProcessTemplate(
    ("vllm", "serve", "/models/shared/big", "--port", "{port}"),
    readiness=HEALTH,
    startup_timeout=1800.0,
    memory_limit=64 * 1024 * MIB,
    memory_request=48 * 1024 * MIB,
    pod=PodOptions(image="vllm", gpus=2, gpu_type="NVIDIA-A100-SXM4-80GB"),
)
LEADER = ProcessTemplate(
    ("sh", "-c", "ray start --head && vllm serve /models/shared/big --port {port} --pipeline-parallel-size 2"),
    readiness=HEALTH,
    startup_timeout=1800.0,
    pod=PodOptions(image="vllm", gpus=8, hosts=2),
)
WORKER = ProcessTemplate(
    ("sh", "-c", "ray start --block --address=$LWS_LEADER_ADDRESS:6379"),
    env={"RANK": "{index}"},
    pod=PodOptions(image="vllm", gpus=8),
)
HEAD = ProcessTemplate(
    ("ray", "start", "--head", "--port={port.gcs}", "--dashboard-port={port}", "--storage={mount.data}"),
    env={"RAY_NODE": "{head.address}"},
    readiness=HEALTH,
    ports={"gcs": 6379, "client": 10001},
    mounts={"data": Mount("results", "/data"), "code": Mount("code", "/code", read_only=True)},
    user="2000",
)
FOLLOWER = ProcessTemplate(
    ("ray", "start", "--block", "--address={head.address}:{head.port.gcs}"), env={"PRICE": "$5"}, user="ada"
)
SETTINGS = KubernetesSettings.model_validate(
    {
        "registry": "registry.example.org/llmos",
        "imagePullSecrets": ["pull"],
        "priorityClass": "llmos-engine",
        "gpuRuntimeClass": "nvidia",
        "images": {
            "": {"image": "llmos-hub:0.1.0"},
            "llamacpp": {"image": "llmos-engine-cpu:0.1.0"},
            "vllm": {"image": "docker.io/vllm/vllm-openai:v0.33.0", "readOnlyRootFilesystem": False},
        },
        "models": {"storageClass": "shared"},
    }
)

CASES = {
    "llamacpp": (Workload(REF, (Role("replica", 2, LLAMACPP),), {"llmos.ai/replicas": "2"}), SETTINGS),
    "gpu": (Workload(REF, (Role("replica", 1, VLLM),)), SETTINGS),
    "several-hosts": (Workload(REF, (Role("leader", 1, LEADER), Role("worker", 1, WORKER))), SETTINGS),
    "peers": (
        Workload(REF, (Role("head", 1, HEAD), Role("worker", 2, FOLLOWER, after=("head",)))),
        KubernetesSettings(),
    ),
    "fetch": (
        Workload(
            replace(REF, part="fetch"),
            (Role("fetch", 1, replace(FETCH, completes=True)),),
            {"llmos.ai/attempt": "1", "llmos.ai/source": "0123456789ab"},
        ),
        SETTINGS,
    ),
    "plain": (
        Workload(REF, (Role("replica", 0, replace(LLAMACPP, init=(), secret_env={}, pod=PodOptions("llamacpp"))),)),
        KubernetesSettings(owned=False, network_policies=False),
    ),
    "one-machine": (
        Workload(REF, (Role("replica", 1, replace(LLAMACPP, secret_env={}, init=(), pod=PodOptions("llamacpp"))),)),
        KubernetesSettings.model_validate(
            {"models": {"storageClass": "disk", "accessMode": "ReadWriteOnce"}, "egress": {"enabled": False}}
        ),
    ),
}


def objects(case: str) -> list[dict]:
    workload, settings = CASES[case]
    made = make_objects(workload, settings)
    if settings.models.storage_class is not None:
        made.append(make_pvc(workload.ref.namespace, settings))
    return made


@pytest.mark.parametrize("case", CASES)
def test_objects_are_as_written_down(case: str) -> None:
    expected = list(yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()))
    made = objects(case)
    assert [o["kind"] for o in made] == [o["kind"] for o in expected]
    for obj, wanted in zip(made, expected, strict=True):
        assert obj == wanted, obj["kind"]


@pytest.mark.parametrize("case", CASES)
def test_secrets_are_in_the_secret_alone(case: str) -> None:
    for obj in objects(case):
        text = json.dumps(obj)
        assert "hf_secret" not in text
        assert "sk-secret" not in text
        if obj["kind"] != "Secret":
            assert "c2stc2VjcmV0" not in text, "base64 hides nothing"


@pytest.mark.parametrize("case", CASES)
def test_every_object_tells_its_workload(case: str) -> None:
    workload, settings = CASES[case]
    for obj in make_objects(workload, settings):
        assert ref_of(obj["metadata"]) == workload.ref
        assert obj["metadata"]["annotations"][KEY_APPLIED]
        assert path_of_object(obj).endswith(
            f"/namespaces/user-ada/{path_of_object(obj).split('/')[-2]}/{obj['metadata']['name']}"
        )
        assert len(obj["metadata"]["name"]) <= 52, "pods' names and labels grow from it"


def test_scaling_changes_no_pod() -> None:
    workload, settings = CASES["llamacpp"]
    templates = [
        next(
            o
            for o in make_objects(replace(workload, roles=(replace(workload.roles[0], count=count),)), settings)
            if o["kind"] == "Deployment"
        )["spec"]["template"]
        for count in (0, 1, 5)
    ]
    assert templates[0] == templates[1] == templates[2]


def test_another_template_is_another_job_and_the_same_deployment() -> None:
    for case, same in (("fetch", False), ("llamacpp", True)):
        workload, settings = CASES[case]
        role = workload.roles[0]
        other = replace(role, template=replace(role.template, env={"OTHER": "1"}))
        names = [
            make_objects(replace(workload, roles=(each,)), settings)[-1]["metadata"]["name"] for each in (role, other)
        ]
        assert (names[0] == names[1]) is same


def test_our_own_interpreter_is_that_of_the_image() -> None:
    template = ProcessTemplate((sys.executable, "-c", "pass"))
    deployment = make_objects(Workload(REF, (Role("replica", 1, template),)), KubernetesSettings())[-1]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["command"] == [PYTHON]


def test_what_a_pod_must_be_holds_whatever_is_merged_into_it() -> None:
    overrides = {
        "metadata": {"$patch": "replace"},
        "spec": {
            "securityContext": {"$patch": "replace"},
            "automountServiceAccountToken": None,
            "priorityClassName": None,
            "hostNetwork": True,
            "serviceAccountName": "admin",
            "containers": [
                {"name": "engine", "securityContext": {"$patch": "replace", "privileged": True, "runAsUser": 5}},
                {"name": "more", "image": "busybox"},
            ],
            "initContainers": [
                {"name": "fetch", "command": ["sh", "-c", "env >/models/x"], "args": []},
                {"name": "own", "image": "busybox"},
            ],
        },
    }
    template = replace(LLAMACPP, pod=PodOptions("llamacpp", overrides=overrides))
    workload = Workload(REF, (Role("replica", 1, template),))
    pod = make_objects(workload, SETTINGS)[-1]["spec"]["template"]
    spec = pod["spec"]
    assert pod["metadata"]["labels"]["llmos.ai/workload"] == REF.id
    assert spec["automountServiceAccountToken"] is False
    assert spec["priorityClassName"] == "llmos-engine"
    assert "hostNetwork" not in spec
    assert "serviceAccountName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in container["securityContext"]
    engine = next(c for c in spec["containers"] if c["name"] == "engine")
    assert engine["securityContext"]["runAsUser"] == 5
    # the container with the mirror's password runs only our command
    plain = make_objects(Workload(REF, (Role("replica", 1, LLAMACPP),)), SETTINGS)[-1]["spec"]["template"]["spec"]
    inits = {container["name"]: container for container in spec["initContainers"]}
    assert {**inits["fetch"], "volumeMounts": []} == {**plain["initContainers"][0], "volumeMounts": []}
    assert "own" in inits


def test_fetch_shares_neither_its_home_nor_its_names_with_what_a_resource_adds() -> None:
    """A file in its home or a redirected host name of a proxy would give its passwords to a sidecar."""
    spy = {
        "image": "spy",
        "restartPolicy": "Always",
        "volumeMounts": [{"name": "scratch", "mountPath": "/a"}, {"name": "fetch-scratch", "mountPath": "/b"}],
    }
    overrides = {
        "spec": {
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["proxy"]}],
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "dnsPolicy": "None",
            "tolerations": [{"operator": "Exists"}],
            "runtimeClassName": "unconfined",
            "volumes": [{"name": "fetch-scratch", "persistentVolumeClaim": {"claimName": "mine"}}],
            "containers": [{"name": "side", **spy}],
            "initContainers": [{"name": "first", **spy}],
        }
    }
    template = replace(LLAMACPP, pod=PodOptions("llamacpp", overrides=overrides))
    pods = [
        make_objects(Workload(REF, (Role("replica", 1, one),)), SETTINGS)[-1]["spec"]["template"]["spec"]
        for one in (LLAMACPP, template)
    ]
    plain, spec = pods
    assert not {"hostAliases", "dnsConfig", "dnsPolicy", "runtimeClassName"} & spec.keys()
    assert spec["tolerations"] == plain["tolerations"]
    fetch = next(container for container in spec["initContainers"] if container["name"] == "fetch")
    home = next(mount["name"] for mount in fetch["volumeMounts"] if mount["mountPath"] == "/tmp")
    assert [volume for volume in spec["volumes"] if volume["name"] == home] == [{"name": home, "emptyDir": {}}]
    others = [c for c in (*spec["containers"], *spec["initContainers"]) if c is not fetch]
    assert home not in {mount["name"] for container in others for mount in container.get("volumeMounts", ())}


@pytest.mark.parametrize(
    "asked",
    [{"pool": "other", "disk": "fast"}, {"pool": None, "disk": "fast"}, {"$patch": "replace", "disk": "fast"}],
)
def test_a_resource_narrows_the_operators_nodes_down_and_does_not_leave_them(asked: dict[str, str | None]) -> None:
    settings = SETTINGS.model_copy(update={"node_selector": {"pool": "models"}})
    template = replace(LLAMACPP, pod=PodOptions("llamacpp", overrides={"spec": {"nodeSelector": asked}}))
    spec = make_objects(Workload(REF, (Role("replica", 1, template),)), settings)[-1]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"pool": "models", "disk": "fast"}


def test_ranges_are_cut_out_of_those_they_lie_in_and_the_metadata_service_always() -> None:
    egress = {"cidrs": ["10.0.0.0/8", "0.0.0.0/0"], "exceptCidrs": ["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]}
    workload = Workload(REF, (Role("replica", 1, VLLM),))
    policy = make_objects(workload, KubernetesSettings.model_validate({"egress": egress}))[0]
    assert policy["spec"]["egress"][1]["to"] == [
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.1.0.0/16", "10.0.0.0/8", *METADATA_V4]}},
    ]
