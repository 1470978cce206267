"""Requests a second and added latency of the gateway, against the bare engine and against what one would write else.

``python tests/benchmarks/bench_gateway.py [--seconds S] [--rounds N] [--only NAME …] [--profile]``

Everything is a process of its own on this machine: a fake engine on a unix socket that answers at once (so
that what is measured is what stands before it), the client, and in turn

- ``bare``: the engine's own port, nothing before it;
- ``gateway``: ours, as `serve` runs it but for store and Hub: authentication by a fake that remembers one token;
- ``starlette+httpx``: the proxy that one finds in examples (Starlette on uvicorn, httpx to the engine);
- ``chp``: configurable-http-proxy, where it is installed (``--chp PATH`` of its script, ``--node PATH``), which
  neither authenticates nor routes by model.

The rounds are interleaved and the medians reported, since other things run on the machine as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
BODY = json.dumps(
    {
        "messages": [{"role": "user", "content": "What is a dictionary in Python? " * 6}],
        "model": "chat",
        "stream": False,
    }
).encode()
STREAM = BODY.replace(b'"stream": false', b'"stream": true')


# what runs as processes of their own


async def run_gateway(port: int, engine: str, profile: bool) -> None:
    from llmos.resources import ModelService
    from llmos_hub.bounded_http import stop_on_signals
    from llmos_hub.gateway.app import Gateway
    from llmos_hub.gateway.options import GatewayOptions
    from llmos_hub.gateway.server import Server, listen
    from tests.support.gateway import FakeIdentity, service

    lines = Path(os.devnull).open("w")  # noqa: SIM115 - to the process's end
    logging.basicConfig(level=logging.INFO, stream=lines)  # a line per request is made and written
    options = GatewayOptions()
    gateway = Gateway(None, FakeIdentity(), options)  # type: ignore[arg-type]
    made: ModelService = service("chat", engine)
    gateway.context.table.put(made)
    gateway.context.discovery.synced.set()
    server = Server(gateway, options, listen("127.0.0.1", port))
    with stop_on_signals(server.stop):
        if profile:
            import cProfile
            import pstats

            profiler = cProfile.Profile()
            profiler.enable()
            await server.run_until_stopped()
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
        else:
            await server.run_until_stopped()


async def run_example(port: int, engine: str) -> None:
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    transport = httpx.AsyncHTTPTransport(
        uds=engine.removeprefix("unix://"), limits=httpx.Limits(max_connections=None, max_keepalive_connections=256)
    )
    client = httpx.AsyncClient(transport=transport, timeout=60, base_url="http://engine")

    async def proxy(request: Request) -> StreamingResponse:
        body = await request.body()
        json.loads(body)["model"]
        sent = client.build_request(
            "POST", request.url.path, content=body, headers={"content-type": "application/json"}
        )
        answer = await client.send(sent, stream=True)

        async def chunks() -> Any:
            async for chunk in answer.aiter_raw():
                yield chunk
            await answer.aclose()

        return StreamingResponse(chunks(), answer.status_code, {"content-type": answer.headers["content-type"]})

    app = Starlette(routes=[Route("/v1/chat/completions", proxy, methods=["POST"])])
    config = uvicorn.Config(app, port=port, http="httptools", loop="none", access_log=False, log_level="error")
    await uvicorn.Server(config).serve()


# the client


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it has the answer."""

    def __init__(self, request: bytes, times: list[float], firsts: list[float], until: float) -> None:
        self.request, self.times, self.firsts, self.until = request, times, firsts, until
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.first = 0.0
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.first = self.first or time.perf_counter()
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        if b"transfer-encoding: chunked" in head:
            if not self.buffer.endswith(b"0\r\n\r\n"):
                return
        elif len(self.buffer) < end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        if not self.buffer.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self.buffer.decode()))
            return
        now = time.perf_counter()
        self.times.append(now - self.began)
        self.firsts.append(self.first - self.began)
        self.buffer = b""
        if now < self.until:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))


