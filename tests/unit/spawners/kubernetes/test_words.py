"""Messages about what a start waits for and why it is refused, from Kubernetes' own messages."""

import pytest
from llmos_spawners.kubernetes.pods import phase_of, unschedulable
from llmos_spawners.kubernetes.quotas import explain_refusal
from llmos_spawners.refusals import refusal


def pod(*, scheduled=True, message="", state=None, ready=False, restarts=0, last=None, phase="Pending", limit="1Gi"):
    condition = {"type": "PodScheduled", "status": "True"}
    if not scheduled:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    statuses = []
    if state is not None:
        container = {"name": "notebook", "ready": ready, "restartCount": restarts, "state": state}
        statuses = [{**container, "lastState": {"terminated": last} if last else {}}]
    return {
        "metadata": {"name": "jupyter-ada", "namespace": "user-ada"},
        "spec": {
            "nodeName": "node1",
            "containers": [
                {"name": "notebook", "image": "reg/nb:1", "resources": {"limits": {"memory": limit}}},
            ],
        },
        "status": {"phase": phase, "conditions": [condition], "containerStatuses": statuses},
    }


def event(reason, message="", count=1):
    return {"reason": reason, "message": message, "count": count}


GPU = "requests.nvidia.com/gpu"
PREEMPTION = "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            f"0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. {PREEMPTION}",
            "none of 3 nodes fits: too few free cores on 1, too little free memory on 2",
        ),
        ("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", "the only node doesn't fit: no free GPU on 1"),
        (
            "0/2 nodes are available: 2 node(s) had untolerated taint {gpu: true}.",
            "none of 2 nodes fits: kept for other work (gpu) on 2",
        ),
        (
            "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }.",
            "none of 2 nodes fits: not ready on 2",
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.",
            "none of 2 nodes fits: your other servers have the home elsewhere on 2",
        ),
        ("something new", "something new"),
        ("0/2 nodes are available: 2 something new.", "none of 2 nodes fits: something new on 2"),
    ],
)
def test_the_schedulers_reasons(said, words):
    assert unschedulable(said) == words


def test_each_phase_of_a_start_is_named_and_goes_forward():
    pulling = {"waiting": {"reason": "ContainerCreating"}}
    steps = [
        phase_of(pod(scheduled=False, message="0/1 nodes are available: 1 Insufficient memory.")),
        phase_of(pod()),
        phase_of(pod(state=pulling), [event("Pulling")]),
        phase_of(pod(state=pulling), [event("Pulling"), event("Pulled")]),
        phase_of(pod(state={"running": {}})),
    ]
    said = [step.message for step in steps]
    assert said[0] == "Waiting for room: the only node doesn't fit: too little free memory on 1"
    assert said[2] == "Pulling the image reg/nb:1"
    assert said[4] == "Starting Jupyter"
    progress = [step.progress for step in steps]
    assert progress == sorted(set(progress))
    assert not any(step.hopeless for step in steps)
    assert phase_of(None) is None


def test_a_node_that_is_being_added_is_told():
    waiting = pod(scheduled=False, message="0/1 nodes are available: 1 Insufficient cpu.")
    assert "A node is being added" in phase_of(waiting, [event("TriggeredScaleUp")]).message


