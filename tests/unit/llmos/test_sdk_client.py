"""The SDK against a small API over real HTTP, sync and async."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from openai import APIConnectionError
from starlette.responses import HTMLResponse, JSONResponse, Response

import llmos
import llmos.client
from llmos import AsyncClient, Client, Progress
from llmos.client.addresses import address_of
from llmos.client.messages import read
from llmos.client.progress import ProgressTracker, failure
from llmos.client.serving import changed_fields, derive_name, kept_fields
from llmos.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    LLMOSError,
    ModelNotReady,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unsupported,
    UpstreamFailed,
)
from llmos.resources import ModelService
from llmos.resources.base import utcnow
from tests.support.fake_api import TOKEN, FakePlatform, Serving, modelservice
from tests.support.waiting import wait_until


def _later(*actions: Callable[[], object]) -> threading.Thread:
    """Run functions in a thread."""

    def run() -> None:
        for action in actions:
            action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_create_read_change_and_delete(client: Client, platform: FakePlatform):
    made = client.modelservices.create(modelservice("chat"))
    assert made.metadata.namespace == "user-ada"
    assert made.metadata.generation == 1
    with pytest.raises(AlreadyExists):
        client.modelservices.create(modelservice("chat"))

    made.spec.replicas = 3
    changed = client.modelservices.update(made)
    assert changed.spec.replicas == 3
    with pytest.raises(Conflict):
        client.modelservices.update(made)

    assert client.modelservices.scale("chat", 2).spec.replicas == 2
    assert client.modelservices.stop("chat").spec.paused
    assert not client.modelservices.start("chat").spec.paused
    applied = client.modelservices.apply(modelservice("chat", metadata={"labels": {"team": "vision"}}))
    assert applied.spec.replicas == 1

    assert [item.metadata.name for item in client.modelservices.list(labels={"team": "vision"})] == ["chat"]
    assert client.modelservices.list(labels="team=sound") == []
    client.modelservices.delete("chat")
    client.modelservices.wait_deleted("chat", timeout=5)
    assert not client.modelservices.exists("chat")
    with pytest.raises(
        NotFound, match=r'There is no modelservice "chat" in user-ada.*\(not_found · req [0-9a-f]{16}\)'
    ):
        client.modelservices.get("chat")


def test_a_dry_run_stores_nothing(client: Client, platform: FakePlatform):
    client.modelservices.create(modelservice("chat"), dry_run=True)
    client.modelservices.apply(modelservice("chat"), dry_run=True)
    assert client.serve("demo://tiny", dry_run=True).metadata.name == "tiny"
    assert platform.objects == {}


def test_kinds_of_the_whole_platform_have_no_namespace_in_their_address(client: Client, platform: FakePlatform):
    platform.admin = True
    client.settings.apply({"metadata": {"name": "limit"}, "spec": {"value": "5"}})
    assert client.collection("setting").get("limit").spec.value == "5"
    assert platform.requests[-1] == "GET /apis/llmos.ai/v1alpha1/settings/limit"


def test_the_callers_namespace_is_asked_for_once(client: Client, platform: FakePlatform):
    client.modelservices.list()
    client.credentials.list()
    assert sum("whoami" in request for request in platform.requests) == 1


def test_mistakes_are_found_before_anything_is_sent(client: Client, platform: FakePlatform):
    with pytest.raises(Invalid, match=r'spec\.resources\.memory: "2GiB" is not a quantity\. Did you mean "2Gi"\?'):
        client.serve("demo://tiny", memory="2GiB")
    with pytest.raises(Invalid, match=r'spec\.replcas: there is no such field\. Did you mean "replicas"\?'):
        client.serve("demo://tiny", replcas=2)
    assert not any("modelservices" in request for request in platform.requests)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_that_would_mean_another_address_is_never_sent(client: Client, platform: FakePlatform, name: str):
    client.namespace()
    before = len(platform.requests)
    with pytest.raises(Invalid):
        client.modelservices.delete(name)
    assert len(platform.requests) == before


def test_others_namespaces_are_refused_in_words(client: Client):
    with pytest.raises(Forbidden, match="Yours is user-ada"):
        client.modelservices.list(namespace="user-grace")


def test_the_token_is_sent_and_shown_nowhere(client: Client, platform: FakePlatform, server: Serving):
    client.whoami()
    assert platform.tokens == [f"Bearer {TOKEN}"]
    assert TOKEN not in repr(client) + repr(client.modelservices) + repr(client.configuration)
    with Client(server.url, "wrong-token") as other, pytest.raises(Unauthorized) as error:
        other.whoami()
    assert "wrong-token" not in str(error.value)


def test_unknown_attributes_are_not_kinds(client: Client):
    with pytest.raises(AttributeError):
        _ = client.modelservice_
    assert {"modelservices", "credentials", "settings"} <= set(dir(client))


@pytest.mark.parametrize("response", [JSONResponse({}, 503), HTMLResponse("<h1>Service Unavailable</h1>", 503)])
def test_reads_are_repeated_while_a_proxy_finds_nobody(client: Client, platform: FakePlatform, response: Response):
    platform.failures += [response, response]
    assert client.whoami().name == "ada"
    assert len(platform.requests) == 3


def test_what_may_have_been_done_is_not_done_twice(client: Client, platform: FakePlatform):
    client.namespace()
    before = len(platform.requests)
    platform.failures.append(HTMLResponse("gone", 502))
    with pytest.raises(Unavailable):
        client.modelservices.create(modelservice("chat"))
    assert len(platform.requests) == before + 1


def test_nobody_there_is_said_with_what_to_do(client: Client, server: Serving, monkeypatch: pytest.MonkeyPatch):
    server.stop()
    pauses: list[float] = []
    monkeypatch.setattr("llmos.client._sync.transport.sleep", pauses.append)
    with pytest.raises(
        Unavailable, match=rf"The API at {server.url} does not answer\. Is LLMOS running\? Start it with: make up"
    ):
        client.whoami()
    with pytest.raises(Unavailable, match=r"The gateway at .* does not answer"):
        client.models()
    assert pauses == [0.1, 0.3, 0.8] * 2
    server.restart()
    assert client.whoami().name == "ada"


def test_something_else_at_the_address_is_recognised(client: Client, platform: FakePlatform):
    platform.failures += [HTMLResponse("<h1>404</h1>", 404)] * 4
    with pytest.raises(Unavailable, match=r"Something answers at .*, but not LLMOS's API"):
        client.whoami()
    platform.failures.append(HTMLResponse("<h1>Log in</h1>", 200))
    with pytest.raises(Unavailable, match="not LLMOS's API"):
        client.whoami()


def test_a_newer_platform_may_say_more(client: Client, platform: FakePlatform):
    stored = platform.put(modelservice("chat"))
    stored["spec"]["shinyNewField"] = 1
    assert client.modelservices.get("chat").metadata.name == "chat"
    with pytest.raises(Unsupported, match="pip install -U llmos"):
        read(ModelService, stored | {"status": {"phase": "Dreaming"}})


def test_serving_shows_the_way_to_ready(client: Client, platform: FakePlatform):
    seen = []
    thread = _later(
        lambda: wait_until(lambda: platform.watches == 1),
        lambda: platform.status("tiny", phase="Downloading", download={"file": "a.gguf", "done": 1, "total": 2}),
        lambda: platform.status("tiny", phase="Starting", message="llama.cpp on 2 threads"),
        lambda: platform.status("tiny", phase="Ready", readyReplicas=1),
    )
    service = client.serve("demo://tiny", on_progress=seen.append, memory="1Gi", args=["--ctx-size", "512"])
    thread.join()
    assert [progress.phase for progress in seen] == ["Pending", "Downloading", "Starting", "Ready"]
    assert [progress.ready for progress in seen] == [False, False, False, True]
    assert service.status.ready_replicas == 1
    assert service.spec.resources.memory == "1Gi"
    wait_until(lambda: platform.watches == 0)


def test_a_status_of_an_older_spec_says_nothing_about_the_new_one(client: Client, platform: FakePlatform):
    platform.put(modelservice("tiny", "demo://tiny"))
    platform.status("tiny", phase="Failed", message="old trouble")
    thread = _later(lambda: wait_until(lambda: platform.watches == 1), lambda: platform.status("tiny", phase="Ready"))
    seen = []
    client.serve("demo://tiny", replicas=2, on_progress=seen.append)
    thread.join()
    assert [progress.phase for progress in seen] == ["Pending", "Ready"]


def test_a_failure_is_shown_and_raised_with_its_reason(client: Client, platform: FakePlatform):
    platform.put(modelservice("big"))
    platform.status("big", phase="Failed", message="needs 41 GiB of memory, this machine has 8", lastLogLines=["oom"])
    seen: list[Progress] = []
    with pytest.raises(ModelNotReady, match="big failed: needs 41 GiB of memory, this machine has 8"):
        seen.extend(client.modelservices.progress("big"))
    assert seen[-1].failed
    assert seen[-1].log_lines == ("oom",)


def test_waiting_for_what_will_not_come_ends(client: Client, platform: FakePlatform):
    platform.put(modelservice("chat", spec={"paused": True}))
    platform.status("chat", phase="Paused")
    with pytest.raises(ModelNotReady, match=r"chat is paused\. Start it with: llmos start chat"):
        list(client.modelservices.progress("chat"))
    with pytest.raises(NotFound, match='There is no modelservice "nix" in user-ada'):
        list(client.modelservices.progress("nix"))
    platform.put(modelservice("slow"))
    begun = time.monotonic()
    with pytest.raises(ModelNotReady, match=r"slow is not ready after 0 s \(Pending\)\. It continues by itself"):
        list(client.modelservices.progress("slow", timeout=0.3))
    assert time.monotonic() - begun >= 0.3
    thread = _later(lambda: wait_until(lambda: platform.watches == 1), lambda: platform.remove("slow"))
    with pytest.raises(NotFound, match="slow was deleted meanwhile"):
        list(client.modelservices.progress("slow"))
    thread.join()


def test_waiting_survives_a_restart_of_the_api_and_a_trimmed_history(
    client: Client, platform: FakePlatform, server: Serving
):
    platform.put(modelservice("chat"))
    platform.status("chat", phase="Starting")
    seen: list[Progress] = []

    def away() -> None:
        wait_until(lambda: platform.watches == 1)
        server.stop()
        wait_until(lambda: any(progress.away for progress in seen))
        platform.status("chat", phase="Degraded")
        platform.forget()
        server.restart()
        wait_until(lambda: seen[-1].phase == "Degraded" and platform.watches == 1)
        platform.forget()
        platform.status("chat", phase="Ready")

    thread = _later(away)
    seen.extend(client.modelservices.progress("chat"))
    thread.join()
    assert [progress.phase for progress in seen if not progress.away] == ["Starting", "Degraded", "Ready"]
    said = next(progress.away for progress in seen if progress.away)
    assert said.startswith(f"The API at {server.url} does not answer.")
    assert re.search(r"\. Trying for another \d+ s\.$", said)


def test_waiting_gives_up_when_the_api_stays_away(client: Client, platform: FakePlatform, server: Serving):
    platform.put(modelservice("chat"))
    with closing(client.modelservices.progress("chat", patience=0.2)) as states:
        assert next(states).phase == "Pending"
        server.stop()
        assert next(states).away
        with pytest.raises(Unavailable, match="does not answer"):
            next(states)


def test_a_watch_tells_every_change_and_begins_anew_when_versions_expire(client: Client, platform: FakePlatform):
    platform.put(modelservice("a"))
    with closing(client.modelservices.watch()) as events:
        first = next(events)
        assert (first.type, first.resource.metadata.name) == ("ADDED", "a")
        thread = _later(
            lambda: wait_until(lambda: platform.watches == 1),
            lambda: platform.put(modelservice("b")),
            lambda: platform.status("b", phase="Ready"),
        )
        assert [next(events).type for _ in range(2)] == ["ADDED", "MODIFIED"]
        thread.join()
        platform.remove("a")
        platform.forget()
        platform.put(modelservice("c"))
        rest = {(event.type, event.resource.metadata.name) for event in (next(events), next(events))}
        assert rest == {("DELETED", "a"), ("ADDED", "c")}
    wait_until(lambda: platform.watches == 0)


def test_logs_and_events(client: Client, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.logs["user-ada", "chat"] = ["one", "two", "three"]
    platform.events["user-ada", "chat"] = [
        {
            "type": "Warning",
            "reason": "OutOfMemory",
            "message": "used 4 GiB",
            "count": 2,
            "firstTimestamp": "2026-11-01T10:00:00Z",
            "lastTimestamp": "2026-11-01T10:05:00Z",
        }
    ]
    assert "".join(client.modelservices.logs("chat", tail=2)) == "two\nthree\n"
    (event,) = client.modelservices.events("chat")
    assert (event.reason, event.count, event.last.minute) == ("OutOfMemory", 2, 5)


def test_followed_logs_go_on_after_the_api_ended_the_stream(client: Client, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.logs["user-ada", "chat"] = ["one"]
    with closing(client.modelservices.logs("chat", follow=True)) as pieces:
        assert next(pieces) == "one\n"
        platform.logs["user-ada", "chat"] = []
        platform.drop_watches()
        platform.remove("chat")
        with pytest.raises(NotFound):
            next(pieces)
    assert "tailLines=0&follow=1" in platform.requests[-1]


def test_chat_without_the_openai_package(client: Client, platform: FakePlatform):
    platform.put(modelservice("chat"))
    assert [model.id for model in client.models()] == ["chat"]
    chunks = list(client.stream_chat("chat", [{"role": "user", "content": "hi"}], temperature=0))
    assert "".join(chunk.text for chunk in chunks) == "A dictionary maps keys to values."
    assert chunks[-1].completion_tokens == 12
    assert platform.chats[0]["temperature"] == 0
    platform.break_answer = True
    with pytest.raises(UpstreamFailed, match="broke off"):
        list(client.stream_chat("chat", []))


def test_openai_is_configured_for_this_platform(client: Client, platform: FakePlatform, server: Serving):
    platform.put(modelservice("chat"))
    with client.openai(max_retries=0) as openai:
        assert str(openai.base_url) == server.gateway_url + "/"
        assert [model.id for model in openai.models.list()] == ["chat"]


def test_openai_asks_this_machine_past_a_web_proxy(
    client: Client, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    platform.put(modelservice("chat"))
    with client.openai(max_retries=0) as openai:
        assert [model.id for model in openai.models.list()] == ["chat"]
    with (
        client.openai(max_retries=0, base_url="http://models.example.org/v1") as elsewhere,
        pytest.raises(APIConnectionError),  # the proxy's, which isn't there
    ):
        elsewhere.models.list()


def test_without_openai_it_says_what_to_install(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(Unsupported, match="pip install openai"):
        client.openai()


async def test_the_async_client_does_the_same(environment: dict[str, str], platform: FakePlatform):
    async with AsyncClient() as client:
        thread = _later(
            lambda: wait_until(lambda: platform.watches == 1), lambda: platform.status("tiny", phase="Ready")
        )
        seen = []
        service = await client.serve("demo://tiny", on_progress=seen.append)
        thread.join()
        assert service.status.phase == "Ready"
        assert seen[-1].ready
        assert [s.metadata.name for s in await client.modelservices.list()] == ["tiny"]
        texts = [chunk.text async for chunk in client.stream_chat("tiny", [{"role": "user", "content": "hi"}])]
        assert "".join(texts) == "A dictionary maps keys to values."
        async with client.openai() as openai:
            assert type(openai).__name__ == "AsyncOpenAI"
        with pytest.raises(NotFound):
            await client.modelservices.get("nix")


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("hf://Qwen/Qwen3-4B-GGUF", "hf://Qwen/Qwen3-4B-GGUF"),
        ("Qwen/Qwen3-4B-GGUF", "hf://Qwen/Qwen3-4B-GGUF"),
        ("Qwen/Qwen3-4B-GGUF:Q8_0", "hf://Qwen/Qwen3-4B-GGUF:Q8_0"),
        ("org/repo@main:a (1) + [b], c=d.gguf", "hf://org/repo@main:a (1) + [b], c=d.gguf"),
        ("https://huggingface.co/org/repo", "hf://org/repo"),
        ("hf.co/org/repo:Q8_0", "hf://org/repo:Q8_0"),
        ("hf.co/org/repo:latest", "hf://org/repo"),
        ("hf.co/org/repo/", "hf://org/repo"),
        ("https://huggingface.co/org/repo/blob/main/sub/m.gguf?x=1", "hf://org/repo@main:sub/m.gguf"),
        ("tiny", "demo://tiny"),
        ("sub/m.gguf", "file://{here}/sub/m.gguf"),
        ("./sub/../sub/m.gguf", "file://{here}/sub/m.gguf"),
        ("./sub", "file://{here}/sub"),  # the server checks its content
        ("{here}/sub/m.gguf", "file://{here}/sub/m.gguf"),
        ("link.gguf", "file://{here}/link.gguf"),
        ("sub/other", "hf://sub/other"),
        ("llama3", None),
        ("qwen3:4b", None),
    ],
)
def test_what_is_typed_is_an_address(typed: str, address: str | None, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "sub" / "m.gguf")
    wanted = address.replace("{here}", str(tmp_path)) if address is not None else None
    assert address_of(typed.replace("{here}", str(tmp_path)), tmp_path) == wanted


@pytest.mark.parametrize("typed", ["./x.gguf", "x.gguf", "../x", "/nowhere/x", "~/x.gguf"])
def test_a_path_that_leads_nowhere_is_said_to(typed: str, tmp_path: Path):
    with pytest.raises(Invalid, match="There is no file"):
        address_of(typed, tmp_path)


@pytest.mark.parametrize("typed", ["", " "])
def test_an_empty_address_is_not_searched_for(typed: str):
    with pytest.raises(Invalid, match="is empty"):
        address_of(typed)


def test_serve_from_python_changes_what_is_named_and_nothing_else(client: Client, platform: FakePlatform):
    client.serve("demo://tiny", "chat", wait=False, memory="2Gi", replicas=2, labels={"team": "a"})
    client.serve("tiny", "chat", wait=False, replicas=3, labels={"course": "b"})
    stored = platform.objects["modelservices", "user-ada", "chat"]
    assert (stored["spec"]["resources"]["memory"], stored["spec"]["replicas"]) == ("2Gi", 3)
    assert stored["metadata"]["labels"] == {"team": "a", "course": "b"}
    submitted = client.submit("tiny", "chat", replicas=3)
    assert submitted.before is not None
    assert changed_fields(submitted.before, submitted.service) == []
    assert kept_fields(submitted.before, submitted.service) == ["memory 2Gi", "replicas 3"]


@pytest.mark.parametrize("reason", ["InsufficientResources", "Invalid", "Unsupported", "DownloadFailed"])
def test_a_change_that_is_refused_is_not_waited_for(reason: str):
    message = "The spec can't be followed: too little. What was started before still answers."
    ready = {"type": "Ready", "status": "True", "reason": reason, "message": message}
    status = {"phase": "Degraded", "message": message, "conditions": [ready]}
    service = ModelService.parse(modelservice("chat", metadata={"namespace": "user-ada"}, status=status))
    now = utcnow()
    seen = ProgressTracker(ModelService, "chat", "user-ada", now).see(service, now)
    assert (seen.failed, seen.ready) == (True, False)
    assert failure(seen).message.startswith("chat did not change: The spec can't be followed: too little.")
    passing = {**ready, "reason": "Crashed"}
    service = ModelService.parse(modelservice("chat", status={**status, "conditions": [passing]}))
    assert not ProgressTracker(ModelService, "chat", "user-ada", now).see(service, now).failed


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("hf://Qwen/Qwen3-4B-GGUF", "qwen3-4b"),
        ("hf://org/Repo.v2@main:file-Q4_K_M.gguf", "repo-v2"),
        ("demo://tiny", "tiny"),
        ("file:///models/Phi-4_mini.Q4.gguf", "phi-4-mini-q4"),
        ("file:///models/Modèle Élan.gguf", "modele-elan"),
    ],
)
def test_names_are_made_from_the_model(model: str, name: str):
    assert derive_name(model) == name


def test_public_names_are_what_they_say_they_are():
    for name in llmos.__all__:
        assert getattr(llmos, name) is not None
    assert set(llmos.__all__) <= set(dir(llmos))
    assert llmos.__all__ == sorted(llmos.__all__)
    for name in llmos.client.__all__:
        assert getattr(llmos.client, name).__module__.startswith("llmos.client")
    assert issubclass(llmos.LLMOSError, LLMOSError)


HUB = {"x-jupyterhub-version": "5.5.0"}
NOT_YET = [
    Response(status_code=302, headers={"location": "/hub/services/llmos/apis?x=1"}),
    Response(status_code=302, headers={"location": "https://hub.example.org/base/hub/services/llmos/"}),
    HTMLResponse("<h1>404 : Not Found</h1>", 404, headers=HUB),
]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which are recorded instead of waited for."""
    noted: list[float] = []
    monkeypatch.setattr("llmos.client._sync.transport.sleep", noted.append)
    return noted


