"""The status of a ModelService, computed from observed facts. Pure functions.

The phase shows the current activity, the condition ``Ready`` whether it answers: while a changed spec is rolled
out, the phase is ``Downloading`` or ``Starting`` and the old replicas' endpoints still exist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from llmos.errors import LLMOSError, add_sentence
from llmos.resources import Condition, ModelService
from llmos.resources.base import set_condition
from llmos.resources.modelservice import ModelInfo, ModelServiceStatus, Phase
from llmos.resources.quantities import format_bytes
from llmos.resources.workload import Endpoint, ReplicaStatus
from llmos_hub.controllers.modelservice.downloads import DOWNLOAD_FAILED, Download
from llmos_hub.engines.base import Plan
from llmos_hub.workload import Observation, ReplicaState

__all__ = ["Choice", "Facts", "deleting", "make_status", "settle"]

_MIB = 2**20
_HEX_DIGITS = re.compile("[0-9a-f]{32,}")
_REPEATED = 2
"""Consecutive crashes after which a service that doesn't answer is Failed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of an engine for a model.

    Attributes
    ----------
    engine
        The engine's name in a spec.
    title
        The engine's name for people.
    reason
        The reason for the choice.
    plan
        The engine's plan for the spec.
    """

    engine: str
    title: str
    reason: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class Facts:
    """The observed facts that a status is computed from.

    Attributes
    ----------
    now
        Time of the observation.
    download
        State of the download; None if none is needed or, while paused, checked.
    choice
        The engine, once the model is downloaded.
    refusal
        The reason why the spec can't be served: from an engine, or a missing Credential.
    observation
        The serving processes.
    template
        The hash of the newest template; empty if there is none.
    selector
        The label selector of its pods; empty if there are no pods.
    """

    now: datetime
    download: Download | None = None
    choice: Choice | None = None
    refusal: LLMOSError | None = None
    observation: Observation | None = None
    template: str = ""
    selector: str = ""


@dataclass(frozen=True, slots=True)
class _Verdict:
    phase: Phase
    reason: str
    message: str
    log_lines: Sequence[str] = field(default=())


def make_status(service: ModelService, facts: Facts) -> ModelServiceStatus:
    """Return the new status; times and unchanged parts are taken from the old one in `service`."""
    old = service.status
    changed = old.observed_generation != service.metadata.generation
    replicas = facts.observation.replicas if facts.observation else ()
    verdict = _judge(service, facts)
    ready = [r for r in replicas if r.phase == "Ready" and r.endpoint]
    started_at = facts.now if changed or old.started_at is None else old.started_at
    ready_at = None if changed else old.ready_at
    if verdict.phase == "Ready" and ready_at is None:
        ready_at = facts.now
    stopped = verdict.phase == "Paused"
    known = bool(replicas) or stopped  # the old status of the model is still valid
    choice = facts.choice
    return ModelServiceStatus(
        phase=verdict.phase,
        message=verdict.message,
        observed_generation=service.metadata.generation,
        conditions=_conditions(old, verdict, facts, len(ready)),
        download=facts.download.progress if facts.download and facts.download.state == "Running" else None,
        engine=choice.engine if choice else old.engine if known else "",
        task=choice.plan.task if choice else old.task if known else "",
        model=_model_info(facts.download) or (old.model if known else None),
        replicas=len(replicas),
        ready_replicas=0 if stopped else len(ready),
        selector=facts.selector,
        desired_replicas=old.desired_replicas,
        replica_statuses=[_replica_status(r, old) for r in replicas],
        endpoints=[] if stopped else [Endpoint(replica=r.id, url=r.endpoint or "") for r in ready],
        last_log_lines=list(verdict.log_lines),
        next_try_at=_next_try_at(facts, verdict.phase),
        memory_estimate=choice.plan.memory_estimate if choice else old.memory_estimate if known else None,
        started_at=started_at,
        ready_at=ready_at,
    )


def deleting(service: ModelService, left: int) -> ModelServiceStatus:
    """Return the status of a service that is being deleted, with `left` replicas remaining."""
    message = f"Stopping {_count(left, 'replica')}." if left else "Removing what is left."
    return service.status.model_copy(
        update={
            "phase": "Deleting",
            "message": message,
            "observed_generation": service.metadata.generation,
            "endpoints": [],
            "ready_replicas": 0,
            "download": None,
            "conditions": _not_ready(service.status, "Deleting", message),
        }
    )


def settle(old: ModelServiceStatus, new: ModelServiceStatus) -> tuple[bool, bool]:
    """Return whether anything changed, and whether anything other than memory usage changed."""
    if old == new:
        return False, False
    before, after = (
        status.model_copy(
            update={"replica_statuses": [r.model_copy(update={"memory": None}) for r in status.replica_statuses]}
        )
        for status in (old, new)
    )
    return True, before != after


# Phase


def _judge(service: ModelService, facts: Facts) -> _Verdict:
    replicas = facts.observation.replicas if facts.observation else ()
    ready = [r for r in replicas if r.phase == "Ready"]
    if service.wanted_replicas == 0 and not service.unread:
        return _Verdict("Paused", "Paused", _paused_message(service))
    if facts.refusal is not None:
        return _held_up(facts.refusal.code, facts.refusal.message, ready)
    if facts.download is not None and facts.download.state == "Failed":
        return _held_up(DOWNLOAD_FAILED, facts.download.message, ready, facts.download.log_lines)
    if facts.download is not None and facts.download.state == "Running":
        message = _download_message(facts.download)
        if ready:
            message += " What was started before answers until then."
        return _Verdict("Downloading", "Downloading", message)
    return _judge_replicas(service, facts, replicas, ready)


def _held_up(reason: str, message: str, ready: Sequence[ReplicaState], log_lines: Sequence[str] = ()) -> _Verdict:
    """Return the verdict for a spec that can't be applied: failed, or degraded if earlier replicas still answer."""
    if ready:
        message += "" if message.endswith(".") else "."
        message = f"The spec can't be followed: {message} What was started before still answers."
    return _Verdict("Degraded" if ready else "Failed", _word(reason), message, log_lines)


