"""Pod templates, and hypothesis strategies for patches of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["ALLOWED", "ORIGINAL", "REFUSED", "patches"]

ORIGINAL: dict[str, Any] = {
    "metadata": {"labels": {"app": "a", "tier": "b"}, "annotations": {"note": "x"}},
    "spec": {
        "containers": [
            {
                "name": "engine",
                "image": "registry.local/a:1",
                "command": ["serve"],
                "args": ["--port", "8080"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
                "ports": [{"containerPort": 8080, "name": "http"}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, {"name": "models", "mountPath": "/models"}],
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
                "securityContext": {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}},
            },
            {"name": "side", "image": "registry.local/b:1"},
        ],
        "initContainers": [{"name": "fetch", "image": "registry.local/c:1"}],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "models", "persistentVolumeClaim": {"claimName": "llmos-models"}},
        ],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "nodeSelector": {"disk": "fast", "zone": "z1"},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "imagePullSecrets": [{"name": "pull"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["one"]}],
    },
}

_VALUES = st.sampled_from(["1", "x", "long value"])
_MAPS = st.dictionaries(st.sampled_from(["disk", "zone", "app", "new"]), st.none() | _VALUES, max_size=3)


def _some(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional=fields)


def _directed(maps: Any) -> Any:
    """Return a strategy for objects, some with directives to replace or delete."""
    # null would be an empty string in a replacement
    replaced = maps.map(
        lambda value: {**{name: item for name, item in value.items() if item is not None}, "$patch": "replace"}
    )
    return st.one_of(maps, maps, replaced, st.just({"$patch": "delete"}))


def _entries(key: str, keys: list[Any], rest: Any) -> Any:
    """Return a strategy for lists of entries with a key, some with directives to delete one or replace all."""
    named = st.builds(lambda name, more: {**more, key: name}, st.sampled_from(keys), rest)
    removed = st.sampled_from(keys).map(lambda name: {key: name, "$patch": "delete"})
    entries = st.lists(st.one_of(named, named, removed), max_size=3, unique_by=lambda entry: str(entry[key]))
    return st.one_of(entries, entries, entries, entries.map(lambda value: [*value, {"$patch": "replace"}]))


_CONTAINER = _some(
    image=_VALUES.map(lambda value: f"registry.local/{value[0]}:2"),
    args=st.none() | st.lists(_VALUES, max_size=2),
    env=_entries("name", ["A", "B", "C", "D", "E"], _some(value=st.none() | _VALUES)),
    volumeMounts=_entries("mountPath", ["/tmp", "/models", "/data"], st.just({"name": "scratch"})),
    ports=_entries("containerPort", [8080, 9090], st.just({"protocol": "TCP"})),
    resources=_directed(_some(requests=_directed(st.dictionaries(st.just("cpu"), st.just("2"))), limits=st.none())),
    securityContext=st.none() | _directed(_some(runAsUser=st.just(5), readOnlyRootFilesystem=st.booleans())),
)
_SPEC = _some(
    containers=_entries("name", ["engine", "side", "new", "other"], _CONTAINER),
    initContainers=_entries("name", ["fetch", "more"], _CONTAINER),
    volumes=_entries("name", ["scratch", "models", "data"], st.just({})),
    tolerations=st.none() | st.lists(st.just({"key": "other", "operator": "Exists"}), max_size=1),
    nodeSelector=st.none() | _directed(_MAPS),
    topologySpreadConstraints=_entries(
        "topologyKey",
        ["kubernetes.io/hostname", "topology.kubernetes.io/zone"],
        st.just({"maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway"}),
    ),
    imagePullSecrets=_entries("name", ["pull", "more"], st.just({})),
    hostAliases=_entries("ip", ["10.0.0.1", "10.0.0.2"], st.just({"hostnames": ["two"]})),
    affinity=st.none() | _directed(st.just({})),
)
patches = _some(metadata=_some(labels=_directed(_MAPS), annotations=st.none() | _MAPS), spec=_SPEC)
"""Patches of `ORIGINAL`, with and without directives."""


def engine(**fields: object) -> dict:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


AFFINE = {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}


ALLOWED: list[dict[str, Any]] = [
    {},
    {"spec": {"nodeSelector": {"disk": "fast"}, "terminationGracePeriodSeconds": 600, "affinity": None}},
    {"spec": {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [AFFINE]}}}},
    {"metadata": {"labels": {"custom.llmos.ai/team": "vision"}, "annotations": {"prometheus.io/scrape": "true"}}},
    engine(image="mine:1", env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]),
    engine(securityContext={"runAsUser": 5, "readOnlyRootFilesystem": False}),
    engine(readinessProbe={"httpGet": {"path": "/ok", "port": 1}}, lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
    {"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}},
    {"spec": {"containers": [{"name": "side", "$patch": "delete"}], "nodeSelector": {"$patch": "replace"}}},
]
"""Templates that resources may have."""
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"spec": {"hostNetwork": True}}, "spec.hostNetwork can't be set"),
    ({"spec": {"nodeSelektor": {}}}, 'Did you mean "nodeSelector"?'),
    ({"spec": {"serviceAccountName": "admin"}}, "spec.serviceAccountName can't be set"),
    ({"spec": {"priorityClassName": "system-node-critical"}}, "spec.priorityClassName can't be set"),
    ({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}, "spec.volumes[0].hostPath can't be set"),
    ({"spec": {"volumes": [{"name": "x", "secret": {"secretName": "s"}}]}}, "spec.volumes[0].secret can't be set"),
    ({"spec": {"securityContext": {"runAsUser": 0}}}, "nothing runs as root"),
    (engine(securityContext={"privileged": True}), "securityContext.privileged can't be set"),
    (engine(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), "capabilities can't be set"),
    (engine(envFrom=[{"secretRef": {"name": "s"}}]), "envFrom[0].secretRef can't be set"),
    (engine(env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]), "valueFrom.secretKeyRef can't be set"),
    (engine(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort can't be set"),
    (engine(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}), "httpGet.host can't be set"),
    (engine(lifecycle={"postStart": {"tcpSocket": {"host": "x", "port": 1}}}), "tcpSocket.host can't be set"),
    ({"metadata": {"labels": {"app.kubernetes.io/component": "gateway"}}}, "custom.llmos.ai/… for your own"),
    ({"metadata": {"labels": {"component": "hub"}}}, "custom.llmos.ai/… for your own"),
    ({"metadata": {"labels": {"azure.workload.identity/use": "true"}}}, "custom.llmos.ai/… for your own"),
    ({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "x"}}}, "custom.llmos.ai/… for your own"),
    ({"metadata": {"annotations": {"vault.hashicorp.com/agent-inject": "true"}}}, "for your own"),
    ({"metadata": {"annotations": {"iam.amazonaws.com/role": "admin"}}}, "for your own"),
    ({"metadata": {"annotations": {"custom.llmos.ai": "x"}}}, "for your own"),
    ({"spec": {"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["proxy"]}]}}, "spec.hostAliases can't be set"),
    ({"spec": {"dnsConfig": {"nameservers": ["10.0.0.66"]}}}, "spec.dnsConfig can't be set"),
    ({"spec": {"dnsPolicy": "None"}}, "spec.dnsPolicy can't be set"),
    ({"spec": {"tolerations": [{"operator": "Exists"}]}}, "users.tolerations in the chart's values"),
    ({"spec": {"runtimeClassName": "unconfined"}}, "users.gpus.runtimeClass in the chart's values"),
    ({"spec": {"terminationGracePeriodSeconds": 10**9}}, "from 0 to 600"),
    ({"spec": {"terminationGracePeriodSeconds": -1}}, "from 0 to 600"),
    ({"spec": {"terminationGracePeriodSeconds": True}}, "from 0 to 600"),
    (engine(livenessProbe={"terminationGracePeriodSeconds": 10**9}), "from 0 to 600"),
    (
        {
            "spec": {
                "affinity": {
                    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaceSelector": {}}]}
                }
            }
        },
        "podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaceSelector can't be set",
    ),
    ({"spec": {"containers": {"name": "engine"}}}, "spec.containers must be a list"),
    ({"spec": []}, "spec must be an object"),
    ({"metadata": {"annotations": {"custom.llmos.ai/x": "x" * 40000}}}, "is larger than 32 KiB"),
]
"""Templates that resources may not have, each with a part of the message."""