@pytest.mark.parametrize("answer", NOT_YET)
def test_the_hub_in_place_of_the_api_is_waited_for(
    client: Client, platform: FakePlatform, answer: Response, pauses: list[float]
):
    platform.failures += [answer, answer]
    # a request that the API never saw can be sent again, whatever it is
    assert client.modelservices.create(modelservice("chat")).metadata.name == "chat"
    assert sum(pauses) > 1
    platform.logs["user-ada", "chat"] = ["a line"]
    platform.failures.append(answer)
    assert "".join(client.modelservices.logs("chat")) == "a line\n"


@pytest.mark.parametrize("answer", [*NOT_YET, HTMLResponse("<h1>503 : Service Unavailable</h1>", 503, headers=HUB)])
def test_an_api_that_does_not_come_is_said_to_be_starting(
    client: Client, platform: FakePlatform, answer: Response, pauses: list[float]
):
    platform.failures += [answer] * 10
    with pytest.raises(Unavailable, match=r"is being started: the Hub answers there.*llmos status") as raised:
        client.modelservices.get("chat")
    assert "Is the address right?" not in str(raised.value)
    assert sum(pauses) > 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_reaches_no_api_is_asked_for_some_seconds_and_named(
    client: Client, platform: FakePlatform, status: int, pauses: list[float]
):
    """configurable-http-proxy passes on the body and the type of the Hub's page and no other header."""
    assert client.namespace() == "user-ada"
    platform.failures += [HTMLResponse("<h1>Service Unavailable</h1>", status)] * 10
    with pytest.raises(Unavailable, match=rf"proxy before it \(HTTP {status}\).*llmos status") as raised:
        client.modelservices.get("chat")
    assert "make up" not in str(raised.value)
    assert sum(pauses) > 4


