"""The mirror of models in the chart."""

import json

from llmos_hub.backends.kubernetes.objects import make_network_policy
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.controllers.modelservice.workloads import fetch_environment
from llmos_hub.workload import ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.helm import needs_helm, render

pytestmark = needs_helm


def find(objects, kind, name):
    return next((o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name), None)


def environment(objects):
    containers = find(objects, "Deployment", "llmos-controllers")["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in containers[0]["env"]}


def test_there_is_none_unless_asked_for():
    objects = render()
    assert not [o for o in objects if "mirror" in o["metadata"]["name"]]
    assert "LLMOS_MODELS_MIRROR" not in environment(objects)


def test_downloads_are_told_of_it_and_may_reach_it_and_nothing_else():
    objects = render({"mirror": {"enabled": True}, "users": {"network": {"internet": False}}})
    assert fetch_environment(environment(objects)) == {"LLMOS_MODELS_MIRROR": "http://llmos-mirror.llmos.svc"}
    labels = find(objects, "Deployment", "llmos-mirror")["spec"]["template"]["metadata"]["labels"]
    ports = find(objects, "Service", "llmos-mirror")["spec"]
    assert ports["selector"].items() <= labels.items()
    settings = KubernetesSettings.model_validate(
        json.loads(find(objects, "ConfigMap", "llmos-users")["data"]["kubernetes.json"])
    )
    ref = WorkloadRef("ModelService", "user-ada", "chat", "u1", "fetch")
    workload = Workload(ref, (Role("fetch", 1, ProcessTemplate(("x",), completes=True)),))
    _, mirror = make_network_policy(workload, settings)["spec"]["egress"]
    (peer,) = mirror["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "llmos"}
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert mirror["ports"] == [{"port": 8080, "protocol": "TCP"}]
    (rule,) = find(objects, "NetworkPolicy", "llmos-mirror")["spec"]["ingress"]
    (people,) = rule["from"]
    assert people["namespaceSelector"]["matchLabels"]["app.kubernetes.io/managed-by"] == "llmos"


def test_its_volume_stays_and_may_be_anothers():
    claim = find(
        render({"mirror": {"enabled": True, "storage": {"size": "2Gi"}}}), "PersistentVolumeClaim", "llmos-mirror"
    )
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    objects = render({"mirror": {"enabled": True, "existingClaim": "models"}})
    assert find(objects, "PersistentVolumeClaim", "llmos-mirror") is None
    (volume, _) = find(objects, "Deployment", "llmos-mirror")["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == "models"


def test_another_can_be_named():
    objects = render({"users": {"models": {"mirror": "https://files.example.org/llmos/models/"}}})
    assert environment(objects)["LLMOS_MODELS_MIRROR"] == "https://files.example.org/llmos/models"
    assert find(objects, "Deployment", "llmos-mirror") is None
