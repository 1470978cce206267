"""The observation of a workload from the cluster's objects; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from llmos_hub.backends.failures import waits_for
from llmos_hub.backends.kubernetes.objects import labels_of
from llmos_hub.backends.kubernetes.reasons import not_created
from llmos_hub.backends.kubernetes.states import Notice, Object, PodReader, role_of
from llmos_hub.names import KEY_TEMPLATE
from llmos_hub.workload import Observation, ReplicaState, Role, Workload, WorkloadRef

__all__ = ["Members", "PodFacts", "find_waiting", "make_observation"]

_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_JOB: Final = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Data about pods in addition to the objects.

    Attributes
    ----------
    port
        The port that engines listen on.
    notices
        Warning Events of pods and jobs, by their uid; the newest first.
    memory
        Memory usage in bytes, by the pod's namespace and name.
    progress
        Progress of a running init container as text, by the pod's uid.
    """

    port: int
    notices: Mapping[str, Sequence[Notice]] = field(default_factory=dict)
    memory: Mapping[tuple[str, str], int] = field(default_factory=dict)
    progress: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Members:
    """The existing objects of a workload, by kind and name.

    Attributes
    ----------
    others
        Objects without pods, such as Services and Secrets, by their path.
    """

    pods: dict[str, Object] = field(default_factory=dict)
    deployments: dict[str, Object] = field(default_factory=dict)
    jobs: dict[str, Object] = field(default_factory=dict)
    others: dict[str, Object] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pods or self.deployments or self.jobs or self.others)


def find_waiting(workload: Workload, members: Members) -> dict[str, list[str]]:
    """Return the roles that can't be started yet, each with the roles that must be ready before.

    A role that was started isn't one of them, whatever happens to the others later.
    """
    if not any(role.after for role in workload.roles):
        return {}
    owners = [*members.deployments.values(), *members.jobs.values(), *members.others.values()]
    there = {role_of(obj) for obj in (*owners, *members.pods.values())}
    unready = {role.name for role in workload.roles if not _is_ready(role, owners)}
    return {
        role.name: sorted(unready.intersection(role.after))
        for role in workload.roles
        if role.name not in there and unready.intersection(role.after)
    }


def _is_ready(role: Role, owners: Iterable[Object]) -> bool:
    """Return whether all pods of a role are ready or, for a job, have succeeded."""
    number = 0
    for owner in owners:
        if role_of(owner) == role.name and not owner["metadata"].get("deletionTimestamp"):
            status = owner.get("status") or {}
            done = status.get("succeeded", 0) if owner["metadata"]["labels"][KEY_TEMPLATE] == role.template.hash else 0
            number += status.get("readyReplicas", 0) + done
    return bool(number >= role.count)


def make_observation(ref: WorkloadRef, wanted: Workload | None, members: Members, facts: PodFacts) -> Observation:
    """Return the observation of a workload.

    Parameters
    ----------
    wanted
        The workload as last applied by this process; None if it wasn't.
    """
    owners = {**members.deployments, **members.jobs}
    known = [role.name for role in wanted.roles] if wanted else sorted({role_of(o) for o in owners.values()})
    states = _waiting(wanted, members) if wanted else []
    for role in [*known, *sorted({role_of(pod) for pod in members.pods.values()} - set(known))]:
        pods = [pod for pod in members.pods.values() if role_of(pod) == role and not _is_replaced(pod)]
        states += _states(ref.name, role, pods, members, facts)
        missing = _missing(ref.name, role, owners, len(pods), facts)
        states += [replace(missing, index=len(pods))] if missing is not None else []
    labels = wanted.labels if wanted else next((labels_of(o["metadata"]) for o in owners.values()), {})
    return Observation(ref, tuple(states), updated=_is_updated(wanted, members, states), labels=dict(labels))


def _waiting(workload: Workload, members: Members) -> list[ReplicaState]:
    """Return the replicas of roles that can't be started yet."""
    waiting, states = find_waiting(workload, members), []
    for role in workload.roles:
        if role.name in waiting:
            failure = waits_for(workload.ref.name, role.name, waiting[role.name])
            state = ReplicaState("", role.name, 0, "Waiting", template=role.template.hash, reason=failure.reason)
            states += [
                replace(state, id=f"{role.name}-{index}", index=index, message=failure.message)
                for index in range(role.count)
            ]
    return states


def _is_replaced(pod: Object) -> bool:
    """Return whether a pod has failed for good and its Deployment has replaced it, for example after an eviction."""
    restarts = pod["spec"].get("restartPolicy", "Always")
    return (
        pod["status"].get("phase") == "Failed" and restarts == "Always" and not pod["metadata"].get("deletionTimestamp")
    )


