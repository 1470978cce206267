"""Random interleavings of writers, watches, broken connections and trimming, against a model.

The model is a few lines that share nothing with the store: it takes the acknowledged writes in the order of
their resourceVersions and says what each must have made of what was there.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmos.errors import AlreadyExists, Conflict, Expired, NotFound, Unavailable
from llmos.resources import ModelService
from llmos_hub.stores.base import BOOKMARK, DELETED
from llmos_hub.stores.redis import tail
from llmos_hub.stores.redis.keys import ResourceKeys
from llmos_hub.stores.redis.sealing import Sealer
from llmos_hub.stores.redis.store import RedisStore
from llmos_hub.valkey.database import Database
from tests.support.store_contract import model
from tests.support.valkey import ValkeyServer

KEYS = ResourceKeys()
NAMESPACES = ("user-ada", "user-grace")
NAMES = ("a", "b")
HOLD = "llmos.ai/hold"

# -- what happens

place = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMES))
team = st.sampled_from(["", "blue", "red"])
writes = st.one_of(
    st.tuples(st.just("create"), place, team, st.booleans()),
    st.tuples(st.just("apply"), place, team, st.integers(1, 3)),
    st.tuples(st.just("count"), place),
    st.tuples(st.just("relabel"), place, team),
    st.tuples(st.just("status"), place, st.integers(0, 3)),
    st.tuples(st.just("delete"), place),
    st.tuples(st.just("release"), place),
)
watches = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from([None, *NAMESPACES]),
        "labels": st.sampled_from([None, {"team": "blue"}]),
        "start": st.floats(0, 1),  # how far back among the versions seen so far
        "after": st.integers(0, 25),  # writes before it begins
        "nap": st.integers(0, 3),  # how slow its user is
    }
)
disturbances = st.lists(
    st.one_of(
        st.tuples(st.just("break"), st.integers(0, 30)),
        st.tuples(st.just("trim"), st.integers(0, 30), st.integers(0, 8)),
    ),
    max_size=3,
)
scenarios = st.fixed_dictionaries(
    {
        "writers": st.lists(st.lists(writes, min_size=1, max_size=12), min_size=1, max_size=4),
        "watches": st.lists(watches, min_size=1, max_size=4),
        "disturbances": disturbances,
        "queue": st.sampled_from([1, 3, 1024]),
        "page": st.sampled_from([1, 4, 500]),
    }
)


# -- the model


@dataclass
class Known:
    """The model's state of a resource."""

    uid: str
    generation: int
    env: dict[str, str]
    replicas: int
    labels: dict[str, str]
    phase: str
    held: bool
    deleting: bool


def known(resource: ModelService) -> Known:
    meta = resource.metadata
    return Known(
        uid=meta.uid or "",
        generation=meta.generation,
        env=resource.spec.env,
        replicas=resource.spec.replicas,
        labels=meta.labels,
        phase=resource.status.message,
        held=bool(meta.finalizers),
        deleting=meta.deletion_timestamp is not None,
    )


def expected(before: Known | None, write: tuple[Any, ...], now: Known) -> Known | None:
    """Return the expected resource after an acknowledged write; None if it must be deleted."""
    verb, _, *rest = write
    if verb in {"create", "apply"} and before is None:
        labels = {"team": rest[0]} if rest[0] else {}
        replicas, held = (1, rest[1]) if verb == "create" else (rest[1], False)
        env = {"BY": rest[2]} if verb == "apply" else {}
        return Known(now.uid, 1, env, replicas, labels, "", held, deleting=False)
    assert before is not None, f"{verb} was acknowledged where nothing was"
    after = Known(**vars(before))
    if verb == "apply":
        assert not before.deleting
        after.labels = {**before.labels, **({"team": rest[0]} if rest[0] else {})}
        after.replicas, after.env = rest[1], {"BY": rest[2]}
    elif verb == "count":
        after.env = {**before.env, "N": str(int(before.env.get("N", "0")) + 1)}
    elif verb == "relabel":
        after.labels = {"team": rest[0]} if rest[0] else {}
    elif verb == "status":
        after.phase = str(rest[0])
    elif verb == "release":
        after.held = False
    elif before.held:  # delete
        after.deleting = True
    else:
        return None
    if (after.env, after.replicas) != (before.env, before.replicas):
        after.generation += 1
    return None if after.deleting and not after.held else after


# -- the run


