"""A minimal operator for ModelServices and people's namespaces, written with kopf, for comparison.

The objects are those of the platform, byte for byte but for their names: a file that ``KOPF_TEMPLATES`` names has
them as text in which ``@NAME@`` and the like stand for what differs. It needs nothing of the platform, so that its
memory is kopf's own. Where two ways lead to the goal, it takes the one with fewer requests: server-side apply
without a look before it, the client library's weight left away, a status written only where it is another (an index
tells), the handler's own status in kopf's own patch, no finalizer.

``kopf run --all-namespaces --standalone kopf_operator.py``
"""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import kopf

SERVICES = ("llmos.ai", "v1alpha1", "modelservices")
TEMPLATES: dict[str, list[list[str]]] = json.loads(Path(os.environ["KOPF_TEMPLATES"]).read_text(encoding="utf-8"))
APPLY = {"Content-Type": "application/apply-patch+yaml"}
MERGE = {"Content-Type": "application/merge-patch+json"}
FORCE = {"fieldManager": "kopf", "force": "true"}
OURS = {"app.kubernetes.io/managed-by": "llmos"}


class Client:
    """The connection for what kopf doesn't do itself."""

    session: aiohttp.ClientSession


@kopf.on.login()
def login(**kwargs: Any) -> Any:
    return kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def connect(**_: Any) -> None:
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    Client.session = aiohttp.ClientSession(
        cluster["server"],
        connector=aiohttp.TCPConnector(ssl=context),
        headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
        timeout=aiohttp.ClientTimeout(total=60),
    )


@kopf.on.cleanup()
async def disconnect(**_: Any) -> None:
    await Client.session.close()


async def apply(templates: list[list[str]], values: dict[str, str]) -> None:
    for template in templates:
        path, text = template
        for name, value in values.items():
            path, text = path.replace(name, value), text.replace(name, value)
        async with Client.session.patch(path, data=text, params=FORCE, headers=APPLY) as answer:
            if answer.status >= 400:
                raise kopf.TemporaryError(await answer.text(), delay=1)
            await answer.read()


@kopf.on.resume(*SERVICES)
@kopf.on.create(*SERVICES)
@kopf.on.update(*SERVICES, field="spec")
async def serve(namespace: str, name: str, uid: str, spec: Any, meta: Any, patch: Any, **_: Any) -> None:
    """The objects, and that they are there."""
    wave = spec["env"]["WAVE"]
    await apply(TEMPLATES["service"], {"@NAMESPACE@": namespace, "@NAME@": name, "@UID@": uid, "@WAVE@": wave})
    patch.status["observedGeneration"] = meta["generation"]


@kopf.index(*SERVICES)
def statuses(namespace: str, name: str, status: Any, **_: Any) -> Any:
    return {(namespace, name): {"phase": status.get("phase"), "readyReplicas": status.get("readyReplicas")}}


@kopf.on.event("apps", "v1", "deployments", labels=OURS)
async def mirror(namespace: str, labels: Any, body: Any, statuses: Any, **event: Any) -> None:
    """Write the Deployment's state to the status."""
    if event["type"] == "DELETED":
        return
    spec, status = body["spec"], body.get("status") or {}
    ready, name = status.get("readyReplicas", 0), labels["llmos.ai/name"]
    rolled_out = status.get("observedGeneration") == body["metadata"]["generation"]
    done = rolled_out and ready == status.get("updatedReplicas") == status.get("replicas") == spec["replicas"]
    seen = {"phase": "Ready" if done else "Starting", "readyReplicas": ready}
    if seen in statuses.get((namespace, name), ()):
        return
    path = f"/apis/llmos.ai/v1alpha1/namespaces/{namespace}/modelservices/{name}/status"
    async with Client.session.patch(path, data=json.dumps({"status": seen}), headers=MERGE) as answer:
        await answer.read()


@kopf.on.resume("namespaces", labels=OURS)
@kopf.on.create("namespaces", labels=OURS)
@kopf.on.update("namespaces", labels=OURS, field="metadata.labels")
async def prepare(name: str, patch: Any, **_: Any) -> None:
    """Fill a person's namespace, and mark it as prepared."""
    await apply(TEMPLATES["namespace"], {"@NAMESPACE@": name})
    patch.metadata.annotations["llmos.ai/prepared"] = "yes"
