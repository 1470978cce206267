"""Configuration of a Hub in the order of Zero to JupyterHub's own."""

# ruff: noqa: F821 - read by JupyterHub, which defines `c`; the extra configuration is the team's own
# mypy: ignore-errors

import os
from pathlib import Path

import yaml

values = yaml.safe_load(Path("/etc/jupyterhub/values.yaml").read_text())
hub, singleuser = values["hub"], values["singleuser"]

c = get_config()
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.ConfigurableHTTPProxy.should_start = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.last_activity_interval = 60
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"  # a short name, like in that chart
c.JupyterHub.allow_named_servers = True

release = values["Release"]["Name"]
c.KubeSpawner.common_labels = {
    "app": "jupyterhub",
    "app.kubernetes.io/name": "jupyterhub",
    "release": release,
    "app.kubernetes.io/instance": release,
    "app.kubernetes.io/managed-by": "kubespawner",
}
c.KubeSpawner.namespace = os.environ["POD_NAMESPACE"]
c.KubeSpawner.image = "{name}:{tag}".format_map(singleuser["image"])
c.KubeSpawner.extra_labels = {"hub.jupyter.org/network-access-hub": "true"}
c.KubeSpawner.allow_privilege_escalation = False
c.KubeSpawner.uid, c.KubeSpawner.fs_gid = 1000, 100
c.KubeSpawner.environment = singleuser.get("extraEnv", {})
# the chart sets empty lists, too
c.KubeSpawner.pod_affinity_required = []
c.KubeSpawner.node_affinity_required = []
c.KubeSpawner.init_containers = []
c.KubeSpawner.tolerations = [
    {"key": "hub.jupyter.org/dedicated", "operator": "Equal", "value": "user", "effect": "NoSchedule"}
]
c.KubeSpawner.mem_guarantee = singleuser["memory"]["guarantee"]

storage = singleuser["storage"]
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
c.KubeSpawner.storage_capacity = storage["capacity"]
if storage["dynamic"].get("storageClass"):
    c.KubeSpawner.storage_class = storage["dynamic"]["storageClass"]
c.KubeSpawner.volumes = [{"name": "volume-{user_server}", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}]
c.KubeSpawner.volume_mounts = [{"mountPath": storage["homeMountPath"], "name": "volume-{user_server}", "subPath": None}]

idle = {
    "name": "jupyterhub-idle-culler",
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    "services": ["jupyterhub-idle-culler"],
}
cull = ["python3", "-m", "jupyterhub_idle_culler", "--url=http://localhost:8081/hub/api", "--timeout=3600"]
c.JupyterHub.services = [{"name": "jupyterhub-idle-culler", "command": cull}]
c.JupyterHub.load_roles = [idle]
for name, service in hub.get("services", {}).items():
    token = service.pop("apiToken")
    c.JupyterHub.services.append({"name": name, **service, "api_token": token})
for name, role in hub.get("loadRoles", {}).items():
    c.JupyterHub.load_roles.append({"name": name, **role})

c.Spawner.cmd = "jupyterhub-singleuser"
if singleuser["cloudMetadata"]["blockWithIptables"] and "networkTools" in singleuser:
    privileged = {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}
    image = singleuser["networkTools"]["image"]
    blocker = {"name": "block-cloud-metadata", "image": image, "command": ["true"], "securityContext": privileged}
    c.KubeSpawner.init_containers.append(blocker)

for section, traits in hub.get("config", {}).items():
    c[section].update(traits)
for name, code in sorted(hub["extraConfig"].items()):
    print(f"Loading extra config: {name}")
    exec(code)
