"""A local backend in its own process, for tests that kill it.

``python -m tests.support.backend_process DIRECTORY RUNTIME_DIR [--count N] [--die-after-spawn]`` applies one workload
of fake engines, prints a line when all are ready, and then waits. With ``--die-after-spawn`` it kills itself with
SIGKILL right after the first replica was started, before that is recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from llmos_hub.backends.local import replica
from llmos_hub.backends.local.backend import LocalBackend
from tests.support.backend_contract import ready, until, workload
from tests.support.local_backend import QUICK, engine


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("runtime_dir", type=Path)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--die-after-spawn", action="store_true")
    options = parser.parse_args()
    backend = LocalBackend(options.directory, options.runtime_dir, options=QUICK)
    await backend.start()
    if options.die_after_spawn:
        spawn = replica.spawn

        def spawn_and_die(*arguments: object, **named: object) -> object:
            spawn(*arguments, **named)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        replica.spawn = spawn_and_die  # type: ignore[assignment]
    wanted = workload(engine(), count=options.count)
    await backend.apply(wanted)
    await until(backend, wanted.ref, ready(options.count))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
