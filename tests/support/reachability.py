"""Network reachability: connection attempts from pods and kernels, and addresses outside the cluster as targets."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tests.support.cluster import Cluster
from tests.support.people import Kernel

__all__ = [
    "MACHINE",
    "METADATA",
    "OUTSIDE",
    "Address",
    "Prober",
    "from_kernel",
    "from_pod",
    "listening_code",
    "listening_command",
    "metadata_services",
    "reached",
    "servers_outside",
]

Address = tuple[str, int]
Prober = Callable[[Sequence[Address]], list[bool]]
"""A function that returns for each address whether it accepts a connection."""

METADATA = "169.254.169.254"
"""Address of the metadata service in clouds, which returns the credentials of a node."""
OUTSIDE = "203.0.113.7"
"""An address outside (RFC 5737 reserves it for examples), assigned to this machine."""
MACHINE = "10.200.0.1"
"""Address of this machine in the nodes' network."""
_BRIDGE = "k8sbr0"
_TIMEOUT = 3.0
"""Seconds for three attempts of TCP. Denied packets are dropped silently, so failures always take this long."""

_PROBE = """
import concurrent.futures, json, socket

def probe(addresses, timeout):
    def one(address):
        try:
            with socket.create_connection(tuple(address), timeout):
                return True
        except OSError:
            return False

    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as pool:
        print(json.dumps(list(pool.map(one, addresses))))
"""

_LISTEN = """
import socketserver, sys

socketserver.ThreadingTCPServer.allow_reuse_address = True
with socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), socketserver.BaseRequestHandler) as server:
    print("listens", flush=True)
    server.serve_forever()
"""


def _call(addresses: Sequence[Address]) -> str:
    return f"{_PROBE}\nprobe({json.dumps(addresses)}, {_TIMEOUT})"


def from_kernel(kernel: Kernel) -> Prober:
    """Return a prober that runs in a user's notebook."""

    def probe(addresses: Sequence[Address]) -> list[bool]:
        out = kernel.run(_call(addresses), timeout=60)
        assert not out.error, out.shown
        return list(json.loads(out.text))

    return probe


def from_pod(cluster: Cluster, namespace: str, name: str) -> Prober:
    """Return a prober that runs in a pod with one of our images."""

    def probe(addresses: Sequence[Address]) -> list[bool]:
        command = ("exec", "-n", namespace, name, "--", "/opt/llmos/bin/python", "-c", _call(addresses))
        return list(json.loads(cluster.kubectl(*command, timeout=60)))

    return probe


def reached(prober: Prober, targets: Mapping[str, Sequence[Address]]) -> set[str]:
    """Return the names of reachable targets; each must be reachable at all of its addresses or at none."""
    places = [(name, address) for name, addresses in targets.items() for address in addresses]
    answers = list(zip(places, prober([address for _, address in places]), strict=True))
    opened = {name for (name, _), accepted in answers if accepted}
    halves = [f"{name} at {address}" for (name, address), accepted in answers if name in opened and not accepted]
    assert not halves, f"open elsewhere, closed here: {', '.join(halves)}"
    return opened


# Beyond the cluster: needs our own, on this machine


@contextmanager
def servers_outside() -> Iterator[dict[str, list[Address]]]:
    """Yield servers on this machine: at an outside address, at its port for HTTPS, and in the site's network."""
    address = f"{OUTSIDE}/32"
    _run("ip", "addr", "replace", address, "dev", _BRIDGE)
    try:
        with _server(OUTSIDE, 0) as world, _server(OUTSIDE, 443) as provider, _server(MACHINE, 0) as site:
            yield {"world": [world], "identity-provider": [provider], "site": [site]}
    finally:
        _run("ip", "addr", "del", address, "dev", _BRIDGE)


class _Server(socketserver.ThreadingTCPServer):
    """A server that accepts connections and closes them."""

    allow_reuse_address = True


@contextmanager
def _server(host: str, port: int) -> Iterator[Address]:
    with _Server((host, port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, name=f"server at {host}")
        thread.start()
        try:
            yield host, int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def metadata_services(cluster: Cluster) -> Iterator[dict[str, list[Address]]]:
    """Run a metadata service on every node, as in a cloud."""
    assert cluster.directory is not None
    with ExitStack() as stack:
        for pid_file in sorted(cluster.directory.glob("state/node*/box.pid")):
            inside = ["nsenter", "--net", "--target", pid_file.read_text().strip()]
            _run(*inside, "ip", "addr", "replace", f"{METADATA}/32", "dev", "lo")
            stack.callback(_run, *inside, "ip", "addr", "del", f"{METADATA}/32", "dev", "lo")
            words = [*inside, sys.executable, "-c", _LISTEN, METADATA, "80"]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline() == "listens\n"
        yield {"metadata": [(METADATA, 80)]}


def listening_command(host: str, port: int) -> list[str]:
    """Return a command for a container of our images that listens and closes connections."""
    return ["/opt/llmos/bin/python", "-c", _LISTEN, host, str(port)]


def listening_code(port: int) -> str:
    """Return the same as code for a notebook's cell, which runs in the background."""
    return f"""
import socketserver, threading
server = socketserver.ThreadingTCPServer(("0.0.0.0", {port}), socketserver.BaseRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)