def _judge_replicas(
    service: ModelService, facts: Facts, replicas: Sequence[ReplicaState], ready: Sequence[ReplicaState]
) -> _Verdict:
    wanted = service.wanted_replicas
    current = [r for r in ready if r.template == facts.template]
    trouble = _worst([r for r in replicas if r.phase not in ("Ready", "Stopping")])
    if len(current) >= wanted:
        return _Verdict("Ready", "AllReplicasReady", _summary(facts))
    if not ready:
        return _judge_silent(service.status, facts, trouble)
    if trouble is not None:
        if len(ready) >= wanted:
            message = f"The changed spec does not start: {_words(trouble)} The previous one still answers."
        else:
            message = f"{len(ready)} of {_count(wanted, 'replica')} answer. {_words(trouble)}"
        return _Verdict("Degraded", trouble.reason or trouble.phase, message, trouble.last_log_lines)
    if len(ready) >= wanted:
        message = f"Taking over the changed spec: {len(current)} of {_count(wanted, 'replica')} done."
        return _Verdict("Starting", "RollingOut", message)
    return _Verdict("Starting", "Scaling", f"{len(ready)} of {_count(wanted, 'replica')} answer, the rest is starting.")


_SHORTAGES = frozenset(
    {"InsufficientMemory", "InsufficientCPU", "InsufficientGPU", "QuotaExceeded", "Unschedulable", "Volume"}
)
"""Reasons that can end when others free resources."""
_HOPELESS = frozenset({"NotFound", "ImagePull", "Refused"})
"""Reasons that end only when somebody changes the configuration."""


def _judge_silent(old: ModelServiceStatus, facts: Facts, trouble: ReplicaState | None) -> _Verdict:
    """Return the verdict when no replica answers."""
    if trouble is None:
        return _Verdict("Starting", "Starting", _summary(facts))
    phase: Phase = "Starting"
    if trouble.reason in _SHORTAGES:
        phase = "Pending"
    elif trouble.phase == "NotReady":
        phase = "Degraded"
    elif trouble.reason in _HOPELESS:
        phase = "Failed"
    elif trouble.restarts >= _REPEATED:
        known = {r.id: r.restarts for r in old.replica_statuses}
        crashed_now = trouble.restarts > known.get(trouble.id, 0)
        # a single crash of a service that answered is not a failure yet; a second one before it answers again is
        if (crashed_now and old.phase not in ("Ready", "Degraded")) or (not crashed_now and old.phase == "Failed"):
            phase = "Failed"
    return _Verdict(phase, trouble.reason or trouble.phase, _words(trouble), trouble.last_log_lines)


def _worst(replicas: Sequence[ReplicaState]) -> ReplicaState | None:
    """Return the replica to report, of those that don't answer and have a reason; None if there are none."""
    troubled = [r for r in replicas if r.phase in ("Waiting", "Failed", "NotReady") or r.message]
    return max(troubled, key=lambda r: (r.restarts, r.phase == "Waiting"), default=None)


def _next_try_at(facts: Facts, phase: Phase) -> datetime | None:
    """Return the time of the next attempt of a failed download or the first waiting replica."""
    if phase in ("Ready", "Paused"):
        return None
    if facts.download is not None and facts.download.state == "Failed":
        return facts.download.retry_at
    replicas = facts.observation.replicas if facts.observation else ()
    return min((r.retry_at for r in replicas if r.phase == "Waiting" and r.retry_at), default=None)


# Texts


def _words(replica: ReplicaState) -> str:
    text = replica.message or "A replica does not answer."
    if replica.phase == "Starting" and replica.restarts:
        return add_sentence(text, f"Trying again now (start {replica.restarts + 1}).")
    return text


def _summary(facts: Facts) -> str:
    parts = [facts.choice.plan.summary if facts.choice else ""]
    if facts.choice:
        parts += facts.choice.plan.notes
    if facts.download and facts.download.files:
        parts[1:1] = [facts.download.files.note]
        parts.append(facts.download.files.label)
    return " · ".join(part.rstrip(".") for part in parts if part)


