"""What a resource may change of its pods, and what not."""

from __future__ import annotations

import pytest

from llmos.resources.podtemplate import check_pod_template


def engine(**fields: object) -> dict:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"spec": {"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "gpu"}], "affinity": None}},
        {"metadata": {"labels": {"example.org/team": "vision"}, "annotations": {"prometheus.io/scrape": "true"}}},
        engine(image="mine:1", env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]),
        engine(securityContext={"runAsUser": 5, "readOnlyRootFilesystem": False}),
        engine(
            readinessProbe={"httpGet": {"path": "/ok", "port": 1}}, lifecycle={"preStop": {"sleep": {"seconds": 1}}}
        ),
        {"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}},
        {"spec": {"containers": [{"name": "side", "$patch": "delete"}], "nodeSelector": {"$patch": "replace"}}},
    ],
)
def test_a_pod_of_ones_own(template: dict) -> None:
    assert check_pod_template(template) == template


@pytest.mark.parametrize(
    ("template", "words"),
    [
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
        ({"metadata": {"labels": {"app.kubernetes.io/component": "gateway"}}}, "Use a prefix of your own"),
        ({"metadata": {"labels": {"component": "hub"}}}, "Use a prefix of your own"),
        ({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "x"}}}, "Use a prefix of your own"),
        ({"spec": {"containers": {"name": "engine"}}}, "spec.containers must be a list"),
        ({"spec": []}, "spec must be an object"),
        ({"metadata": {"annotations": {"example.org/x": "x" * 40000}}}, "is larger than 32 KiB"),
    ],
)
def test_nothing_beyond_it(template: dict, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_pod_template(template)
    assert words in str(raised.value)
