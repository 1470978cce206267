"""Reasons why a replica doesn't run: a word for programs and a sentence for people."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from llmos.resources.quantities import format_bytes
from llmos_hub.processes.running import Exit

__all__ = [
    "DEPENDENCY",
    "Failure",
    "Shortage",
    "crashed",
    "credentials_needed",
    "exit_words",
    "insufficient_memory",
    "killed_by_kernel",
    "missing",
    "not_mounted",
    "not_ready_in_time",
    "out_of_memory",
    "unhealthy",
    "waits_for",
]

DEPENDENCY: Final = "Dependency"
"""The reason of replicas that are started after other roles."""

_MI: Final = 2**20
_GI: Final = 2**30


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of a replica.

    Attributes
    ----------
    reason
        One word, as in `ReplicaState.reason`.
    message
        A sentence that says what to do.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """Too little memory for a replica.

    Attributes
    ----------
    needed
        Bytes that the replica needs.
    free
        Bytes that are neither used nor promised.
    promised
        Bytes that running replicas requested and don't use yet.
    total
        Bytes of the machine.
    """

    needed: int
    free: int
    promised: int
    total: int

    @property
    def short_by(self) -> int:
        """Bytes that are missing."""
        return max(1, self.needed - self.free)


def exit_words(ending: Exit) -> str:
    """Return how a replica's process ended, as half a sentence."""
    if ending.signal is not None:
        try:
            name = signal.Signals(ending.signal).name
        except ValueError:
            name = "a signal"
        return f"killed by {name} ({ending.signal})"
    if ending.code is not None:
        return f"exit code {ending.code}"
    return "it ended while the controllers were away, so its exit code is not known"


def _more(limit: int) -> str:
    """Return one and a half times the limit, as a round quantity."""
    wanted = limit * 1.5
    if wanted >= 2 * _GI:
        return f"{math.ceil(wanted / _GI)}Gi"
    return f"{math.ceil(wanted / (128 * _MI)) * 128}Mi"


def out_of_memory(name: str, used: int, limit: int) -> Failure:
    """Return the failure of a replica that was killed because it used more memory than its limit."""
    message = (
        f"{name} ran out of memory: used {format_bytes(used)} of {format_bytes(limit)}. "
        f"Give it more: llmos set {name} --memory {_more(limit)}"
    )
    return Failure("OutOfMemory", message)


def killed_by_kernel(name: str) -> Failure:
    """Return the failure of a replica that the kernel probably killed, since its count of OOM kills has grown."""
    message = (
        f"{name} was killed, and the kernel says that the machine had run out of memory. "
        "Stop another model (llmos ps shows what each uses) or serve a smaller one."
    )
    return Failure("OutOfMemory", message)


def insufficient_memory(name: str, shortage: Shortage) -> Failure:
    """Return the failure of a replica that isn't started, since the machine has too little free memory."""
    needed, free, total = (format_bytes(n) for n in (shortage.needed, shortage.free, shortage.total))
    if shortage.needed > shortage.total:
        message = f"{name} needs {needed} of memory and this machine has {total} in all. Serve a smaller model."
        return Failure("InsufficientMemory", message)
    promised = f", {format_bytes(shortage.promised)} are kept for what is still loading" if shortage.promised else ""
    message = (
        f"{name} needs {needed} of memory and {free} of {total} are free{promised}. "
        "It starts by itself once there is enough. Make room: llmos ps shows what each uses, llmos stop NAME."
    )
    return Failure("InsufficientMemory", message)


def crashed(name: str, ending: Exit, *, completes: bool) -> Failure:
    """Return the failure of a replica whose process ended by itself."""
    if completes:
        return Failure("Crashed", f"{name} failed: {exit_words(ending)}. See why: llmos logs {name}")
    still = ", though it should go on serving" if ending.code == 0 else ""
    return Failure("Crashed", f"{name} crashed: {exit_words(ending)}{still}. See why: llmos logs {name}")


def not_ready_in_time(name: str, seconds: float, path: str, words: str) -> Failure:
    """Return the failure of a replica that was not ready within its startup timeout."""
    message = (
        f"{name} was not ready within {seconds:g} s of its start and was stopped: GET {path} gave {words}. "
        f"See why: llmos logs {name}"
    )
    return Failure("StartupTimeout", message)


def unhealthy(name: str, failures: int, path: str, words: str) -> Failure:
    """Return the failure of a replica whose liveness probe failed too often."""
    message = (
        f"{name} hung and was stopped: {failures} times in a row GET {path} gave {words}. See why: llmos logs {name}"
    )
    return Failure("Unhealthy", message)


def hanging(name: str, why: str) -> Failure:
    """Return the failure of a replica that hangs."""
    return Failure("Unhealthy", f"{name} hung and was stopped ({why}); it is started again.")


def missing(name: str, program: str, why: str) -> Failure:
    """Return the failure of a replica whose program isn't found or can't be run."""
    message = f'{name} can\'t be started: the program "{program}" {why}. Is it installed on this machine?'
    return Failure("NotFound", message)


def waits_for(name: str, role: str, others: Iterable[str]) -> Failure:
    """Return the failure of a replica that isn't started before the replicas of other roles are ready."""
    return Failure(DEPENDENCY, f"{name}: {role} is started as soon as {' and '.join(sorted(others))} is ready.")


def not_mounted(name: str, mount: str, source: str) -> Failure:
    """Return the failure of a replica whose mount is no directory of this machine."""
    return Failure("Volume", f'{name} can\'t be started: there is no directory "{source}", which is its mount {mount}.')


def credentials_needed(failure: Failure | None, name: str) -> Failure:
    """Return the failure of a replica that can't be restarted until its secrets, which are never stored, come again."""
    before = failure or Failure("Crashed", f"{name} is not running.")
    return Failure(before.reason, f"{before.message} It starts again as soon as its credentials are provided again.")
