"""Waiting for a service with its progress shown."""

from __future__ import annotations

from contextlib import closing

from llmos.cli.output import Output
from llmos.client._sync.client import Client
from llmos.errors import ModelNotReady
from llmos.present.transcript import Transcript
from llmos.resources import ModelService

__all__ = ["WatchStopped", "wait_shown"]


class WatchStopped(KeyboardInterrupt):
    """Ctrl-C while waiting for a service; the user was told that the service continues."""


def wait_shown(client: Client, service: ModelService, output: Output, *, timeout: float | None = None) -> ModelService:
    """Wait until `service` is Ready and show its progress.

    Raises
    ------
    ModelNotReady
        The service failed, or is not ready after `timeout`.
    WatchStopped
        The user pressed Ctrl-C and was told that the service continues.
    """
    name = service.metadata.name
    transcript = Transcript(output.hints)
    watch = client.wait_ready(name, namespace=service.metadata.namespace, timeout=timeout)
    try:
        with output.live() as live, closing(watch) as states:
            for progress in states:
                transcript.add(progress)
                live.show(transcript)
                service = progress.resource or service
    except KeyboardInterrupt:
        output.note(f"Stopped watching; {name} continues by itself. Look with: {output.hints.command} ps")
        raise WatchStopped from None
    except ModelNotReady as error:
        if service.status.phase in ("Failed", "Degraded") and service.status.message:
            # the reason is in the line above
            what = "failed" if service.status.phase == "Failed" else "did not change"
            message = f"{name} {what}. More: {output.hints.command} describe modelservice {name}"
            raise ModelNotReady(message, request_id=error.request_id) from None
        raise
    return service
