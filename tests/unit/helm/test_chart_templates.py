"""The chart as Helm renders it."""

import base64
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from cryptography.fernet import Fernet

from llmos.resources.quantities import parse_quantity
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.controllers.modelservice.workloads import fetch_environment
from llmos_hub.managers.namespace_objects import make_namespace
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.names import METADATA_SERVICES
from llmos_hub.policy import NamespaceOwner
from llmos_hub.settings import ProcessSettings
from tests.support.helm import HelmRefused, containers, needs_helm, pod_specs, render, render_notes

pytestmark = needs_helm

EVERYTHING = {
    "backup": {"enabled": True, "beforeUpgrade": True},
    "gateway": {"autoscaling": {"enabled": True}},
    "ingress": {
        "enabled": True,
        "host": "hub.example.org",
        "gatewayHost": "models.example.org",
        "tls": {"enabled": True},
    },
    "httpRoute": {
        "enabled": True,
        "host": "hub.example.org",
        "gatewayHost": "models.example.org",
        "parentRefs": [{"name": "main"}],
    },
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]},
}


@pytest.fixture(scope="module")
def plain():
    return render()


@pytest.fixture(scope="module")
def everything():
    return render(EVERYTHING, "--is-upgrade")


def find(objects, kind, name):
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert found, f"no {kind}/{name} among {sorted(o['kind'] + '/' + o['metadata']['name'] for o in objects)}"
    return found[0]


def deployment_env(objects, component):
    kind = "StatefulSet" if component == "valkey" else "Deployment"
    template = find(objects, kind, f"llmos-{component}")["spec"]["template"]
    return {e["name"]: e for e in template["spec"]["containers"][0].get("env", [])}


def test_every_container_is_confined(everything):
    seen = 0
    for name, template in pod_specs(everything):
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(template):
            seen += 1
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"], name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert not container["image"].endswith(":latest"), name
    assert seen == 12


def test_only_those_who_need_the_api_server_have_a_token(plain):
    with_token = {
        name
        for name, template in pod_specs(plain)
        if template["spec"].get("automountServiceAccountToken", True)
        and find(plain, "ServiceAccount", template["spec"]["serviceAccountName"]).get(
            "automountServiceAccountToken", True
        )
    }
    expected = {f"Deployment/llmos-{name}" for name in ("hub", "api", "controllers", "gateway")}
    assert {re.sub(r"-[0-9a-f]{8}$", "", name) for name in with_token} == {
        *expected,
        "Job/llmos-crds",
        "Job/llmos-uninstall",
    }


def test_no_password_is_in_an_argument_or_a_plain_variable(plain):
    for name, template in pod_specs(plain):
        for container in containers(template):
            words = json.dumps([container.get("command"), container.get("args")])
            assert not re.search(r"[0-9a-f]{32}", words), name
            for variable in container.get("env", []):
                if re.search("TOKEN|PASSWORD|SECRET|KEY$|CRYPT", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])


def test_the_defaults_fit_on_a_node_with_4_gib(plain):
    memory = cpu = 0
    for obj in plain:
        if obj["kind"] in ("Deployment", "StatefulSet"):
            replicas = obj["spec"].get("replicas", 1)
            for container in containers(obj["spec"]["template"]):
                asked = container["resources"]["requests"]
                memory += replicas * parse_quantity(str(asked["memory"]))
                cpu += replicas * parse_quantity(str(asked["cpu"]))
    assert memory <= 1.5 * 2**30  # beside the system's own half and a notebook
    assert cpu <= 1


