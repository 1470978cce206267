"""An engine on a loopback port, which every account can reach, needs a key that only the platform has."""

from __future__ import annotations

import sys

import httpx

from llmos.resources import ModelService
from llmos_hub.controllers.modelservice.workloads import make_serve
from llmos_hub.engine_keys import engine_key, engine_secret
from llmos_hub.engines.base import Machine
from llmos_hub.engines.custom import Custom
from llmos_hub.workload import Workload
from tests.support.backend_contract import ready, until
from tests.support.local_backend import Kit, backend, kit

__all__ = ["backend", "kit"]

KEY = engine_key(engine_secret("master"), "u1")
PROGRAM = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ours = self.headers.get("Authorization") == "Bearer " + os.environ["MY_KEY"]
        self.send_response(200 if ours else 401)
        self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def keyed() -> Workload:
    """The reconciler's template for a command that uses its key."""
    spec = {"engine": "custom", "args": [sys.executable, "-ISc", PROGRAM, "{port}"], "env": {"MY_KEY": "{api_key}"}}
    service = ModelService.parse(
        {"kind": "ModelService", "metadata": {"name": "mine", "namespace": "user-ada", "uid": "u1"}, "spec": spec}
    )
    return make_serve(service, Custom().plan(service.spec, None, Machine(2, 2**33)), {}, key=KEY)


async def answers(url: str, key: str | None) -> int:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/v1/models", headers=headers)).status_code


async def test_another_account_without_the_key_is_refused_and_the_platform_is_not(kit: Kit) -> None:
    backend = await kit.started()
    wanted = keyed()
    await backend.apply(wanted)
    (replica,) = (await until(backend, wanted.ref, ready(1))).replicas  # its probe has the key
    assert replica.endpoint is not None
    assert await answers(replica.endpoint, KEY) == 200
    assert await answers(replica.endpoint, None) == 401
    assert await answers(replica.endpoint, engine_key(engine_secret("master"), "u2")) == 401
    with open(f"/proc/{replica.pid}/cmdline", "rb") as words:  # noqa: PTH123 - a file of the kernel
        assert KEY.encode() not in words.read()
    files = [path for path in kit.directory.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


async def test_controllers_that_come_back_find_it_ready_before_they_know_its_key_again(kit: Kit) -> None:
    backend = await kit.started()
    wanted = keyed()
    await backend.apply(wanted)
    (before,) = (await until(backend, wanted.ref, ready(1))).replicas
    backend = await kit.successor(backend)
    (after,) = (await until(backend, wanted.ref, ready(1))).replicas
    await backend.apply(wanted)
    (again,) = (await until(backend, wanted.ref, ready(1))).replicas
    assert before.pid == after.pid == again.pid
