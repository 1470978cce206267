"""Measure the store on a real Valkey with ``appendfsync always``: ``python tests/benchmarks/bench_store.py``.

Prints medians of several rounds: writes a second from one and from many tasks, a list of 1,000 and of 10,000
resources (ours, and how long the server is held up meanwhile), and the time from a write's start to the
watch that tells of it.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from llmos.resources import Condition, ModelService
from llmos_hub.stores import open_store
from llmos_hub.stores.base import Store
from tests.support.store_contract import model, next_change
from tests.support.valkey import ValkeyServer

ROUNDS = 5


def typical(name: str) -> ModelService:
    """A service with the status of a running one, about 2 KB of JSON."""
    made = model(name, labels={"team": "blue", "tier": "gold"}, annotations={"note": "x" * 200})
    made.status.phase = "Ready"
    made.status.conditions = [
        Condition(type=t, status="True", reason="Found", message="The header says so. " * 4)
        for t in ("Downloaded", "ModelRecognised", "Ready")
    ]
    made.status.last_log_lines = ["llama_model_loader: loaded meta data with 31 key-value pairs"] * 8
    return made


async def writes(store: Store, tasks: int, seconds: float = 1.0) -> float:
    """Status writes a second, each on a resource of its own task."""
    done = 0
    end = time.perf_counter() + seconds

    async def write(number: int) -> None:
        nonlocal done
        resource = await store.apply(model(f"writer{number}"))
        while time.perf_counter() < end:
            resource.status.message = str(done)
            resource = await store.patch_status(resource)
            done += 1

    await asyncio.gather(*(write(n) for n in range(tasks)))
    return done / seconds


async def fill(store: Store, start: int, count: int) -> None:
    """Make resources with a status, in parallel."""

    async def one(number: int) -> None:
        wanted = typical(f"m{number:05}")
        made = await store.create(wanted)
        made.status = wanted.status
        await store.patch_status(made)

    for first in range(start, start + count, 64):
        await asyncio.gather(*(one(n) for n in range(first, min(first + 64, start + count))))


PING = """
import sys, time, redis
client = redis.Redis.from_url(sys.argv[1])
longest, end = 0.0, time.perf_counter() + float(sys.argv[2])
print("ready", flush=True)
while time.perf_counter() < end:
    start = time.perf_counter()
    client.ping()
    longest = max(longest, time.perf_counter() - start)
print(longest)
"""


async def held_up(store: Store, seconds: float, *, busy: bool) -> float:
    """The longest that another process's ping took, while lists run one after the other or nothing does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PING, server.url, str(seconds)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    await process.stdout.readline()
    end = time.perf_counter() + seconds
    while busy and time.perf_counter() < end:
        await store.list(ModelService)
    return float(await process.stdout.read())


async def listing(store: Store) -> tuple[float, float]:
    """Seconds for a list, and how many of them the server spent in it."""
    with server.client() as client:
        before = client.info("commandstats")["cmdstat_evalsha"]["usec"]
        start = time.perf_counter()
        await store.list(ModelService)
        spent = time.perf_counter() - start
        return spent, (client.info("commandstats")["cmdstat_evalsha"]["usec"] - before) / 1e6


async def latency(store: Store, other: Store, count: int = 300) -> tuple[float, float]:
    """Seconds from the start, and from the acknowledgement, of a write to its event in another store's watch."""
    whole, after = [], []
    resource = await store.apply(model("watched"))
    version = (await other.list(ModelService)).resource_version
    async with other.watch(ModelService, resource_version=version) as events:
        for number in range(count):
            resource.status.message = f"{number} of this round"
            told = asyncio.create_task(next_change(events))
            await asyncio.sleep(0)
            start = time.perf_counter()
            resource = await store.patch_status(resource)
            acknowledged = time.perf_counter()
            await told
            whole.append(time.perf_counter() - start)
            after.append(time.perf_counter() - acknowledged)
    return statistics.median(whole), statistics.median(after)


async def main() -> None:
    """Run it all."""
    store, other = open_store(server.url), open_store(server.url)
    for tasks in (1, 8, 32):
        rates = [await writes(store, tasks) for _ in range(ROUNDS)]
        print(f"status writes, {tasks:2} tasks         {statistics.median(rates):8,.0f} /s")
    delays = [await latency(store, other) for _ in range(ROUNDS)]
    print(f"write to event, from its start    {statistics.median(d[0] for d in delays) * 1e3:8.2f} ms")
    print(f"write to event, from its answer   {statistics.median(d[1] for d in delays) * 1e3:8.2f} ms")
    filled = 0
    for size in (1_000, 10_000):
        await fill(store, filled, size - filled)
        filled = size
        took = [await listing(store) for _ in range(ROUNDS)]
        idle, busy = await held_up(store, 2, busy=False), await held_up(store, 2, busy=True)
        print(f"list of {size:6,}                   {statistics.median(t[0] for t in took) * 1e3:8.1f} ms")
        print(f"  of which the server's script    {statistics.median(t[1] for t in took) * 1e3:8.1f} ms")
        print(f"  longest ping of another process {busy * 1e3:8.1f} ms (without lists {idle * 1e3:.1f})")
    await store.close()
    await other.close()


if __name__ == "__main__":
    server = ValkeyServer(Path(tempfile.mkdtemp(prefix="llmos-bench-")))
    server.start()
    try:
        asyncio.run(main())
    finally:
        server.close()
