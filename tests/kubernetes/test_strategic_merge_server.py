"""Our strategic merge gives what the API server's gives."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from llmos_hub.backends.kubernetes.strategic_merge import POD_TEMPLATE, Schema, strategic_merge
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from tests.support.pod_templates import ORIGINAL, patches

STRATEGIC = "application/strategic-merge-patch+json"
DRY = {"dryRun": "All"}


async def compared(api: KubernetesAPI, path: str, stored: dict[str, Any], patch: dict[str, Any]) -> bool:
    """Have both merge, and the server fill in the defaults of both; whether the server can."""
    params = {"params": DRY}
    try:
        body = {"template": patch}
        theirs = await api.request("PATCH", f"{path}/original", body=body, content_type=STRATEGIC, **params)
    except APIError:
        return False  # it leaves an order in an entry that is new, and then stumbles over it
    ours = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ours"}}
    ours["template"] = strategic_merge(stored, patch)
    assert (await api.request("POST", path, body=ours, **params))["template"] == theirs["template"]
    return True


async def test_the_servers_result_is_ours(api, cluster, namespace):
    path = path_of("v1", "podtemplates", namespace)
    body = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "original"}, "template": ORIGINAL}
    stored = (await api.request("POST", path, body=body))["template"]
    loop = asyncio.get_running_loop()
    accepted = 0

    @settings(
        max_examples=150,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(patches)
    def check(patch: dict[str, Any]) -> None:
        nonlocal accepted
        accepted += asyncio.run_coroutine_threadsafe(compared(api, path, stored, patch), loop).result(timeout=30)

    await asyncio.to_thread(check)
    assert accepted > 30


async def test_the_lists_that_are_merged_are_those_the_server_merges(api):
    described = await api.request("GET", "/openapi/v2", timeout=60)
    definitions = described["definitions"]

    def schema(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """Name, key and fields of all lists below that are merged."""
        fields: dict[str, Any] = {}
        for field, about in definitions[name].get("properties", {}).items():
            target = about.get("$ref") or (about.get("items") or {}).get("$ref", "")
            target = target.removeprefix("#/definitions/")
            below = schema(target, (*seen, name)) if target and target not in seen else {}
            strategy = about.get("x-kubernetes-patch-strategy", "")
            key = about.get("x-kubernetes-patch-merge-key", "")
            merged = about.get("type") == "array" and "merge" in strategy
            if merged or below:
                fields[field] = (key if merged else "", merged and not key, below)
        return fields

    def ours(known: Schema) -> dict[str, Any]:
        return {name: (each.key, each.merged, ours(each)) for name, each in known.fields.items()}

    assert ours(POD_TEMPLATE) == schema("io.k8s.api.core.v1.PodTemplateSpec")
