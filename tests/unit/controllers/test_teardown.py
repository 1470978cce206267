"""Deletions of workloads in the background."""

from __future__ import annotations

from llmos_hub.controllers.teardown import Teardown
from llmos_hub.workload import WorkloadRef
from tests.support.fake_backend import FakeBackend

REF = WorkloadRef("ModelService", "user-ada", "chat", "u1")


async def test_one_that_was_given_up_before_it_began_can_begin_again():
    ended: list[WorkloadRef] = []
    teardown = Teardown(FakeBackend(), ended.append)
    teardown.begin(REF)
    await teardown.close()
    assert not teardown.busy(REF)
    teardown.begin(REF)
    assert teardown.busy(REF)
    await teardown.close()
    assert not ended
