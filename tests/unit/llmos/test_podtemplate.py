"""What a resource may change of its pods, and what not."""

from __future__ import annotations

import pytest

from llmos.resources.podtemplate import check_pod_template


def engine(**fields: object) -> dict:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


AFFINE = {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"spec": {"nodeSelector": {"disk": "fast"}, "terminationGracePeriodSeconds": 600, "affinity": None}},
        {"spec": {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [AFFINE]}}}},
        {"metadata": {"labels": {"custom.llmos.ai/team": "vision"}, "annotations": {"prometheus.io/scrape": "true"}}},
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
            {"spec": {"affinity": {"podAntiAffinity": {"required": [{"namespaceSelector": {}}]}}}},
            "podAntiAffinity.required[0].namespaceSelector can't be set",
        ),
        ({"spec": {"containers": {"name": "engine"}}}, "spec.containers must be a list"),
        ({"spec": []}, "spec must be an object"),
        ({"metadata": {"annotations": {"custom.llmos.ai/x": "x" * 40000}}}, "is larger than 32 KiB"),
    ],
)
def test_nothing_beyond_it(template: dict, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_pod_template(template)
    assert words in str(raised.value)