async def load(port: int, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ada-token\r\n"
        b"Accept: application/json\r\nUser-Agent: OpenAI/Python\r\nX-Stainless-Lang: python\r\nAccept-Encoding: gzip\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    times: list[float] = []
    firsts: list[float] = []
    began = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(request, times, firsts, began + seconds), "127.0.0.1", port
        )
        clients.append(client.done)
    await asyncio.gather(*clients)
    took = time.perf_counter() - began
    times.sort()
    return {
        "count": len(times),
        "rps": len(times) / took,
        "p50": statistics.median(times) * 1e3,
        "p99": times[int(len(times) * 0.99)] * 1e3,
        "first": statistics.median(firsts) * 1e3,
    }


# all of it


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process, which, unlike times on the clock, other work on the machine hardly changes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def answers(port: int) -> None:
    for _ in range(2000):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.025)
    message = f"nothing listens on port {port}"
    raise RuntimeError(message)


SCENARIOS = (
    ("1 connection", BODY, 1),
    ("32 connections", BODY, 32),
    ("100 events each, 8 connections", STREAM, 8),
)


async def measure(options: argparse.Namespace) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, contextlib.ExitStack() as stack:
        engine = f"unix://{directory}/engine.sock"
        ports = {name: free_port() for name in ("bare", "gateway", "starlette+httpx", "chp")}

        pids: dict[str, int] = {}

        def start(name: str, *command: str) -> None:
            process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            pids[name] = process.pid

        fake = str(ROOT / "tests/support/fake_upstream.py")
        start("engine", sys.executable, fake, "--socket", engine.removeprefix("unix://"))
        start("bare", sys.executable, fake, "--port", str(ports["bare"]))
        this = [sys.executable, __file__, "--engine", engine]
        profile = ["--profile"] if options.profile else []
        start("gateway", *this, "--run", "gateway", "--port", str(ports["gateway"]), *profile)
        start("starlette+httpx", *this, "--run", "example", "--port", str(ports["starlette+httpx"]))
        if options.chp:
            target = f"http://127.0.0.1:{ports['bare']}"
            start("chp", options.node, options.chp, "--ip", "127.0.0.1", "--port", str(ports["chp"]), "--default-target", target,
                  "--api-port", str(free_port()))  # fmt: skip
        else:
            del ports["chp"]
        for port in ports.values():
            await answers(port)
        chosen = {n: p for n, p in ports.items() if not options.only or n in options.only}
        for title, body, connections in SCENARIOS:
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
            for number in range(options.rounds + 1):
                for name, port in chosen.items():
                    before = cpu_seconds(pids[name])
                    result = await load(port, body, connections, options.seconds if number else 0.5)
                    result["cpu"] = (cpu_seconds(pids[name]) - before) / result.pop("count") * 1e6
                    if number:  # the first is for warming up
                        rounds[name].append(result)
            print(f"\n{title}: median of {options.rounds} rounds of {options.seconds:g} s")
            print(f"{'':18}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'first byte ms':>15}{'CPU us/request':>16}")
            for name, results in rounds.items():
                row = {k: statistics.median(r[k] for r in results) for k in results[0]}
                print(
                    f"{name:18}{row['rps']:12,.0f}{row['p50']:9.2f}{row['p99']:9.2f}{row['first']:15.2f}{row['cpu']:16.0f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--chp")
    parser.add_argument("--node", default="node")
    parser.add_argument("--run")
    parser.add_argument("--port", type=int)
    parser.add_argument("--engine")
    options = parser.parse_args()
    if options.run == "gateway":
        uvloop.run(run_gateway(options.port, options.engine, options.profile))
    elif options.run == "example":
        uvloop.run(run_example(options.port, options.engine))
    else:
        uvloop.run(measure(options))


if __name__ == "__main__":
    main()
