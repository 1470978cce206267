"""Lets the rest of the notebook environment be fetched while the platform already runs, and says how that stands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence

from llmos.python.notebook import COMPLETE, notebook_environment, setup_command

__all__ = ["NotebookSetup", "notebook_state"]

_AGAIN_FIRST = 30.0  # seconds after which a failed fetch is tried again; doubles each time
_AGAIN_MAX = 1800.0


class NotebookSetup:
    """Runs set-up's second part until it has succeeded.

    Parameters
    ----------
    environment
        What it is run with.
    say
        Prints a line for the one who looks.
    command
        Runs it; empty where nothing is to do.
    """

    def __init__(
        self, environment: Mapping[str, str], say: Callable[[str], None], command: Sequence[str] | None = None
    ) -> None:
        self._environment = dict(environment)
        self._say = say
        self._command = list(setup_command() if command is None else command)

    async def run(self) -> None:
        """Return when nothing is missing; cancelled, it ends what it has started."""
        if not self._command:
            return
        again = _AGAIN_FIRST
        self._say("fetching numpy, pandas and what else notebooks expect; notebooks work meanwhile")
        began = time.monotonic()
        while trouble := await self._once():
            self._say(f"the notebooks' packages could not be fetched ({trouble}); trying again in {again:.0f} s")
            await asyncio.sleep(again)
            again = min(2 * again, _AGAIN_MAX)
        self._say(f"the notebooks' packages are complete, {time.monotonic() - began:.0f} s")

    async def _once(self) -> str:
        """Run it once; what went wrong."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends it
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
    """How the notebook environment stands, in words; empty where there is nothing to say."""
    base = notebook_environment()
    if not setup_command():
        return ""
    return f"fetching numpy, pandas and what else notebooks expect into {base} ({COMPLETE} is not there yet)"