@dataclass
class Run:
    """One scenario on a real store."""

    stores: list[RedisStore]
    admin: redis.asyncio.Redis
    scenario: dict[str, Any]
    acknowledged: dict[int, tuple[tuple[Any, ...], ModelService]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    doubtful: int = 0
    done: int = 0
    step: asyncio.Condition = field(default_factory=asyncio.Condition)
    quiet: asyncio.Lock = field(default_factory=asyncio.Lock)
    trimmed: bool = False

    async def write(self, store: RedisStore, write: tuple[Any, ...]) -> ModelService | None:
        """Do one operation; return None if it didn't apply, or changed nothing."""
        verb, (namespace, name), *rest = write
        labels = {"team": rest[0]} if verb in {"create", "apply", "relabel"} and rest[0] else {}
        if verb == "create":
            return await store.create(model(name, namespace, labels=labels, finalizers=[HOLD] if rest[1] else []))
        if verb == "delete":
            before = await store.get(ModelService, namespace, name)
            gone = await store.delete(ModelService, namespace, name, uid=before.metadata.uid)
            return None if gone.metadata.resource_version == before.metadata.resource_version else gone
        if verb == "apply":
            wanted = model(name, namespace, replicas=rest[1], labels=labels)
            wanted.spec.env = {"BY": rest[2]}  # no two applies are equal, so that each is a change
            return await store.apply(wanted)
        current = await store.get(ModelService, namespace, name)
        before_version = current.metadata.resource_version
        if verb == "count":
            current.spec.env["N"] = str(int(current.spec.env.get("N", "0")) + 1)
        elif verb == "relabel":
            current.metadata.labels = labels
        elif verb == "release":
            current.metadata.finalizers = []
        else:
            current.status.message = str(rest[0])
        stored = await (store.patch_status(current) if verb == "status" else store.update(current))
        return None if stored.metadata.resource_version == before_version else stored

    async def writer(self, store: RedisStore, number: int, todo: list[tuple[Any, ...]]) -> None:
        for count, planned in enumerate(todo):
            write = (*planned, f"{number}.{count}") if planned[0] == "apply" else planned
            try:
                stored = await self.write(store, write)
            except (AlreadyExists, Conflict, NotFound):
                stored = None
            except Unavailable:
                stored = None
                self.doubtful += 1
            if stored is not None:
                version = stored.metadata.resource_version or ""
                # a second delete of a resource with finalizers changes nothing and returns the version of an earlier change
                twin = self.acknowledged.get(int(version))
                assert twin is None or "delete" in (twin[0][0], write[0]), "two writes got one version"
                if twin is None or write[0] != "delete":
                    self.acknowledged[int(version)] = (write, stored)
                self.versions.append(version)
            async with self.step:
                self.done += 1
                self.step.notify_all()

    async def after(self, count: int) -> None:
        """Wait until so many writes, or all, are done."""
        total = sum(map(len, self.scenario["writers"]))
        async with self.step:
            await self.step.wait_for(lambda: self.done >= min(count, total))

    async def disturb(self, what: tuple[Any, ...]) -> None:
        await self.after(what[1])
        async with self.quiet:  # one connection, which spares itself
            if what[0] == "break":
                await self.admin.client_kill_filter(_type="normal", skipme=True)
            else:
                self.trimmed = True
                await self.admin.xtrim(KEYS.changes, maxlen=what[2], approximate=False)

    async def watcher(self, store: RedisStore, plan: dict[str, Any], finish: asyncio.Event) -> Seen:
        """List and watch as a client does, starting from an old version, until all changes are seen."""
        await self.after(plan["after"])
        seen = Seen(plan)
        version = self.versions[int(plan["start"] * (len(self.versions) - 1))]
        while True:
            try:
                await seen.follow(store, version, finish)
            except Expired:
                assert self.trimmed, "a version expired though nothing was trimmed"
            else:
                return seen
            listing = await store.list(ModelService, plan["namespace"], labels=plan["labels"])
            seen.restart(listing)
            version = listing.resource_version


class Seen:
    """The events of a watch since its last list."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.start = -1
        self.state: dict[str, ModelService] | None = None
        self.told: list[tuple[int, str, str]] = []

    def restart(self, listing: Any) -> None:
        self.state = {r.key: r for r in listing.items}
        self.told = []

    async def follow(self, store: RedisStore, version: str, finish: asyncio.Event) -> None:
        self.start, end = int(version), -1
        watch = store.watch(ModelService, self.plan["namespace"], resource_version=version, labels=self.plan["labels"])
        async with watch as events:
            async for event in events:
                for _ in range(self.plan["nap"]):
                    await asyncio.sleep(0)
                position = int(event.resource_version)
                if event.type != BOOKMARK:
                    assert event.resource is not None
                    self.take(position, event.type, event.resource)
                if finish.is_set() and end < 0:
                    end = int((await store.list(ModelService)).resource_version)
                if 0 <= end <= position:
                    return

    def take(self, position: int, type_: str, resource: ModelService) -> None:
        assert not self.told or position > self.told[-1][0], "out of order or twice"
        self.told.append((position, type_, resource.key))
        if self.state is None:
            return
        assert (resource.key in self.state) == (type_ != "ADDED")
        if type_ == DELETED:
            del self.state[resource.key]
        else:
            self.state[resource.key] = resource


def visible(changes: list[tuple[int, str, ModelService]], plan: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Return the events that a watch with that plan must get."""
    told, inside = [], set()
    for version, type_, resource in changes:
        if plan["namespace"] not in (None, resource.metadata.namespace):
            continue
        matches = all(resource.metadata.labels.get(k) == v for k, v in (plan["labels"] or {}).items())
        was_inside = resource.key in inside
        if type_ != DELETED and matches:
            inside.add(resource.key)
            told.append((version, "MODIFIED" if was_inside else "ADDED", resource.key))
        elif was_inside:
            inside.discard(resource.key)
            told.append((version, DELETED, resource.key))
    return told


async def everything(store: RedisStore, start: str, end: str) -> list[tuple[int, str, ModelService]]:
    """Return all changes between two versions, from a watch."""
    changes: list[tuple[int, str, ModelService]] = []
    async with store.watch(ModelService, resource_version=start) as events:
        while (int(changes[-1][0]) if changes else int(start)) < int(end):
            event = await anext(events)
            if event.resource is not None:
                changes.append((int(event.resource_version), event.type, event.resource))
    return changes


@dataclass
class Played:
    """A scenario after its end: what its watches saw, all changes (None if some were trimmed), the final state."""

    run: Run
    seen: list[Seen]
    changes: list[tuple[int, str, ModelService]] | None
    final: dict[str, ModelService]


async def play(url: str, scenario: dict[str, Any]) -> Played:
    admin = redis.asyncio.Redis.from_url(url)
    await admin.flushall()
    stores = [RedisStore(Database(url), Sealer(), bookmark_interval=0.01) for _ in range(3)]
    witness = RedisStore(Database(url), Sealer(), bookmark_interval=0.01)
    try:
        run = Run(stores[:2], admin, scenario)
        start = (await stores[0].list(ModelService)).resource_version
        run.versions.append(start)
        finish = asyncio.Event()
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            plans = enumerate(scenario["watches"])
            watching = [tasks.create_task(run.watcher(stores[n % 3], plan, finish)) for n, plan in plans]
            others = [tasks.create_task(run.disturb(what)) for what in scenario["disturbances"]]
            others += [
                tasks.create_task(run.writer(stores[n % 2], n, todo)) for n, todo in enumerate(scenario["writers"])
            ]
            await asyncio.wait(others)
            finish.set()
        seen = [task.result() for task in watching]
        final = await stores[2].list(ModelService)
        changes = None if run.trimmed else await everything(witness, start, final.resource_version)
        return Played(run, seen, changes, {r.key: r for r in final.items})
    finally:
        for store in (*stores, witness):
            await store.close()
        await admin.aclose()


def assert_written(played: Played) -> None:
    """Check that every acknowledged write is stored with its expected effect, and that nothing else happened."""
    run = played.run
    if played.changes is not None:
        told = {version: resource for version, _, resource in played.changes}
        assert set(run.acknowledged) <= set(told)
        assert len(told) - len(run.acknowledged) <= run.doubtful, "changes that nobody made"
        for version, (_, stored) in run.acknowledged.items():
            assert told[version] == stored
    if run.doubtful:
        return
    state: dict[str, Known] = {}
    for _, (write, stored) in sorted(run.acknowledged.items()):
        after = expected(state.get(stored.key), write, known(stored))
        if after is None:
            del state[stored.key]
        else:
            assert known(stored) == after
            state[stored.key] = after
    assert state == {key: known(resource) for key, resource in played.final.items()}


def assert_told(seen: Seen, played: Played) -> None:
    """Check that list and changes of a watch add up to the final state, and that no change is missing."""
    run = played.run
    if played.changes is not None:
        must = [told for told in visible(played.changes, seen.plan) if told[0] > seen.start]
        assert seen.told == must
    elif not run.doubtful:
        versions = [v for v, *_ in seen.told]
        if seen.plan["namespace"] is None and seen.plan["labels"] is None:
            assert versions == sorted(v for v in run.acknowledged if v > seen.start)
    if seen.state is not None:
        namespace, labels = seen.plan["namespace"], seen.plan["labels"] or {}
        assert seen.state == {
            key: resource
            for key, resource in played.final.items()
            if namespace in (None, resource.metadata.namespace)
            and all(resource.metadata.labels.get(k) == v for k, v in labels.items())
        }


@given(scenario=scenarios)
@settings(
    max_examples=60,
    # with real connections no two runs are equal, so shrinking would not converge
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_interleaving_agrees_with_the_model(valkey_server: ValkeyServer, scenario: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        for name, value in (("QUEUE", scenario["queue"]), ("PAGE", scenario["page"]), ("BLOCK", 0.05)):
            stack.callback(setattr, tail, name, getattr(tail, name))
            setattr(tail, name, value)
        played = asyncio.run(play(valkey_server.url, scenario))
    assert_written(played)
    for seen in played.seen:
        assert_told(seen, played)
