"""Local copies of a server's objects, despite interrupted connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from llmos.errors import Unavailable
from llmos_hub.backends.kubernetes.watching import Notices
from llmos_hub.kubernetes import reflector as module
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.kubernetes.reflector import Reflector
from tests.support.waiting import eventually


def obj(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"namespace": "n", "name": name, "resourceVersion": str(version)}, **more}


class Server(KubernetesAPI):
    """A stub that answers lists and watches from scripts; a watch without a script stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: list[Any] = []
        self.watches: list[Any] = []
        self.asked: list[str] = []

    async def list_pages(self, path, *, params=None):
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        version, items = answer
        self.asked.append("list")
        yield {"kind": "PodList", "metadata": {"resourceVersion": str(version)}, "items": items}

    @contextlib.asynccontextmanager
    async def lines(self, path, *, params=None, idle=None):
        self.asked.append(f"watch {params['resourceVersion']}")
        events = self.watches.pop(0) if self.watches else None

        async def read():
            for event in events or ():
                if isinstance(event, Exception):
                    raise event
                yield json.dumps(event).encode() + b"\n"
            if events is None:
                await asyncio.Event().wait()

        yield read()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def following(server, monkeypatch):
    """Yield a reflector, and a function that runs it until a condition holds and returns its events."""
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    told: list[tuple[str, str]] = []

    def changed(old, new):
        name = (new or old)["metadata"]["name"]
        told.append((name, "gone" if new is None else "new" if old is None else "changed"))

    reflector = Reflector(server, "/api/v1/pods", params={}, keep=lambda o: o, changed=changed)
    tasks = []

    async def run(until):
        tasks.append(asyncio.create_task(reflector.run()))
        await eventually(until)
        return told

    yield reflector, run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_changes_are_followed(server, following):
    reflector, run = following
    server.lists = [(5, [obj("a", 3)])]
    server.watches = [
        [
            {"type": "ADDED", "object": obj("b", 6)},
            {"type": "MODIFIED", "object": obj("a", 7)},
            {"type": "MODIFIED", "object": obj("a", 4)},
            {"type": "BOOKMARK", "object": obj("", 9)},
            {"type": "DELETED", "object": obj("b", 8)},
        ]
    ]
    told = await run(lambda: len(server.asked) == 3)
    assert told == [("a", "new"), ("b", "new"), ("a", "changed"), ("b", "gone")]
    assert server.asked == ["list", "watch 5", "watch 8"], "it goes on where it was"
    assert set(reflector.objects) == {("n", "a")}


async def test_too_old_is_listed_again_and_what_is_gone_is_told(server, following):
    reflector, run = following
    server.lists = [(5, [obj("a", 3), obj("b", 3)]), (20, [obj("a", 3), obj("c", 15)])]
    server.watches = [[{"type": "ERROR", "object": {"code": 410, "message": "too old"}}]]
    told = await run(lambda: "watch 20" in server.asked)
    assert told == [("a", "new"), ("b", "new"), ("c", "new"), ("b", "gone")]
    assert set(reflector.objects) == {("n", "a"), ("n", "c")}


async def test_errors_are_outlasted(server, following):
    reflector, run = following
    server.lists = [Unavailable("down"), APIError(403, {"message": "not yet"}), ValueError("?"), (5, [obj("a", 3)])]
    server.watches = [[Unavailable("cut off")], [ValueError("not JSON")]]
    server.lists.append((6, [obj("a", 3)]))
    await run(lambda: server.asked == ["list", "watch 5", "watch 5", "list", "watch 6"])
    assert reflector.synced.is_set()


async def test_an_answer_is_taken_over_unless_there_is_a_newer_one(following):
    reflector, _ = following
    reflector.take(obj("a", 5, x=1))
    reflector.take(obj("a", 4, x=2))
    assert reflector.objects["n", "a"]["x"] == 1


def test_notices_keep_the_newest_of_each_kind():
    told = []
    notices = Notices(lambda namespace, name: told.append((namespace, name)))

    def event(uid: str, reason: str, message: str, kind: str = "Pod") -> dict | None:
        about = {"kind": kind, "namespace": "n", "name": "p", "uid": uid}
        meta = {"name": "e", "namespace": "n", "resourceVersion": "1"}
        made = {"metadata": meta, "involvedObject": about, "type": "Warning", "reason": reason, "message": message}
        return notices.keep(made)

    assert event("1", "x", "y", "Node") is None
    for message in ("first", "second", "first"):
        notices.changed(None, event("1", "Failed", message))
    assert [n.message for n in notices.by_uid["1"]] == ["first", "second"]
    for number in range(6000):
        notices.changed(None, event(f"u{number}", "Failed", "z"))
    assert len(notices.by_uid) == 5000
    assert "1" not in notices.by_uid
    assert told[0] == ("n", "p")
