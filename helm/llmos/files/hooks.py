"""Bring the custom resource definitions up to date before an upgrade: Helm itself only ever installs them.

``apply_crds.py DIRECTORY`` applies each ``*.yaml`` there server-side and waits until it is established. Standard
library only, so that it doesn't depend on the version that is being replaced.
"""

# ruff: noqa: INP001 - in no package: the chart hands this on as it is

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

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
TIMEOUT = 20.0  # seconds for one answer
ESTABLISHED = 60.0  # seconds until the API server serves a definition


def call(method: str, name: str, query: str = "", body: bytes | None = None) -> dict[str, Any]:
    """One request for a definition."""
    url = f"{SERVER}/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}{query}"
    headers = {
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
        "Content-Type": "application/apply-patch+yaml",
    }
    request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310 - https only
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def established(definition: dict[str, Any]) -> bool:
    """Whether the API server serves it."""
    conditions = definition.get("status", {}).get("conditions", [])
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def apply(document: str) -> None:
    """Apply one definition and wait for it."""
    found = re.search(r"^metadata:\n(?:  .*\n)*?  name: \"?([a-z0-9.-]+)\"?\s*$", document, re.MULTILINE)
    if found is None:
        sys.exit("A definition without metadata.name")
    name = found[1]
    definition = call("PATCH", name, "?fieldManager=llmos-chart&force=true", document.encode())
    deadline = time.monotonic() + ESTABLISHED
    while not established(definition):
        if time.monotonic() > deadline:
            sys.exit(f"{name} was applied and is not served after {ESTABLISHED:.0f} s")
        time.sleep(0.5)
        definition = call("GET", name)
    print(f"{name}: up to date")  # noqa: T201 - the job's log


def main() -> None:
    """Apply all there are."""
    for path in sorted(Path(sys.argv[1]).glob("*.yaml")):
        for document in re.split(r"^---\s*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if "kind: CustomResourceDefinition" in document:
                try:
                    apply(document)
                except urllib.error.HTTPError as error:
                    sys.exit(f"{path.name}: HTTP {error.code}: {error.read(2000).decode(errors='replace')}")


if __name__ == "__main__":
    main()
