"""Detection of processes that hang rather than are slow, by their activity while they don't answer.

Answers are late on a machine under load, but a process that is about to answer either runs, waits for a CPU or waits
for a disk, and the kernel shows all three. A process that was stopped, or waits for an event that never comes, does
none of them; one in an endless loop uses more CPU time than any answer takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llmos import proc

__all__ = ["Effort", "HangJudge", "effort_of"]

_QUIET: Final = 5.0  # seconds without an answer in which it hardly wanted to run
_QUIET_SHARE: Final = 0.02  # of that time: background threads that wake up now and then
_SPINNING: Final = 10.0  # seconds of CPU time without an answer; an answer about health takes milliseconds


@dataclass(frozen=True, slots=True)
class Effort:
    """The activity of a session's processes since they were started.

    Attributes
    ----------
    ran
        CPU time in seconds.
    waited
        Seconds in which their threads were runnable but waited for a CPU.
    busy
        True if one of their threads runs or waits for a disk at this moment.
    """

    ran: float
    waited: float
    busy: bool


def effort_of(leader: int) -> Effort:
    """Return the activity of the session that `leader` leads."""
    found = [proc.activity(pid) for pid in proc.pids() if proc.session(pid) == leader]
    return Effort(sum(ran for ran, _, _ in found), sum(waited for _, waited, _ in found), any(b for _, _, b in found))


class HangJudge:
    """A judge of whether a process hangs, which is told of every answer and every missing answer.

    Parameters
    ----------
    leader
        The pid of the process; all processes of its session are counted.
    spinning
        True if much CPU time without an answer is a sign of hanging, too. That is not so for a program that computes
        on some threads while another one answers.
    effort, clock
        Replaced in tests.
    """

    def __init__(
        self,
        leader: int,
        *,
        spinning: bool,
        effort: Callable[[int], Effort] = effort_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leader = leader
        self._spinning = spinning
        self._effort = effort
        self._clock = clock
        self._silent_since: Effort | None = None
        self._quiet_since: tuple[float, Effort] | None = None

    def answered(self) -> None:
        """Record an answer, whatever it was."""
        self._silent_since = self._quiet_since = None

    def silent(self) -> str | None:
        """Record that no answer came in time; return a sentence why it hangs once that is certain, otherwise None."""
        now, found = self._clock(), self._effort(self._leader)
        if self._silent_since is None or self._quiet_since is None:
            self._silent_since, self._quiet_since = found, (now, found)
            return None
        ran = found.ran - self._silent_since.ran
        if self._spinning and ran >= _SPINNING:
            return f"no answer, though it ran for {ran:.0f} s"
        began, before = self._quiet_since
        passed = now - began
        wanted = found.ran + found.waited - before.ran - before.waited
        if found.busy or wanted > _QUIET_SHARE * passed:
            self._quiet_since = (now, found)  # it works, or would if it could
            return None
        return f"no answer, and nothing done for {passed:.0f} s" if passed >= _QUIET else None
