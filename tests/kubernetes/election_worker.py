"""One of several controllers processes, for tests: the real parts, over the resources of a test's own namespace alone.

What it writes it notes in a file, a JSON line each: when, in which term, what.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.controllers.election import Election, own_identity
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.leases import KubernetesLeases
from llmos_hub.controllers.metrics import ProcessMetrics
from llmos_hub.controllers.parts import Parts, lease_timing
from llmos_hub.controllers.runner import Controllers
from llmos_hub.engines.base import Machine
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.names import DataDir
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.base import Store
from llmos_hub.stores.kubernetes.store import KubernetesStore

WRITES = ("create", "update", "apply", "patch_status", "delete")


class OfOneNamespace:
    """A store of which only one namespace is seen, with a note of every write that reaches it."""

    def __init__(self, store: Store, namespace: str, note: Any) -> None:
        self._store, self._namespace, self._note = store, namespace, note

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in WRITES:
            return found

        async def noted(*args: Any, **kwargs: Any) -> Any:
            self._note(name, args[0].metadata.name if len(args) == 1 else args[2])
            return await found(*args, **kwargs)

        return noted

    async def list(self, kind: Any, namespace: str | None = None, **more: Any) -> Any:
        return await self._store.list(kind, namespace or self._namespace, **more)

    @asynccontextmanager
    async def watch(self, kind: Any, namespace: str | None = None, **more: Any) -> AsyncIterator[Any]:
        async with self._store.watch(kind, namespace or self._namespace, **more) as events:
            yield events


async def main(namespace: str, record: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop: asyncio.Event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = ProcessMetrics()
    api, leases = KubernetesAPI(), KubernetesAPI(timeout=2.0)
    out = record.open("a", buffering=1, encoding="utf-8")

    def note(what: str, name: str = "") -> None:
        line = {"at": time.monotonic(), "pid": os.getpid(), "term": election.term, "what": what, "name": name}
        out.write(json.dumps(line) + "\n")

    def told(leading: bool, term: int) -> None:
        metrics.lead(leading, term)
        note("leads" if leading else "stands by")

    election = Election(KubernetesLeases(leases, namespace), own_identity(), timing=lease_timing(), told=told)
    cluster = KubernetesSettings(release=namespace, namespace=namespace)
    backend = KubernetesBackend(api, cluster, leads=lambda: election.leading)
    store = cast("Store", OfOneNamespace(KubernetesStore(KubernetesAPI()), namespace, note))
    await backend.start()
    settings = ProcessSettings(
        DataDir(Path("/nonexistent")), "", store="kubernetes", backend="kubernetes", namespace=namespace
    )
    context = WorkloadContext(Layout(Path("/models"), per_namespace=True), lambda _: Machine(2, 8 * 2**30))
    controllers = Controllers(Parts(store, backend, context, election, metrics=metrics), settings)
    work = asyncio.create_task(controllers.run())
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await backend.close()
    await store.close()
    await api.close()
    await leases.close()
    out.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
