"""The chart without Helm: with Argo CD's phases and waves, and with ``helm template | kubectl apply``."""

import re

import pytest

from tests.support.helm import needs_helm, pod_specs, render
from tests.support.phases import PHASES, phases, references

pytestmark = needs_helm

VALUES = {
    "plain": {},
    "backups": {"backup": {"enabled": True, "beforeUpgrade": True}, "mirror": {"enabled": True}},
    "another hub": {"hub": {"enabled": False}, "externalHub": {"namespace": "jhub"}},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_first_sync_can_finish(name):
    """The objects that a pod refers to exist by the end of its phase; otherwise its hook would never finish."""
    values = {"existingSecret": "mine", **VALUES[name]}
    there = {("Secret", "mine")}
    for phase, waves in phases(render(values)).items():
        if phase == "PostDelete":
            continue
        for _, objects in sorted(waves.items()):
            if phase != "Sync":
                wanted = references(objects)
                here = {(o["kind"], o["metadata"]["name"]) for o in objects}
                assert wanted <= there | here, f"{phase}: {wanted - there - here}"
            there |= {(o["kind"], o["metadata"]["name"]) for o in objects}
        if phase == "Sync":
            claims = {("PersistentVolumeClaim", "data-llmos-valkey-0")}  # the StatefulSet's
            missing = references([o for objects in waves.values() for o in objects]) - there - claims
            assert not missing


def test_definitions_come_before_and_finalizers_go_after_everything():
    found = phases(render())
    assert list(found) == [phase for phase in PHASES if phase in found]
    assert jobs(found["PreSync"]) == {"llmos-crds"}
    assert jobs(found["PostDelete"]) == {"llmos-uninstall"}
    assert not jobs(found["Sync"])
    for waves in (found["PreSync"], found["PostDelete"]):
        last = max(waves)
        assert {o["kind"] for o in waves[last]} == {"Job"}  # its account, rights, files and network before it
        before = {o["kind"] for wave, objects in waves.items() if wave < last for o in objects}
        assert {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "NetworkPolicy"} <= before


def jobs(waves):
    found = (o["metadata"]["name"] for objects in waves.values() for o in objects if o["kind"] == "Job")
    return {re.sub("-[0-9a-f]{8}$", "", name) for name in found}


def test_after_the_last_uninstall_nothing_of_the_chart_is_needed():
    """The release's PriorityClasses, Secret and claims are deleted or owned by others then."""
    waves = phases(render())["PostDelete"]
    objects = [o for found in waves.values() for o in found]
    own = {(o["kind"], o["metadata"]["name"]) for o in objects}
    assert references(objects) <= own


def test_a_job_of_another_version_is_another_job():
    """A job is immutable: `kubectl apply` of the next tag is refused if the job has the same name."""
    one, other = render({"images": {"tag": "1"}}), render({"images": {"tag": "2"}})
    names = [{name for name, _ in pod_specs(objects) if name.startswith("Job/")} for objects in (one, other)]
    assert len(names[0]) == len(names[1]) == 2
    assert not names[0] & names[1]
    again = {name for name, _ in pod_specs(render({"images": {"tag": "1"}})) if name.startswith("Job/")}
    assert again == names[0]  # the same once more runs nothing


def test_a_backup_before_an_upgrade_is_only_made_where_there_is_something_to_copy():
    values = VALUES["backups"]
    assert not [name for name, _ in pod_specs(render(values)) if "before-upgrade" in name]
    upgrade = [name for name, _ in pod_specs(render(values, "--is-upgrade")) if "before-upgrade" in name]
    assert upgrade == ["Job/llmos-backup-hub-before-upgrade", "Job/llmos-backup-valkey-before-upgrade"]
