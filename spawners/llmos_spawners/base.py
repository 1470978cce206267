"""The part that the spawners have in common: the platform's addresses, a token for models, and a queue of starts."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from traitlets import Integer, Unicode, default
from traitlets.config import Configurable

from llmos_spawners.environment import revoke_tokens
from llmos_spawners.start_queue import StartQueue

__all__ = ["PlatformSpawner", "own_default"]


def own_default(trait: str, value: Any) -> Any:
    """Return a class's own default for a trait that it inherits, which a site's configuration can override."""
    return default(trait)(lambda _: copy.deepcopy(value))


class PlatformSpawner(Configurable):
    """A mixin for spawners of servers that use the platform.

    It limits the concurrent starts, of which JupyterHub would refuse too many: further ones wait, and their progress
    page says so. A waiting start has done nothing yet, and the wait doesn't count towards `start_timeout`. The spawner
    calls `leave_queue` when its start is over.
    """

    openai_base_url = Unicode(
        "", config=True, help="The gateway's address with ``/v1``: ``OPENAI_BASE_URL`` in every server."
    )
    llmos_url = Unicode("", config=True, help="The API's address: ``LLMOS_URL`` in every server.")

    concurrent_starts = Integer(
        min=0,
        config=True,
        help="""
        Maximum number of concurrent starts in this Hub; 0 for no limit. Further starts wait, in the order of their
        arrival.
        """,
    )

    _token = ""  # for models

    # one queue per spawner class, for all servers of this Hub
    _starts: ClassVar[StartQueue | None] = None

    @property
    def starts(self) -> StartQueue:
        """The queue of this spawner class."""
        kind = type(self)
        if kind._starts is None:  # noqa: SLF001 - an attribute of this class
            kind._starts = StartQueue(self.concurrent_starts)  # noqa: SLF001
        return kind._starts  # noqa: SLF001

    async def run_pre_spawn_hook(self) -> None:
        """Wait for a turn, then run the site's hook."""
        # the Hub calls this before a start, and before `start_timeout` begins
        await self.starts.enter(self)
        try:
            await self._run_next("run_pre_spawn_hook")
        except BaseException:
            self.leave_queue()
            raise

    async def run_post_stop_hook(self) -> None:
        """Revoke the server's tokens; runs after every stop, also of a server that died or that an earlier Hub started."""
        self.leave_queue()
        revoke_tokens(self)
        self._token = ""
        await self.forget_tokens()
        await self._run_next("run_post_stop_hook")

    async def forget_tokens(self) -> None:
        """Delete copies of the tokens outside this process; there are none by default."""

    async def _run_next(self, hook: str) -> None:
        """Run a hook of the class into which this one is mixed."""
        if (done := getattr(super(), hook)()) is not None:
            await done

    def platform_environment(self) -> dict[str, str]:
        """Return the variables with which ``openai.OpenAI()`` and ``llmos.Client()`` need no arguments."""
        return {"OPENAI_BASE_URL": self.openai_base_url, "OPENAI_API_KEY": self._token, "LLMOS_URL": self.llmos_url}

    def leave_queue(self) -> None:
        """Let the next start begin; idempotent."""
        self.starts.leave(self)

    @property
    def waiting(self) -> str:
        """A message with the place in the queue; empty if this start doesn't wait."""
        ahead = self.starts.position(self)
        if not ahead:
            return ""
        others = "" if ahead == 1 else f", {ahead - 1} before you"
        return f"Waiting: others are starting at this moment{others}. Yours starts by itself."
