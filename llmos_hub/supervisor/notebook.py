"""Completion of the notebook environment while the platform already runs, and its state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence

from llmos.python.notebook import COMPLETE, notebook_environment, setup_command
from llmos_hub.processes.restarts import BackOff

__all__ = ["complete_notebook", "notebook_state"]

_AGAIN_FIRST = 30.0  # seconds before a failed fetch is repeated; doubles each time
_AGAIN_MAX = 1800.0


async def complete_notebook(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Run the second part of set-up until it has succeeded; when cancelled, kill it.

    Parameters
    ----------
    environment
        The environment variables of the command.
    say
        Prints a line on the console.
    """
    command = setup_command()
    if not command:
        return
    pauses = BackOff(_AGAIN_FIRST, _AGAIN_MAX)
    say("fetching numpy, pandas and what else notebooks expect; notebooks work meanwhile")
    began = time.monotonic()
    while trouble := await _run_once(command, environment):
        again = pauses.next()
        say(f"the notebooks' packages could not be fetched ({trouble}); trying again in {again:.0f} s")
        await asyncio.sleep(again)
    say(f"the notebooks' packages are complete, {time.monotonic() - began:.0f} s")


async def _run_once(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run the command once; return an error message, empty if it succeeded."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C only reaches the supervisor, which then kills it
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode == 0:
        return ""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[0][:200] if lines else f"exit status {process.returncode}"


def notebook_state() -> str:
    """Return the state of the notebook environment in words; empty if it is complete."""
    base = notebook_environment()
    if not setup_command():
        return ""
    return f"fetching numpy, pandas and what else notebooks expect into {base} ({COMPLETE} is not there yet)"
