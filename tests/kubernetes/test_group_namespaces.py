"""A group's namespace on a real cluster: its members', and only for as long as they are members."""

from __future__ import annotations

import uuid
from pathlib import Path

from llmos.names import group_namespace
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.stores.base import Store
from tests.support.cluster import Cluster
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.group_namespaces import check_group_namespace, group_platform

__all__ = ["fake_hub"]


async def test_members_have_it_made_and_share_it_and_nobody_else(
    cluster: Cluster, api: KubernetesAPI, store: Store, fake_hub: FakeHub, tmp_path: Path
) -> None:
    release = cluster.namespace("groups")
    group = f"vision-{uuid.uuid4().hex[:8]}"
    namespace = group_namespace(group)
    try:
        async with group_platform(api, store, fake_hub, tmp_path, group=group, release=release) as platform:
            await check_group_namespace(platform)
        labels = cluster.get("namespace", namespace)["metadata"]["labels"]
        assert (labels["llmos.ai/owner-kind"], labels["app.kubernetes.io/instance"]) == ("group", release)
        policies = {item["metadata"]["name"] for item in cluster.get("networkpolicies", "-n", namespace)["items"]}
        assert "llmos-default-deny" in policies
    finally:
        cluster.attempt("kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
