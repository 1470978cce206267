"""Messages of clusters, translated for people. The input is from real clusters."""

from __future__ import annotations

import pytest

from llmos_hub.backends.kubernetes.reasons import (
    image_pull,
    not_created,
    not_mounted,
    probe_failing,
    start_failed,
    unschedulable,
)

PREEMPTION = "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (
            "0/3 nodes are available: 3 Insufficient memory. no new claims to deallocate, " + PREEMPTION,
            "InsufficientMemory",
            (
                "chat needs 4.0 GiB of memory and none of 3 machines has that free. It starts by itself once there is "
                "room. Make room (llmos ps shows what each uses), or ask for less: llmos set chat --memory …"
            ),
        ),
        (
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }. "
            + PREEMPTION,
            "InsufficientCPU",
            (
                "chat needs 1500m of CPUs and none of 3 machines has that free (2 not answering). It starts by itself once "
                "there is room. Make room (llmos ps shows what each uses), or ask for less: llmos set chat --cpu …"
            ),
        ),
        (
            "0/3 nodes are available: 1 Insufficient memory, 3 Insufficient nvidia.com/gpu. " + PREEMPTION,
            "InsufficientGPU",
            "chat waits for 2 GPUs: none of 3 machines has as many free. It starts by itself once there is room.",
        ),
        (
            "0/1 nodes are available: 1 Insufficient memory. " + PREEMPTION,
            "InsufficientMemory",
            (
                "chat needs 4.0 GiB of memory and the only machine doesn't have that free. It starts by itself once there "
                "is room. Make room (llmos ps shows what each uses), or ask for less: llmos set chat --memory …"
            ),
        ),
        (
            "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: ml}, 1 node(s) were unschedulable, "
            "1 node(s) didn't match Pod's node affinity/selector. " + PREEMPTION,
            "Unschedulable",
            (
                "chat fits on none of 3 machines: 1 kept for others by the taint dedicated; 1 closed for maintenance; 1 of "
                "another kind than nodeSelector asks for. It starts by itself once there is room."
            ),
        ),
        (
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
            "Volume",
            "chat waits for its model volume: the claim llmos-models is not bound to a volume.",
        ),
        ("something new", "Unschedulable", "chat is not placed on a machine: something new"),
    ],
)
def test_not_placed(said: str, reason: str, words: str) -> None:
    failure = unschedulable("chat", said, {"memory": "4Gi", "cpu": "1500m", "nvidia.com/gpu": "2"})
    assert (failure.reason, failure.message) == (reason, words)


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (
            (
                'pods "chat-5f" is forbidden: exceeded quota: q, requested: limits.memory=4Gi,pods=1, '
                "used: limits.memory=6Gi,pods=3, limited: limits.memory=8Gi,pods=3"
            ),
            "QuotaExceeded",
            (
                "chat can't start within the quota: 6.0 GiB of 8.0 GiB memory are in use and 4.0 GiB more were asked for; "
                "3 of 3 pods are in use and 1 more were asked for. It starts by itself once something else stops. Stop "
                "another model (llmos ps), or ask for less."
            ),
        ),
        (
            'pods "chat" is forbidden: maximum memory usage per Container is 2Gi, but limit is 4Gi',
            "Refused",
            "chat asks for 4.0 GiB of memory; here a container may have at most 2.0 GiB.",
        ),
        (
            'pods "chat" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "Refused",
            (
                'chat can\'t start: the cluster refuses its pods: violates PodSecurity "restricted:latest": '
                "runAsNonRoot != true"
            ),
        ),
    ],
)
def test_not_made(said: str, reason: str, words: str) -> None:
    failure = not_created("chat", said)
    assert (failure.reason, failure.message) == (reason, words)


@pytest.mark.parametrize(
    ("reason", "said", "words"),
    [
        (
            "ImagePullBackOff",
            'rpc error: failed to resolve reference "r/a:1": not found',
            "the registry doesn't have it",
        ),
        ("ErrImagePull", "401 Unauthorized", "asks for other credentials than imagePullSecrets has"),
        ("ErrImagePull", "dial tcp: lookup r on 10.0.0.1: no such host", "the registry can't be reached"),
        ("InvalidImageName", "couldn't parse image", "no name of an image"),
        ("ErrImageNeverPull", "", "not on this machine"),
    ],
)
def test_no_image(reason: str, said: str, words: str) -> None:
    failure = image_pull("chat", reason, "r/a:1", said)
    assert failure.reason == "ImagePull"
    assert failure.message.startswith("chat can't start: its image r/a:1 can't be fetched: ")
    assert words in failure.message


def test_not_started() -> None:
    said = 'exec: "serve": executable file not found in $PATH: unknown'
    assert start_failed("chat", "serve", said).reason == "NotFound"
    assert '"serve" is not in its image' in start_failed("chat", "serve", said).message
    assert start_failed("chat", "serve", 'exec: "serve": permission denied').reason == "NotFound"
    other = start_failed("chat", "serve", "oci  runtime\nerror" + "x" * 500)
    assert other.reason == "StartFailed"
    assert "oci runtime error" in other.message
    assert len(other.message) < 400


def test_volumes_and_probes() -> None:
    said = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other'
    assert "it can be on one only" in not_mounted("chat", said).message
    assert "no such volume" in not_mounted("chat", "MountVolume failed: no such volume").message
    failure = probe_failing("chat", ["Readiness probe failed: HTTP probe failed with statuscode: 503"])
    assert failure.message == (
        "chat runs but is not ready: HTTP probe failed with statuscode: 503. See why: llmos logs chat"
    )
    assert probe_failing("chat", []).message == "chat runs but is not ready. See why: llmos logs chat"
