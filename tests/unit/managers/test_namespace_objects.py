"""The objects of a namespace, as the API server gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmos.errors import UsageError
from llmos_hub.managers.namespace_objects import (
    contents_hash,
    make_contents,
    make_limit_range,
    make_namespace,
    make_network_policies,
    make_pull_secret,
    make_resource_quota,
    make_role_bindings,
    make_service_account,
    object_path,
)
from llmos_hub.managers.namespace_options import Binding, Limits, NamespaceOptions, Network
from llmos_hub.policy import NamespaceOwner

ADA = NamespaceOwner("user", "Ada.L@example.org", "2026-01-02T03:04:05.000000Z")
NS = "user-ada-l"
OPTIONS = NamespaceOptions(instance="prod")
LABELS = {
    "app.kubernetes.io/name": "llmos",
    "app.kubernetes.io/instance": "prod",
    "app.kubernetes.io/managed-by": "llmos",
    "app.kubernetes.io/component": "namespace",
}


def meta(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NS, "labels": LABELS}


def peer(namespace: str, **labels: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {key.replace("_", "/"): value for key, value in labels.items()}},
    }


def part(component: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "llmos"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": component}},
    }


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def test_the_namespace() -> None:
    assert make_namespace(NS, ADA, OPTIONS.model_copy(update={"labels": {"team": "vision"}})) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NS,
            "labels": {
                "team": "vision",
                **LABELS,
                "llmos.ai/owner-kind": "user",
                "pod-security.kubernetes.io/enforce": "baseline",
                "pod-security.kubernetes.io/warn": "baseline",
            },
            "annotations": {
                "llmos.ai/owner": "Ada.L@example.org",
                "llmos.ai/owner-created": "2026-01-02T03:04:05.000000Z",
            },
        },
    }
    plain = make_namespace(
        "group-vision", NamespaceOwner("group", "vision"), OPTIONS.model_copy(update={"pod_security": ""})
    )
    assert plain["metadata"]["labels"] == {**LABELS, "llmos.ai/owner-kind": "group"}
    assert plain["metadata"]["annotations"] == {"llmos.ai/owner": "vision"}


def test_quota() -> None:
    options = OPTIONS.model_copy(
        update={"quota": {"requests.cpu": "8"}, "group_quota": {"pods": "5", "count/secrets": "9"}}
    )
    kinds = ("modelservices", "volumes", "snapshots")
    counts = {**{f"count/{kind}.llmos.ai": "100" for kind in kinds}, "count/secrets": "500"}
    assert make_resource_quota(NS, ADA, options) == {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": meta("llmos"),
        "spec": {"hard": {**counts, "requests.cpu": "8"}},
    }
    group = make_resource_quota(NS, NamespaceOwner("group", "vision"), options)
    assert group is not None
    assert group["spec"]["hard"] == {**counts, "pods": "5", "count/secrets": "9"}
    assert make_resource_quota("public", NamespaceOwner("platform", "public"), options) is None
    assert make_resource_quota(NS, ADA, OPTIONS.model_copy(update={"quota": {}, "counts": {}})) is None


def test_limit_range() -> None:
    limits = Limits(default_request={"cpu": "50m"}, default={"memory": "2Gi"}, max={"memory": "64Gi"})
    assert make_limit_range(NS, OPTIONS.model_copy(update={"limits": limits})) == {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": meta("llmos"),
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "defaultRequest": {"cpu": "50m"},
                    "default": {"memory": "2Gi"},
                    "max": {"memory": "64Gi"},
                }
            ]
        },
    }
    nothing = Limits(default_request={}, default={}, max={})
    assert make_limit_range(NS, OPTIONS.model_copy(update={"limits": nothing})) is None


def test_service_account_and_pull_secrets() -> None:
    options = OPTIONS.model_copy(update={"pull_secrets": ["registry"]})
    assert make_service_account(NS, options) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta("llmos"),
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": "registry"}],
    }
    original = {
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "e30="},
        "metadata": {"name": "registry", "namespace": "llmos", "uid": "1"},
    }
    assert make_pull_secret(NS, "registry", original, options) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta("registry"),
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "e30="},
    }


def test_role_bindings() -> None:
    bindings = [
        Binding(cluster_role="prod-hub-in-namespace", service_account="prod-hub"),
        Binding(cluster_role="view", service_account="hub", namespace="jupyter"),
    ]
    first, second = make_role_bindings(NS, "llmos", OPTIONS.model_copy(update={"bindings": bindings}))
    assert first == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta("llmos:prod-hub-in-namespace:prod-hub"),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "prod-hub-in-namespace",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "prod-hub", "namespace": "llmos"}],
    }
    assert second["subjects"] == [{"kind": "ServiceAccount", "name": "hub", "namespace": "jupyter"}]


def test_network_policies() -> None:
    policies = {obj["metadata"]["name"]: obj for obj in make_network_policies(NS, "llmos", OPTIONS)}
    assert {obj["apiVersion"] + obj["kind"] for obj in policies.values()} == {"networking.k8s.io/v1NetworkPolicy"}
    specs = {name: obj["spec"] for name, obj in policies.items()}
    assert specs == {
        "llmos-default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []},
        "llmos-names": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                        }
                    ],
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                },
                {
                    "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                },
            ],
        },
        "llmos-servers": {
            "podSelector": {"matchExpressions": [{"key": "llmos.ai/part", "operator": "DoesNotExist"}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [part("proxy"), part("hub")], "ports": tcp(8888)}],
            "egress": [
                {"to": [part("hub")], "ports": tcp(8081)},
                {"to": [part("proxy")], "ports": tcp(8000)},
                {"to": [part("api")], "ports": tcp(8080)},
                {"to": [part("gateway")], "ports": tcp(8080)},
            ],
        },
        "llmos-engines": {
            "podSelector": {"matchLabels": {"llmos.ai/part": "serve"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [part("gateway")], "ports": tcp(8080)}],
        },
        "llmos-outside": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [
                        {
                            "ipBlock": {
                                "cidr": "0.0.0.0/0",
                                "except": [
                                    "10.0.0.0/8",
                                    "100.64.0.0/10",
                                    "100.100.100.200/32",
                                    "168.63.129.16/32",
                                    "169.254.0.0/16",
                                    "172.16.0.0/12",
                                    "192.0.0.192/32",
                                    "192.168.0.0/16",
                                ],
                            }
                        },
                        {
                            "ipBlock": {
                                "cidr": "::/0",
                                "except": ["fc00::/7", "fd00:ec2::/32", "fd20:ce::254/128", "fe80::/10"],
                            }
                        },
                    ]
                }
            ],
        },
    }


def test_the_metadata_service_stays_out_of_reach_whatever_is_set() -> None:
    net = Network(cluster_cidrs=[])
    (outside,) = make_network_policies(NS, "llmos", OPTIONS.model_copy(update={"network": net}))[-1:]
    blocks = [rule["ipBlock"] for rule in outside["spec"]["egress"][0]["to"]]
    assert blocks == [
        {
            "cidr": "0.0.0.0/0",
            "except": ["100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32"],
        },
        {"cidr": "::/0", "except": ["fd00:ec2::/32", "fd20:ce::254/128"]},
    ]
    closed = make_network_policies(NS, "llmos", OPTIONS.model_copy(update={"network": Network(internet=False)}))
    assert "llmos-outside" not in {obj["metadata"]["name"] for obj in closed}


def test_all_of_it_restrictions_first() -> None:
    options = OPTIONS.model_copy(update={"bindings": [Binding(cluster_role="r", service_account="s")]})
    made = make_contents(NS, ADA, "llmos", options, {"registry": {"type": "Opaque"}})
    assert [obj["kind"] for obj in made] == [
        *["NetworkPolicy"] * 5, "ResourceQuota", "LimitRange", "ServiceAccount", "RoleBinding", "Secret",
    ]  # fmt: skip
    assert all(obj["metadata"]["namespace"] == NS and obj["metadata"]["labels"] == LABELS for obj in made)
    assert contents_hash(made) == contents_hash(
        make_contents(NS, ADA, "llmos", options, {"registry": {"type": "Opaque"}})
    )
    assert contents_hash(made) != contents_hash(make_contents(NS, ADA, "llmos", OPTIONS))
    assert object_path(made[0]) == f"/apis/networking.k8s.io/v1/namespaces/{NS}/networkpolicies/llmos-default-deny"
    assert object_path(make_namespace(NS, ADA, OPTIONS)) == f"/api/v1/namespaces/{NS}"


def test_settings_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "namespaces.yaml"
    path.write_text(yaml.safe_dump({"instance": "prod", "quota": {"pods": "3"}, "network": {"internet": False}}))
    options = NamespaceOptions.from_environment({"LLMOS_NAMESPACE_SETTINGS": str(path)})
    assert (options.instance, options.quota, options.network.internet) == ("prod", {"pods": "3"}, False)
    assert NamespaceOptions.from_environment({}) == NamespaceOptions()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("quotas: {}", 'quotas: there is no such field. Did you mean "quota"?'),
        ("network: {clusterCidrs: [everything]}", "network.clusterCidrs"),
        ("podSecurity: lax", "podSecurity"),
        ("[1, 2", "can't be read"),
    ],
)
def test_wrong_settings_are_said_field_by_field(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "namespaces.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        NamespaceOptions.from_environment({"LLMOS_NAMESPACE_SETTINGS": str(path)})
    assert said in caught.value.message
    assert caught.value.message.startswith("LLMOS_NAMESPACE_SETTINGS: ")
