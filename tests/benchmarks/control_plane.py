"""A Kubernetes control plane for one measurement: real etcd, API server, controller manager and scheduler, no machine.

Everything listens on loopback, lies in a directory of its own and ends with it, so that nothing is left of thousands
of objects and no other cluster is disturbed. Who asks is told apart by tokens; the API server's audit log has every
request of the user ``operator``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.cluster import CRDS, _directory, build_cluster

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
USERS = ("bench", "kubelet", "operator", "system")
OPERATOR = "operator"
_START = 60.0
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}


class ControlPlane:
    """One that runs; made by `running`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = _directory() / "bin"
        self.audit = directory / "audit.log"
        self.port, self._etcd, self._peer, *self._others = _free_ports(5)
        self._processes: list[subprocess.Popen[bytes]] = []

    def kubeconfig(self, user: str) -> Path:
        """The file with which that user comes in."""
        return self.directory / f"{user}.kubeconfig"

    def start(self) -> None:
        """Start it and put the custom resource definitions in."""
        self._write_files()
        self._run("etcd", *self._etcd_flags())
        self._run("kube-apiserver", *self._server_flags())
        self._until_ready()
        kubeconfig = f"--kubeconfig={self.kubeconfig('system')}"
        # the defaults (20 requests a second) would be what is measured
        fast = ("--kube-api-qps=2000", "--kube-api-burst=4000", "--leader-elect=false", "--bind-address=127.0.0.1")
        key = self.directory / "key.pem"
        self._run("kube-controller-manager", kubeconfig, *fast, f"--secure-port={self._others[0]}",
                  "--use-service-account-credentials=false", f"--service-account-private-key-file={key}",
                  f"--root-ca-file={self.directory / 'cert.pem'}", f"--cert-dir={self.directory}",
                  # nobody renews the leases of machines that aren't there
                  "--controllers=*,-node-lifecycle-controller,-node-ipam-controller,-taint-eviction-controller",
                  "--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10")  # fmt: skip
        self._run("kube-scheduler", kubeconfig, *fast, f"--secure-port={self._others[1]}",
                  f"--cert-dir={self.directory}")  # fmt: skip
        self.kubectl("apply", "--server-side", "-f", str(CRDS))
        self.kubectl("wait", "--for=condition=Established", "-f", str(CRDS), "--timeout=60s")

    def stop(self) -> None:
        """End it: nothing of it is wanted any more."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait(30)

    def kubectl(self, *words: str) -> None:
        command: list[str | Path] = [self.bin / "kubectl", f"--kubeconfig={self.kubeconfig('bench')}", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def _run(self, program: str, *flags: str) -> None:
        log = (self.directory / f"{program}.log").open("wb")
        with log:
            command: list[str | Path] = [self.bin / program, *flags]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory))

    def _until_ready(self) -> None:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": "Bearer bench"}
        )
        context = ssl.create_default_context(cafile=str(self.directory / "cert.pem"))
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            for process in self._processes:
                if process.poll() is not None:
                    name = Path(str(process.args[0])).name  # type: ignore[index]
                    message = f"{name} has ended: {(self.directory / f'{name}.log').read_text()[-2000:]}"
                    raise RuntimeError(message)
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(request, timeout=5, context=context),
            ):
                return
            time.sleep(0.1)
        message = f"The API server is not ready within {_START:.0f} s."
        raise RuntimeError(message)

    def _etcd_flags(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        return [f"--data-dir={self.directory / 'etcd'}", f"--listen-client-urls={client}", "--log-level=error",
                f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}"]  # fmt: skip

    def _server_flags(self) -> list[str]:
        here = self.directory
        return [f"--etcd-servers=http://127.0.0.1:{self._etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
                f"--tls-cert-file={here / 'cert.pem'}", f"--tls-private-key-file={here / 'key.pem'}",
                f"--token-auth-file={here / 'tokens.csv'}", "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
                "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={here / 'cert.pem'}",
                f"--service-account-signing-key-file={here / 'key.pem'}", "--service-cluster-ip-range=10.96.0.0/16",
                # machines that nobody calls ready would keep all pods away
                "--disable-admission-plugins=TaintNodesByCondition",
                f"--audit-policy-file={here / 'audit.json'}", f"--audit-log-path={self.audit}"]  # fmt: skip

    def _write_files(self) -> None:
        here = self.directory
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
        )
        subprocess.run([*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", here / "key.pem",
                        "-out", here / "cert.pem"], check=True, capture_output=True, timeout=60)  # fmt: skip
        (here / "tokens.csv").write_text("".join(f'{user},{user},{user},"system:masters"\n' for user in USERS))
        (here / "audit.json").write_text(json.dumps(_POLICY))
        for user in USERS:
            cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(here / "cert.pem")}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "bench", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": user}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": user}}],
                "current-context": "bench",
            }
            self.kubeconfig(user).write_text(json.dumps(content))


class Audit:
    """Requests of the user ``operator`` since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The requests since the last call; of watches their beginning."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        events = [json.loads(line) for line in whole.splitlines()]
        return [event for event in events if (event["verb"] == "watch") == (event["stage"] == "ResponseStarted")]


def what_of(event: dict[str, Any]) -> tuple[str, str]:
    """The verb, with server-side apply told from other patches, and the resource."""
    about = event.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource") or "(discovery)", about.get("subresource"))))
    verb = "apply" if event["verb"] == "patch" and "force=" in event["requestURI"] else event["verb"]
    return verb, resource


def counted(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Return the number of each request, without those for the leader's lease."""
    return Counter(what for what in map(what_of, events) if what[1] != "leases")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextlib.contextmanager
def running() -> Iterator[ControlPlane]:
    """A new one, and nothing of it afterwards."""
    if not all((_directory() / "bin" / program).exists() for program in PROGRAMS):
        build_cluster()
    directory = Path(tempfile.mkdtemp(prefix="llmos-bench-"))
    plane = ControlPlane(directory)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(directory, ignore_errors=True)
