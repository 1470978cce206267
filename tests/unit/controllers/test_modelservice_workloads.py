"""The workloads of a ModelService."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.errors import Invalid
from llmos.resources import ModelService
from llmos_hub.controllers.layout import Layout
from llmos_hub.controllers.modelservice.workloads import (
    cache_directory,
    fetch_environment,
    make_fetch,
    make_serve,
)
from llmos_hub.engines.base import Plan
from llmos_hub.names import DataDir
from llmos_hub.workload import ProcessTemplate

GI = 2**30
HERE = Layout(DataDir(Path("/data")).models, per_namespace=False)


def service(**spec: Any) -> ModelService:
    meta = {"name": "chat", "namespace": "user-ada", "uid": "u-1", "generation": 3}
    return ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": {"model": "demo://tiny", **spec}})


def plan(estimate: int | None = GI, **template: Any) -> Plan:
    return Plan(ProcessTemplate(("engine",), **template), "generate", "", estimate, "")


def test_a_download_gets_what_it_needs_of_the_environment_and_nothing_else() -> None:
    environ = {
        "HF_ENDPOINT": "https://mirror.example.org",
        "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "REQUESTS_CA_BUNDLE": "/etc/ssl/own.pem",
        "PIP_INDEX_URL": "https://index.example.org/simple",
        "UV_INDEX_URL": "https://index.example.org/simple",
        "HF_TOKEN": "the platform's own",
        "HF_HUB_TOKEN": "the platform's own",
        "LLMOS_REDIS_URL": "unix://:password@/s",
        "LLMOS_ENCRYPTION_KEY": "key",
        "JUPYTERHUB_API_TOKEN": "token",
        "PYTHONPATH": "/elsewhere",
    }
    assert sorted(fetch_environment(environ)) == [
        "HF_ENDPOINT",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "NO_PROXY",
        "PIP_INDEX_URL",
        "REQUESTS_CA_BUNDLE",
        "UV_INDEX_URL",
        "https_proxy",
    ]


def test_a_download_runs_again_for_another_try_generation_or_token_only() -> None:
    def template(attempt: int = 1, token: str = "hf_a", **spec: Any) -> str:
        secrets = {"HF_TOKEN": token, "OTHER": token}
        made = make_fetch(service(**spec), Path("/cache"), HERE, attempt=attempt, environment={}, secrets=secrets)
        assert made.ref.part == "fetch"
        assert made.roles[0].template.completes
        return made.roles[0].template.hash

    assert template() == template()
    assert len({template(), template(attempt=2), template(token="hf_b"), template(model="demo://smollm2")}) == 4


SOCKET = ["server", "--listen", "{socket}"]


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"args": SOCKET}, "spec.args"),
        ({"args": ["server"], "env": {"LISTEN": "unix:{socket}"}}, "spec.env.LISTEN"),
    ],
)
def test_a_command_that_listens_on_a_socket_is_refused_in_a_cluster(spec: dict[str, Any], place: str) -> None:
    wanted = service(engine="custom", **spec)
    pods = Layout(Path("/models"), per_namespace=True)
    with pytest.raises(Invalid, match=r"a unix socket, which other pods can't reach\. In a cluster") as caught:
        make_serve(wanted, plan(), {}, layout=pods, engine="custom")
    assert [cause.field for cause in caught.value.causes] == [place]
    assert make_serve(wanted, plan(), {}, layout=HERE, engine="custom").roles, "on a workstation it is fine"
    ported = service(engine="custom", args=["server", "--port", "{port}"])
    assert make_serve(ported, plan(), {}, layout=pods, engine="custom").roles
    # llama.cpp's own program knows both, and gets an address there
    assert make_serve(service(args=SOCKET), plan(), {}, layout=pods, engine="llamacpp").roles


def test_a_placeholder_that_names_nothing_is_refused() -> None:
    wanted = plan(env={"PEER": "{head.address}"})
    with pytest.raises(Invalid, match=r"spec\.args or spec\.env: chat, role replica, env\.PEER: .* none of the roles"):
        make_serve(service(), wanted, {}, layout=HERE)
    assert make_serve(service(), plan(env={"TEMPLATE": "{{head.address}} {other}"}), {}, layout=HERE).roles


def test_what_a_credential_opened_is_kept_apart() -> None:
    assert cache_directory(service(), HERE) == Path("/data/models/shared")
    assert cache_directory(service(credentialRef="hf"), HERE) == Path("/data/models/private/user-ada")


@pytest.mark.parametrize(
    ("spec", "made", "limit", "request_"),
    [
        ({}, plan(), 2 * GI, GI),
        ({"resources": {"memory": "4Gi"}}, plan(), 4 * GI, GI),
        ({"resources": {"memory": "512Mi"}}, plan(), GI // 2, GI // 2),
        ({}, plan(None), None, None),
        ({"resources": {"memory": "4Gi"}}, plan(None), 4 * GI, None),
        ({}, plan(memory_limit=3 * GI, memory_request=2 * GI), 3 * GI, 2 * GI),
    ],
)
def test_memory_is_what_the_spec_or_twice_what_the_engine_says(
    spec: dict[str, Any], made: Plan, limit: int | None, request_: int | None
) -> None:
    template = make_serve(service(**spec), made, {}).roles[0].template
    assert (template.memory_limit, template.memory_request) == (limit, request_)


def test_in_a_pod_a_replica_fetches_what_its_volume_lacks_and_runs_from_its_engines_image() -> None:
    pods = Layout(Path("/models"), per_namespace=True)
    assert cache_directory(service(credentialRef="hf"), pods) == Path("/models"), "each namespace has its own"
    secrets = {"HF_TOKEN": "hf_a", "API_KEY": "k"}
    environment = {"HF_ENDPOINT": "https://mirror.example.org"}
    wanted = service(
        credentialRef="hf",
        resources={"gpus": 2, "gpuType": "L4"},
        template={"spec": {"nodeSelector": {"disk": "fast"}}},
    )
    made = make_serve(wanted, plan(), secrets, layout=pods, engine="llamacpp", environment=environment)
    template = made.roles[0].template
    assert (template.pod.image, template.pod.gpus, template.pod.gpu_type) == ("llamacpp", 2, "L4")
    assert template.pod.overrides == {"spec": {"nodeSelector": {"disk": "fast"}}}
    assert template.secret_env == {"API_KEY": "k"}, "the engine needs no token of the model's source"
    (fetching,) = template.init
    assert fetching.argv[1:] == ("-P", "-m", "llmos_hub.sources.fetch", "demo://tiny", "/models")
    assert (fetching.secret_env, fetching.env["HF_ENDPOINT"]) == ({"HF_TOKEN": "hf_a"}, "https://mirror.example.org")
    assert (fetching.pod.image, fetching.completes) == ("fetch", False)

    later = wanted.model_copy(update={"metadata": wanted.metadata.model_copy(update={"generation": 9})})
    again = make_serve(later, plan(), secrets, layout=pods, engine="llamacpp", environment=environment)
    assert again.roles[0].template.hash == template.hash, "another generation alone is no rollout"
    job = make_fetch(wanted, Path("/models"), pods, attempt=1, environment=environment, secrets=secrets)
    assert job.roles[0].template.argv == fetching.argv
    own = make_serve(
        service(model=None, engine="custom", args=["x", "{port}"]), plan(), {}, layout=pods, engine="custom"
    )
    assert own.roles[0].template.init == ()


def test_on_this_machine_nothing_of_that_is_there() -> None:
    here = make_serve(service(), plan(), {}, layout=HERE, engine="llamacpp").roles[0].template
    assert here == make_serve(service(), plan(), {}).roles[0].template
    assert here.init == ()


def test_paused_or_scaled_to_zero_nothing_is_wanted() -> None:
    assert [service(**s).wanted_replicas for s in ({}, {"replicas": 3}, {"replicas": 0}, {"paused": True})] == [
        1,
        3,
        0,
        0,
    ]


def test_what_the_autoscaler_wants_comes_before_the_spec() -> None:
    for desired, paused, wanted in ((None, False, 3), (0, False, 0), (5, False, 5), (5, True, 0)):
        asked = service(replicas=3, paused=paused)
        asked = asked.model_copy(update={"status": asked.status.model_copy(update={"desired_replicas": desired})})
        assert asked.wanted_replicas == wanted
        assert make_serve(asked, plan(), {}).roles[0].count == wanted


def test_scaling_is_no_rollout() -> None:
    one, three = (make_serve(service(replicas=n), plan(), {}).roles[0] for n in (1, 3))
    assert one.template.hash == three.template.hash
    assert (one.count, three.count) == (1, 3)


def test_the_platforms_own_variables_are_refused() -> None:
    with pytest.raises(Invalid, match="LLMOS_INSTANCE can't be set"):
        make_serve(service(), plan(env={"LLMOS_INSTANCE": "x"}), {})
    with pytest.raises(Invalid, match=r"spec.credentialRef: LLMOS_REPLICA"):
        make_serve(service(), plan(), {"LLMOS_REPLICA": "x"})


def test_a_command_of_ones_own_finds_its_key_in_its_environment_alone() -> None:
    env = {"MY_KEY": "{api_key}", "PLACE": "{dir}"}
    wanted = service(engine="custom", model=None, args=["my-server", "{port}"], env=env)
    template = make_serve(wanted, plan(env=env), {"TOKEN": "t"}, key="k3y").roles[0].template
    assert template.env == {"PLACE": "{dir}"}
    assert template.secret_env == {"LLMOS_ENGINE_KEY": "k3y", "VLLM_API_KEY": "k3y", "MY_KEY": "k3y", "TOKEN": "t"}
    own = make_serve(wanted, plan(), {"VLLM_API_KEY": "own"}, key="k3y").roles[0].template
    assert own.secret_env["VLLM_API_KEY"] == "own"
    in_cluster = make_serve(wanted, plan(env=env), {}).roles[0].template
    assert in_cluster.secret_env == {"MY_KEY": ""}, "network policies keep others away there"
    assert make_serve(service(), plan(), {}, key="k3y").roles[0].template.secret_env == {}, "llama.cpp has a socket"
