"""The objects of a person's or a group's namespace in a cluster: pure functions from options to JSON.

One policy denies everything (https://kubernetes.io/docs/concepts/services-networking/network-policies/), then each
other one allows one kind of traffic; policies are additive. Empty lists are included, so that a rule that
somebody adds counts as a change to our object, and is removed again.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmos.names import (
    KEY_INSTANCE,
    KEY_MANAGED_BY,
    KEY_OWNER,
    KEY_OWNER_CREATED,
    KEY_OWNER_KIND,
    KEY_PART,
    group_namespace,
    user_namespace,
)
from llmos_hub.kubernetes.connection import path_of
from llmos_hub.managers.namespace_options import NamespaceOptions, Peer
from llmos_hub.names import KEY_APP, KEY_COMPONENT, METADATA_SERVICES
from llmos_hub.policy import NamespaceOwner

__all__ = [
    "contents_hash",
    "make_contents",
    "make_limit_range",
    "make_namespace",
    "make_network_policies",
    "make_pull_secret",
    "make_resource_quota",
    "make_role_bindings",
    "make_service_account",
    "object_path",
    "owner_of",
]

Object = dict[str, Any]


_PLURALS: Final = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "ResourceQuota": "resourcequotas",
    "LimitRange": "limitranges",
    "NetworkPolicy": "networkpolicies",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
}
_NOT_OURS: Final = {"key": KEY_PART, "operator": "DoesNotExist"}
"""Selects pods other than the controllers' workloads: people's servers and the pods they start."""


def object_path(obj: Mapping[str, Any]) -> str:
    """Return the path of an object in the API."""
    meta = obj["metadata"]
    return path_of(obj["apiVersion"], _PLURALS[obj["kind"]], meta.get("namespace"), meta["name"])


def _labels(options: NamespaceOptions) -> dict[str, str]:
    return {
        KEY_APP: "llmos",
        KEY_INSTANCE: options.instance,
        KEY_MANAGED_BY: "llmos",
        KEY_COMPONENT: "namespace",
    }


def _object(api_version: str, kind: str, namespace: str, name: str, options: NamespaceOptions) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": _labels(options)},
    }


def owner_of(obj: Mapping[str, Any]) -> NamespaceOwner | None:
    """Return the owner of a namespace; None if it isn't one of ours, or the owner is unknown."""
    labels, annotations = obj["metadata"].get("labels") or {}, obj["metadata"].get("annotations") or {}
    kind, name = labels.get(KEY_OWNER_KIND), annotations.get(KEY_OWNER, "")
    if labels.get(KEY_MANAGED_BY) != "llmos" or kind not in ("user", "group", "platform"):
        return None
    if not name:  # the annotation was removed; a simple name can be derived from the namespace's
        name = obj["metadata"]["name"].removeprefix(f"{kind}-")
        made = user_namespace(name) if kind == "user" else group_namespace(name) if kind == "group" else name
        if made != obj["metadata"]["name"]:
            return None
    return NamespaceOwner(kind, name, annotations.get(KEY_OWNER_CREATED, ""))


def make_namespace(name: str, owner: NamespaceOwner, options: NamespaceOptions) -> Object:
    """Return the namespace itself."""
    security = {f"pod-security.kubernetes.io/{mode}": options.pod_security for mode in ("enforce", "warn")}
    annotations = {KEY_OWNER: owner.name}
    if owner.created:
        annotations[KEY_OWNER_CREATED] = owner.created
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                **options.labels,
                **_labels(options),
                KEY_OWNER_KIND: owner.kind,
                **(security if options.pod_security else {}),
            },
            "annotations": annotations,
        },
    }


def make_service_account(namespace: str, options: NamespaceOptions) -> Object:
    """Return the service account of people's pods: it has no rights, and its token is not mounted."""
    return {
        **_object("v1", "ServiceAccount", namespace, options.service_account, options),
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": name} for name in options.pull_secrets],
    }


def make_resource_quota(namespace: str, owner: NamespaceOwner, options: NamespaceOptions) -> Object | None:
    """Return the quota of the namespace; None if nothing is limited."""
    hard = options.quota
    if owner.kind == "group" and options.group_quota is not None:
        hard = options.group_quota
    hard = {**options.counts, **hard}
    if not hard or owner.kind == "platform":
        return None
    return {**_object("v1", "ResourceQuota", namespace, "llmos", options), "spec": {"hard": hard}}


def make_limit_range(namespace: str, options: NamespaceOptions) -> Object | None:
    """Return the defaults and maxima of containers; None if nothing is set."""
    limits = options.limits
    item = {"defaultRequest": limits.default_request, "default": limits.default, "max": limits.max}
    filled = {key: dict(amounts) for key, amounts in item.items() if amounts}
    if not filled:
        return None
    made = _object("v1", "LimitRange", namespace, "llmos", options)
    return {**made, "spec": {"limits": [{"type": "Container", **filled}]}}


def make_pull_secret(namespace: str, name: str, original: Mapping[str, Any], options: NamespaceOptions) -> Object:
    """Return a copy of a Secret with a registry's credentials."""
    made = _object("v1", "Secret", namespace, name, options)
    return {**made, "type": original["type"], "data": dict(original.get("data") or {})}


