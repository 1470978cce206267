"""Names and labels: within Kubernetes' limits, and different for each release."""

import json
import re

import pytest

from tests.support.helm import HelmRefused, needs_helm, pod_specs, render

pytestmark = needs_helm

LONGEST = {
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and what controllers put behind a name
    "CronJob": 52,  # eleven characters for the time
    "Job": 63,  # a label of its pods
    "Service": 63,
    "StatefulSet": 52,  # a label of its pods with the hash of a revision
    "Deployment": 63,
}
EVERYTHING = {
    "backup": {"enabled": True, "beforeUpgrade": True},
    "mirror": {"enabled": True},
    "gateway": {"autoscaling": {"enabled": True}},
    "ingress": {"enabled": True, "host": "hub.example.org", "gatewayHost": "models.example.org"},
}
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def labels_of(obj):
    yield from obj["metadata"].get("labels", {}).items()
    for _, template in pod_specs([obj]):
        yield from template["metadata"]["labels"].items()


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("release", ["l" * 53, "a-" * 26 + "a", "with.dots", "x"])
def test_no_name_and_no_label_is_too_long_whatever_the_release_is_called(release, hub):
    values = {**EVERYTHING, "hub": {"enabled": hub}, "externalHub": {"namespace": "jhub"}}
    objects = render(values, "--is-upgrade", namespace="n" * 63, release=release)
    assert {"CronJob", "Job", "StatefulSet"} <= {o["kind"] for o in objects}
    for obj in objects:
        name, kind = obj["metadata"]["name"], obj["kind"]
        assert len(name) <= LONGEST.get(kind, 253), f"{kind}/{name}"
        if kind in ("Service", "Deployment", "StatefulSet", "Job", "CronJob"):
            assert DNS_LABEL.fullmatch(name), f"{kind}/{name}"
        for key, value in labels_of(obj):
            assert LABEL.fullmatch(value), f"{kind}/{name}: {key}: {value}"
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)


def test_what_is_cut_stays_apart():
    """Both jobs of a release, whose names differ at their ends, and two releases that begin alike."""
    names = [
        {o["metadata"]["name"] for o in render(EVERYTHING, release=release) if o["kind"] == "CronJob"}
        for release in ("l" * 52 + "a", "short")
    ]
    assert [len(found) for found in names] == [2, 2]
    assert names[1] == {"short-llmos-backup-hub", "short-llmos-backup-valkey"}


def cluster_names(namespace, release):
    """Return the names of the release's cluster-scoped objects."""
    objects = render(namespace=namespace, release=release)
    data = next(o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-users"))["data"]
    instance = json.loads(data["namespaces.json"])["instance"]
    shared = {f"{o['kind']}/{o['metadata']['name']}" for o in objects if "namespace" not in o["metadata"]}
    assert shared
    assert all(f"/{instance}-" in name for name in shared)
    return instance, shared


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a-b", "llmos-c"), ("a", "b-llmos-c")),
        (("x-llmos", "x-llmos"), ("x", "llmos")),
        (("n" * 63, "a-llmos"), ("n" * 63, "b-llmos")),
    ],
)
def test_no_two_releases_share_a_name_in_the_cluster(one, other):
    (first, its), (second, theirs) = cluster_names(*one), cluster_names(*other)
    assert first != second
    assert not its & theirs


def test_the_usual_names_stay_as_they_were():
    assert cluster_names("llmos", "llmos")[0] == "llmos"
    assert cluster_names("ai", "llmos")[0] == "ai-llmos"


def test_a_release_whose_name_begins_with_a_digit_is_refused_in_words():
    with pytest.raises(HelmRefused, match="a Service's name can't begin with a digit, as the release's name 2nd does"):
        render(release="2nd")
    render({"fullnameOverride": "second"}, release="2nd")


def test_a_release_that_was_called_otherwise_can_keep_its_name_without_asking_the_cluster():
    objects = render({"instance": "ai-platform-llmos"}, namespace="ai-platform")
    names = {obj["metadata"]["name"] for obj in objects if obj["kind"] == "ClusterRole"}
    assert names
    assert all(name.startswith("ai-platform-llmos-") for name in names)