def test_processes_are_told_what_they_read(plain, monkeypatch):
    for component in ("api", "gateway", "controllers"):
        env = deployment_env(plain, component)
        for name, variable in env.items():
            value = variable.get("value", "llmos")
            monkeypatch.setenv(name, value.replace("$(VALKEY_PASSWORD)", "secret"))
        settings = ProcessSettings.from_environment()
        assert settings.in_cluster
        assert settings.redis_url == "redis://:secret@llmos-valkey.llmos.svc:6379/0"
        assert settings.hub_api_url == "http://llmos-hub.llmos.svc:8081/hub/api"
        assert (settings.host, settings.port) == ("0.0.0.0", 8080)
        assert ("LLMOS_ENCRYPTION_KEY" in env) == (component != "gateway")
    # the gateway has the token of its own service, not the API's
    assert deployment_env(plain, "gateway")["JUPYTERHUB_API_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "llm-token"


def test_the_controllers_understand_what_they_are_told_of_the_cluster():
    objects = render(
        {
            "images": {"registry": "registry.example.org/ai", "pullSecrets": ["registry"]},
            "users": {
                "models": {"storageClass": "shared", "size": "200Gi"},
                "quota": {"pods": 7, "requests.nvidia.com/gpu": 2},
                "groupQuota": {"pods": 70},
                "network": {"internet": False},
                "gpus": {"runtimeClass": "nvidia"},
            },
        }
    )
    data = find(objects, "ConfigMap", "llmos-users")["data"]
    cluster = KubernetesSettings.model_validate(json.loads(data["kubernetes.json"]))
    assert cluster.image_name(cluster.image_for("llamacpp").image) == "registry.example.org/ai/llmos-engine-cpu:0.1.0"
    assert (cluster.models.storage_class, cluster.models.size) == ("shared", "200Gi")
    assert cluster.priority_class == "llmos-users"
    assert cluster.gpu_runtime_class == "nvidia"
    assert not cluster.egress.enabled
    options = NamespaceOptions.model_validate(json.loads(data["namespaces.json"]))
    assert options.quota == {"pods": "7", "persistentvolumeclaims": "20", "requests.nvidia.com/gpu": "2"}
    assert options.group_quota == {"pods": "70"}
    assert options.pull_secrets == ["registry"]
    assert not options.network.internet
    assert options.counts == {"count/modelservices.llmos.ai": "100", "count/secrets": "500"}
    bound = {binding.service_account: binding for binding in options.bindings}
    assert bound.keys() == {"llmos-hub", "llmos-api", "llmos-controllers"}
    handed_on = next(
        rule for rule in find(objects, "ClusterRole", "llmos-controllers")["rules"] if "bind" in rule["verbs"]
    )
    for binding in options.bindings:
        assert find(objects, "ClusterRole", binding.cluster_role)
        assert binding.namespace == "llmos"
        assert binding.cluster_role in handed_on["resourceNames"]
    for component in ("api", "controllers"):
        env = deployment_env(objects, component)
        assert env["LLMOS_KUBERNETES_SETTINGS"]["value"] == "/etc/llmos/kubernetes.json"
        assert env["LLMOS_NAMESPACE_SETTINGS"]["value"] == "/etc/llmos/namespaces.json"
    labels = find(objects, "Deployment", "llmos-gateway")["spec"]["template"]["metadata"]["labels"]
    assert options.network.gateway.labels.items() <= labels.items()


def test_every_pod_has_a_policy_and_the_rest_is_denied(everything):
    policies = [o for o in everything if o["kind"] == "NetworkPolicy"]
    deny = find(everything, "NetworkPolicy", "llmos-default")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, template in pod_specs(everything):
        labels = template["metadata"]["labels"]
        covering = [
            p
            for p in policies
            if (wanted := p["spec"]["podSelector"].get("matchLabels")) and wanted.items() <= labels.items()
        ]
        if labels["app.kubernetes.io/component"] == "backup-hub":
            assert not covering  # it copies a file and needs no network
        else:
            assert [p["spec"]["policyTypes"] for p in covering] == [["Ingress", "Egress"]], name


def test_people_of_another_release_are_strangers(everything):
    data = find(everything, "ConfigMap", "llmos-users")["data"]
    options = NamespaceOptions.model_validate(json.loads(data["namespaces.json"]))
    namespace = make_namespace("user-ada", NamespaceOwner("user", "ada"), options)
    peers = [
        peer["namespaceSelector"]["matchLabels"]
        for policy in everything
        if policy["kind"] == "NetworkPolicy"
        for direction, way in (("ingress", "from"), ("egress", "to"))
        for rule in policy["spec"].get(direction) or []
        for peer in rule.get(way, [])
        if peer.get("namespaceSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/managed-by")
    ]
    assert len(peers) == 5
    other = namespace["metadata"]["labels"] | {"app.kubernetes.io/instance": "another"}
    for wanted in peers:
        assert wanted.items() <= namespace["metadata"]["labels"].items()
        assert not wanted.items() <= other.items()


@pytest.mark.parametrize("cidrs", [[], ["10.0.0.0/8", "fc00::/7"], ["169.254.0.0/16"]])
def test_the_hub_never_reaches_a_metadata_service(cidrs):
    policy = find(render({"users": {"network": {"clusterCidrs": cidrs}}}), "NetworkPolicy", "llmos-hub")
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
    world = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert len(world) == 2  # the API server, identity providers
    wanted = [cidr for cidr in METADATA_SERVICES if ":" not in cidr]
    for block in world:
        assert [block["except"].count(cidr) for cidr in wanted] == [1] * len(wanted)


def test_selectors_pick_their_own_pods_alone(everything):
    pods = {name: template["metadata"]["labels"] for name, template in pod_specs(everything)}
    for obj in everything:
        selector = obj.get("spec", {}).get("selector")
        if obj["kind"] not in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            continue
        wanted = selector.get("matchLabels", selector)
        picked = {labels["app.kubernetes.io/component"] for labels in pods.values() if wanted.items() <= labels.items()}
        assert picked == {wanted["app.kubernetes.io/component"]}, obj["metadata"]["name"]


def test_valkey_acknowledges_only_what_is_on_disk(plain):
    config = find(plain, "ConfigMap", "llmos-valkey")["data"]["valkey.conf"]
    assert "appendonly yes\nappendfsync always" in config
    claims = find(plain, "StatefulSet", "llmos-valkey")["spec"]
    assert claims["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_a_gateway_that_goes_has_time_to_send_clients_elsewhere_and_to_end_what_runs():
    objects = render({"gateway": {"drainSeconds": 120, "shutdownDelaySeconds": 8}})
    spec = find(objects, "Deployment", "llmos-gateway")["spec"]["template"]["spec"]
    env = {item["name"]: item.get("value") for item in spec["containers"][0]["env"]}
    assert env["LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS"] == "8"
    assert env["LLMOS_GATEWAY_DRAIN_SECONDS"] == "120"
    assert spec["terminationGracePeriodSeconds"] >= 8 + 120


def test_with_an_autoscaler_the_chart_sets_no_count(everything, plain):
    assert "replicas" not in find(everything, "Deployment", "llmos-gateway")["spec"]
    assert find(plain, "Deployment", "llmos-gateway")["spec"]["replicas"] == 2
    assert (
        find(everything, "HorizontalPodAutoscaler", "llmos-gateway")["spec"]["scaleTargetRef"]["name"]
        == "llmos-gateway"
    )


def test_models_traffic_goes_past_the_hubs_proxy(everything):
    rules = find(everything, "Ingress", "llmos")["spec"]["rules"]
    paths = {
        (rule["host"], path["path"]): path["backend"]["service"]["name"]
        for rule in rules
        for path in rule["http"]["paths"]
    }
    assert paths == {
        ("hub.example.org", "/services/llm/v1"): "llmos-gateway",
        ("hub.example.org", "/"): "llmos-proxy",
        ("models.example.org", "/v1"): "llmos-gateway",  # its /metrics are not for everybody
    }
    route = find(everything, "HTTPRoute", "llmos")["spec"]["rules"]
    routes = {rule["matches"][0]["path"]["value"]: rule["backendRefs"][0]["name"] for rule in route}
    assert routes == {"/services/llm/v1": "llmos-gateway", "/": "llmos-proxy"}
    (rule,) = find(everything, "HTTPRoute", "llmos-gateway")["spec"]["rules"]
    assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/v1"}]
    assert rule["backendRefs"][0]["name"] == "llmos-gateway"
    env = deployment_env(everything, "api")
    assert env["LLMOS_PUBLIC_URL"]["value"] == "https://hub.example.org"
    assert env["LLMOS_GATEWAY_URL"]["value"] == "https://models.example.org"


def test_without_a_host_of_its_own_the_gateway_is_below_the_hub():
    objects = render({"ingress": {"enabled": True, "host": "hub.example.org"}})
    assert deployment_env(objects, "api")["LLMOS_GATEWAY_URL"]["value"] == "http://hub.example.org/services/llm"


def test_secrets_are_of_the_right_kind_and_not_made_where_one_is_named(plain):
    data = find(plain, "Secret", "llmos")["data"]
    plain_data = {key: base64.b64decode(value).decode() for key, value in data.items()}
    Fernet(plain_data["encryption-key"])
    assert re.fullmatch(r"[0-9a-f]{64}", plain_data["cookie-secret"])
    assert len(set(plain_data.values())) == len(plain_data) == 8
    assert find(plain, "Secret", "llmos")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    named = render({"existingSecret": "mine"})
    assert not [o for o in named if o["kind"] == "Secret" and o["metadata"]["name"] == "llmos"]
    assert deployment_env(named, "api")["JUPYTERHUB_API_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "mine"


def test_a_private_registry_is_before_every_image():
    objects = render(
        {
            "images": {"registry": "registry.example.org:5000/ai", "tag": "t1", "pullSecrets": ["pull"]},
            "backup": {"enabled": True},
        }
    )
    for name, template in pod_specs(objects):
        assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}], name
        for container in containers(template):
            assert container["image"] == "registry.example.org:5000/ai/llmos-hub:t1"


@pytest.mark.parametrize(
    ("quota", "limits"),
    [
        ({"limits.cpu": 8}, {"default": {"cpu": 1}}),
        ({"limits.cpu": 8}, {"max": {"cpu": 4}}),  # the cluster takes it as the default
        ({"requests.cpu": 8, "memory": "8Gi", "requests.nvidia.com/gpu": 2}, {}),
        ({"requests.ephemeral-storage": "80Gi"}, {"default": {"ephemeral-storage": "1Gi"}}),
    ],
)
def test_a_quota_that_every_container_can_meet_is_taken(quota, limits):
    data = find(render({"users": {"quota": quota, "limits": limits}}), "ConfigMap", "llmos-users")["data"]
    options = NamespaceOptions.model_validate(json.loads(data["namespaces.json"]))
    assert set(quota) <= set(options.quota)


def test_an_image_by_digest_is_taken_by_digest_everywhere():
    digest = f"sha256:{'1f' * 32}"
    images = {name: {"digest": digest} for name in ("hub", "notebook", "engineCpu")}
    objects = render({"images": {"registry": "registry.example.org/ai", **images}})
    for name, template in pod_specs(objects):
        for container in containers(template):
            assert container["image"] == f"registry.example.org/ai/llmos-hub:0.1.0@{digest}", name
    data = find(objects, "ConfigMap", "llmos-users")["data"]
    cluster = KubernetesSettings.model_validate(json.loads(data["kubernetes.json"]))
    wanted = f"registry.example.org/ai/llmos-engine-cpu:0.1.0@{digest}"
    assert cluster.image_name(cluster.image_for("llamacpp").image) == wanted
    settings = json.loads(find(objects, "Secret", "llmos-hub")["stringData"]["settings.json"])
    assert settings["spawner"]["image"] == f"registry.example.org/ai/llmos-notebook:0.1.0@{digest}"


def test_existing_priority_classes_are_named_and_not_made():
    classes = {"existingSystem": "site-critical", "existingUsers": "site-batch"}
    objects = render({"scheduling": {"priorityClasses": classes}})
    assert not [o for o in objects if o["kind"] == "PriorityClass"]
    assert {template["spec"]["priorityClassName"] for _, template in pod_specs(objects)} == {"site-critical"}
    data = find(objects, "ConfigMap", "llmos-users")["data"]
    assert KubernetesSettings.model_validate(json.loads(data["kubernetes.json"])).priority_class == "site-batch"
    settings = json.loads(find(objects, "Secret", "llmos-hub")["stringData"]["settings.json"])
    assert settings["spawner"]["priorityClass"] == "site-batch"
    one = render({"scheduling": {"priorityClasses": {"existingUsers": "site-batch"}}})
    assert [o["metadata"]["name"] for o in one if o["kind"] == "PriorityClass"] == ["llmos-system"]
    none = render({"scheduling": {"priorityClasses": {"create": False}}})
    assert not [name for name, template in pod_specs(none) if "priorityClassName" in template["spec"]]


PEM = "-----BEGIN CERTIFICATE-----\nTWFk\n-----END CERTIFICATE-----\n"


def test_a_sites_own_authority_is_known_wherever_something_outside_is_asked():
    authority = f"# The Site\n{PEM}{PEM}"
    objects = render({"caCertificates": authority})
    for component in ("hub", "api", "controllers", "gateway"):
        assert deployment_env(objects, component)["LLMOS_CA_CERTIFICATES"]["value"] == authority.strip(), component
    settings = json.loads(find(objects, "Secret", "llmos-hub")["stringData"]["settings.json"])
    assert settings["spawner"]["caCertificates"] == authority
    # downloads get it from the controllers, without the file that the controllers created from it
    own = {"LLMOS_CA_CERTIFICATES": authority, "LLMOS_CA_FILE": "/tmp/x.pem", "SSL_CERT_FILE": "/tmp/x.pem"}
    assert fetch_environment(own) == {"LLMOS_CA_CERTIFICATES": authority}
    code = printed(caCertificates=authority, namespace="jhub")["hub"]["extraConfig"]["zz-llmos"]
    assert f"ca_certificates = {json.dumps(authority.strip())}" in code
    assert "ca_certificates" not in printed(namespace="jhub")["hub"]["extraConfig"]["zz-llmos"]
    with pytest.raises(HelmRefused, match=r"caCertificates.*does not match pattern"):
        render({"caCertificates": "company.pem"})


PROXY = [{"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"}]


@pytest.mark.parametrize("component", ["hub", "api", "controllers", "gateway"])
@pytest.mark.parametrize(
    "site", [[], [{"name": "no_proxy", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]]
)
def test_past_a_web_proxy_the_cluster_is_asked_directly(component, site):
    env = deployment_env(render({component: {"extraEnv": [*PROXY, *site]}}), component)
    hosts = env["NO_PROXY"]["value"].split(",")
    assert env["no_proxy"]["value"] == env["NO_PROXY"]["value"]
    assert {"localhost", ".svc", ".cluster.local", "$(KUBERNETES_SERVICE_HOST)", "10.0.0.0/8"} <= set(hosts)
    assert "llmos-proxy-api" in hosts  # named without a dot
    if site:
        assert hosts[0] == "$(SITE_NO_PROXY)"
        assert env["SITE_NO_PROXY"]["valueFrom"] == site[0]["valueFrom"]
        # Kubernetes fills in only what stands before
        assert list(env).index("SITE_NO_PROXY") < list(env).index("NO_PROXY")


def test_without_a_web_proxy_nothing_is_said_of_it(plain):
    for component in ("hub", "api", "controllers", "gateway"):
        assert not {"NO_PROXY", "no_proxy", "SITE_NO_PROXY"} & set(deployment_env(plain, component))


def test_the_hub_reads_the_values(plain):
    objects = render(
        {"hub": {"config": {"JupyterHub": {"authenticator_class": "github"}}, "extraConfig": {"a": "x = 1"}}}
    )
    secret = find(objects, "Secret", "llmos-hub")["stringData"]
    settings = json.loads(secret["settings.json"])
    assert settings["config"]["JupyterHub"]["authenticator_class"] == "github"
    assert settings["extraConfig"] == {"a": "x = 1"}
    # only a change of the configuration restarts the Hub
    sums = [
        find(o, "Deployment", "llmos-hub")["spec"]["template"]["metadata"]["annotations"]
        for o in (plain, render(), objects)
    ]
    assert sums[0] == sums[1] != sums[2]


def test_rendering_twice_changes_nothing_but_secrets(plain):
    again = render()
    for one, other in zip(plain, again, strict=True):
        if (one["kind"], one["metadata"]["name"]) != ("Secret", "llmos"):
            assert one == other


def test_roles_are_the_least(plain):
    rules = find(plain, "ClusterRole", "llmos-gateway")["rules"]
    assert rules == [
        {"apiGroups": ["llmos.ai"], "resources": ["modelservices"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
    ]
    controllers = find(plain, "ClusterRole", "llmos-controllers")["rules"]
    assert [r for r in controllers if "metrics.k8s.io" in r["apiGroups"]] == [
        {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["list"]}
    ]
    hub = find(plain, "ClusterRole", "llmos-hub")["rules"]
    assert not [r for r in hub if {"secrets", "persistentvolumeclaims"} & set(r["resources"])]
    everywhere = {o["roleRef"]["name"] for o in plain if o["kind"] == "ClusterRoleBinding"}
    for name in everywhere:
        rules = find(plain, "ClusterRole", name)["rules"]
        assert not [r for r in rules if {"secrets", "leases"} & set(r["resources"])], name
    leases = [r for r in find(plain, "ClusterRole", "llmos-api-in-namespace")["rules"] if "leases" in r["resources"]]
    assert leases == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "delete"]}
    ]
    private = render({"images": {"pullSecrets": ["pull"]}})
    assert [r for r in find(private, "Role", "llmos-controllers")["rules"] if "secrets" in r["resources"]] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["pull"], "verbs": ["get"]}
    ]
    for obj in plain:
        if obj["kind"] in ("ClusterRole", "Role"):
            for rule in obj["rules"]:
                assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], obj["metadata"]["name"]
                assert not {"impersonate", "escalate"} & set(rule["verbs"])
    assert not [
        o for o in render({"rbac": {"create": False}}) if "Role" in o["kind"] and "crds" not in o["metadata"]["name"]
    ]


