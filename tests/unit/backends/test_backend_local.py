"""The local backend fulfils the contract, with real processes."""

from __future__ import annotations

import pytest

from llmos_hub.workload import Mount, ProcessTemplate
from tests.support.backend_contract import REPORT, BackendContract, Programs
from tests.support.local_backend import HEAD, HEALTH, WORKER, backend, engine, kill, kit, script

__all__ = ["backend", "kit"]


@pytest.fixture
def programs(kit, tmp_path):
    return Programs(
        serving=engine,
        unready=engine("unready", "--start-delay", "60"),
        crashing=script("echo last words; exit 3", readiness=HEALTH),
        job=lambda code: script(f"echo working; exit {code}", completes=True),
        reporting=script("; ".join(f"echo '{line}'" for line in REPORT), completes=True),
        missing=ProcessTemplate(("llmos-no-such-program",)),
        successor=kit.successor,
        head=HEAD,
        worker=WORKER,
        restart=kill,
        shell=lambda text, mount: script(text, completes=True, mounts={"data": mount}),
        mount=Mount(str(tmp_path), "/data"),
    )


class TestContract(BackendContract):
    pass
