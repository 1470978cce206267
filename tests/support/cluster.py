"""A Kubernetes cluster for tests: the one of ``LLMOS_TEST_KUBECONFIG``, else our own on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SCRIPTS", "Cluster", "ClusterMissing", "build_cluster", "check_prerequisites", "start_cluster", "wait_for"]

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "kubernetes" / "cluster"
CRDS = ROOT / "helm" / "llmos" / "crds"
GO_VERSION = (1, 26, 4)
_ANOTHER = "or set LLMOS_TEST_KUBECONFIG to the kubeconfig of another cluster (kind, k3s)"
_BUILD_TIMEOUT = 45 * 60.0  # seconds; ten minutes on two idle cores


class ClusterMissing(Exception):
    """There is no cluster and none can be made here; the message is one line with the reason."""


@dataclass
class Cluster:
    """A running cluster.

    Attributes
    ----------
    kubeconfig
        Path of its kubeconfig.
    directory
        Directory of our own cluster with its programs; None for another.
    started
        Whether this object started it, and so stops it.
    """

    kubeconfig: Path
    directory: Path | None = None
    started: bool = False
    _namespaces: list[str] = field(default_factory=list)
    _there: set[str] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for programs that access it."""
        path = os.environ["PATH"]
        if self.directory is not None:
            path = f"{self.directory / 'bin'}:{path}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, *command: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run a program and return its output; raise an AssertionError with all its output if it fails."""
        done = self.attempt(*command, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, (
            f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}\n{done.stdout}"
        )
        return done.stdout

    def attempt(
        self, *command: str | Path, stdin: str | None = None, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program and return the result, also if it fails."""
        words = [str(word) for word in command]
        program = shutil.which(words[0], path=self.environment["PATH"])
        if program is None:
            raise ClusterMissing(f"{words[0]} is not installed, and the cluster is not one of ours that brings it.")
        return subprocess.run(
            [program, *words[1:]],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl and return its output."""
        return self.run("kubectl", *words, stdin=stdin, timeout=timeout)

    def get(self, *words: str) -> Any:
        """Return the decoded result of ``kubectl get … -o json``."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def install_crds(self) -> None:
        """Install the chart's custom resource definitions."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRDS)
        self.kubectl("wait", "--for=condition=Established", "-f", CRDS, "--timeout=60s")

    def namespace(self, prefix: str = "t", *, release: str = "") -> str:
        """Create a namespace for a test, which `clean` deletes.

        Controllers of a release that is installed at the same time write to resources in it, unless it belongs to `release`.
        """
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        self._namespaces.append(name)
        if release:
            owner = ("app.kubernetes.io/managed-by=llmos", f"app.kubernetes.io/instance={release}")
            self.kubectl("label", "namespace", name, *owner)
        return name

    def clean(self) -> None:
        """Delete the namespaces that tests created, without waiting."""
        if self._namespaces:
            self.attempt("kubectl", "delete", "namespace", "--wait=false", "--ignore-not-found", *self._namespaces)
            self._namespaces.clear()

    def addons(self, *names: str) -> None:
        """Add parts to our own cluster: csi, netpol, metrics, kuberay, lws; another cluster must have them."""
        self._bring("addon", names, SCRIPTS / "addons" / "addons.sh")

    def images(self, *names: str) -> None:
        """Load images into our own cluster: hub, notebook, engine-cpu, hub-5; another cluster must have them."""
        self._bring("image", names, sys.executable, SCRIPTS.parent / "images" / "build.py")

    def _bring(self, kind: str, names: tuple[str, ...], *command: str | Path) -> None:
        missing = [name for name in names if f"{kind} {name}" not in self._there]
        if self.directory is None or not missing:
            return
        self.run(*command, *missing, timeout=_BUILD_TIMEOUT)
        self._there.update(f"{kind} {name}" for name in missing)

    def stop(self) -> None:
        """Stop the cluster if this object started it."""
        if self.started:
            self.run(SCRIPTS / "down.sh", timeout=120)
            self.started = False


def wait_for(condition: Any, what: str, *, timeout: float = 60.0, pause: float = 0.1) -> Any:
    """Return the first true result of a condition.

    Parameters
    ----------
    condition
        Called repeatedly; an AssertionError counts as false.
    what
        Description of the condition, for the failure's message.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = condition()
        except AssertionError as error:
            found, last = None, error
        if found:
            return found
        time.sleep(pause)
    message = f"{what}: not within {timeout:.0f} s. {last or ''}"
    raise AssertionError(message)


def start_cluster(nodes: int = 3) -> Cluster:
    """Return the cluster for this run, and start it if it doesn't run.

    Raises
    ------
    ClusterMissing
        There is no cluster, and none can be made here.
    """
    named = os.environ.get("LLMOS_TEST_KUBECONFIG")
    if named:
        if not Path(named).is_file():
            raise ClusterMissing(f"LLMOS_TEST_KUBECONFIG: there is no file {named}.")
        return Cluster(Path(named).resolve())
    build_cluster()
    directory = _directory()
    cluster = Cluster(directory / "admin.kubeconfig", directory)
    running = sum(_alive(path) for path in directory.glob("state/node*/box.pid"))
    if running < nodes:
        cluster.started = running == 0
        cluster.run(SCRIPTS / "up.sh", str(nodes), timeout=1800)
    return cluster


def build_cluster() -> None:
    """Build the cluster's parts unless they exist; it prints its progress, since this takes ten minutes.

    Raises
    ------
    ClusterMissing
        They can't be built here.
    """
    if os.environ.get("LLMOS_TEST_KUBECONFIG"):
        return
    if os.geteuid() != 0:
        raise ClusterMissing(f"The test cluster needs root: sudo make test-kubernetes, {_ANOTHER}.")
    parts = [_directory() / "bin" / name for name in ("kube-allinone", "etcd", "coredns", "helm", "kubeconform")]
    if shutil.which("containerd") and all(path.exists() for path in (*parts, _directory() / "images" / "coredns.tar")):
        return
    check_prerequisites()
    done = subprocess.run([SCRIPTS / "build.sh"], timeout=_BUILD_TIMEOUT, check=False)
    if done.returncode != 0:
        raise ClusterMissing(f"Building the test cluster failed, see above (exit code {done.returncode}).")


def _directory() -> Path:
    return Path(os.environ.get("TESTCLUSTER_DIR") or Path.home() / ".cache" / "llmos-testcluster")


def _alive(pid_file: Path) -> bool:
    """Return whether the node runs; after a restart of the machine the pid may belong to another process."""
    try:
        return b"box-init.sh" in Path(f"/proc/{int(pid_file.read_text())}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def check_prerequisites() -> None:
    """Check this machine for what building the cluster needs.

    Raises
    ------
    ClusterMissing
        Something is missing; the message says what to do.
    """
    if not shutil.which("apt-get"):
        raise ClusterMissing(f"The test cluster is made for Debian; {_ANOTHER}.")
    wanted = ".".join(map(str, GO_VERSION))
    go = shutil.which("go")
    if go is None:
        raise ClusterMissing(
            f"The test cluster is built with Go {wanted} or newer: install it (https://go.dev/dl), {_ANOTHER}."
        )
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=True).stdout
    version = tuple(int(part) for part in said.strip().removeprefix("go").split(".")[:3] if part.isdigit())
    if version < GO_VERSION:
        raise ClusterMissing(
            f"The test cluster is built with Go {wanted} or newer, and this is {said.strip()}: "
            f"install a newer one (https://go.dev/dl), {_ANOTHER}."
        )
