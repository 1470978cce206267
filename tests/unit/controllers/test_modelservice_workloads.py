"""What workloads a ModelService is made into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.errors import Invalid
from llmos.resources import ModelService
from llmos_hub.controllers.modelservice_workloads import (
    cache_directory,
    fetch_environment,
    make_fetch,
    make_serve,
    wanted_replicas,
)
from llmos_hub.engines.base import Plan
from llmos_hub.names import DataDir
from llmos_hub.workload import ProcessTemplate

GI = 2**30


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
        made = make_fetch(service(**spec), Path("/cache"), attempt=attempt, environment={}, secrets=secrets)
        assert made.ref.part == "fetch"
        assert made.roles[0].template.completes
        return made.roles[0].template.hash

    assert template() == template()
    assert len({template(), template(attempt=2), template(token="hf_b"), template(model="demo://smollm2")}) == 4


def test_what_a_credential_opened_is_kept_apart() -> None:
    data = DataDir(Path("/data"))
    assert cache_directory(service(), data) == Path("/data/models/shared")
    assert cache_directory(service(credentialRef="hf"), data) == Path("/data/models/private/user-ada")


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


def test_paused_or_scaled_to_zero_nothing_is_wanted() -> None:
    assert [wanted_replicas(service(**s)) for s in ({}, {"replicas": 3}, {"replicas": 0}, {"paused": True})] == [
        1,
        3,
        0,
        0,
    ]


def test_scaling_is_no_rollout() -> None:
    one, three = (make_serve(service(replicas=n), plan(), {}).roles[0] for n in (1, 3))
    assert one.template.hash == three.template.hash
    assert (one.count, three.count) == (1, 3)


def test_the_platforms_own_variables_are_refused() -> None:
    with pytest.raises(Invalid, match="LLMOS_INSTANCE can't be set"):
        make_serve(service(), plan(env={"LLMOS_INSTANCE": "x"}), {})
    with pytest.raises(Invalid, match=r"spec.credentialRef: LLMOS_REPLICA"):
        make_serve(service(), plan(), {"LLMOS_REPLICA": "x"})
