"""Times that a person waits, and memory: start, first token, kernel, idle and under load.

Each figure is the median of several runs with their range. The time to a model's first token is compared, in turn, with
the bare engine's own: the same program with the same model, started by hand and asked over its socket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import websockets

import llmos
from llmos.resources import ModelService
from llmos_hub.engines.machine import detect
from llmos_hub.engines.registry import choose
from llmos_hub.sources.base import ModelFiles
from tests.support.platform import ADMIN_PASSWORD, Platform

QUESTION = [{"role": "user", "content": "Hello"}]


def show(what: str, values: list[float], unit: str = "s") -> float:
    """Print a figure; its median."""
    middle = statistics.median(values)
    print(f"{what:58} {middle:8.2f} {unit}   ({min(values):.2f} to {max(values):.2f}, {len(values)} runs)", flush=True)
    return middle


def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait closely, so that the waiting doesn't count."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def log_in_page(platform: Platform) -> bool:
    """Return whether the log-in page is served."""
    try:
        return "Sign in" in httpx.get(f"{platform.hub_url}/hub/login", timeout=1).text
    except httpx.HTTPError:
        return False


def bench_start(runs: int, directory: Path) -> None:
    """From `llmos up` to the log-in page: on a new data directory, and again on one that is there."""
    first, again = [], []
    for run in range(runs):
        platform = Platform(directory / f"start-{run}")
        for times in (first, again):
            began = time.monotonic()
            platform.spawn()
            until(lambda: log_in_page(platform))  # noqa: B023 - used before the next round
            times.append(time.monotonic() - began)
            until(lambda: "LLMOS is ready." in platform.output)  # noqa: B023 - as above
            platform.stop()
    show("`llmos up` to log-in page, first start", first)
    show("`llmos up` to log-in page, later starts", again)


def bare_engine(directory: Path) -> float:
    """Seconds from starting the engine's process by hand to the first token over its socket."""
    done = subprocess.run(
        [sys.executable, "-m", "llmos_hub.app", "fetch", "demo://tiny", str(directory / "models")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    model = ModelFiles.load(json.loads(done.stdout.splitlines()[-1])["model"])
    spec = ModelService.parse(
        {"kind": "ModelService", "metadata": {"name": "x"}, "spec": {"model": "demo://tiny"}}
    ).spec
    engine, _ = choose(spec, model, detect())
    template = engine.plan(spec, model, detect()).template
    socket = str(directory / "engine.sock")
    argv = [word.replace("{socket}", socket) for word in template.argv]
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", **template.env}
    )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://engine") as client:

            def healthy() -> bool:
                try:
                    return client.get("/health").status_code == 200
                except httpx.HTTPError:
                    return False

            until(healthy)
            body = {"messages": QUESTION, "stream": True, "max_tokens": 4}
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                next(response.iter_lines())
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait(10)
        Path(socket).unlink(missing_ok=True)


def bench_first_token(platform: Platform, runs: int, directory: Path) -> None:
    """From `serve demo://tiny` to the first token, and the bare engine's own, in turn."""
    served, bare = [], []
    token = platform.token("admin")
    with llmos.Client(
        url=platform.api_url, token=token, gateway_url=f"{platform.gateway_url}/v1", gateway_token=token
    ) as client:
        client.whoami()  # a notebook has asked before
        for run in range(runs):
            bare.append(bare_engine(directory))
            began = time.monotonic()
            client.serve("demo://tiny", name=f"tiny-{run}", timeout=60)
            chunks = client.stream_chat(f"tiny-{run}", QUESTION, max_tokens=4)
            next(chunks)
            served.append(time.monotonic() - began)
            chunks.close()
            client.modelservices.delete(f"tiny-{run}")
            client.modelservices.wait_deleted(f"tiny-{run}")
    ours = show("`serve demo://tiny` to the first token", served)
    theirs = show("the bare engine's start to the first token", bare)
    print(f"{'more than the bare engine':58} {ours - theirs:8.2f} s", flush=True)


async def kernel_answers(url: str, cookies: str, xsrf: str) -> None:
    """Start a kernel in a running server and have it compute 1 + 1, as the page does."""
    async with httpx.AsyncClient(headers={"Cookie": cookies, "X-XSRFToken": xsrf}, timeout=30) as client:
        kernel = (await client.post(f"{url}api/kernels", json={"name": "python3"})).json()["id"]
    address = f"{url.replace('http', 'ws', 1)}api/kernels/{kernel}/channels?_xsrf={xsrf}"
    header = {
        "msg_id": "1", "username": "", "session": "s", "msg_type": "execute_request", "version": "5.3", "date": "",
    }  # fmt: skip
    request = {
        "header": header, "parent_header": {}, "metadata": {}, "channel": "shell",
        "content": {"code": "1 + 1", "silent": False, "store_history": False, "user_expressions": {}},
    }  # fmt: skip
    async with websockets.connect(
        address, additional_headers={"Cookie": cookies, "Origin": url.split("/user", maxsplit=1)[0]}
    ) as socket:
        await socket.send(json.dumps(request))
        async with asyncio.timeout(30):
            async for message in socket:
                if json.loads(message)["header"]["msg_type"] == "execute_result":
                    return


def bench_kernel(platform: Platform, runs: int) -> None:
    """From the click on Start to a kernel that answers."""
    times = []
    for run in range(runs):
        with platform.browser("admin", ADMIN_PASSWORD) as page:
            token = platform.token("admin")
            began = time.monotonic()
            url = platform.start_server("admin", token, f"s{run}")
            page.get(url + "lab")
            cookies = "; ".join(
                f"{c.name}={c.value}" for c in page.cookies.jar if c.path in ("/", f"/user/admin/s{run}/")
            )
            xsrf = next(c.value for c in page.cookies.jar if c.name == "_xsrf" and c.path == f"/user/admin/s{run}/")
            asyncio.run(kernel_answers(url, cookies, xsrf or ""))
            times.append(time.monotonic() - began)
            platform.stop_server("admin", token, f"s{run}")
    show("Start of a server to a kernel that answers", times)


def memory(platform: Platform) -> dict[str, float]:
    """MiB of every process by its part: proportional set size, so that shared pages count once (proc_pid_smaps(5))."""
    parts: dict[str, float] = {}
    for handle in [*platform.marked(), platform.handle("supervisor")]:
        try:
            text = Path(f"/proc/{handle.pid}/smaps_rollup").read_text()
            command = Path(f"/proc/{handle.pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        name = next(
            (
                n
                for n in ("singleuser", "llamacpp_server", "ipykernel", "configurable-http-proxy", "hub_main", "valkey")
                if n in command
            ),
            command.split(" ")[3] if " -m llmos_hub.app " in command else command[:20],
        )
        found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        parts[name] = parts.get(name, 0.0) + int(found[1] if found else 0) / 1024
    return parts


def bench_memory(platform: Platform) -> None:
    """Everything together: idle, and after 5,000 requests through the gateway and 2,000 through the proxy."""
    time.sleep(5)
    idle = memory(platform)
    print(
        f"{'memory idle':58} {sum(idle.values()):8.0f} MiB  { ({k: round(v) for k, v in sorted(idle.items())}) }",
        flush=True,
    )
    token = platform.token("admin")
    with llmos.Client(
        url=platform.api_url, token=token, gateway_url=f"{platform.gateway_url}/v1", gateway_token=token
    ) as client:
        client.serve("demo://tiny", name="load", timeout=60)

        async def load() -> None:
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as asking:
                for url, count in ((f"{platform.gateway_url}/v1", 5000), (f"{platform.hub_url}/services/llm/v1", 2000)):
                    left = iter(range(count))

                    async def worker(url: str = url, left=left) -> None:
                        for _ in left:
                            body = {"model": "load", "messages": QUESTION, "max_tokens": 1}
                            (await asking.post(f"{url}/chat/completions", json=body)).raise_for_status()

                    await asyncio.gather(*(worker() for _ in range(8)))

        asyncio.run(load())
        client.modelservices.delete("load")
        client.modelservices.wait_deleted("load")
    after = memory(platform)
    print(
        f"{'memory after load':58} {sum(after.values()):8.0f} MiB  { ({k: round(v) for k, v in sorted(after.items())}) }",
        flush=True,
    )


def main() -> None:
    """All figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    directory = Path(tempfile.mkdtemp(prefix="llmos-bench-"))
    try:
        bench_start(runs, directory)
        platform = Platform(directory / "data")
        platform.start()
        try:
            bench_memory(platform)
            bench_first_token(platform, runs, directory)
            bench_kernel(platform, runs)
        finally:
            platform.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
