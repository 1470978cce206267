"""Model services as shown by ``ps``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from llmos.present.amounts import age, done_of, duration, memory_of, rate, time_left
from llmos.present.tables import Row, Table
from llmos.present.text import Tone
from llmos.resources import ModelService
from llmos.resources.base import condition

__all__ = ["ENGINES", "TONES", "engine_of", "model_of", "next_try", "ps_table", "reason_of", "state_of"]

TONES: dict[str, Tone] = {
    "Ready": "good",
    "Degraded": "bad",
    "Failed": "bad",
    "Downloading": "busy",
    "Starting": "busy",
    "Pending": "busy",
    "Deleting": "dim",
    "Paused": "dim",
}
ENGINES = {"llamacpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang"}
_TELLING = frozenset({"Failed", "Degraded", "Pending"})


def engine_of(service: ModelService) -> str:
    """Return the engine's name in its usual spelling."""
    engine = service.status.engine or service.spec.engine
    return ENGINES.get(engine, "-" if engine == "auto" else engine)


def model_of(service: ModelService) -> str:
    """Return a short name of the model: name and quantization from its header if known, else its address."""
    info = service.status.model
    if info is not None and info.name:
        return f"{info.name} {info.quantization}".strip()
    return (service.spec.model or "-").removeprefix("hf://")


def state_of(service: ModelService) -> str:
    """Return the phase; ``Pending`` while the status is about an older spec."""
    if service.metadata.deletion_timestamp is not None:
        return "Deleting"
    if service.status.observed_generation < service.metadata.generation:
        return "Pending"
    download = service.status.download
    if service.status.phase == "Downloading" and download is not None and download.total:
        return f"Downloading {min(100, 100 * download.done // download.total)} %"
    return service.status.phase


def next_try(service: ModelService, now: datetime) -> str:
    """Return a sentence with the time of the next attempt after a failure; empty if there is none."""
    at = service.status.next_try_at
    if at is None:
        return ""
    seconds = (at - now).total_seconds()
    return f"Next try in {duration(seconds + 0.5)}." if seconds > 0 else "Trying again now."


def reason_of(service: ModelService, now: datetime) -> str:
    """Return the sentence that a list shows below a service; empty if none is needed."""
    status = service.status
    if status.phase in _TELLING:
        return f"{status.message} {next_try(service, now)}".strip()
    if status.phase == "Downloading" and status.download is not None:
        load = status.download
        parts = [
            load.file,
            done_of(load.done, load.total),
            rate(load.rate),
            time_left(load.done, load.total, load.rate),
        ]
        return "   ".join(part for part in parts if part)
    return ""


def _memory(service: ModelService) -> str:
    used = [replica.memory for replica in service.status.replica_statuses if replica.memory is not None]
    limits = [replica.memory_limit for replica in service.status.replica_statuses if replica.memory_limit is not None]
    return memory_of(sum(used) if used else None, sum(limits) if limits else None)


def _replicas(service: ModelService) -> str:
    desired = service.status.desired_replicas
    wanted = 0 if service.spec.paused else desired if desired is not None else service.spec.replicas
    return f"{service.status.ready_replicas}/{wanted}"


def ps_table(
    services: Sequence[ModelService], *, now: datetime, namespaces: bool = False, qualified: bool = False
) -> Table:
    """Return a table of model services with state, replicas, memory and age, and reasons below some rows.

    Parameters
    ----------
    services
        The services.
    now
        The current time, for ages.
    namespaces
        Whether to show a column with the namespaces.
    qualified
        Whether to write ``public/chat``, the name for clients in other namespaces.
    """
    rows = []
    for service in services:
        state = state_of(service)
        cells = [
            f"{service.metadata.namespace}/{service.metadata.name}" if qualified else service.metadata.name,
            model_of(service),
            engine_of(service),
            state,
            _replicas(service),
            _memory(service),
            age(service.metadata.creation_timestamp, now),
        ]
        if namespaces:
            cells.insert(0, service.metadata.namespace or "")
        rows.append(Row(cells, {"STATE": TONES.get(state.split()[0], "")}, reason_of(service, now)))
    headings = ["NAME", "MODEL", "ENGINE", "STATE", "REPLICAS", "MEMORY", "AGE"]
    return Table(
        ["NAMESPACE", *headings] if namespaces else headings,
        rows,
        empty="No model is served here yet. Serve one with: llmos serve demo://smollm2",
        elastic=("MODEL", "NAME"),
    )


def why_recognised(service: ModelService) -> str:
    """Return the sentence about automatic choices such as file and engine; may be empty."""
    found = condition(service.status.conditions, "ModelRecognised")
    return found.message if found is not None else ""