def test_a_write_that_may_have_arrived_is_not_sent_again(client: Client, platform: FakePlatform, pauses: list[float]):
    assert client.namespace() == "user-ada"
    platform.failures.append(HTMLResponse("<h1>503 : Service Unavailable</h1>", 503, headers=HUB))
    with pytest.raises(Unavailable, match="is being started"):
        client.modelservices.create(modelservice("chat"))
    assert len(platform.requests) == 2  # whoami, and the write


def test_too_many_writes_are_sent_again_after_a_second(client: Client, platform: FakePlatform, pauses: list[float]):
    refusal = JSONResponse(TooManyRequests("slowly").to_status(), 429, headers={"retry-after": "1"})
    assert client.namespace() == "user-ada"
    platform.failures += [refusal, refusal]
    assert client.modelservices.create(modelservice("chat")).metadata.name == "chat"
    assert pauses == [1.0, 1.0]


def test_lists_are_read_page_by_page(client: Client, platform: FakePlatform):
    assert client.namespace() == "user-ada"
    items = [platform.put(modelservice(f"m{n}", metadata={"namespace": "user-ada"})) for n in range(5)]

    def page(start: int, token: str) -> Response:
        metadata = {"resourceVersion": str(100 + start), "continue": token}
        return JSONResponse({"metadata": metadata, "items": items[start : start + 2]})

    platform.failures += [page(0, "a b/c"), page(2, "d"), page(4, "")]
    before = len(platform.requests)
    listing = client.modelservices.list(labels={"team": "x"})
    assert [item.metadata.name for item in listing] == ["m0", "m1", "m2", "m3", "m4"]
    assert listing.resource_version == "100"
    queries = [request.partition("?")[2] for request in platform.requests[before:]]
    assert ["continue=" in query for query in queries] == [False, True, True]
    assert all("limit=500" in query and "labelSelector=team%3Dx" in query for query in queries)
    # a list whose version expired meanwhile is read again
    expired = JSONResponse(Expired("too old").to_status(), 410)
    platform.failures += [page(0, "a"), expired, page(0, "a"), page(2, "")]
    assert len(client.modelservices.list()) == 4
    platform.failures += [expired] * 3
    with pytest.raises(Expired):
        client.modelservices.list()
