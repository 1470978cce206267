"""``llmos down``: stop a platform from another process, also after its supervisor has died."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from llmos_hub.names import DataDir
from llmos_hub.supervisor.plan import END_SIGNALS
from llmos_hub.supervisor.state import StateFiles
from llmos_hub.supervisor.supervisor import stop_recorded, sweep

__all__ = ["ORDER", "down"]

ORDER = ("valkey", "proxy", "api", "gateway", "controllers", "hub")
_TIMEOUT = 120.0  # seconds; notebook servers have 10 s to end, and each part has its own grace period


def down(data_dir: DataDir) -> int:
    """Stop the platform and wait until it has ended; return the exit code."""
    files = StateFiles(data_dir)
    supervisor = files.supervisor()
    if supervisor is not None:
        supervisor.send(signal.SIGTERM)
        sys.stdout.write(f"Stopping LLMOS in {data_dir.root} (pid {supervisor.pid}) …\n")
        sys.stdout.flush()
        if not supervisor.wait_blocking(_TIMEOUT):
            sys.stderr.write(
                f"It has not stopped within {_TIMEOUT:.0f} s. What it still runs: llmos status. "
                f"To end it at once: kill -9 {supervisor.pid}, then llmos down again.\n"
            )
            return 1
        sys.stdout.write("Stopped.\n")
        return 0
    if not files.admin and not data_dir.secrets.exists():
        sys.stdout.write(f"No platform has run in {data_dir.root}.\n")
        return 0
    files.lock()  # so that it can't be started meanwhile
    try:
        return asyncio.run(_without_supervisor(files))
    finally:
        files.unlock()


async def _without_supervisor(files: StateFiles) -> int:
    records = files.records()
    await stop_recorded(records, ORDER, signals=END_SIGNALS)
    swept = await sweep(files.mark) if files.mark else 0
    for name in records:
        files.drop_record(name)
    with contextlib.suppress(OSError):  # a full disk
        files.write_status({**files.status(), "supervisor": None, "processes": {}, "stopping": True})
    count = len(records) + swept
    sys.stdout.write(f"Stopped {count} processes whose supervisor was gone.\n" if count else "Nothing was running.\n")
    return 0