def make_role_bindings(namespace: str, release: str, options: NamespaceOptions) -> list[Object]:
    """Return the role bindings for the platform's own components in the namespace."""
    made = []
    for binding in options.bindings:
        account = {
            "kind": "ServiceAccount",
            "name": binding.service_account,
            "namespace": binding.namespace or release,
        }
        name = f"llmos:{binding.cluster_role}:{binding.service_account}"
        made.append(
            {
                **_object("rbac.authorization.k8s.io/v1", "RoleBinding", namespace, name, options),
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": binding.cluster_role,
                },
                "subjects": [account],
            }
        )
    return made


# Network policies


def make_network_policies(namespace: str, release: str, options: NamespaceOptions) -> list[Object]:
    """Return the policies: deny all, but allow DNS, the platform's components, and the internet if that is set.

    Parameters
    ----------
    namespace
        The namespace.
    release
        The release's own namespace.
    options
        The platform's settings for namespaces.
    """
    net = options.network
    every: Object = {}
    servers: Object = {"matchExpressions": [_NOT_OURS]}
    engines: Object = {"matchLabels": {KEY_PART: "serve"}}
    names = [{"to": [_peer(net.dns, release)], "ports": _ports(net.dns.ports, "UDP", "TCP")}]
    if net.dns_cidrs:
        blocks = [{"ipBlock": {"cidr": cidr}} for cidr in net.dns_cidrs]
        names.append({"to": blocks, "ports": _ports([53], "UDP", "TCP")})
    platform = [_to(peer, release) for peer in (net.hub, net.proxy, net.api, net.gateway)]
    visitors = [{"from": [_peer(peer, release) for peer in (net.proxy, net.hub)], "ports": _ports(net.server_ports)}]
    requests = [{"from": [_peer(net.gateway, release)], "ports": _ports(net.engine_ports)}]
    policies = {
        "llmos-default-deny": _policy(every, ingress=[], egress=[]),
        "llmos-names": _policy(every, egress=names),
        "llmos-servers": _policy(servers, ingress=visitors, egress=platform),
        "llmos-engines": _policy(engines, ingress=requests),
    }
    if net.internet:
        policies["llmos-outside"] = _policy(every, egress=[{"to": _outside(tuple(net.cluster_cidrs))}])
    return [
        {**_object("networking.k8s.io/v1", "NetworkPolicy", namespace, name, options), "spec": spec}
        for name, spec in policies.items()
    ]


def _policy(pods: Object, *, ingress: list[Object] | None = None, egress: list[Object] | None = None) -> Object:
    spec: Object = {"podSelector": pods, "policyTypes": []}
    for direction, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(direction)
            spec[direction.lower()] = rules
    return spec


def _peer(peer: Peer, release: str) -> Object:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace or release}},
        "podSelector": {"matchLabels": dict(peer.labels)},
    }


def _to(peer: Peer, release: str) -> Object:
    return {"to": [_peer(peer, release)], "ports": _ports(peer.ports)}


def _ports(ports: Iterable[int], *protocols: str) -> list[Object]:
    return [{"port": port, "protocol": protocol} for port in ports for protocol in (protocols or ("TCP",))]


def _outside(cluster: tuple[str, ...]) -> list[Object]:
    """Return all addresses except the cluster's and metadata services, which give out a node's credentials."""
    return [{"ipBlock": {"cidr": whole, "except": list(parts)}} for whole, parts in _find_outside(cluster)]


@functools.lru_cache
def _find_outside(cluster: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return ranges with their excluded parts; cached, since all namespaces have the same ones."""
    excluded = {ipaddress.ip_network(cidr, strict=False) for cidr in (*cluster, *METADATA_SERVICES)}
    blocks = []
    for everything in (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")):
        same = sorted((net for net in excluded if net.version == everything.version), key=lambda n: n.network_address)
        if everything in same:
            continue
        blocks.append((str(everything), tuple(str(net) for net in same)))
    return tuple(blocks)


# All contents


def make_contents(
    namespace: str,
    owner: NamespaceOwner,
    release: str,
    options: NamespaceOptions,
    pull_secrets: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Object]:
    """Return a namespace's contents in the order of their creation: restrictions first, then rights, then Secrets.

    Parameters
    ----------
    namespace, owner
        The namespace and its owner.
    release
        The release's own namespace.
    options
        The platform's settings for namespaces.
    pull_secrets
        The Secrets to copy, by name.
    """
    restrictions = [make_resource_quota(namespace, owner, options), make_limit_range(namespace, options)]
    return [
        *make_network_policies(namespace, release, options),
        *(obj for obj in restrictions if obj is not None),
        make_service_account(namespace, options),
        *make_role_bindings(namespace, release, options),
        *(make_pull_secret(namespace, name, secret, options) for name, secret in (pull_secrets or {}).items()),
    ]


def contents_hash(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return twelve hex digits that identify the contents of a namespace."""
    return hashlib.sha256(json.dumps(list(objects), sort_keys=True).encode()).hexdigest()[:12]
