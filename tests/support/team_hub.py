"""A team's existing Hub, and the commands of the page by which it is joined to LLMOS, run as they are printed.

Its chart stands in for Zero to JupyterHub's: the same names, labels, services, permissions and NetworkPolicies, the
same keys in its values, and the same order of configuration. It runs JupyterHub 5.5, the version of that chart, and
none of LLMOS' packages is in its image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster, wait_for
from tests.support.helm import CHART, merge_values
from tests.support.images import REGISTRY, TAG, image
from tests.support.people import HubClient
from tests.support.release import Release

__all__ = ["PASSWORD", "TeamHub", "commands"]

PASSWORD = "the-team-has-one-password"
ROOT = Path(__file__).parents[2]
TEAM_CHART = Path(__file__).parent / "zero_to_jupyterhub"
# LLMOS' packages in the image that is used here; they are hidden, since a team's Hub doesn't have them
_PACKAGES = "/opt/llmos/lib/python3.11/site-packages"
_HIDDEN = ("llmos", "llmos_hub", "llmos_spawners", f"llmos-{version('llmos')}.dist-info")


def commands(page: str, heading: str) -> list[str]:
    """Return the commands in a section's code blocks, those on several lines as one each."""
    text = (ROOT / "docs" / page).read_text()
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"{page} has no section {heading!r}"
    blocks = re.findall(r"^( *)```\n(.*?)^\1```$", section[1], re.MULTILINE | re.DOTALL)
    joined = re.sub(r" *\\\n *", " ", "".join(block for _, block in blocks))
    return [line.strip() for line in joined.splitlines()]


@dataclass
class TeamHub(HubClient):
    """A release in its own namespace.

    Attributes
    ----------
    values
        The team's own values.
    directory
        The directory in which the team's admin types commands. It has both charts where the docs say, and the values.
    """

    cluster: Cluster
    namespace: str
    values: dict[str, Any]
    directory: Path
    _names: dict[str, str] = field(default_factory=dict)
    start_timeout = 180.0

    def __post_init__(self) -> None:
        self._names["-n jhub"] = f"-n {self.namespace}"
        for name, chart in {"jupyterhub/jupyterhub": TEAM_CHART, "helm/llmos": CHART}.items():
            (self.directory / name).parent.mkdir()
            (self.directory / name).symlink_to(chart)
        self.write_values()

    def write_values(self, **changed: Any) -> None:
        """Write the team's own values into the file that the commands name, with changes."""
        values = merge_values(merge_values(_DEFAULTS, self.values), changed)
        (self.directory / "your-values.yaml").write_text(yaml.safe_dump(values))

    def install(self) -> None:
        """Install the Hub as it was before LLMOS came."""
        self.type("helm install jupyterhub jupyterhub/jupyterhub -n jhub -f your-values.yaml")
        self.wait()

    def type(self, command: str) -> str:
        """Run a command as the docs print it, with the test's names for theirs; return its output."""
        for printed, ours in self._names.items():
            command = re.sub(rf"(?<= ){printed}(?=[ ;]|$)", ours, command)
        return self.cluster.run("bash", "-c", f"set -o pipefail; cd {self.directory}; {command}", timeout=600)

    def follow(self, lines: list[str]) -> None:
        """Run commands of the docs in their order, and wait until the Hub answers."""
        for line in lines:
            self.type(line)
        self.wait()

    def joined_by(self, release: Release) -> None:
        """Take that release for the one that the docs' commands name."""
        self._names |= {
            "-n llmos": f"-n {release.namespace}",
            "llmos-hub": f"{release.instance}-hub",
            "llmos-hub-in-namespace": f"{release.instance}-hub-in-namespace",
        }

    def wait(self) -> None:
        """Wait until the Hub and its proxy are rolled out and the Hub answers."""
        words = ("-n", self.namespace, "rollout", "status", "deployment/hub", "deployment/proxy", "--timeout=400s")
        done = self.cluster.attempt("kubectl", *words, timeout=420)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        wait_for(lambda: self.hub("GET", "/").status_code == 200, "the Hub answers", timeout=60)

    # Addresses

    @cached_property
    def hub_url(self) -> str:
        service = self.cluster.get("service", "proxy-public", "-n", self.namespace)
        addresses = self.cluster.get("nodes")["items"][0]["status"]["addresses"]
        host = next(item["address"] for item in addresses if item["type"] == "InternalIP")
        return f"http://{host}:{service['spec']['ports'][0]['nodePort']}"

    @property
    def admin_token(self) -> str:
        return str(self.values["hub"]["services"]["operator"]["apiToken"])

    def log(self) -> str:
        """Return the Hub's log since its start."""
        return self.cluster.attempt("kubectl", "-n", self.namespace, "logs", "deployment/hub").stdout

    def server_pod(self, user: str, namespace: str = "") -> dict[str, Any] | None:
        """Return the pod of a user's default server."""
        found = self.cluster.get(
            *("pods", "-n", namespace or self.namespace, "-l", f"hub.jupyter.org/username={user}")
        )["items"]
        return found[0] if found else None


_DEFAULTS: dict[str, Any] = {
    "hub": {"image": image("hub-5"), "hiddenPackages": [f"{_PACKAGES}/{name}" for name in _HIDDEN]},
    "proxy": {"image": image("hub")},
    "singleuser": {
        "image": {"name": f"{REGISTRY}/llmos-notebook", "tag": TAG},
        "storage": {"capacity": "300Mi"},
    },
}
"""The values that every Hub of these tests sets."""