def test_a_hub_that_was_there_stays_in_charge():
    values = {
        "hub": {"enabled": False},
        "externalHub": {"namespace": "jhub", "apiUrl": "http://hub.jhub.svc:8081/hub/api"},
    }
    objects = render(values)
    names = {f"{o['kind']}/{o['metadata']['name']}" for o in objects}
    assert not [name for name in names if name.endswith(("/llmos-hub", "/llmos-proxy")) and "Cluster" not in name]
    copied = [o for o in objects if o["kind"] == "Secret" and o["metadata"]["namespace"] == "jhub"]
    assert [set(o["data"]) for o in copied] == [{"llmos-token", "llm-token"}]
    own = next(o for o in objects if o["kind"] == "Secret" and o["metadata"]["namespace"] == "llmos")
    assert copied[0]["data"].items() <= own["data"].items()
    # the Hub needs them as long as LLMOS is in its configuration, also after an uninstall
    kept = {f"{o['kind']}/{o['metadata']['name']}" for o in objects if keeps(o)}
    assert {"ClusterRole/llmos-hub", "ClusterRole/llmos-hub-in-namespace", "ClusterRoleBinding/llmos-hub"} <= kept
    assert keeps(copied[0])
    assert not [o for o in render() if "Role" in o["kind"] and keeps(o)]
    subject = find(objects, "ClusterRoleBinding", "llmos-hub")["subjects"][0]
    assert (subject["name"], subject["namespace"]) == ("hub", "jhub")
    env = {name: variable.get("value", "") for name, variable in deployment_env(objects, "controllers").items()}
    assert env["JUPYTERHUB_API_URL"] == "http://hub.jhub.svc:8081/hub/api"
    data = find(objects, "ConfigMap", "llmos-users")["data"]["namespaces.json"]
    hub = NamespaceOptions.model_validate(json.loads(data)).network.hub
    assert (hub.namespace, hub.labels) == ("jhub", {"component": "hub", "app": "jupyterhub"})
    # its pods may be in our namespace, and our policy must not apply to them
    assert find(objects, "NetworkPolicy", "llmos-default")["spec"]["podSelector"] != {}