def _states(name: str, role: str, pods: Iterable[Object], members: Members, facts: PodFacts) -> list[ReplicaState]:
    """Return the states of a role's pods, the oldest first, but pods that are stopping last."""

    def order(pod: Object) -> tuple[bool, str, str, str]:
        meta = pod["metadata"]
        number = (meta.get("annotations") or {}).get(_INDEX, "")
        return _is_stopping(pod, members.jobs), number.zfill(6), meta["creationTimestamp"], meta["name"]

    states = []
    for index, pod in enumerate(sorted(pods, key=order)):
        meta = pod["metadata"]
        number = (meta.get("annotations") or {}).get(_INDEX)
        state = PodReader(name, pod, facts.notices.get(meta["uid"], ()), facts.port).state()
        if _is_stopping(pod, members.jobs):
            state = replace(state, phase="Stopping", endpoint=None)
        elif state.reason == "Initializing" and meta["uid"] in facts.progress:
            state = replace(state, message=f"{state.message.rstrip('.')}: {facts.progress[meta['uid']]}")
        place = int(number) if number is not None else index
        used = facts.memory.get((meta["namespace"], meta["name"]))
        states.append(replace(state, role=role, index=place, memory=used))
    return states


def _is_stopping(pod: Object, jobs: Mapping[str, Object]) -> bool:
    """Return whether a pod is being deleted, by itself or with its Job."""
    if pod["metadata"].get("deletionTimestamp"):
        return True
    job = (pod["metadata"].get("labels") or {}).get(_JOB)
    if job is None:
        return False
    owner = jobs.get(job)
    return owner is None or bool(owner["metadata"].get("deletionTimestamp"))


def _missing(name: str, role: str, owners: Mapping[str, Object], there: int, facts: PodFacts) -> ReplicaState | None:
    """Return a replica that the cluster refuses to create, or that of an ended Job whose pod is gone; else None."""
    for id_, owner in owners.items():
        if role_of(owner) != role or owner["metadata"].get("deletionTimestamp"):
            continue
        template = str(owner["metadata"]["labels"].get(KEY_TEMPLATE, ""))
        conditions = {c["type"]: c for c in owner.get("status", {}).get("conditions") or () if c["status"] == "True"}
        state = ReplicaState(id=id_, role=role, index=0, phase="Waiting", template=template)
        refusal = conditions.get("ReplicaFailure", {}).get("message", "")
        if owner["kind"] == "Job" and not there:
            if "Complete" in conditions:
                return replace(state, phase="Succeeded", exit_code=0)
            if "Failed" in conditions:
                return replace(state, phase="Failed", reason="Crashed", message=conditions["Failed"].get("message", ""))
            refusal = next(
                (w.message for w in facts.notices.get(owner["metadata"]["uid"], ()) if w.reason == "FailedCreate"), ""
            )
        if refusal:
            failure = not_created(name, refusal)
            return replace(state, reason=failure.reason, message=failure.message)
    return None


def _is_updated(wanted: Workload | None, members: Members, states: Sequence[ReplicaState]) -> bool:
    """Return whether the pods match the newest template and count, and the Deployments report the same."""
    for deployment in members.deployments.values():
        status, count = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
        if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
            return False
        if status.get("updatedReplicas", 0) != count or status.get("replicas", 0) != count:
            return False
    if wanted is None:
        owners = [*members.deployments.values(), *members.jobs.values()]
        expected = Counter(
            (role_of(o), o["metadata"]["labels"].get(KEY_TEMPLATE, ""))
            for o in owners
            for _ in range(o["spec"].get("replicas", o["spec"].get("completions", 1)))
        )
    else:
        expected = _expected(wanted)
    return expected == Counter((state.role, state.template) for state in states)


def _expected(workload: Workload) -> Counter[tuple[str, str]]:
    """Return the expected number of pods by role and template."""
    expected: Counter[tuple[str, str]] = Counter()
    led = next((role for role in workload.roles if role.template.pod.hosts > 1), None)
    worker = next((role for role in workload.roles if role.name == "worker"), led)
    for role in workload.roles:
        if led is None or role not in (led, worker):
            expected[role.name, role.template.hash] += role.count
    if led is not None and worker is not None:
        expected[led.name, led.template.hash] += led.count
        expected[worker.name, worker.template.hash] += led.count * (led.template.pod.hosts - 1)
    return +expected
