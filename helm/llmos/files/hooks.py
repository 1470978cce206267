"""The program of the Helm hooks: upgrade of CRDs, which Helm doesn't do, and clean-up around an uninstall.

``hooks.py crds DIRECTORY``, before an upgrade: applies each ``*.yaml`` there server-side and waits until it is served.

``hooks.py release INSTANCE NAMESPACE CONTROLLERS PLURAL…``, after an uninstall: removes LLMOS' finalizers from
resources of these kinds in the namespaces of that instance; the resources themselves are kept. Without controllers,
deleting such a namespace would never finish. While the Deployment of the controllers exists it does nothing: `kubectl
apply` runs all jobs of the chart at once.

``hooks.py unused NAMESPACE LABELS``, before an uninstall: fails while an external Hub, found by its pods' labels, has
LLMOS in its configuration.

It uses only the standard library, so that it doesn't depend on the version that is being replaced.
"""

# ruff: noqa: INP001 - not part of a package: the chart mounts this file unchanged

from __future__ import annotations

import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RESOURCES = "/apis/llmos.ai/v1alpha1"
FINALIZERS = "llmos.ai/"
TOKEN = "LLMOS_SERVICE_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT = 20.0  # seconds for one answer
ESTABLISHED = 60.0  # seconds until the API server serves a definition
PAGE = 500  # resources in one answer


def call(method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> dict[str, Any]:
    """Send one request to the API server."""
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}", "Content-Type": kind}
    request = urllib.request.Request(SERVER + path, data=body, method=method, headers=headers)  # noqa: S310 - https only
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


# Definitions


def established(definition: dict[str, Any]) -> bool:
    """Return whether the API server serves a definition."""
    conditions = definition.get("status", {}).get("conditions", [])
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def apply(document: str) -> None:
    """Apply one definition and wait for it."""
    found = re.search(r"^metadata:\n(?:  .*\n)*?  name: \"?([a-z0-9.-]+)\"?\s*$", document, re.MULTILINE)
    if found is None:
        sys.exit("A definition without metadata.name")
    path = f"{DEFINITIONS}/{found[1]}"
    query = "?fieldManager=llmos-chart&force=true"
    definition = call("PATCH", path + query, document.encode(), "application/apply-patch+yaml")
    deadline = time.monotonic() + ESTABLISHED
    while not established(definition):
        if time.monotonic() > deadline:
            sys.exit(f"{found[1]} was applied and is not served after {ESTABLISHED:.0f} s")
        time.sleep(0.5)
        definition = call("GET", path)
    print(f"{found[1]}: up to date")  # noqa: T201 - the job's log


def apply_all(directory: Path) -> None:
    """Apply all definitions in a directory."""
    for path in sorted(directory.glob("*.yaml")):
        for document in re.split(r"^---\s*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if "kind: CustomResourceDefinition" in document:
                apply(document)


# Finalizers


def release(instance: str, namespace: str, controllers: str, *plurals: str) -> None:
    """Remove the finalizers from all resources in the instance's namespaces, once its controllers are gone."""
    if is_there(f"/apis/apps/v1/namespaces/{namespace}/deployments/{controllers}"):
        print(f"{controllers} is there: the release is installed, and nothing is to be done")  # noqa: T201 - the job's log
        return
    labels = f"app.kubernetes.io/managed-by=llmos,app.kubernetes.io/instance={instance}"
    for found in call("GET", f"/api/v1/namespaces?labelSelector={quote(labels)}")["items"]:
        for plural in plurals:
            let_all_go(f"{RESOURCES}/namespaces/{found['metadata']['name']}/{plural}")


def let_all_go(path: str) -> None:
    """Remove the finalizers from all resources of a kind in a namespace."""
    token, first = "", True
    while token or first:
        page = call("GET", f"{path}?limit={PAGE}" + (f"&continue={quote(token)}" if token else ""))
        token, first = page["metadata"].get("continue", ""), False
        for item in page["items"]:
            let_go(path, item["metadata"])


def is_there(path: str) -> bool:
    """Return whether the object exists and is not being deleted."""
    try:
        return "deletionTimestamp" not in call("GET", path)["metadata"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise


def let_go(path: str, metadata: dict[str, Any]) -> None:
    """Remove our finalizers from a resource, unless it was deleted or somebody else has removed them."""
    while True:
        finalizers = metadata.get("finalizers") or []
        kept = [name for name in finalizers if not name.startswith(FINALIZERS)]
        if kept == finalizers:
            return
        # with its version, so that it is refused if somebody else has changed the list meanwhile
        body = json.dumps({"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": kept}})
        where = f"{path}/{metadata['name']}"
        try:
            call("PATCH", where, body.encode(), "application/merge-patch+json")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return
            if error.code != 409:
                raise
            metadata = call("GET", where)["metadata"]
        else:
            print(f"{metadata['namespace']}/{metadata['name']}: free to be deleted")  # noqa: T201 - the job's log
            return


# Existing Hubs


def unused(namespace: str, labels: str) -> None:
    """Fail while a pod of the Hub has the token of LLMOS' configuration."""
    pods = call("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={quote(labels)}")["items"]
    for pod in pods:
        for container in pod["spec"]["containers"]:
            if any(variable["name"] == TOKEN for variable in container.get("env", [])):
                sys.exit(
                    f"The Hub in namespace {namespace} still has LLMOS in its configuration (pod "
                    f"{pod['metadata']['name']}): stop the servers that its spawner started, upgrade the Hub with your own "
                    "values alone, then uninstall again. helm uninstall --no-hooks uninstalls all the same."
                )
    print(f"No Hub in namespace {namespace} has LLMOS in its configuration")  # noqa: T201 - the job's log


def main() -> None:
    """Run the command in the first argument."""
    verb, *arguments = sys.argv[1:]
    try:
        if verb == "crds":
            apply_all(Path(arguments[0]))
        else:
            {"release": release, "unused": unused}[verb](*arguments)
    except urllib.error.HTTPError as error:
        sys.exit(f"{' '.join(sys.argv[1:])}: HTTP {error.code}: {error.read(2000).decode(errors='replace')}")


if __name__ == "__main__":
    main()