def _download_message(download: Download) -> str:
    progress = download.progress
    if progress is None or not progress.done:
        return download.message or "Fetching the model."
    of = f" of {format_bytes(progress.total, binary=False)}" if progress.total else ""
    text = f"{progress.file}: {format_bytes(progress.done, binary=False)}{of}"
    if progress.rate:
        text += f" at {format_bytes(progress.rate, binary=False)}/s"
        if progress.total:
            text += f", {_duration(max(0, progress.total - progress.done) / progress.rate)} left"
    return text + "."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _paused_message(service: ModelService) -> str:
    name = service.metadata.name
    if service.spec.paused:
        return f"Paused. Start it again: llmos start {name}"
    return f"Scaled to 0 replicas. Start it again: llmos scale {name} 1"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _word(code: str) -> str:
    """Return an error's code as a condition's reason: ``insufficient_resources`` becomes ``InsufficientResources``."""
    return code if code[:1].isupper() else "".join(part.capitalize() for part in code.split("_"))


# Parts of the status


def _conditions(old: ModelServiceStatus, verdict: _Verdict, facts: Facts, ready: int) -> list[Condition]:
    conditions = list(old.conditions)
    for condition in (_downloaded(facts), _recognised(facts)):
        if condition is not None:
            conditions = set_condition(conditions, _at(condition, facts.now))
    status: Literal["True", "False"] = "True" if ready and verdict.phase != "Paused" else "False"
    return set_condition(
        conditions,
        _at(Condition(type="Ready", status=status, reason=verdict.reason, message=verdict.message), facts.now),
    )


def _at(condition: Condition, now: datetime) -> Condition:
    return condition.model_copy(update={"last_transition_time": now})


def _not_ready(old: ModelServiceStatus, reason: str, message: str) -> list[Condition]:
    return set_condition(old.conditions, Condition(type="Ready", status="False", reason=reason, message=message))


def _downloaded(facts: Facts) -> Condition | None:
    download = facts.download
    if download is None:
        if facts.choice is None:
            return None
        return Condition(
            type="Downloaded", status="True", reason="NotNeeded", message="The spec names no model to fetch."
        )
    if download.state == "Failed":
        return Condition(type="Downloaded", status="False", reason=DOWNLOAD_FAILED, message=download.message)
    if download.files is None:
        return Condition(
            type="Downloaded", status="Unknown", reason="Downloading", message="The model is being fetched."
        )
    files = download.files
    text = f"{format_bytes(files.size, binary=False)} from {files.uri}, revision {_short(files.revision)}"
    return Condition(
        type="Downloaded", status="True", reason="Downloaded", message=". ".join(p for p in (text, files.note) if p)
    )


def _short(revision: str) -> str:
    """Return the text with shortened digests and commits; status.model.revision has them in full.

    >>> _short("sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"), _short("main")
    ('sha256:b179c9523d0e', 'main')
    """
    return _HEX_DIGITS.sub(lambda found: found[0][:12], str(revision))


def _recognised(facts: Facts) -> Condition | None:
    if facts.choice is not None:
        plan = facts.choice.plan
        message = f"{plan.task}: {plan.task_reason}. {facts.choice.title}: {facts.choice.reason}"
        return Condition(type="ModelRecognised", status="True", reason=plan.task.capitalize(), message=message)
    if facts.refusal is not None and facts.download is not None and facts.download.state == "Done":
        reason, message = _word(facts.refusal.code), facts.refusal.message
        return Condition(type="ModelRecognised", status="False", reason=reason, message=message)
    return None


def _model_info(download: Download | None) -> ModelInfo | None:
    if download is None or download.files is None:
        return None
    files, header = download.files, download.files.header
    return ModelInfo(
        name=str(header.name)[:200],
        architecture=str(header.architecture)[:100],
        quantization=str(header.quantization)[:100],
        parameters=int(header.parameters) or None,
        context_length=int(header.context_length) or None,
        file_size=int(files.size),
        revision=str(files.revision)[:200],
        choice=str(files.note)[:1000],
        chat_template=bool(header.chat_template),
    )


def _replica_status(replica: ReplicaState, old: ModelServiceStatus) -> ReplicaStatus:
    before = next((r.memory for r in old.replica_statuses if r.id == replica.id), None)
    return ReplicaStatus(
        id=replica.id,
        # a server is not a job and never succeeds
        phase="Stopping" if replica.phase == "Succeeded" else replica.phase,
        restarts=replica.restarts,
        memory=_steady(before, replica.memory),
        memory_limit=replica.memory_limit,
        started_at=replica.started_at,
        message="" if replica.phase == "Ready" else replica.message,
    )


def _steady(before: int | None, now: int | None) -> int | None:
    """Return the memory usage in whole MiB, or the previous value while within 3 %, so that noise causes no writes."""
    if before is not None and now is not None and abs(now - before) <= before * 0.03:
        return before
    return None if now is None else (now + _MIB // 2) // _MIB * _MIB
