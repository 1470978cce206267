"""The ModelService reconciler on a real store and a backend that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import BackendFailed, Insufficient, Invalid, NotFound, Unavailable, Unsupported
from llmos.resources import Credential, ModelService, Volume
from llmos.resources.base import condition
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.volume import VolumeStatus
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.modelservice.reconciler import ModelServiceReconciler
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.engines.base import Machine, Plan, Verdict
from llmos_hub.names import DataDir
from llmos_hub.sources.base import Header, ModelFiles
from llmos_hub.stores.base import Store
from llmos_hub.workload import Probe, ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.fake_backend import Behaviour, FakeBackend
from tests.support.waiting import eventually

NAMESPACE = "user-ada"
REVISION = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GI = 2**30


class OneEngine:
    """An engine whose command shows the model's path and the spec's arguments."""

    name = "llamacpp"
    title = "llama.cpp"

    def __init__(self) -> None:
        self.refusal: Exception | None = None

    def accepts(self, model: ModelFiles | None, machine: Machine) -> Verdict:
        return Verdict(True, "the file is GGUF")

    def plan(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> Plan:
        if self.refusal:
            raise self.refusal
        argv = ("engine", "--socket", "{socket}", "--model", model.path if model else "-", *spec.args)
        template = ProcessTemplate(argv, env=dict(spec.env), readiness=Probe("/health"))
        return Plan(template, "generate", "its header has a chat template", GI, "llama.cpp on 2 threads")

    def choose(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> tuple[OneEngine, str]:
        return self, self.accepts(model, machine).reason


class Counting:
    """A store that counts writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("create", "update", "apply", "patch_status", "delete", "record"):
            self.writes += 1
        return getattr(self._store, name)


