"""Waiting for a resource with its progress shown."""

from __future__ import annotations

from typing import TypeVar

from llmos.cli.output import Output
from llmos.client._sync.client import Client
from llmos.client.progress import Progress
from llmos.errors import NotReady
from llmos.present.transcript import Transcript
from llmos.resources import MAIN_KIND, Resource

__all__ = ["WatchStopped", "wait_shown"]

R = TypeVar("R", bound=Resource)


class WatchStopped(KeyboardInterrupt):
    """Ctrl-C while waiting for a resource; the user was told that it continues."""


def wait_shown(
    client: Client, kind: type[R], name: str, output: Output, *, namespace: str | None, timeout: float | None = None
) -> R:
    """Wait until a resource is ready, show its progress, and return it.

    Raises
    ------
    NotReady
        It failed, or is not ready after `timeout`.
    WatchStopped
        The user pressed Ctrl-C and was told that it continues.
    """
    transcript = Transcript(output.hints)

    def show(progress: Progress) -> None:
        transcript.add(progress)
        live.show(transcript)

    look = "ps" if kind is MAIN_KIND else f"get {kind.singular} {name}"
    try:
        with output.live() as live:
            return client.collection(kind).wait_ready(name, namespace=namespace, timeout=timeout, on_progress=show)
    except KeyboardInterrupt:
        output.note(f"Stopped watching; {name} continues by itself. Look with: {output.hints.command} {look}")
        raise WatchStopped from None
    except NotReady as error:
        last = transcript.current
        meaning = kind.phases.get(last.phase) if last is not None else None
        if last is not None and last.message and meaning in ("failed", "degraded"):
            # the reason is in the line above
            what = "failed" if meaning == "failed" else "did not change"
            message = f"{name} {what}. More: {output.hints.command} describe {kind.singular} {name}"
            raise type(error)(message, request_id=error.request_id) from None
        raise
