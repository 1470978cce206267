"""Completion of the notebook environment while the platform already runs, and its state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence

from llmos.python.notebook import COMPLETE, notebook_environment, setup_command

__all__ = ["NotebookSetup", "notebook_state"]

_AGAIN_FIRST = 30.0  # seconds before a failed fetch is repeated; doubles each time
_AGAIN_MAX = 1800.0


class NotebookSetup:
    """The second part of set-up, repeated until it has succeeded.

    Parameters
    ----------
    environment
        The environment variables of the command.
    say
        Prints a line on the console.
    command
        The command; empty if there is nothing to do.
    """

    def __init__(
        self, environment: Mapping[str, str], say: Callable[[str], None], command: Sequence[str] | None = None
    ) -> None:
        self._environment = dict(environment)
        self._say = say
        self._command = list(setup_command() if command is None else command)

    async def run(self) -> None:
        """Run until the environment is complete; when cancelled, kill the command."""
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
        """Run the command once; return an error message, empty if it succeeded."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
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