class Bench:
    """A reconciler with a store and a backend, run in steps."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.plain = store
        self.store = Counting(store)
        self.data_dir = DataDir(directory)
        self.layout = Layout(self.data_dir.models, per_namespace=False)
        self.engine = OneEngine()
        self.model = directory / "model.gguf"
        self.model.write_bytes(b"GGUF")
        self.note = ""
        self.now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
        self.requeued: list[tuple[str | None, str]] = []
        self.starts: Callable[[Workload, Role, int], Behaviour] = self.all_go_well
        self.backend = FakeBackend(self.turn_out)
        self.reconciler = self.start()

    def start(self) -> ModelServiceReconciler:
        """Replace the reconciler by that of a new process, without caches."""
        parts = Dependencies(
            self.store,
            self.backend,
            WorkloadContext(self.layout, lambda _: Machine(2, 8 * GI)),
            requeue=self.requeued.append,
            environ={"HF_ENDPOINT": "https://mirror.example.org", "HTTPS_PROXY": "http://ada:pw@proxy:3128"},
        )
        self.reconciler = ModelServiceReconciler(parts, choose=self.engine.choose, clock=lambda: self.now)
        return self.reconciler

    # States of jobs and replicas

    def turn_out(self, workload: Workload, role: Role, index: int) -> Behaviour:
        return self.starts(workload, role, index)

    def all_go_well(self, workload: Workload, role: Role, index: int) -> Behaviour:
        if role.name == "fetch":
            return Behaviour({"phase": "Succeeded", "endpoint": None}, (self.done(role.template.argv[-2]),))
        return Behaviour()

    def slow(self, workload: Workload, role: Role, index: int) -> Behaviour:
        return Behaviour({"phase": "Starting"})

    def slow_fetch(self, workload: Workload, role: Role, index: int) -> Behaviour:
        return Behaviour({"phase": "Starting"} if role.name == "fetch" else {})

    def slow_serve(self, workload: Workload, role: Role, index: int) -> Behaviour:
        return self.all_go_well(workload, role, index) if role.name == "fetch" else Behaviour({"phase": "Starting"})

    def failing_fetch(self, workload: Workload, role: Role, index: int) -> Behaviour:
        error = {"type": "error", "code": "source_failed", "message": "hub.example.org does not answer."}
        lines = ("Traceback: a line of the log", json.dumps(error))
        failed = {"phase": "Failed", "exit_code": 1, "last_log_lines": lines}
        return Behaviour(failed if role.name == "fetch" else {}, lines)

    def done(self, uri: str) -> str:
        header = Header(architecture="llama", name="Tiny", quantization="Q8_0", chat_template=True)
        files = ModelFiles(
            uri, REVISION, str(self.model), "gguf", 4_000_000, header, label="a model for tests", note=self.note
        )
        return json.dumps({"type": "done", "model": files.dump()})

    # Resources

    async def create(self, name: str = "chat", **spec: Any) -> ModelService:
        meta = {"name": name, "namespace": NAMESPACE, "finalizers": [ModelService.finalizer]}
        content = {"model": "demo://tiny", **spec}
        return await self.plain.create(ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": content}))

    async def get(self, name: str = "chat") -> ModelService:
        return await self.plain.get(ModelService, NAMESPACE, name)

    async def change(self, name: str = "chat", **spec: Any) -> None:
        there = await self.get(name)
        changed = ModelServiceSpec.model_validate({**there.spec.model_dump(by_alias=True, exclude_none=True), **spec})
        await self.plain.update(there.model_copy(update={"spec": changed}))

    async def look(self, name: str = "chat") -> tuple[ModelService, Result[ModelService]]:
        """Reconcile once, and return the stored resource."""
        result = await self.reconciler.reconcile(await self.get(name))
        return await self.get(name), result

    async def settled(self, name: str = "chat") -> ModelService:
        """Reconcile until nothing is written any more."""
        for _ in range(10):
            before = self.store.writes
            resource, _ = await self.look(name)
            if self.store.writes == before:
                return resource
        message = "it never comes to rest"
        raise AssertionError(message)

    async def reasons(self, name: str = "chat") -> list[str]:
        return [event.reason for event in await self.plain.events(ModelService, NAMESPACE, name)]

    def ref(self, part: str, name: str = "chat") -> WorkloadRef:
        return next(ref for ref in self.backend.world.entries if (ref.part, ref.name) == (part, name))

    def parts(self) -> list[str]:
        return sorted(ref.part for ref in self.backend.world.entries)

    def template(self, part: str) -> ProcessTemplate:
        return self.backend.world.entries[self.ref(part)].workload.roles[0].template

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
async def bench(store: Store, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(store, tmp_path)
    yield bench
    await bench.reconciler.close()


def message_of(resource: ModelService, type_: str) -> tuple[str, str, str]:
    found = condition(resource.status.conditions, type_)
    assert found is not None, type_
    return found.status, found.reason, found.message


# From nothing to an answer


async def test_a_service_goes_from_pending_to_ready(bench: Bench) -> None:
    bench.starts = bench.slow
    await bench.create()
    resource, result = await bench.look()
    assert resource.status.phase == "Downloading"
    assert result.requeue_after is not None, "a download is looked at for its progress"
    progress = {"type": "progress", "file": "tiny.gguf", "done": 1_400_000_000, "total": 2_500_000_000, "rate": 58e6}
    bench.backend.say(bench.ref("fetch"), json.dumps(progress))
    resource, _ = await bench.look()
    assert resource.status.download is not None
    assert (resource.status.download.done, resource.status.download.total) == (1_400_000_000, 2_500_000_000)
    assert resource.status.message == "tiny.gguf: 1.4 GB of 2.5 GB at 58 MB/s, 19 s left."
    assert message_of(resource, "Downloaded")[:2] == ("Unknown", "Downloading")

    bench.backend.say(bench.ref("fetch"), bench.done("demo://tiny"))
    bench.backend.set(bench.ref("fetch"), phase="Succeeded")
    resource, result = await bench.look()
    assert (resource.status.phase, resource.status.download) == ("Starting", None)
    assert result.requeue_after is None, "replicas tell by themselves when they are ready"
    assert (resource.status.engine, resource.status.task) == ("llamacpp", "generate")
    assert resource.status.model is not None
    assert (resource.status.model.name, resource.status.model.revision) == ("Tiny", REVISION)
    assert message_of(resource, "Downloaded")[1:] == (
        "Downloaded",
        "4.0 MB from demo://tiny, revision sha256:b179c9523d0e",  # all of it stands in status.model
    )
    recognised = "generate: its header has a chat template. llama.cpp: the file is GGUF"
    assert message_of(resource, "ModelRecognised") == ("True", "Generate", recognised)
    assert resource.status.endpoints == []

    bench.later(2.5)
    bench.backend.set(bench.ref("serve"), phase="Ready")
    resource, _ = await bench.look()
    status = resource.status
    assert (status.phase, status.ready_replicas, status.replicas) == ("Ready", 1, 1)
    assert status.message == "llama.cpp on 2 threads · a model for tests"
    assert [endpoint.url[:7] for endpoint in status.endpoints] == ["unix://"]
    assert message_of(resource, "Ready")[0] == "True"
    assert status.observed_generation == resource.metadata.generation
    assert status.started_at is not None
    assert status.ready_at is not None
    assert (status.ready_at - status.started_at).total_seconds() == 2.5
    assert await bench.reasons() == [
        "Accepted",
        "DownloadStarted",
        "Downloaded",
        "EngineChosen",
        "ReplicaStarted",
        "Ready",
    ]


async def test_which_file_was_taken_and_why_is_said(bench: Bench) -> None:
    bench.note = "tiny-Q8_0.gguf was chosen of 3 GGUF models: there is no Q4_K_M"
    await bench.create()
    resource = await bench.settled()
    assert resource.status.model is not None
    assert resource.status.model.choice == bench.note
    assert resource.status.message == f"llama.cpp on 2 threads · {bench.note} · a model for tests"


async def test_looking_again_changes_and_writes_nothing(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    writes, applied = bench.store.writes, bench.backend.applied[-1]
    for _ in range(3):
        await bench.look()
    assert bench.store.writes == writes
    assert bench.backend.applied[-1] == applied
    bench.start()  # and neither does another process
    await bench.look()
    assert bench.store.writes == writes
    assert len(bench.backend.world.entries[bench.ref("fetch")].replicas) == 1
    assert bench.backend.world.entries[bench.ref("fetch")].serial == 1, "the model was fetched once"


async def test_the_finalizer_is_added_where_it_is_missing(bench: Bench) -> None:
    bare = {
        "kind": "ModelService",
        "metadata": {"name": "chat", "namespace": NAMESPACE},
        "spec": {"model": "demo://tiny"},
    }
    await bench.plain.create(ModelService.parse(bare))
    resource, _ = await bench.look()
    assert resource.metadata.finalizers == [ModelService.finalizer]
    assert resource.status.observed_generation == 1


async def test_another_process_goes_on_in_the_middle_of_everything(bench: Bench) -> None:
    bench.starts = bench.slow
    await bench.create()
    for _ in range(2):
        await bench.start().reconcile(await bench.get())
    bench.backend.say(bench.ref("fetch"), bench.done("demo://tiny"))
    bench.backend.set(bench.ref("fetch"), phase="Succeeded")
    for _ in range(2):
        await bench.start().reconcile(await bench.get())
    bench.backend.set(bench.ref("serve"), phase="Ready")
    await bench.start().reconcile(await bench.get())
    assert (await bench.get()).status.phase == "Ready"
    assert bench.backend.world.entries[bench.ref("fetch")].serial == 1
    assert bench.backend.world.entries[bench.ref("serve")].serial == 1
    events = await bench.plain.events(ModelService, NAMESPACE, "chat")
    assert {event.count for event in events} == {1}
    assert len(events) == 6


async def test_a_custom_command_needs_no_download(bench: Bench) -> None:
    spec = ModelServiceSpec(engine="custom", args=["serve", "--port", "{port}"])
    meta = {"name": "chat", "namespace": NAMESPACE, "finalizers": [ModelService.finalizer]}
    raw = {"kind": "ModelService", "metadata": meta, "spec": spec.model_dump(by_alias=True, exclude_none=True)}
    await bench.plain.create(ModelService.parse(raw))
    resource = await bench.settled()
    assert resource.status.phase == "Ready"
    assert bench.parts() == ["serve"]
    assert message_of(resource, "Downloaded")[:2] == ("True", "NotNeeded")
    assert "Downloaded" not in await bench.reasons()


# Downloads


async def test_a_failed_download_says_why_and_is_tried_again_later_and_later(bench: Bench) -> None:
    bench.starts = bench.failing_fetch
    await bench.create()
    await bench.look()
    for wait in (10, 20, 40, 80, 160, 300, 300):
        resource, result = await bench.look()
        assert resource.status.phase == "Failed"
        at = bench.now + timedelta(seconds=wait)
        assert resource.status.message == "hub.example.org does not answer."
        assert resource.status.next_try_at == at
        assert resource.status.last_log_lines == ["Traceback: a line of the log"]
        assert message_of(resource, "Downloaded")[:2] == ("False", "DownloadFailed")
        assert result.requeue_after == wait
        serial = bench.backend.world.entries[bench.ref("fetch")].serial
        bench.later(wait - 1)
        bench.start()
        _, result = await bench.look()
        assert result.requeue_after == 1, "another process waits no longer and no shorter"
        assert bench.backend.world.entries[bench.ref("fetch")].serial == serial
        bench.later(1)
        resource, _ = await bench.look()
        assert resource.status.phase == "Downloading"
        assert bench.backend.world.entries[bench.ref("fetch")].serial == serial + 1
    bench.starts = bench.all_go_well
    bench.later(300)
    await bench.look()  # it is seen to have failed
    bench.later(300)
    assert (await bench.settled()).status.phase == "Ready"
    assert (await bench.get()).status.last_log_lines == []


async def test_what_a_cluster_refuses_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = bench.backend.apply

    async def refuse(workload: Workload) -> None:
        if workload.ref.part == "serve" and workload.roles:
            raise Invalid("spec.template.spec.nodeSelector: must be a map")
        await apply(workload)

    monkeypatch.setattr(bench.backend, "apply", refuse)
    await bench.create()
    resource = await bench.settled()
    assert resource.status.phase == "Failed"
    assert "nodeSelector: must be a map" in resource.status.message


async def test_what_is_no_model_is_not_fetched_again_and_again(bench: Bench) -> None:
    def no_model(workload: Workload, role: Role, index: int) -> Behaviour:
        behaviour = bench.failing_fetch(workload, role, index)
        log = tuple(line.replace('"source_failed"', '"invalid"') for line in behaviour.log)
        return dataclasses.replace(behaviour, log=log)

    bench.starts = no_model
    await bench.create()
    await bench.look()
    resource, _ = await bench.look()
    assert resource.status.phase == "Failed"
    assert resource.status.next_try_at is None
    serial = bench.backend.world.entries[bench.ref("fetch")].serial
    bench.later(3600)
    resource, _ = await bench.look()
    assert resource.status.phase == "Failed"
    assert bench.backend.world.entries[bench.ref("fetch")].serial == serial
    bench.starts = bench.all_go_well
    await bench.change(model="demo://smollm2")
    assert (await bench.settled()).status.phase == "Ready"


async def test_a_changed_spec_is_fetched_at_once_after_a_failure(bench: Bench) -> None:
    bench.starts = bench.failing_fetch
    await bench.create()
    await bench.look()
    await bench.look()
    bench.starts = bench.all_go_well
    await bench.change(args=["--ctx-size", "512"])
    assert (await bench.settled()).status.phase == "Ready"
    assert "SpecChanged" in await bench.reasons()


def unread(resource: ModelService) -> ModelService:
    """Return a resource as the store returns one with a field of a newer version."""
    return resource.marked_unread("spec.quantum: there is no such field")


async def test_what_cannot_be_read_is_failed_with_the_sentence(bench: Bench) -> None:
    await bench.create()
    before = await bench.get()
    await bench.reconciler.reconcile(unread(before))
    found = await bench.get()
    assert found.status.phase == "Failed"
    assert found.status.message == "spec.quantum: there is no such field"
    assert bench.parts() == [], "nothing of it is followed"
    assert await bench.reasons() == ["Failed"]
    await bench.reconciler.reconcile(unread(found))
    assert await bench.reasons() == ["Failed"], "told once"


async def test_what_cannot_be_read_any_more_serves_on(bench: Bench) -> None:
    await bench.create()
    before = await bench.settled()
    await bench.reconciler.reconcile(unread(before))
    found = await bench.get()
    assert found.status.phase == "Degraded"
    assert "spec.quantum" in found.status.message
    assert found.status.endpoints == before.status.endpoints, "gateways go by them"
    assert bench.parts() == ["fetch", "serve"]

    async def update(resource: ModelService) -> ModelService:
        return await bench.plain.update(resource.marked_unread(""))  # here the stored one is as it was

    bench.store.update = update  # type: ignore[attr-defined]
    await bench.plain.delete(ModelService, NAMESPACE, "chat")
    for _ in range(10):
        with contextlib.suppress(NotFound):
            await bench.reconciler.reconcile(unread(await bench.get()))
            continue
        break
    assert bench.parts() == []


async def test_a_credential_that_cannot_be_read_opens_nothing(bench: Bench) -> None:
    await bench.create(credentialRef="hf")
    broken = Credential.parse({"metadata": {"name": "hf", "namespace": NAMESPACE}}).marked_unread("another key")

    async def get(kind: type[Any], *where: Any) -> Any:
        return broken if kind is Credential else await bench.plain.get(kind, *where)

    bench.store.get = get  # type: ignore[attr-defined]
    found, _ = await bench.look()
    assert (found.status.phase, "another key" in found.status.message) == ("Failed", True)
    assert bench.parts() == []


async def test_in_a_cluster_a_credential_is_looked_at_again(bench: Bench) -> None:
    """In a cluster no process may watch all Secrets."""
    bench.layout = Layout(Path("/models"), per_namespace=True)
    bench.start()
    await bench.create(credentialRef="hf")
    _, result = await bench.look()
    assert result.requeue_after is not None
    assert result.requeue_after <= 10


async def test_a_credential_opens_a_gated_model_privately(bench: Bench) -> None:
    await bench.create(credentialRef="hf")
    resource, _ = await bench.look()
    assert resource.status.phase == "Failed"
    assert resource.status.message.startswith('spec.credentialRef: there is no Credential "hf" in user-ada.')
    assert bench.parts() == []

    meta = {"name": "hf", "namespace": NAMESPACE}
    data = {"HF_TOKEN": "hf_bad", "OTHER": "for the engine"}
    bench.starts = bench.failing_fetch
    credential = await bench.plain.create(Credential.parse({"metadata": meta, "spec": {"data": data}}))
    await bench.look()
    assert (await bench.look())[0].status.phase == "Failed"
    good = credential.spec.model_copy(update={"data": {**data, "HF_TOKEN": "hf_good"}})
    await bench.plain.update(credential.model_copy(update={"spec": good}))
    bench.starts = bench.all_go_well
    assert (await bench.settled()).status.phase == "Ready", "another token is tried at once"

    fetch, serve = bench.template("fetch"), bench.template("serve")
    assert fetch.argv[-1] == str(bench.data_dir.models / "private" / NAMESPACE)
    assert fetch.secret_env["HF_TOKEN"] == "hf_good"
    assert "OTHER" not in fetch.secret_env
    assert serve.secret_env == {"OTHER": "for the engine"}
    for workload in bench.backend.applied:
        shown = json.dumps([workload.labels, [[r.template.argv, dict(r.template.env)] for r in workload.roles]])
        assert "hf_good" not in shown
        assert "hf_bad" not in shown


async def test_downloads_get_the_way_through_proxies_and_replicas_do_not(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    fetch, serve = bench.template("fetch"), bench.template("serve")
    assert fetch.argv[-1] == str(bench.data_dir.models / "shared")
    assert fetch.env["HF_ENDPOINT"] == "https://mirror.example.org"
    assert fetch.secret_env == {"HTTPS_PROXY": "http://ada:pw@proxy:3128"}, "it holds a password"
    assert serve.secret_env == {}
    assert serve.env == {}


async def test_a_model_that_vanished_from_the_cache_is_fetched_again_while_replicas_go_on(bench: Bench) -> None:
    await bench.create()
    before = await bench.settled()
    bench.now = datetime.now(UTC) + timedelta(hours=1)
    bench.model.unlink()
    bench.starts = bench.slow_fetch
    resource, _ = await bench.look()
    assert resource.status.phase == "Downloading"
    assert resource.status.endpoints == before.status.endpoints
    bench.model.write_bytes(b"GGUF")
    bench.backend.say(bench.ref("fetch"), bench.done("demo://tiny"))
    bench.backend.set(bench.ref("fetch"), phase="Succeeded")
    after = await bench.settled()
    assert (after.status.phase, after.status.endpoints) == ("Ready", before.status.endpoints)


async def test_a_download_that_leaves_nothing_is_not_repeated_without_a_pause(bench: Bench) -> None:
    bench.now = datetime.now(UTC)
    bench.model.unlink()
    await bench.create()
    for _ in range(5):
        resource, _ = await bench.look()
    assert resource.status.phase == "Failed"
    assert bench.backend.world.entries[bench.ref("fetch")].serial == 1


# What an engine refuses


@pytest.mark.parametrize(
    "refusal",
    [
        Insufficient("big needs 1 GPU, this machine has none. Smaller: --gpus 0"),
        Unsupported("This is an embedding model and can't generate. Use task: embed."),
    ],
)
async def test_what_an_engine_refuses_is_shown_in_its_words(bench: Bench, refusal: Exception) -> None:
    bench.engine.refusal = refusal
    await bench.create(resources={"gpus": 1})
    resource = await bench.settled()
    assert resource.status.phase == "Failed"
    assert resource.status.message == refusal.args[0]
    status, _, message = message_of(resource, "ModelRecognised")
    assert (status, message) == ("False", refusal.args[0])
    assert bench.parts() == ["fetch"]
    assert (await bench.reasons())[-1] == "Failed"


async def test_more_memory_than_there_is_is_refused_before_anything_is_fetched(bench: Bench) -> None:
    await bench.create(resources={"memory": "100Gi"})
    resource, _ = await bench.look()
    assert resource.status.phase == "Failed"
    assert "100Gi asked for, this machine has 8.0 GiB. Give it 8Gi at most" in resource.status.message
    assert bench.parts() == []
    await bench.change(resources={"memory": "1Gi"})
    assert (await bench.settled()).status.phase == "Ready"


@pytest.mark.parametrize("said", ["llama.cpp knows no argument --bad.", "It needs 1 GPU. Smaller: --gpus 0"])
async def test_a_refused_change_leaves_what_answers_alone(bench: Bench, said: str) -> None:
    await bench.create()
    before = await bench.settled()
    bench.engine.refusal = Unsupported(said)
    await bench.change(args=["--bad"])
    resource = await bench.settled()
    assert resource.status.phase == "Degraded"
    sentence = f"{said.removesuffix('.')}."
    expected = f"The spec can't be followed: {sentence} What was started before still answers."
    assert resource.status.message == expected
    assert resource.status.endpoints == before.status.endpoints
    bench.engine.refusal = None
    await bench.change(args=[])
    assert (await bench.settled()).status.phase == "Ready"


async def test_variables_of_the_platform_can_not_be_set(bench: Bench) -> None:
    await bench.create(env={"LLMOS_INSTANCE": "another"})
    resource = await bench.settled()
    assert resource.status.phase == "Failed"
    assert resource.status.message.startswith("spec.env: LLMOS_INSTANCE can't be set")
    assert bench.parts() == ["fetch"]


# Changes


async def test_another_model_is_fetched_while_the_old_one_answers(bench: Bench) -> None:
    await bench.create(replicas=2)
    before = await bench.settled()
    old = [e.url for e in before.status.endpoints]
    bench.starts = bench.slow
    await bench.change(model="demo://smollm2")
    resource, _ = await bench.look()
    assert resource.status.phase == "Downloading"
    assert "What was started before answers until then." in resource.status.message
    assert [e.url for e in resource.status.endpoints] == old
    assert message_of(resource, "Ready")[0] == "True"
    assert resource.status.model is not None, "what answers is still described"

    other = bench.model.with_name("other.gguf")
    other.write_bytes(b"GGUF")
    bench.model = other
    bench.backend.say(bench.ref("fetch"), bench.done("demo://smollm2"))
    bench.backend.set(bench.ref("fetch"), phase="Succeeded")
    resource, _ = await bench.look()
    assert resource.status.phase == "Starting"
    assert len(resource.status.endpoints) == 2, "one is started before one goes"
    assert resource.status.message == "Taking over the changed spec: 0 of 2 replicas done."
    for _ in range(2):
        starting = [r.id for r in (await bench.get()).status.replica_statuses if r.phase == "Starting"]
        bench.backend.set(bench.ref("serve"), starting[0], phase="Ready")
        resource, _ = await bench.look()
    assert resource.status.phase == "Ready"
    assert not set(old) & {e.url for e in resource.status.endpoints}
    assert str(other) in bench.template("serve").argv


async def test_scaling_up_and_down(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    bench.starts = bench.slow
    await bench.change(replicas=3)
    resource, _ = await bench.look()
    assert (resource.status.phase, resource.status.ready_replicas, resource.status.replicas) == ("Starting", 1, 3)
    assert resource.status.message == "1 of 3 replicas answer, the rest is starting."
    bench.backend.set(bench.ref("serve"), phase="Ready")
    assert (await bench.settled()).status.phase == "Ready"
    await bench.change(replicas=1)
    resource = await bench.settled()
    assert (resource.status.phase, len(resource.status.endpoints)) == ("Ready", 1)
    scaled = [e.message for e in await bench.plain.events(ModelService, NAMESPACE, "chat") if e.reason == "Scaled"]
    assert scaled == ["Scaled from 1 to 3 replicas.", "Scaled from 3 to 1 replicas."]


async def test_changed_arguments_are_rolled_out(bench: Bench) -> None:
    await bench.create()
    before = await bench.settled()
    await bench.change(args=["--ctx-size", "512"])
    after = await bench.settled()
    assert bench.template("serve").argv[-2:] == ("--ctx-size", "512")
    assert after.status.endpoints != before.status.endpoints
    assert bench.backend.world.entries[bench.ref("fetch")].serial == 1, "the model was not fetched again"


@pytest.mark.parametrize("how", [{"paused": True}, {"replicas": 0}])
async def test_pause_and_resume(bench: Bench, how: dict[str, Any]) -> None:
    await bench.create()
    before = await bench.settled()
    await bench.change(**how)
    resource, _ = await bench.look()
    status = resource.status
    assert (status.phase, status.endpoints, status.ready_replicas) == ("Paused", [], 0)
    assert "llmos start chat" in status.message or "llmos scale chat 1" in status.message
    assert message_of(resource, "Ready")[:2] == ("False", "Paused")
    resource = await bench.settled()
    assert resource.status.replicas == 0
    assert resource.status.engine == "llamacpp"
    assert not bench.backend.world.entries[bench.ref("serve")].replicas
    await bench.change(paused=False, replicas=1)
    after = await bench.settled()
    assert after.status.phase == "Ready"
    assert after.status.endpoints != before.status.endpoints
    assert bench.backend.world.entries[bench.ref("fetch")].serial == 1
    reasons = await bench.reasons()
    assert [r for r in reasons if r in ("Paused", "Resumed")] == ["Paused", "Resumed"]


async def test_the_endpoints_are_gone_from_the_status_before_a_replica_is_touched(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    await bench.change(paused=True)
    seen: list[tuple[str, int]] = []
    apply = bench.backend.apply

    async def spy(workload: Workload) -> None:
        resource = await bench.get()
        seen.append((resource.status.phase, len(resource.status.endpoints)))
        await apply(workload)

    bench.backend.apply = spy  # type: ignore[method-assign]
    await bench.look()
    assert seen == [("Paused", 0)]


async def test_pausing_a_download_ends_it_and_resuming_goes_on(bench: Bench) -> None:
    bench.starts = bench.slow
    await bench.create()
    await bench.look()
    await bench.change(paused=True)
    await bench.look()
    await eventually(lambda: bench.parts() == [])
    assert (await bench.settled()).status.phase == "Paused"
    assert bench.requeued == [(NAMESPACE, "chat")]
    bench.starts = bench.all_go_well
    await bench.change(paused=False)
    assert (await bench.settled()).status.phase == "Ready"


# What goes wrong with replicas


async def test_a_replica_that_ran_out_of_memory(bench: Bench) -> None:
    await bench.create(resources={"memory": "4Gi"})
    await bench.settled()
    text = "chat ran out of memory: used 4.0 GiB of 4.0 GiB. Give it more: llmos set chat --memory 6Gi"
    bench.backend.set(
        bench.ref("serve"),
        phase="Waiting",
        reason="OutOfMemory",
        message=text,
        restarts=1,
        retry_at=datetime(2026, 1, 1, 12, 0, 8, tzinfo=UTC),
        last_log_lines=("the last words",),
    )
    resource = await bench.settled()
    status = resource.status
    assert (status.phase, status.endpoints) == ("Starting", []), "one crash is no failure yet"
    assert status.message == text
    assert status.next_try_at == datetime(2026, 1, 1, 12, 0, 8, tzinfo=UTC)
    assert status.last_log_lines == ["the last words"]
    assert message_of(resource, "Ready")[:2] == ("False", "OutOfMemory")
    assert (await bench.reasons())[-1] == "OutOfMemory"
    bench.backend.set(bench.ref("serve"), phase="Waiting", restarts=2)
    assert (await bench.settled()).status.phase == "Failed", "it crashed again before it answered"
    bench.backend.set(bench.ref("serve"), phase="Starting")
    resource = await bench.settled()
    assert resource.status.phase == "Failed"
    assert resource.status.message.endswith("--memory 6Gi · Trying again now (start 3).")
    bench.backend.set(bench.ref("serve"), phase="Ready", reason="", message="", last_log_lines=())
    resource = await bench.settled()
    assert (resource.status.phase, resource.status.last_log_lines) == ("Ready", [])
    bench.backend.set(bench.ref("serve"), phase="Waiting", reason="Crashed", message="chat crashed.", restarts=3)
    assert (await bench.settled()).status.phase == "Starting", "it had answered in between"


async def test_more_memory_is_a_rollout(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    assert (bench.template("serve").memory_limit, bench.template("serve").memory_request) == (2 * GI, GI)
    await bench.change(resources={"memory": "6Gi"})
    await bench.settled()
    assert (bench.template("serve").memory_limit, bench.template("serve").memory_request) == (6 * GI, GI)


async def test_one_of_two_crashed_is_degraded(bench: Bench) -> None:
    await bench.create(replicas=2)
    resource = await bench.settled()
    first = resource.status.replica_statuses[0].id
    bench.backend.set(
        bench.ref("serve"), first, phase="Waiting", reason="Crashed", message="chat crashed: exit code 1.", restarts=1
    )
    resource = await bench.settled()
    status = resource.status
    assert (status.phase, status.ready_replicas, len(status.endpoints)) == ("Degraded", 1, 1)
    assert status.message == "1 of 2 replicas answer. chat crashed: exit code 1."
    assert message_of(resource, "Ready")[0] == "True"
    bench.backend.set(bench.ref("serve"), first, phase="Starting")
    assert (await bench.settled()).status.phase == "Degraded"
    bench.backend.set(bench.ref("serve"), first, phase="Ready", reason="", message="")
    assert (await bench.settled()).status.phase == "Ready"
    reasons = await bench.reasons()
    assert reasons.count("Crashed") == 1
    assert reasons[-1] == "Ready"


async def test_a_machine_without_enough_free_memory_is_waited_for(bench: Bench) -> None:
    bench.starts = bench.slow_serve
    await bench.create()
    await bench.settled()
    text = "chat needs 1.0 GiB of memory and 0.5 GiB of 8 GiB are free."
    bench.backend.set(bench.ref("serve"), phase="Waiting", reason="InsufficientMemory", message=text)
    resource = await bench.settled()
    assert (resource.status.phase, resource.status.message) == ("Pending", text)
    assert (await bench.reasons())[-1] == "InsufficientMemory"


async def test_a_changed_spec_that_does_not_start_leaves_the_old_replica_answering(bench: Bench) -> None:
    await bench.create()
    before = await bench.settled()
    crash = {"phase": "Waiting", "reason": "Crashed", "message": "chat crashed: exit code 2.", "restarts": 1}
    bench.starts = lambda *_: Behaviour(dict(crash))
    await bench.change(args=["--bad"])
    resource = await bench.settled()
    assert resource.status.phase == "Degraded"
    assert resource.status.message == (
        "The changed spec does not start: chat crashed: exit code 2. The previous one still answers."
    )
    assert resource.status.endpoints == before.status.endpoints


async def test_a_program_that_is_not_there_is_a_failure_at_once(bench: Bench) -> None:
    missing = {
        "phase": "Waiting",
        "reason": "NotFound",
        "message": 'the program "my-server" is not there',
        "restarts": 1,
    }
    bench.starts = lambda *_: Behaviour(dict(missing))
    await bench.plain.create(
        ModelService.parse(
            {
                "kind": "ModelService",
                "metadata": {"name": "chat", "namespace": NAMESPACE},
                "spec": {"engine": "custom", "args": ["my-server"]},
            }
        )
    )
    resource = await bench.settled()
    assert (resource.status.phase, resource.status.message) == ("Failed", 'the program "my-server" is not there')


async def test_memory_in_use_alone_is_written_seldom_and_other_news_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.create()
    await bench.settled()
    clock = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    bench.reconciler._seen[(NAMESPACE, "chat")].written = clock
    writes = bench.store.writes
    for memory in (300_000_000, 310_000_000, 400_000_000):
        bench.backend.set(bench.ref("serve"), memory=memory)
        _, result = await bench.look()
        assert result.requeue_after == pytest.approx(10)
    assert bench.store.writes == writes
    clock += 11
    resource, _ = await bench.look()
    assert bench.store.writes == writes + 1
    memory = resource.status.replica_statuses[0].memory
    assert memory is not None
    assert abs(memory - 400_000_000) < 400_000_000 * 0.02
    bench.backend.set(bench.ref("serve"), phase="NotReady", message="it hangs", memory=500_000_000)
    resource, _ = await bench.look()
    assert (resource.status.phase, resource.status.message) == ("Degraded", "it hangs")
    assert resource.status.endpoints == []


# The end


async def test_deleting_empties_the_endpoints_then_stops_everything_then_lets_go(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    await bench.plain.delete(ModelService, NAMESPACE, "chat")
    resource, _ = await bench.look()
    assert (resource.status.phase, resource.status.endpoints) == ("Deleting", [])
    assert resource.metadata.finalizers == [ModelService.finalizer]
    assert "Deleting" in await bench.reasons()
    await eventually(lambda: bench.parts() == ["serve"])
    await bench.look()
    await eventually(lambda: bench.parts() == [])
    await bench.reconciler.reconcile(await bench.get())
    with pytest.raises(NotFound):
        await bench.get()


async def test_a_deletion_that_another_process_began_is_ended(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    await bench.plain.delete(ModelService, NAMESPACE, "chat")
    for _ in range(20):
        try:
            await bench.start().reconcile(await bench.get())
        except NotFound:
            break
        await asyncio.sleep(0)
    assert bench.parts() == []


async def test_what_runs_for_a_resource_that_is_gone_is_stopped(bench: Bench) -> None:
    resource = await bench.create()
    await bench.settled()
    await bench.plain.update(
        resource.model_copy(
            update={
                "metadata": resource.metadata.model_copy(update={"finalizers": [], "resource_version": None}),
            }
        )
    )
    await bench.plain.delete(ModelService, NAMESPACE, "chat")
    assert bench.parts() == ["fetch", "serve"]
    await bench.start().gone((NAMESPACE, "chat"))
    await eventually(lambda: bench.parts() == [])
    assert {(ref.part, ref.uid) for ref in bench.backend.deleted} == {
        (part, resource.metadata.uid) for part in ("fetch", "serve")
    }


async def test_a_resource_that_is_only_said_to_be_gone_keeps_what_runs_for_it(bench: Bench) -> None:
    await bench.create()
    await bench.settled()
    reconciler = bench.start()
    await reconciler.gone((NAMESPACE, "chat"))
    assert not [ref for ref in bench.backend.world.entries if reconciler._teardown.busy(ref)]
    assert bench.parts() == ["fetch", "serve"]


async def test_a_name_used_anew_starts_afresh(bench: Bench) -> None:
    first = await bench.create()
    await bench.settled()
    meta = first.metadata.model_copy(update={"finalizers": [], "resource_version": None})
    await bench.plain.update(first.model_copy(update={"metadata": meta}))
    await bench.plain.delete(ModelService, NAMESPACE, "chat")
    second = await bench.create()
    await bench.look()
    await eventually(lambda: {ref.uid for ref in bench.backend.world.entries} == {second.metadata.uid})
    assert (await bench.settled()).status.phase == "Ready"


async def test_a_backend_that_can_not_record_is_an_error_to_be_repeated(bench: Bench) -> None:
    await bench.create()
    bench.backend.failure = "The disk is full."
    with pytest.raises(BackendFailed, match="The disk is full"):
        await bench.look()
    bench.backend.failure = None
    assert (await bench.settled()).status.phase == "Ready"


# Models in volumes


async def make_volume(bench: Bench, **spec: Any) -> Volume:
    meta = {"name": "data", "namespace": NAMESPACE}
    content = {"size": "1Gi", **spec}
    made = await bench.plain.create(Volume.parse({"kind": "Volume", "metadata": meta, "spec": content}))
    status = VolumeStatus(phase="Ready", capacity=GI)
    return await bench.plain.patch_status(made.model_copy(update={"status": status}))


async def test_a_model_in_a_volume_is_fetched_and_served_with_the_volume_mounted(bench: Bench) -> None:
    await make_volume(bench)
    await bench.create(model="volume://data/models/a.gguf")
    assert (await bench.settled()).status.phase == "Ready"
    for part in ("fetch", "serve"):
        (mount,) = bench.template(part).mounts.values()
        assert (mount.source, mount.path, mount.read_only) == ("data", "/volumes/data", True)
    assert bench.template("fetch").env["LLMOS_MODEL_VOLUME"] == "{mount.model}"


@pytest.mark.parametrize("there", [False, True])
async def test_a_volume_that_is_missing_or_deleted_is_said(bench: Bench, there: bool) -> None:
    if there:
        await make_volume(bench, deleteAt="2030-01-01T00:00:00Z")
    await bench.create(model="volume://data/a.gguf")
    status = (await bench.settled()).status
    said = "llmos volume undelete data" if there else 'there is no Volume "data" in user-ada'
    assert status.phase == "Failed"
    assert said in status.message
    assert not bench.parts()


async def test_a_volume_that_is_being_made_is_waited_for(bench: Bench) -> None:
    made = await make_volume(bench)
    await bench.plain.patch_status(made.model_copy(update={"status": VolumeStatus(), "metadata": made.metadata}))
    await bench.create(model="volume://data/a.gguf")
    with pytest.raises(Unavailable, match="is being made"):
        await bench.look()
    assert (await bench.get()).status.phase == "Pending"