def test_a_volume_on_a_dead_node_is_told():
    found = phase_of(pod(), [event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1"')])
    assert "still attached to another node" in found.message
    mounting = phase_of(pod(), [event("FailedMount", "MountVolume.SetUp failed: no such host")])
    assert "can't be mounted yet: MountVolume.SetUp failed" in mounting.message


PULL = 'Failed to pull image "reg/nb:1": rpc error: code = Unknown desc = failed to pull and unpack image: failed to resolve reference: '


@pytest.mark.parametrize(
    ("reason", "message", "events", "hopeless"),
    [
        ("ErrImagePull", PULL + "reg/nb:1: not found", [], True),
        ("ImagePullBackOff", 'Back-off pulling image "reg/nb:1"', [event("Failed", PULL + "401 Unauthorized")], True),
        ("InvalidImageName", "couldn't parse image name", [], True),
        ("ErrImagePull", PULL + "dial tcp: i/o timeout", [event("Failed", PULL + "dial tcp: i/o timeout")], False),
        ("ErrImagePull", PULL + "dial tcp: i/o timeout", [event("Failed", PULL + "dial tcp: i/o timeout", 6)], True),
    ],
)
def test_an_image_that_will_not_come_is_told_from_one_that_may(reason, message, events, hopeless):
    found = phase_of(pod(state={"waiting": {"reason": reason, "message": message}}), events)
    assert found.message.startswith("The image reg/nb:1 can't be pulled: ")
    assert found.hopeless is hopeless
    assert found.reason == "image"


def test_out_of_memory_says_how_much_there_was():
    last = {"reason": "OOMKilled", "exitCode": 137}
    found = phase_of(pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=last, restarts=2))
    assert found.message == "The server ran out of memory: it had 1.0 GiB. Choose a larger size."
    assert found.hopeless
    assert found.reason == "memory"


def test_a_crash_comes_with_its_last_lines():
    last = {"reason": "Error", "exitCode": 1, "message": "Traceback\n\nImportError: no jupyterhub\n"}
    found = phase_of(pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=last, restarts=1))
    assert found.message == "The server ended with exit code 1: Traceback / ImportError: no jupyterhub"
    assert not found.hopeless  # one crash may be chance
    assert phase_of(pod(state={"terminated": last}, phase="Failed")).hopeless


def test_a_quota_says_what_is_used_and_what_is_left():
    text = (
        'pods "jupyter-ada" is forbidden: exceeded quota: llmos, requested: limits.memory=16Gi,requests.memory=16Gi, '
        "used: limits.memory=12Gi,requests.memory=12Gi, limited: limits.memory=16Gi,requests.memory=16Gi"
    )
    found = explain_refusal(text, namespace="user-ada", running=[("lab", "4.0 GiB")])
    assert found.reason == "quota"
    assert found.message == (
        "4.0 GiB of your 16 GiB of memory are left (12 GiB in use), and this server needs 16 GiB. Running: lab "
        "(4.0 GiB). Choose a smaller size, or stop a server or a model that you don't need."
    )


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (
            f"exceeded quota: q, requested: {GPU}=1, used: {GPU}=1, limited: {GPU}=1",
            "quota",
            "0 of your 1 GPUs are left (1 in use), and this server needs 1.",
        ),
        (
            "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=1, limited: requests.cpu=1200m",
            "quota",
            "0.2 of your 1.2 cores are left (1 in use), and this server needs 0.5.",
        ),
        (
            "exceeded quota: q, requested: requests.storage=10Gi, used: requests.storage=0, limited: requests.storage=5Gi",
            "quota",
            "5.0 GiB of your 5.0 GiB of storage are left (0 GiB in use), and this server needs 10 GiB.",
        ),
        ("failed quota: q: must specify limits.cpu for: notebook", "quota", "wants every server to say limits.cpu"),
        (
            "forbidden: [maximum cpu usage per Container is 1, but limit is 2, "  # noqa: ISC004 - one message
            "maximum memory usage per Container is 1Gi, but limit is 4Gi]",
            "limits",
            "at most 1.0 GiB of memory, and 4.0 GiB were asked for",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "security",
            'holds pods to the standard "restricted:latest"',
        ),
        (
            'pods is forbidden: User "system:serviceaccount:llmos:hub" cannot create resource "pods" in API group ""',
            "rights",
            "The Hub may not create pods in user-ada.",
        ),
        ("unable to create new content in namespace x because it is being terminated", "namespace", "Try again"),
        ("a webhook says no", "refused", "a webhook says no"),
    ],
)
def test_other_refusals(text, reason, words):
    found = explain_refusal(text, namespace="user-ada")
    assert found.reason == reason
    assert words in found.message


def test_a_refusal_is_shown_by_every_jupyterhub_and_counts_as_one():
    error = refusal("100% of it is used.", reason="quota", status=403)
    assert error.status_code == 403
    assert error.jupyterhub_message == "100% of it is used."
    assert error.get_message() == "100% of it is used."
