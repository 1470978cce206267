"""Resources as text, compared with exact outputs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmos.client.messages import Event
from llmos.client.progress import ProgressTracker
from llmos.errors import UsageError
from llmos.present.amounts import done_of, duration, memory_of, stopwatch, time_left
from llmos.present.chat import chat_footer
from llmos.present.describe import describe, events_table
from llmos.present.explain import explain
from llmos.present.hints import Hints
from llmos.present.modelservices import ps_table
from llmos.present.resources import as_yaml, resource_table
from llmos.present.tables import Row, Table
from llmos.present.text import (
    Span,
    clean,
    clean_block,
    did_you_mean,
    escape_block,
    fit,
    hang,
    line,
    plain,
    text_width,
    wrap,
)
from llmos.present.transcript import Transcript
from llmos.resources import Credential, ModelService

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GIB = 2**30


def service(name: str, *, spec: dict[str, Any] | None = None, age: float = 7200, **status: Any) -> ModelService:
    created = (NOW - timedelta(seconds=age)).isoformat()
    return ModelService.parse(
        {
            "kind": "ModelService",
            "metadata": {"name": name, "namespace": "user-ada", "generation": 1, "creationTimestamp": created},
            "spec": {"model": "hf://Qwen/Qwen3-4B-GGUF", **(spec or {})},
            "status": {"observedGeneration": 1, **status},
        }
    )


CHAT = service(
    "chat",
    phase="Ready",
    engine="llamacpp",
    readyReplicas=1,
    task="generate",
    model={"name": "Qwen3-4B", "quantization": "Q4_K_M"},
    replicaStatuses=[{"id": "chat-1", "phase": "Ready", "memory": int(2.9 * GIB), "memoryLimit": 4 * GIB}],
)
BIG = service(
    "big", age=240, phase="Failed", engine="vllm", message="needs 41 GiB of GPU memory, this machine has none"
)


def shown(table: Table, width: int | None = None) -> str:
    return "\n".join(plain(line_) for line_ in table.lines(width=width))


def test_ps_shows_what_is_asked_about_most():
    assert shown(ps_table([CHAT, BIG], now=NOW)) == (
        "NAME  MODEL               ENGINE     STATE   REPLICAS  MEMORY     AGE\n"
        "chat  Qwen3-4B Q4_K_M     llama.cpp  Ready   1/1       2.9/4 GiB  2 h\n"
        "big   Qwen/Qwen3-4B-GGUF  vLLM       Failed  0/1       -          4 min\n"
        "      └ needs 41 GiB of GPU memory, this machine has none"
    )


def test_ps_fits_narrow_terminals_and_keeps_the_reason_whole():
    lines = shown(ps_table([CHAT, BIG], now=NOW), width=62).splitlines()
    assert max(map(text_width, lines)) <= 62
    assert "Qwen3-4B…" in lines[1]
    assert " ".join(part.strip(" └") for part in lines[3:]) == "needs 41 GiB of GPU memory, this machine has none"


def test_ps_of_nothing_says_what_to_do():
    assert shown(ps_table([], now=NOW)) == "No model is served here yet. Serve one with: llmos serve demo://smollm2"


def test_ps_shows_downloads_and_states_of_an_older_spec():
    loading = service(
        "a",
        phase="Downloading",
        download={"file": "a.gguf", "done": 1_400_000_000, "total": 2_500_000_000, "rate": 58e6},
    )
    old = service("b", phase="Ready", observedGeneration=0)
    paused = service("c", spec={"paused": True, "replicas": 2}, phase="Paused")
    lines = shown(ps_table([loading, old, paused], now=NOW)).splitlines()
    assert "Downloading 56 %" in lines[1]
    assert lines[2].strip() == "└ a.gguf   1.4 of 2.5 GB   58 MB/s   19 s left"
    assert " Pending " in lines[3]
    assert " Paused  " in lines[4]
    assert " 0/0 " in lines[4]


def test_colour_is_never_the_only_sign_and_tones_are_by_state():
    rows = ps_table([CHAT, BIG], now=NOW).rows
    assert [row.tones["STATE"] for row in rows] == ["good", "bad"]


def test_what_others_wrote_does_not_steer_the_terminal():
    evil = service("x", phase="Failed", message="\x1b]0;title\x07\x1b[2Jgone\u202e")
    assert "\x1b" not in shown(ps_table([evil], now=NOW))
    assert clean("a\r\nb\x9b31m") == "a  b 31m"
    assert clean_block("a\x1b[31m\n\tb\r") == "a[31m\n\tb"


def test_wide_characters_are_measured():
    table = Table(["NAME", "X"], [Row(["模型", "1"]), Row(["ab", "2"])])
    assert shown(table) == "NAME  X\n模型  1\nab    2"
    assert plain(fit(line("模型模型"), 5)) == "模型…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (172_799, "47 h"), (172_800, "2 d"), (-5, "0 s")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_amounts():
    assert stopwatch(23.84) == "23.8 s"
    assert stopwatch(252) == "4 min 12 s"
    assert done_of(7_000_000, 93_000_000) == " 7 of 93 MB"
    assert done_of(95_000_000, 93_000_000) == "93 of 93 MB"
    assert memory_of(246 * 2**20, GIB) == "0.24/1 GiB"
    assert memory_of(246 * 2**20, 512 * 2**20) == "246/512 MiB"
    assert time_left(10, 10, 5) == ""
    assert time_left(0, 10, None) == ""
    assert chat_footer(tokens=412, first_after=0.31, seconds=13.6) == "412 tokens · first after 0.3 s · 31 tokens/s"
    assert chat_footer(tokens=None, first_after=None, seconds=1) == ""
    # an answer that arrives at once was generated before; no rate is better than 100,000 tokens/s
    assert chat_footer(tokens=35, first_after=0.4, seconds=0.4003) == "35 tokens · first after 0.4 s"


def test_suggestions():
    assert did_you_mean("chta", ["chat", "embed"]) == ' Did you mean "chat"?'
    assert did_you_mean("zzz", ["chat"]) == ""


def _story(*statuses: dict[str, Any]) -> tuple[Transcript, list[str]]:
    """Return the transcript of statuses five seconds apart, and the output without updates in place."""
    tracker = ProgressTracker(ModelService, "chat", "user-ada", NOW)
    transcript, printed = Transcript(), []
    for n, status in enumerate(statuses):
        at = NOW + timedelta(seconds=5 * n)
        away = status.pop("away", "")
        transcript.add(tracker.see(service("chat", **status), at, away=away))
        printed += [plain(line_) for line_ in transcript.news(now=at)]
    return transcript, printed


DOWNLOAD = {"file": "Qwen3-4B-Q4_K_M.gguf", "done": 1_400_000_000, "total": 2_500_000_000, "rate": 58e6}


def test_progress_is_a_line_per_phase():
    transcript, printed = _story(
        {"phase": "Downloading", "download": DOWNLOAD},
        {"phase": "Downloading", "download": DOWNLOAD | {"done": 2_400_000_000}},
        {"phase": "Starting", "message": "llama.cpp on 8 threads: no GPU found, the file is GGUF"},
        {"phase": "Ready", "task": "generate"},
    )
    assert [plain(line_) for line_ in transcript.lines(now=NOW + timedelta(seconds=60))] == [
        "chat   Downloaded   Qwen3-4B-Q4_K_M.gguf   2.5 GB   10.0 s",
        "chat   Starting     llama.cpp on 8 threads: no GPU found, the file is GGUF   5.0 s",
        'chat   Ready        15.0 s   →   llmos chat chat   ·   OpenAI().chat.completions.create(model="chat", …)',
    ]
    assert printed == [
        "chat   Downloading  Qwen3-4B-Q4_K_M.gguf   1.4 of 2.5 GB   58 MB/s   19 s left",
        "chat   Starting     llama.cpp on 8 threads: no GPU found, the file is GGUF   0 s",
        'chat   Ready        15.0 s   →   llmos chat chat   ·   OpenAI().chat.completions.create(model="chat", …)',
    ]


def test_which_file_was_taken_and_why_stays_in_the_record():
    choice = "X-Q4_K_M.gguf was chosen of 3 GGUF models: the usual balance of size and quality"
    transcript, printed = _story(
        {"phase": "Starting", "message": f"llama.cpp on 2 threads · {choice} · 67 MiB", "model": {"choice": choice}},
        {"phase": "Ready", "task": "generate"},
    )
    assert [plain(line_) for line_ in transcript.lines(now=NOW)][:2] == [
        "chat   Starting     llama.cpp on 2 threads   5.0 s",
        f"                    {choice}",
    ]
    assert any(choice in line_ for line_ in printed)


def test_a_reason_of_several_facts_is_a_line_each():
    transcript, _ = _story({"phase": "Starting", "message": "llama.cpp on 2 threads · about 67 MiB of memory"})
    assert [plain(line_) for line_ in transcript.lines(now=NOW)] == [
        "chat   Starting     llama.cpp on 2 threads   0 s",
        "                    about 67 MiB of memory",
    ]


def test_a_stopwatch_goes_on_between_two_changes():
    transcript, _ = _story({"phase": "Starting", "message": "loading"})
    assert plain(transcript.lines(now=NOW + timedelta(seconds=4))[-1]) == "chat   Starting     loading   4 s"
    assert text_width(plain(transcript.lines(now=NOW, width=20)[-1])) <= 20


def test_a_failure_shows_the_last_log_lines():
    transcript, _ = _story({"phase": "Failed", "message": "the file is broken", "lastLogLines": ["load", "bad magic"]})
    assert [plain(line_) for line_ in transcript.lines(now=NOW)] == [
        "chat   Failed       the file is broken",
        "   │ load",
        "   │ bad magic",
    ]


def test_an_api_that_is_away_is_said_and_forgotten_when_it_is_back():
    transcript, printed = _story(
        {"phase": "Starting"}, {"phase": "Starting", "away": "The API does not answer."}, {"phase": "Starting"}
    )
    assert printed[1] == "chat   Starting     The API does not answer."
    assert "does not answer" not in plain(transcript.lines(now=NOW)[-1])


def test_an_embedding_model_is_used_otherwise_and_a_notebook_says_otherwise():
    transcript, _ = _story({"phase": "Ready", "task": "embed"})
    assert plain(transcript.lines(now=NOW)[-1]).endswith('→   OpenAI().embeddings.create(model="chat", …)')
    transcript = Transcript(Hints(chat="%%chat {name}", command="%llmos"))
    transcript.add(ProgressTracker(ModelService, "chat", "user-ada", NOW).see(CHAT, NOW))
    assert "→   %%chat chat   ·" in plain(transcript.lines(now=NOW)[-1])


def test_a_model_that_was_there_is_not_called_downloading():
    transcript, _ = _story({"phase": "Downloading", "message": "Fetching the model."}, {"phase": "Ready"})
    assert [plain(line_).split()[1] for line_ in transcript.lines(now=NOW)] == ["Ready"]


def test_waiting_with_no_controller_is_not_silent():
    tracker = ProgressTracker(ModelService, "chat", "user-ada", NOW)
    fresh = service("chat", observedGeneration=0)
    assert tracker.see(fresh, NOW).message == ""
    assert "no controller has handled it yet" in tracker.see(fresh, NOW + timedelta(seconds=11)).message


def test_a_service_that_answers_with_fewer_replicas_is_left_at_that_after_a_minute():
    tracker = ProgressTracker(ModelService, "chat", "user-ada", NOW)
    degraded = service("chat", phase="Degraded", message="1 of 2 replicas")
    assert not tracker.see(degraded, NOW).ready
    assert tracker.see(degraded, NOW + timedelta(seconds=60)).ready


def test_any_kind_is_a_table_from_its_own_columns():
    credential = Credential.parse(
        {"kind": "Credential", "metadata": {"name": "hub"}, "status": {"keys": ["HF_TOKEN", "OTHER"]}}
    )
    assert (
        shown(resource_table(Credential, [credential], now=NOW))
        == "NAME  KEYS             AGE\nhub   HF_TOKEN, OTHER  -"
    )
    assert shown(resource_table(Credential, [], now=NOW, where="public")) == "There are no credentials in public."
    wide = shown(resource_table(ModelService, [BIG], now=NOW, wide=True))
    assert wide.splitlines()[0].split() == ["NAME", "MODEL", "ENGINE", "STATE", "READY", "AGE", "MESSAGE", "LABELS"]


@pytest.mark.parametrize(
    ("namespace", "spec", "says"),
    [
        ("public", {}, "perCaller, no prompt is taken up by another's (auto)"),
        ("public", {"promptCache": "shared"}, "shared by all who use it\n"),
        ("user-ada", {"promptCache": "perCaller"}, "perCaller, no prompt is taken up by another's\n"),
    ],
)
def test_describe_says_whose_prompts_a_model_takes_up(namespace: str, spec: dict[str, str], says: str):
    made = {"kind": "ModelService", "metadata": {"name": "chat", "namespace": namespace}}
    shown = ModelService.parse({**made, "spec": {"model": "demo://tiny", **spec}})
    text = "\n".join(plain(part) for part in describe(shown, [], now=NOW))
    assert says in text + "\n"


def test_describe_shows_everything_that_says_something():
    described = service(
        "chat",
        spec={"resources": {"memory": "4Gi"}, "args": ["--ctx-size", "8 192"]},
        phase="Ready",
        memoryEstimate=3 * GIB,
        conditions=[
            {
                "type": "Ready",
                "status": "True",
                "reason": "Answers",
                "message": "1 of 1",
                "lastTransitionTime": "2026-11-24T11:00:00Z",
            }
        ],
        replicaStatuses=[
            {"id": "chat-1", "phase": "Ready", "restarts": 2, "memory": GIB, "startedAt": "2026-11-24T11:59:00Z"}
        ],
    )
    event = Event("Warning", "Restarted", "it crashed", NOW - timedelta(hours=1), NOW - timedelta(minutes=1), 3)
    text = "\n".join(plain(line_) for line_ in describe(described, [event], now=NOW))
    assert text == (
        "Name:       chat\n"
        "Kind:       ModelService\n"
        "Namespace:  user-ada\n"
        "Created:    2 h ago\n"
        "\n"
        "Spec\n"
        "  Model:             hf://Qwen/Qwen3-4B-GGUF\n"
        "  Engine:            auto\n"
        "  Args:              --ctx-size '8 192'\n"
        "  Task:              auto\n"
        "  Resources memory:  4Gi\n"
        "  Resources gpus:    0\n"
        "  Replicas:          1\n"
        "  Prompt cache:      shared by all who use it (auto)\n"
        "  Paused:            no\n"
        "\n"
        "Status\n"
        "  Phase:                Ready\n"
        "  Observed generation:  1\n"
        "  Replicas:             0\n"
        "  Ready replicas:       0\n"
        "  Memory estimate:      3.0 GiB\n"
        "\n"
        "Conditions\n"
        "  CONDITION  HOLDS  SINCE  REASON   MESSAGE\n"
        "  Ready      yes    1 h    Answers  1 of 1\n"
        "\n"
        "Replicas\n"
        "  REPLICA  STATE  MEMORY   RESTARTS  AGE    MESSAGE\n"
        "  chat-1   Ready  1.0 GiB  2         1 min  -\n"
        "\n"
        "Events\n"
        "  AGE    TYPE     REASON     MESSAGE\n"
        "  1 min  Warning  Restarted  it crashed (3 times in 1 h)"
    )


def test_events_of_nothing():
    assert shown(events_table([], now=NOW)) == "Nothing has happened yet."


def test_yaml_keeps_the_order_and_the_letters():
    assert as_yaml({"kind": "X", "apiVersion": "y", "text": "größe"}) == "kind: X\napiVersion: y\ntext: größe"


def _explained(path: str) -> str:
    return "\n".join(plain(line_) for line_ in explain(ModelService, path))


def test_explain_walks_into_fields_lists_and_options():
    assert _explained("").startswith(
        "ModelService   object\nalso called: modelservices, modelservice, ms, model, models\n"
    )
    assert _explained("spec.replicas") == (
        "ModelService.spec.replicas   whole number\n\nNumber of processes or pods that serve the model.\n"
        "default: 1 · at least 0 · at most 64"
    )
    assert _explained("spec.resources.memory").startswith("ModelService.spec.resources.memory   text\n")
    assert "a replica" in _explained("spec.resources.memory")
    assert "restarts" in _explained("status.replicaStatuses")
    assert _explained("status.replicaStatuses.restarts") == (
        "ModelService.status.replicaStatuses.restarts   whole number\n\nNumber of restarts after crashes.\ndefault: 0"
    )
    with pytest.raises(UsageError, match=r'ModelService\.spec has no field "replcas"\. Did you mean "replicas"\?'):
        _explained("spec.replcas")
    with pytest.raises(UsageError, match="has no fields"):
        _explained("spec.replicas.more")


def test_a_long_line_is_broken_at_blanks_and_hangs_below_its_last_cell():
    long = line(Span("chat-7f", "bold"), "  Failed   ", Span("needs 41 GiB of memory, this machine has 24", "bad"))
    assert [plain(part) for part in wrap(long, 40)] == [
        "chat-7f  Failed   needs 41 GiB of",
        "                  memory, this machine",
        "                  has 24",
    ]
    assert wrap(long, None) == [long]
    assert wrap(line("short"), 5) == [line("short")]


def test_a_word_wider_than_the_room_is_cut_and_nothing_is_lost():
    parts = wrap(line("Id:  ", "x" * 50), 20)
    assert "".join(plain(part).strip() for part in parts) == "Id:  " + "x" * 50
    assert all(text_width(plain(part)) <= 20 for part in parts)


@pytest.mark.parametrize(("text", "column"), [("Name:  chat", 7), ("no cells", 0), ("   │ log line", 3), ("", 0)])
def test_where_a_continuation_hangs(text: str, column: int):
    assert hang(line(text)) == column


def test_what_steers_a_terminal_is_taken_out_or_escaped():
    evil = "a\x1b[31mb\x9bc\x7fd\u202ee\u2066f\u2028g\tüé😀\n"
    assert clean_block(evil) == "a[31mbcdefg\tüé😀\n"
    assert escape_block("\x7f\u202e") == "\\u007f\\u202e"


def test_the_next_try_is_told_as_time_left_wherever_the_service_is_shown():
    at = (NOW + timedelta(seconds=20)).isoformat()
    waiting = service("chat", phase="Failed", message="hub.example.org does not answer.", nextTryAt=at)
    said = "hub.example.org does not answer. Next try in 20 s."
    assert said in "\n".join(plain(part) for part in ps_table([waiting], now=NOW).lines())
    assert "Next try at:          in 20 s" in "\n".join(plain(part) for part in describe(waiting, [], now=NOW))
    tracker, transcript = ProgressTracker(ModelService, "chat", "user-ada", NOW), Transcript()
    transcript.add(tracker.see(waiting, NOW))
    assert said in plain(transcript.lines(now=NOW)[0])
    later = NOW + timedelta(seconds=21)
    assert "Trying again now." in plain(transcript.lines(now=later)[0])
    crashed = service("chat", phase="Failed", message="chat crashed. See why: llmos logs chat", nextTryAt=at)
    assert "llmos logs chat · Next try in 20 s." in "\n".join(
        plain(part) for part in ps_table([crashed], now=NOW).lines()
    )


def test_a_sentence_is_said_once_in_describe():
    sentence = "needs 41 GiB of GPU memory, this machine has none"
    condition = {"type": "Ready", "status": "False", "reason": "InsufficientGPU", "message": sentence}
    conditions = [{**condition, "lastTransitionTime": NOW.isoformat()}]
    text = "\n".join(
        plain(part)
        for part in describe(service("big", phase="Failed", message=sentence, conditions=conditions), [], now=NOW)
    )
    assert text.count(sentence) == 1
    assert "as above" in text


def test_an_engine_has_one_name_for_people():
    text = "\n".join(plain(part) for part in describe(CHAT, [], now=NOW))
    table = "\n".join(plain(part) for part in resource_table(ModelService, [CHAT], now=NOW).lines())
    assert "llama.cpp" in text
    assert "llama.cpp" in table
    assert "llamacpp" not in text + table