def keeps(obj):
    """Return whether an object is kept after an uninstall."""
    return obj["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"


def printed(caCertificates="", **external):  # noqa: N803 - as the value is called
    """Return the values that the notes print for an existing Hub."""
    notes = render_notes({"hub": {"enabled": False}, "externalHub": external, "caCertificates": caCertificates})
    return yaml.safe_load(re.search(r"^# ---8<---\n(.*)^# --->8---$", notes, re.MULTILINE | re.DOTALL)[1])


def test_the_notes_print_the_values_for_a_hub_that_was_there():
    whole = printed(namespace="jhub")
    values = whole["hub"]
    assert whole["singleuser"]["cloudMetadata"] == {"blockWithIptables": False}
    assert values["extraEnv"]["LLM_SERVICE_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "llm-token"
    code = values["extraConfig"]["zz-llmos"]
    compile(code, "zz-llmos", "exec")
    assert 'api_url="http://llmos-api.llmos.svc"' in code
    # without the Secret the Hub starts unchanged, and logs the reason
    assert all(one["valueFrom"]["secretKeyRef"]["optional"] for one in values["extraEnv"].values())
    said = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("LLMOS: could not be added: the Secret llmos is missing in this namespace")
    assert values["networkPolicy"]["ingress"][0]["ports"] == [{"port": 8081, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("external", "url"),
    [
        ({"namespace": "jhub"}, "http://hub.jhub.svc:8081"),
        ({}, "http://hub.llmos.svc:8081"),
        ({"namespace": "jhub", "apiUrl": "http://hub.jhub.svc:8081/lab/hub/api"}, "http://hub.jhub.svc:8081"),
    ],
)
def test_servers_in_other_namespaces_find_the_hub(external, url):
    """Zero to JupyterHub's chart calls it by a name that only its own namespace knows."""
    assert f'c.JupyterHub.hub_connect_url = "{url}"' in printed(**external)["hub"]["extraConfig"]["zz-llmos"]
    api = next(o for o in render({"hub": {"enabled": False}, "externalHub": external}) if o["kind"] == "Deployment")
    env = {one["name"]: one.get("value") for one in containers(api["spec"]["template"])[0]["env"]}
    assert env["JUPYTERHUB_API_URL"].startswith(url + "/")


def test_a_hub_that_keeps_its_spawner_gets_hooks_and_no_rights():
    values = printed(namespace="jhub", keepSpawner=True)
    code = values["hub"]["extraConfig"]["zz-llmos"]
    compile(code, "zz-llmos", "exec")
    assert "keep_spawner(c" in code
    assert "spawner_class" not in code
    assert "KubeSpawner" not in code
    assert set(values["singleuser"]) == {"networkPolicy"}
    objects = render({"hub": {"enabled": False}, "externalHub": {"namespace": "jhub", "keepSpawner": True}})
    hub = {"kind": "ServiceAccount", "name": "hub", "namespace": "jhub"}
    assert not [o for o in objects if hub in o.get("subjects", [])]
    assert find(objects, "ClusterRoleBinding", "llmos-hub")["subjects"] == []  # also where LLMOS' spawner was before
    assert "serviceaccount:jhub:hub" not in yaml.safe_dump(objects)
    policy = next(o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "llmos-api")
    servers = {"component": "singleuser-server", "app": "jupyterhub"}
    assert servers in [
        peer["podSelector"]["matchLabels"] for peer in policy["spec"]["ingress"][0]["from"] if "podSelector" in peer
    ]


def test_the_notes_say_how_to_log_in_unless_others_do_that():
    assert "admin-password" in render_notes({})
    notes = render_notes({"hub": {"config": {"JupyterHub": {"authenticator_class": "github"}}}})
    assert "admin-password" not in notes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replicas": "two"}}, "replicas.*want integer"),
        ({"hub": {"db": {"type": "postgres"}}}, "type.*'sqlite', 'url'"),
        ({"users": {"home": {"size": "ten"}}}, "size.*does not match pattern"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is needed"),
        ({"valkey": {"enabled": False}}, "valkey.external.url is needed"),
        ({"hub": {"db": {"type": "url"}}}, "hub.db.url is needed"),
        ({"users": {"quota": {"limits.cpu": 8}}}, r"users.quota bounds limits.cpu.*set users.limits.default.cpu"),
        ({"users": {"groupQuota": {"limits.memory": "8Gi"}}}, r"users.groupQuota.*users.limits.default.memory"),
        ({"users": {"quota": {"requests.ephemeral-storage": "8Gi"}}}, r"users.limits.defaultRequest.ephemeral-storage"),
        ({"users": {"limits": {"defaultRequest": None}}}, r"at '/users/limits': missing property 'defaultRequest'"),
        ({"gateway": {"tolerations": None}}, r"at '/gateway': missing property 'tolerations'"),
        ({"hub": {"config": {"jupyterhub": {"a": 1}}}}, "hub.config.jupyterhub: the class is called JupyterHub"),
        ({"hub": {"config": {"KubeSPawner": {"a": 1}}}}, "hub.config.KubeSPawner: the class is called KubeSpawner"),
        ({"hub": {"config": {"myAuthenticator": {"a": 1}}}}, "myAuthenticator: sections are named as classes"),
        ({"images": {"hub": {"digest": "0123"}}}, "digest.*does not match pattern"),
        ({"fullnameOverride": "a.b"}, "fullnameOverride.*does not match pattern"),
    ],
)
def test_helm_refuses_wrong_values_in_words(values, words):
    with pytest.raises(HelmRefused, match=f"(?s){words}"):
        render(values)


def test_the_apis_metrics_are_for_those_who_are_named(everything, plain):
    def metrics(objects):
        rules = find(objects, "NetworkPolicy", "llmos-api")["spec"]["ingress"]
        return [rule for rule in rules if any(port["port"] == 9090 for port in rule["ports"])]

    assert metrics(plain) == []
    (rule,) = metrics(everything)
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]
    assert rule["ports"] == [{"port": 9090, "protocol": "TCP"}]
    (container,) = find(plain, "Deployment", "llmos-api")["spec"]["template"]["spec"]["containers"]
    assert {"name": "LLMOS_METRICS_PORT", "value": "9090"} in container["env"]
