"""Model services as shown by ``ps``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from llmos.present.amounts import age, download_state, format_bytes, memory_of, with_next_try
from llmos.present.fields import tone_of
from llmos.present.tables import Row, Table
from llmos.present.text import clean, facts
from llmos.present.views import View
from llmos.resources import ModelService
from llmos.resources.base import condition
from llmos.resources.modelservice import ENGINES

if TYPE_CHECKING:
    from llmos.client.progress import Progress
    from llmos.present.hints import Hints

__all__ = ["VIEW", "engine_of", "model_of", "ps_table", "reason_of", "state_of"]

_TELLING = frozenset({"Failed", "Degraded", "Pending"})


def engine_of(service: ModelService) -> str:
    """Return the engine's name in its usual spelling."""
    engine = service.status.engine or service.spec.engine
    return ENGINES.of.get(engine, "-" if engine == "auto" else engine)


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


def reason_of(service: ModelService, now: datetime) -> str:
    """Return the sentence that a list shows below a service; empty if none is needed."""
    status = service.status
    if status.phase in _TELLING:
        return with_next_try(status.message, status.next_try_at, now)
    if status.phase == "Downloading" and status.download is not None:
        return download_state(status.download)
    return ""


def _memory(service: ModelService) -> str:
    used = [replica.memory for replica in service.status.replica_statuses if replica.memory is not None]
    limits = [replica.memory_limit for replica in service.status.replica_statuses if replica.memory_limit is not None]
    return memory_of(sum(used) if used else None, sum(limits) if limits else None)


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
            f"{service.status.ready_replicas}/{service.wanted_replicas}",
            _memory(service),
            age(service.metadata.creation_timestamp, now),
        ]
        if namespaces:
            cells.insert(0, service.metadata.namespace or "")
        rows.append(Row(cells, {"STATE": tone_of(ModelService, state.split()[0])}, reason_of(service, now)))
    headings = ["NAME", "MODEL", "ENGINE", "STATE", "REPLICAS", "MEMORY", "AGE"]
    return Table(
        ["NAMESPACE", *headings] if namespaces else headings,
        rows,
        empty="No model is served here yet. Serve one with: llmos serve demo://smollm2",
        elastic=("MODEL", "NAME"),
    )


# What the general views say of a model


def _spec(service: ModelService) -> dict[str, str]:
    """Return in words how the service shares its prompt cache."""
    means = "perCaller, no prompt is taken up by another's" if service.parts_prompts else "shared by all who use it"
    return {"promptCache": f"{means} (auto)" if service.spec.prompt_cache == "auto" else means}


def _reason(progress: Progress) -> list[str] | None:
    """Return the automatic choices such as file and engine."""
    service = progress.resource
    if progress.phase != "Starting" or not isinstance(service, ModelService):
        return None
    found = condition(service.status.conditions, "ModelRecognised")
    return facts(found.message if found is not None else "") or facts(engine_of(service))


def _finished(progress: Progress) -> tuple[str, str] | None:
    if progress.phase != "Downloading":
        return None
    load = progress.download
    if load is None:
        return "", ""  # it was downloaded before
    size = f"   {format_bytes(load.total, binary=False)}" if load.total else ""
    return "Downloaded", clean(load.file) + size


def _lasting(service: ModelService) -> str:
    """Return the chosen file; `describe` shows the other choices."""
    return service.status.model.choice if service.status.model else ""


def _use(progress: Progress, hints: Hints) -> str:
    name, service = progress.name, progress.resource
    if isinstance(service, ModelService) and service.status.task == "embed":
        return f'OpenAI().embeddings.create(model="{name}", …)'
    return f'{hints.chat.format(name=name)}   ·   OpenAI().chat.completions.create(model="{name}", …)'


VIEW = View(table=ps_table, spec=_spec, reason=_reason, finished=_finished, lasting=_lasting, use=_use)
