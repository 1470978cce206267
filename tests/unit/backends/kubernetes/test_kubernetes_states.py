"""The states of replicas and workloads, from pods."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

import pytest

from llmos_hub.backends.kubernetes.names import make_metadata
from llmos_hub.backends.kubernetes.observation import Members, PodFacts, make_observation
from llmos_hub.backends.kubernetes.polling import progress_words
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.states import Notice
from llmos_hub.names import KEY_LABELS
from llmos_hub.workload import PodOptions, ProcessTemplate, ReplicaState, Role, Workload, WorkloadRef

REF = WorkloadRef("ModelService", "user-ada", "chat", "u1")
TEMPLATE = ProcessTemplate(("serve",))
ROLE = Role("replica", 1, TEMPLATE)
WORKLOAD = Workload(REF, (ROLE,), {"team": "vision"})
SETTINGS = KubernetesSettings()
T = "2026-11-24T10:00:{:02d}Z"


def pod(name: str = "chat-a", *, main: dict | None = None, role: Role = ROLE, **status: object) -> dict:
    meta = make_metadata(WORKLOAD, SETTINGS, name, role)
    meta |= {"uid": f"uid-{name}", "creationTimestamp": T.format(0), "annotations": {}}
    container = {
        "name": "engine",
        "command": ["serve"],
        "resources": {"limits": {"memory": "512Mi"}},
        "startupProbe": {"httpGet": {"path": "/health"}, "periodSeconds": 1, "failureThreshold": 10},
        "livenessProbe": {"httpGet": {"path": "/health"}, "failureThreshold": 12},
    }
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container], "restartPolicy": "Always", "nodeName": "node1"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "engine", **(main or {})}], **status},
    }


def condition(type_: str, status: str, second: int = 0, **more: str) -> dict:
    return {"type": type_, "status": status, "lastTransitionTime": T.format(second), **more}


def ready_pod(name: str = "chat-a", **more: object) -> dict:
    main = {"state": {"running": {"startedAt": T.format(1)}}, "ready": True, "started": True}
    return pod(name, main=main, podIP="10.1.2.3", conditions=[condition("Ready", "True", 5)], **more)


def state_of(obj: dict, *notices: Notice) -> ReplicaState:
    members = Members(pods={obj["metadata"]["name"]: obj})
    facts = PodFacts(8080, {obj["metadata"]["uid"]: notices})
    return make_observation(REF, WORKLOAD, members, facts).replicas[0]


def crash(code: int, *, waiting: dict | None = None, reason: str = "Error", message: str = "", over: int = 20) -> dict:
    ended = {"exitCode": code, "reason": reason, "message": message}
    ended |= {"startedAt": T.format(5), "finishedAt": T.format(over)}
    if waiting is None:
        return {"state": {"terminated": ended}, "restartCount": 0}
    return {"state": {"waiting": waiting}, "lastState": {"terminated": ended}, "restartCount": 2}


def test_ready() -> None:
    state = state_of(ready_pod())
    assert (state.phase, state.endpoint, state.role, state.index) == ("Ready", "http://10.1.2.3:8080", "replica", 0)
    assert state.started_at == datetime(2026, 11, 24, 10, 0, 1, tzinfo=UTC)
    assert state.ready_at == datetime(2026, 11, 24, 10, 0, 5, tzinfo=UTC)
    assert state.template == TEMPLATE.hash
    assert state.memory_limit == 512 * 2**20
    six = ready_pod()
    six["status"]["podIP"] = "fd00::1"
    assert state_of(six).endpoint == "http://[fd00::1]:8080"


def test_on_its_way_out_it_has_no_address() -> None:
    leaving = ready_pod()
    leaving["metadata"]["deletionTimestamp"] = T.format(30)
    assert (state_of(leaving).phase, state_of(leaving).endpoint) == ("Stopping", None)


def test_starting_and_not_ready_any_more() -> None:
    running = {"state": {"running": {"startedAt": T.format(5)}}, "ready": False, "started": False}
    assert state_of(pod(main=running, conditions=[condition("Ready", "False", 0)])).phase == "Starting"
    running["started"] = True
    assert state_of(pod(main=running, conditions=[condition("Ready", "False", 0)])).phase == "Starting"
    after = pod(main=running, conditions=[condition("Ready", "False", 30)])
    state = state_of(after, Notice("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"))
    assert (state.phase, state.reason) == ("NotReady", "Unhealthy")
    assert "statuscode: 503" in state.message


def test_a_machine_that_does_not_answer() -> None:
    lost = ready_pod()
    lost["status"]["conditions"] = [condition("Ready", "False", 40)]
    state = state_of(lost)
    assert (state.phase, state.reason, state.endpoint) == ("NotReady", "NodeLost", None)
    assert "the machine node1 doesn't answer" in state.message


def test_crashes_wait_for_their_next_start() -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 1m20s restarting failed container=engine"}
    state = state_of(pod(main=crash(3, waiting=waiting, message="one\ntwo\n")))
    assert (state.phase, state.reason, state.exit_code, state.restarts) == ("Waiting", "Crashed", 3, 3)
    assert "exit code 3" in state.message
    assert state.retry_at == datetime(2026, 11, 24, 10, 1, 40, tzinfo=UTC)
    assert list(state.last_log_lines) == ["one", "two"]
    assert state_of(pod(main=crash(139))).message.startswith("chat crashed: killed by SIGSEGV (11)")


def test_started_again_after_a_crash() -> None:
    main = {**crash(3, waiting={}), "state": {"running": {"startedAt": T.format(40)}}}
    state = state_of(pod(main=main, conditions=[condition("Ready", "False", 0)]))
    assert (state.phase, state.reason, state.restarts) == ("Starting", "Crashed", 2)


def test_killed_by_a_probe() -> None:
    startup = Notice("Unhealthy", 'Startup probe failed: Get "http://10.1.2.3:8080/health": connection refused')
    state = state_of(pod(main=crash(137)), startup)
    assert state.reason == "StartupTimeout"
    assert "was not ready within 10 s" in state.message
    assert state_of(pod(main=crash(137, over=8)), startup).reason == "Crashed", "it was not the probe so early"
    liveness = Notice("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500")
    assert state_of(pod(main=crash(143)), liveness).reason == "Unhealthy"


def test_waiting_for_an_image_and_a_volume() -> None:
    back_off = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "r/a:1"'}
    why = Notice("Failed", 'Failed to pull image "r/a:1": 401 Unauthorized')
    state = state_of(pod(main={"state": {"waiting": back_off}, "image": "r/a:1"}, phase="Pending"), why)
    assert (state.phase, state.reason) == ("Waiting", "ImagePull")
    assert "credentials" in state.message
    creating = pod(main={"state": {"waiting": {"reason": "ContainerCreating"}}}, phase="Pending")
    assert state_of(creating).message == ""
    assert state_of(creating, Notice("FailedMount", "no such volume")).reason == "Volume"


def test_what_an_evicted_pod_leaves_is_not_counted() -> None:
    gone = pod("chat-b", phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    seen = make_observation(REF, WORKLOAD, Members(pods={"b": gone, "a": ready_pod()}), PodFacts(8080))
    assert [r.id for r in seen.replicas] == ["chat-a"]


# Workloads


def deployment(*, wanted: int = 1, updated: int = 1, there: int = 1, generation: int = 1, observed: int = 1) -> dict:
    meta = make_metadata(WORKLOAD, SETTINGS, "chat", ROLE)
    meta |= {"uid": "uid-d", "generation": generation}
    status = {"updatedReplicas": updated, "replicas": there, "observedGeneration": observed}
    return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": wanted}, "status": status}


def observe(members: Members, workload: Workload | None = WORKLOAD, facts: PodFacts | None = None) -> object:
    return make_observation(REF, workload, members, facts or PodFacts(8080))


def test_updated_when_pods_and_deployment_agree() -> None:
    pods = {"a": ready_pod()}
    assert observe(Members(pods, {"d": deployment()})).updated
    assert not observe(Members(pods, {"d": deployment(observed=0)})).updated
    assert not observe(Members(pods, {"d": deployment(updated=0)})).updated, "a changed image is a rollout too"
    assert not observe(Members({}, {"d": deployment()})).updated
    other = copy.deepcopy(pods)
    other["a"]["metadata"]["labels"]["llmos.ai/template"] = "older"
    assert not observe(Members(other, {"d": deployment()})).updated


def test_what_is_found_tells_all_that_was_applied() -> None:
    found = observe(Members({"a": ready_pod()}, {"d": deployment()}), None)
    assert found.updated
    assert found.labels == {"team": "vision"}
    assert [(r.role, r.phase, r.template) for r in found.replicas] == [("replica", "Ready", TEMPLATE.hash)]


def test_pods_that_are_not_made() -> None:
    refused = deployment(updated=0, there=0)
    said = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3'
    refused["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": said}]
    (state,) = observe(Members({}, {"d": refused})).replicas
    assert (state.phase, state.reason) == ("Waiting", "QuotaExceeded")


JOB_ROLE = Role("fetch", 1, ProcessTemplate(("fetch",), completes=True))


def job(name: str = "chat-fetch-1", **status: object) -> dict:
    meta = make_metadata(WORKLOAD, SETTINGS, name, JOB_ROLE) | {"uid": "uid-j", "generation": 1}
    return {"kind": "Job", "metadata": meta, "spec": {"completions": 1}, "status": status}


def test_a_job_whose_pod_is_gone_is_still_done() -> None:
    workload = Workload(REF, (JOB_ROLE,))
    complete = job(conditions=[{"type": "Complete", "status": "True"}])
    assert [r.phase for r in observe(Members(jobs={"chat-fetch-1": complete}), workload).replicas] == ["Succeeded"]
    failed = job(conditions=[{"type": "Failed", "status": "True", "message": "Pod was lost"}])
    (state,) = observe(Members(jobs={"chat-fetch-1": failed}), workload).replicas
    assert (state.phase, state.message) == ("Failed", "Pod was lost")
    said = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3'
    facts = PodFacts(8080, {"uid-j": [Notice("FailedCreate", said)]})
    (state,) = observe(Members(jobs={"chat-fetch-1": job()}), workload, facts).replicas
    assert state.reason == "QuotaExceeded"


def test_pods_of_a_job_that_is_replaced_are_stopping() -> None:
    done = pod("chat-fetch-0-x", role=JOB_ROLE, phase="Succeeded")
    done["metadata"]["labels"]["batch.kubernetes.io/job-name"] = "chat-fetch-0"
    done["spec"]["restartPolicy"] = "Never"
    (state,) = observe(Members(pods={"x": done}), Workload(REF, (JOB_ROLE,))).replicas
    assert state.phase == "Stopping"


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", ""), (1, "Failed", "Crashed")])
def test_a_job_that_has_ended_is_over_before_its_pod_says_so(code: int, phase: str, reason: str) -> None:
    """For a moment the container has ended and the pod still runs: that is not a crash of a service."""
    ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
    obj = pod("chat-fetch-a", main={"state": {"terminated": ended}}, role=JOB_ROLE)
    obj["spec"]["restartPolicy"] = "Never"
    obj["spec"]["containers"][0]["name"] = obj["status"]["containerStatuses"][0]["name"] = "fetch"
    obj["metadata"]["labels"]["batch.kubernetes.io/job-name"] = "chat-fetch-1"
    (seen,) = observe(Members(pods={"a": obj}, jobs={"chat-fetch-1": job()}), Workload(REF, (JOB_ROLE,))).replicas
    assert (seen.phase, seen.reason, seen.exit_code) == (phase, reason, code)
    assert "should go on serving" not in seen.message


def test_memory_and_progress_are_told() -> None:
    facts = PodFacts(8080, memory={("user-ada", "chat-a"): 7}, progress={"uid-chat-a": "a.gguf, 1 of 2 GB."})
    assert observe(Members(pods={"a": ready_pod()}), facts=facts).replicas[0].memory == 7
    fetching = pod(
        main={"state": {"waiting": {"reason": "PodInitializing"}}},
        phase="Pending",
        initContainerStatuses=[{"name": "fetch", "state": {"running": {"startedAt": T.format(1)}}}],
    )
    state = observe(Members(pods={"a": fetching}), facts=facts).replicas[0]
    assert (state.phase, state.reason) == ("Starting", "Initializing")
    assert state.message == "chat is fetching its model: a.gguf, 1 of 2 GB."


def test_progress_in_words() -> None:
    assert progress_words(["no json", '{"type": "done"}', "[1]"]) == ""
    assert progress_words(['{"type": "progress", "file": "a", "done": 5, "total": null, "rate": null}']) == "a, 5 B."


def test_labels_that_cannot_be_read_are_none() -> None:
    broken = deployment()
    broken["metadata"]["annotations"][KEY_LABELS] = "{"
    assert observe(Members(deployments={"d": broken}), None).labels == {}


def test_a_replica_over_several_machines_is_all_its_pods() -> None:
    leader = Role("leader", 1, ProcessTemplate(("lead",), pod=PodOptions(hosts=3)))
    worker = Role("worker", 1, ProcessTemplate(("work",)))
    workload = Workload(REF, (leader, worker))
    pods = {}
    for number, role in enumerate((leader, worker, worker)):
        pods[str(number)] = ready_pod(f"chat-{number}")
        pods[str(number)]["metadata"] |= {"labels": make_metadata(workload, SETTINGS, "x", role)["labels"]}
    assert observe(Members(pods=pods), workload).updated
    del pods["2"]
    assert not observe(Members(pods=pods), workload).updated
