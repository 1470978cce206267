"""The command `llmos`, end to end against a small API over real HTTP."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmos.cli import main
from llmos.cli.parser import VERBS, HelpRequested, build_parser, parse
from llmos.errors import UsageError
from tests.support.fake_api import FakePlatform, Serving, modelservice
from tests.support.hub_endpoint import HubRepository, hub_endpoint
from tests.support.waiting import wait_until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; return its exit code and the output to both streams."""

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def _ready_when_watched(platform: FakePlatform, name: str, **status: Any) -> threading.Thread:
    def act() -> None:
        wait_until(lambda: platform.watches == 1)
        platform.status(name, **({"phase": "Ready", "readyReplicas": 1, "task": "generate"} | status))

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_serve_shows_progress_line_by_line_where_nothing_is_redrawn(run: Run, platform: FakePlatform):
    thread = _ready_when_watched(platform, "tiny")
    code, out, err = run("serve", "demo://tiny", "--memory", "1Gi", "--arg=--ctx-size", "--arg=512", "--env", "A=b=c")
    thread.join()
    assert (code, err) == (0, "")
    first, last = out.splitlines()
    assert first.startswith("tiny   Pending")
    assert last.startswith("tiny   Ready")
    assert last.endswith('→   llmos chat tiny   ·   OpenAI().chat.completions.create(model="tiny", …)')
    spec = platform.objects["modelservices", "user-ada", "tiny"]["spec"]
    assert (spec["resources"]["memory"], spec["args"], spec["env"]) == ("1Gi", ["--ctx-size", "512"], {"A": "b=c"})


def test_serve_without_waiting_and_without_doing(run: Run, platform: FakePlatform):
    assert run("serve", "demo://tiny", "--dry-run")[:2] == (
        0,
        "modelservice/tiny created (dry run: nothing was changed)\n",
    )
    assert platform.objects == {}
    code, out, _ = run("serve", "demo://tiny", "--name", "chat", "--no-wait")
    assert (code, out) == (0, "modelservice/chat created. It continues by itself; look with: llmos ps\n")
    code, _, err = run("serve", "demo://smollm2", "--name", "chat", "--no-wait")
    assert err == "chat exists already. Changes: model demo://tiny → demo://smollm2.\n"


def test_serve_again_changes_what_is_named_and_says_what_changes_and_stays(run: Run, platform: FakePlatform):
    named = ["--memory", "2Gi", "--replicas", "3", "--arg=--ctx-size", "--arg=512", "--env", "KEY=secret"]
    assert run("serve", "demo://tiny", "--name", "chat", "--no-wait", *named)[0] == 0
    code, out, err = run("serve", "tiny", "--name", "chat", "--no-wait", "--memory", "4Gi")
    assert (code, out) == (0, "modelservice/chat changed. It continues by itself; look with: llmos ps\n")
    spec = platform.objects["modelservices", "user-ada", "chat"]["spec"]
    assert (spec["resources"]["memory"], spec["replicas"], spec["args"]) == ("4Gi", 3, ["--ctx-size", "512"])
    assert err == ("chat exists already. Changes: memory 2Gi → 4Gi. Stays: args --ctx-size 512, env, replicas 3.\n")
    code, _, err = run("serve", "tiny", "--name", "chat", "--no-wait", "--dry-run")
    assert "Changes: nothing. Stays: args --ctx-size 512, env, memory 4Gi, replicas 3." in err


def test_serve_starts_what_was_stopped_or_scaled_to_nothing(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat", spec={"paused": True, "replicas": 0}))
    _, _, err = run("serve", "smollm2", "--name", "chat", "--no-wait")
    spec = platform.objects["modelservices", "user-ada", "chat"]["spec"]
    assert (spec["paused"], spec["replicas"]) == (False, 1)
    assert err == "chat exists already. Changes: paused True → False, replicas 0 → 1.\n"


def test_what_people_type_for_a_model(
    run: Run, platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model (v1).gguf").write_bytes(b"GGUF")
    for typed, address, name in [
        ("Qwen/Qwen3-4B-GGUF", "hf://Qwen/Qwen3-4B-GGUF", "qwen3-4b"),
        ("smollm2", "demo://smollm2", "smollm2"),
        ("./my model (v1).gguf", f"file://{tmp_path}/my model (v1).gguf", "my-model-v1"),
    ]:
        assert run("serve", typed, "--no-wait")[0] == 0
        assert platform.objects["modelservices", "user-ada", name]["spec"]["model"] == address
    assert run("set", "smollm2", "--model", "tiny")[0] == 0
    assert platform.objects["modelservices", "user-ada", "smollm2"]["spec"]["model"] == "demo://tiny"
    code, _, err = run("serve", "./x.gguf")
    assert code == 1
    assert err.startswith(f'There is no file "./x.gguf" here. A path is read from {tmp_path}')


def test_a_short_name_is_answered_with_what_is_meant_and_what_fits(
    run: Run, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
):
    platform.nodes = [{"name": "box", "memory": 24 * 2**30}]
    with hub_endpoint() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.repositories["Qwen/Qwen3-4B-GGUF"] = HubRepository({"q.gguf": b""}, parameters=4_000_000_000)
        hub.repositories["big/Qwen3-400B-4bit-GGUF"] = HubRepository({"q.gguf": b""}, parameters=400_000_000_000)
        hub.repositories["Qwen/Qwen3-4B"] = HubRepository({"model.safetensors": b""})
        code, out, err = run("serve", "qwen3:4b")
        assert (code, out) == (1, "")
        assert err == (
            '"qwen3:4b" is not the address of a model. GGUF repositories of that name: '
            "Qwen/Qwen3-4B-GGUF (about 2.5 GB as Q4_K_M, fits into this machine's 24 GiB), "
            "big/Qwen3-400B-4bit-GGUF (about 245 GB as Q4_K_M, too large for this machine's 24 GiB). "
            "Serve one, such as: Qwen/Qwen3-4B-GGUF (invalid)\n"
        )
        assert "knows no GGUF repository" in run("serve", "llama3")[2]
    assert platform.objects == {}
    code, _, err = run("serve", "llama3")  # the hub can't be reached
    assert code == 1
    assert "127.0.0.1, which would know what is meant, can't be reached from here. Write org/repo" in err
    assert "smollm2" in err


def test_serve_tells_a_failure_with_its_reason_and_log(run: Run, platform: FakePlatform):
    thread = _ready_when_watched(
        platform, "tiny", phase="Failed", message="the file is broken", lastLogLines=["bad magic"]
    )
    code, out, err = run("serve", "demo://tiny")
    thread.join()
    assert code == 1
    assert out.splitlines()[1:] == ["tiny   Failed       the file is broken", "   │ bad magic"]
    assert err == "tiny failed. More: llmos describe modelservice tiny (model_not_ready)\n"


def test_mistakes_in_a_spec_name_the_field_and_the_fix(run: Run, platform: FakePlatform):
    code, _, err = run("serve", "demo://tiny", "--memory", "2GiB")
    assert (code, err) == (1, 'spec.resources.memory: "2GiB" is not a quantity. Did you mean "2Gi"? (invalid)\n')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gte"], 'llmos: there is no verb "gte". Did you mean "get"? (usage)'),
        (["get"], "llmos get: the following arguments are required: KIND. More: llmos get --help (usage)"),
        (["get", "modelservcie"], 'Did you mean "modelservice"? (usage)'),
        (
            ["scale", "chat", "two"],
            "llmos scale: argument N: invalid int value: 'two'. More: llmos scale --help (usage)",
        ),
        (["set", "chat"], "Set what? For example: llmos set chat --memory 6Gi (usage)"),
        (["delete", "ms"], "Which ms? Write its name after it. (usage)"),
        (["serve", "demo://tiny", "--env", "A"], '--env: "A" should read NAME=VALUE. (usage)'),
        (["explain", "ms.spec.replcas"], 'Did you mean "replicas"? (usage)'),
        (["ps", "--jsno"], "llmos ps: unrecognized arguments: --jsno. More: llmos ps --help (usage)"),
        (["describe", "public/chat"], "The namespace goes into -n: chat -n public (usage)"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, words: list[str], message: str):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.endswith(message + "\n")
    assert err.count("\n") == 1


def test_get_in_every_form(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat", metadata={"labels": {"team": "vision"}}))
    platform.put(modelservice("embed", "demo://minilm"))
    assert run("get", "ms")[1].splitlines()[0].split() == ["NAME", "MODEL", "ENGINE", "STATE", "READY", "AGE"]
    assert run("get", "models", "-o", "name")[1] == "modelservice/chat\nmodelservice/embed\n"
    assert run("get", "ms", "-l", "team=vision", "-o", "name")[1] == "modelservice/chat\n"
    assert json.loads(run("get", "ms", "chat", "--json")[1])["metadata"]["name"] == "chat"
    assert json.loads(run("get", "ms/chat", "ms/embed", "-o", "json")[1])["kind"] == "List"
    assert yaml.safe_load(run("get", "modelservice", "chat", "-o", "yaml")[1])["spec"]["model"] == "demo://smollm2"
    assert "team=vision" in run("get", "ms", "chat", "-o", "wide")[1]
    assert run("get", "credentials")[1] == "There are no credentials.\n"


def test_names_that_are_not_there_are_answered_with_those_that_are(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.put(modelservice("secret", metadata={"namespace": "user-grace"}))
    for words in (
        ["get", "ms", "chta"],
        ["describe", "chta"],
        ["logs", "chta"],
        ["stop", "chta"],
        ["delete", "ms", "chta"],
        ["wait", "chta"],
    ):
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        assert err.startswith('There is no modelservice "chta" in user-ada. Did you mean "chat"? (not_found · req ')
        assert "secret" not in err
    platform.put(modelservice("embed"))
    err = run("get", "ms", "zzz")[2]
    assert err.startswith('There is no modelservice "zzz" in user-ada. There are: chat, embed. (not_found · req ')


def test_all_namespaces_are_those_that_the_caller_may_see(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.put(modelservice("tiny", metadata={"namespace": "public"}))
    platform.put(modelservice("secret", metadata={"namespace": "user-grace"}))
    assert [line.split()[:2] for line in run("ps", "-A")[1].splitlines()[1:]] == [
        ["public", "tiny"],
        ["user-ada", "chat"],
    ]
    platform.admin = True
    assert "secret" in run("get", "ms", "-A")[1]


def test_ps_for_people_and_for_programs(run: Run, platform: FakePlatform):
    assert "Serve one with: llmos serve" in run("ps")[1]
    platform.put(modelservice("chat"))
    platform.status("chat", phase="Failed", message="needs more memory")
    out = run("ps")[1]
    assert "Failed" in out
    assert out.splitlines()[2].strip() == "└ needs more memory"
    assert json.loads(run("ps", "--json")[1])[0]["status"]["phase"] == "Failed"


def test_describe_and_events(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.events["user-ada", "chat"] = [{"type": "Normal", "reason": "Started", "message": "on 2 threads"}]
    for words in (["describe", "modelservice", "chat"], ["describe", "modelservice/chat"], ["describe", "chat"]):
        code, out, _ = run(*words)
        assert code == 0
        assert out.startswith("Name:       chat\n")
        assert "on 2 threads" in out
    assert "Started" in run("events", "ms", "chat")[1]
    assert run("describe", "credentials")[2].startswith("Which credentials?")


MANIFESTS = """\
apiVersion: llmos.ai/v1alpha1
kind: ModelService
metadata:
  name: chat
spec:
  model: demo://smollm2
  resources:
    memory: 1Gi
---
kind: Credential
metadata: {name: hub}
spec: {data: {HF_TOKEN: "s3cret"}}
"""


def test_apply_creates_changes_and_leaves_alone(run: Run, platform: FakePlatform, tmp_path: Path):
    file = tmp_path / "all.yaml"
    file.write_text(MANIFESTS)
    dry = " (dry run: nothing was changed)\n"
    assert run("apply", "-f", str(file), "--dry-run")[1] == f"modelservice/chat created{dry}credential/hub created{dry}"
    assert platform.objects == {}
    assert run("apply", "-f", str(file))[1] == "modelservice/chat created\ncredential/hub created\n"
    assert run("apply", "-f", str(file))[1].startswith("modelservice/chat unchanged\n")
    assert run("apply", "-f", "-", stdin=MANIFESTS.replace("1Gi", "2Gi"))[1].startswith("modelservice/chat changed\n")
    exported = run("get", "ms", "-o", "yaml")[1]
    assert run("apply", "-f", "-", stdin=exported)[1] == "modelservice/chat unchanged\n"
    assert run("apply", "-f", "-", stdin=run("get", "ms", "chat", "--json")[1])[1] == "modelservice/chat unchanged\n"


def test_an_exported_manifest_is_applied_again(run: Run, platform: FakePlatform, tmp_path: Path):
    platform.put(modelservice("chat", metadata={"namespace": "user-ada"}))
    exported = json.loads(run("get", "ms", "chat", "-o", "json")[1])
    platform.status("chat", phase="Ready")  # changes its resourceVersion
    exported["metadata"] |= {"managedFields": [{}], "selfLink": "/x", "finalizers": ["llmos.ai/workloads"]}
    exported["spec"]["replicas"] = 3
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(exported))
    assert run("apply", "-f", str(file))[0] == 0
    assert platform.objects[("modelservices", "user-ada", "chat")]["spec"]["replicas"] == 3
    run("delete", "ms", "chat")
    file.write_text(json.dumps({"kind": "List", "items": [exported]}))
    assert run("apply", "-f", str(file))[0] == 0
    assert ("modelservices", "user-ada", "chat") in platform.objects


@pytest.mark.parametrize(
    "words", [["credential", "hub", "-o", "yaml"], ["credential", "hub", "--json"], ["credentials", "-o", "yaml"]]
)
def test_an_exported_credential_does_not_say_that_it_is_empty(run: Run, platform: FakePlatform, words: list[str]):
    metadata = {"name": "hub", "namespace": "user-ada"}
    platform.put({"apiVersion": "llmos.ai/v1alpha1", "kind": "Credential", "metadata": metadata, "spec": {}})
    exported = run("get", *words)[1]
    document = yaml.safe_load(exported)
    assert document.get("items", [document])[0]["spec"] == {}
    assert run("apply", "-f", "-", stdin=exported)[1] == "credential/hub unchanged\n"


@pytest.mark.parametrize("value", ["!!int ''", "!!bool maybe", "!!float x", "!unknown x"])
def test_a_value_that_does_not_fit_its_tag_is_named_with_its_line(run: Run, tmp_path: Path, value: str):
    file = tmp_path / "chat.yaml"
    file.write_text(f"kind: ModelService\nmetadata: {{name: chat}}\nspec: {{replicas: {value}}}\n")
    code, _, err = run("apply", "-f", str(file))
    assert code == 1
    assert "chat.yaml:3" in err
    assert "(internal)" not in err


def test_apply_checks_all_files_first_and_names_file_and_line(run: Run, platform: FakePlatform, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(MANIFESTS)
    (tmp_path / "b.yml").write_text(MANIFESTS.replace("1Gi", "1GiB").replace("{data:", "{dta:"))
    code, _, err = run("apply", "-f", str(tmp_path))
    assert code == 1
    assert f'{tmp_path}/b.yml:8: spec.resources.memory: "1GiB" is not a quantity. Did you mean "1Gi"?' in err
    assert f'{tmp_path}/b.yml:12: spec.dta: there is no such field. Did you mean "data"?' in err
    assert "s3cret" not in err
    assert platform.objects == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: ModelService\nkind: Setting\n", 'standard input:2: "kind" is here twice'),
        ("a: [1\nb: 2\n", "standard input:2: "),
        ('{"kind": ', "standard input:1: not JSON"),
        ("kind: Pod\n", 'standard input:1: kind: "Pod" is not known here.'),
        ("- 1\n", "standard input:1: A manifest needs a kind"),
        ("", "There is no resource in -."),
        (
            "kind: List\nitems:\n- kind: ModelService\n  metadata: {name: A}\n  spec: {model: 'demo://x'}\n",
            "standard input:4: metadata.name",
        ),
    ],
)
def test_what_is_no_manifest_is_named(run: Run, text: str, message: str):
    code, _, err = run("apply", "-f", "-", stdin=text)
    assert code == 1
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_file_that_is_not_there(run: Run, tmp_path: Path):
    assert run("apply", "-f", str(tmp_path / "nix.yaml")) == (
        1,
        "",
        f"There is no file {tmp_path}/nix.yaml. (invalid)\n",
    )


def test_an_error_of_the_api_names_the_document(run: Run, platform: FakePlatform):
    text = MANIFESTS.replace("name: chat", "name: chat\n  namespace: user-grace")
    code, _, err = run("apply", "-f", "-", stdin=text)
    assert code == 1
    assert err.startswith("standard input:1: You may not look into user-grace.")


def test_delete_deletes_all_or_nothing(run: Run, platform: FakePlatform, tmp_path: Path):
    platform.put(modelservice("a"))
    platform.put(modelservice("b"))
    assert run("delete", "ms", "a", "nix")[0] == 1
    assert len(platform.objects) == 2
    assert run("delete", "ms", "a", "--dry-run")[1] == "modelservice/a would be deleted (dry run)\n"
    assert run("delete", "ms", "a", "b")[:2] == (0, "modelservice/a deleted\nmodelservice/b deleted\n")
    platform.put(modelservice("alone"))
    assert run("delete", "alone")[:2] == (0, "modelservice/alone deleted\n")
    assert platform.objects == {}
    file = tmp_path / "c.yaml"
    file.write_text(MANIFESTS.partition("---")[0])
    run("apply", "-f", str(file))
    assert run("delete", "-f", str(file), "-y")[1] == "modelservice/chat deleted\n"


def test_logs(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.logs["user-ada", "chat"] = ["one", "two", "three"]
    assert run("logs", "chat", "--tail", "2") == (0, "two\nthree\n", "")


def test_changes(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat", spec={"resources": {"memory": "1Gi", "cpu": "2"}}))
    spec = lambda: platform.objects["modelservices", "user-ada", "chat"]["spec"]  # noqa: E731 - read anew each time
    assert run("stop", "chat")[1] == "chat is stopped. Start it again with: llmos start chat\n"
    assert spec()["paused"]
    assert run("start", "chat", "--no-wait")[0] == 0
    assert not spec()["paused"]
    assert run("scale", "chat", "2")[1] == "chat is going to 2 replicas. Look with: llmos ps\n"
    assert spec()["replicas"] == 2
    assert run("set", "chat", "--memory", "6Gi")[1] == "chat is changing: memory 6Gi. Look with: llmos ps\n"
    assert spec()["resources"] == {"memory": "6Gi", "cpu": "2", "gpus": 0}
    thread = _ready_when_watched(platform, "chat")
    assert "Ready" in run("scale", "chat", "1", "--wait")[1]
    thread.join()


def test_chat_in_one_go(run: Run, platform: FakePlatform):
    platform.put(modelservice("chat"))
    assert run("chat", "chat", "What is a dictionary?") == (0, "A dictionary maps keys to values.\n", "")
    assert platform.chats[-1]["messages"] == [{"role": "user", "content": "What is a dictionary?"}]
    run("chat", "chat", "Sum this up:", stdin="a long text\n")
    assert platform.chats[-1]["messages"][0]["content"] == "Sum this up:\n\na long text"
    code, out, err = run("chat", stdin="hello")
    assert (code, out) == (0, "A dictionary maps keys to values.\n")
    assert err == "Asking chat, the only model that is ready to chat.\n"
    assert run("chat", "chat")[0] == 2


def test_chat_asks_which_model_when_there_are_several(run: Run, platform: FakePlatform):
    assert "Serve one with" in run("chat", stdin="hi")[2]
    platform.put(modelservice("a"))
    platform.put(modelservice("b"))
    code, _, err = run("chat", stdin="hi")
    assert (code, err) == (2, "llmos chat: which model? You can use: a, b. (usage)\n")


def test_models_and_whoami(run: Run, platform: FakePlatform, server: Serving):
    platform.put(modelservice("chat"))
    assert run("models")[1].splitlines()[1].split() == ["chat", "-", "-", "user-ada"]
    out = run("whoami")[1]
    assert "Name:       ada\n" in out
    assert f"API:        {server.url} (from LLMOS_URL)\n" in out
    assert json.loads(run("whoami", "--json")[1])["namespace"] == "user-ada"


def test_nodes(run: Run, platform: FakePlatform):
    gi = 2**30
    work = {"kind": "ModelService", "namespace": "user-ada", "name": "chat", "cpus": 2, "memory": gi}
    platform.nodes = [
        {
            "name": "node1", "roles": ["control-plane"], "ready": True, "cpus": 4, "cpusFree": 1.5, "memory": 16 * gi,
            "memoryFree": 12 * gi, "counts": {"ModelService": 1, "Server": 2, "System": 7}, "running": [work],
            "newerThanWeAre": 1,
        },
        {
            "name": "gpu1", "roles": ["worker"], "ready": False, "message": "Not ready: Kubelet stopped posting node status.",
            "cpus": 8, "cpusFree": 8, "memory": 32 * gi, "memoryFree": 32 * gi, "gpus": 2, "gpusFree": 1, "gpuType": "L4",
        },
    ]  # fmt: skip
    assert run("nodes")[1].splitlines() == [
        "NAME   ROLES          STATE     CPUS FREE  MEMORY FREE  GPUS FREE  GPU  RUNNING",
        "node1  control-plane  Ready     1.5/4      12/16 GiB    -          -    1 model, 2 servers, 7 of the system",
        "gpu1   worker         NotReady  8/8        32/32 GiB    1/2        L4   -",
        "       └ Not ready: Kubelet stopped posting node status.",
    ]
    assert [node["name"] for node in json.loads(run("nodes", "--json")[1])] == ["node1", "gpu1"]
    one = run("nodes", "node1")[1].splitlines()
    assert one[0].split() == ["NAME", "ROLES", "STATE", "CPUS", "FREE", "MEMORY", "FREE", "RUNNING"]
    assert one[3].split() == ["chat", "model", "user-ada", "2", "1.0", "GiB", "-"]
    assert "There are: node1, gpu1." in run("nodes", "zzzz")[2]
    assert run("nodes", "nod1")[2] == 'There is no node "nod1". Did you mean "node1"? (not_found)\n'


def test_a_platform_that_does_not_run_is_said_in_one_line(run: Run, server: Serving):
    server.stop()
    code, out, err = run("ps")
    assert (code, out) == (1, "")
    assert err == f"The API at {server.url} does not answer. Is LLMOS running? Start it with: make up (unavailable)\n"
    server.restart()


def test_a_mistake_of_ours_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("llmos.cli.verbs.whoami.run_whoami", broken)
    code, _, err = run("whoami")
    assert code == 1
    assert err.startswith("RuntimeError: boom (internal).")


def test_every_verb_has_help_with_an_example():
    for name, verb in VERBS.items():
        with pytest.raises(HelpRequested) as help_:
            parse([name, "--help"])
        assert "for example:\n  llmos " in str(help_.value)
        for example in verb.example:
            assert f"llmos {example}" in str(help_.value)


def test_examples_in_help_are_commands_that_parse():
    import shlex

    for verb in VERBS.values():
        for example in verb.example:
            words = shlex.split(example.partition(" > ")[0].partition(" | ")[0])
            assert parse(words)[0] is verb


def test_a_notebook_has_its_own_verbs_and_never_exits():
    verb, args = parse(["serve", "demo://tiny"], prog="%llmos", only=lambda verb: verb.notebook)
    assert (verb.name, args.model) == ("serve", "demo://tiny")
    with pytest.raises(UsageError, match="In a terminal of yours: llmos completion"):
        parse(["completion", "bash"], prog="%llmos", only=lambda verb: verb.notebook)
    with pytest.raises(UsageError, match="In a terminal on the platform's machine: llmos user"):
        parse(["user", "list"], prog="%llmos", only=lambda verb: verb.notebook)
    with pytest.raises(UsageError, match="there is no verb"):
        parse(["nothing"], prog="%llmos", only=lambda verb: verb.notebook)
    with pytest.raises(HelpRequested, match="%llmos VERB"):
        parse([], prog="%llmos", only=lambda verb: verb.notebook)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb_and_option(run: Run, shell: str):
    code, script, _ = run("completion", shell)
    assert code == 0
    for name, verb in VERBS.items():
        assert name in script
        for action in build_parser(verb)._actions:
            assert all(option.lstrip("-") in script for option in action.option_strings)


def test_bash_completes_verbs_options_and_names(run: Run, platform: FakePlatform, tmp_path: Path):
    platform.put(modelservice("chat"))
    script = tmp_path / "llmos.bash"
    script.write_text(run("completion", "bash")[1])
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "llmos").write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; from llmos.cli import main; sys.exit(main())" "$@"\n'
    )
    (bin_ / "llmos").chmod(0o755)

    def complete(*words: str) -> list[str]:
        code = f"source {script}; COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; _shtab_llmos; echo ${{COMPREPLY[@]}}"
        environ = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-c", code], capture_output=True, text=True, timeout=30, check=True, env=environ
        ).stdout.split()

    assert complete("llmos", "des") == ["describe"]
    assert complete("llmos", "ps", "--js") == ["--json"]
    assert complete("llmos", "get", "mod") == ["modelservices"]
    assert complete("llmos", "get", "modelservices", "ch") == ["chat"]
    assert complete("llmos", "logs", "") == ["chat"]
    assert complete("llmos", "describe", "modelservice", "x", "ch") == ["chat"]
    assert complete("llmos", "get", "modelservices", "-o", "y") == ["yaml"]
    assert complete("llmos", "delete", "-f", str(script)[:-1]) == [str(script)]
    assert complete("llmos", "bundle", str(script)[:-1]) == [str(script)]


def test_zsh_completes_several_names_and_can_source_the_script(run: Run):
    script = run("completion", "zsh")[1]
    assert '"*:names of resources (default\\: all):_llmos_names_of_kind"' in script
    assert "$zsh_eval_context[-1] == (eval|file)" in script


COMMAND = [sys.executable, "-c", "import sys; from llmos.cli import main; sys.exit(main())"]


def _start(*words: str, **options: Any) -> subprocess.Popen[str]:
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    } | options
    return subprocess.Popen([*COMMAND, *words], **options)


def test_ctrl_c_stops_watching_and_never_the_model(environment: dict[str, str], platform: FakePlatform):
    with _start("serve", "demo://tiny") as process:
        wait_until(lambda: platform.watches == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out.startswith("tiny   Pending")
    assert err == "Stopped watching; tiny continues by itself. Look with: llmos ps\n"
    assert ("modelservices", "user-ada", "tiny") in platform.objects


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], platform: FakePlatform):
    for n in range(3):
        platform.put(modelservice(f"m{n}"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone, _start("get", "ms", "-o", "yaml", stdout=gone) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (141, "")


def test_get_watch_for_programs_is_a_line_per_change(environment: dict[str, str], platform: FakePlatform):
    platform.put(modelservice("chat"))
    with _start("get", "ms", "-w", "-o", "json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "ADDED"
        wait_until(lambda: platform.watches == 1)
        platform.status("chat", phase="Ready")
        changed = json.loads(process.stdout.readline())
        assert (changed["type"], changed["object"]["status"]["phase"]) == ("MODIFIED", "Ready")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def _on_a_terminal(
    words: list[str], act: Callable[[], None], shown: bytearray | None = None, **environ: str
) -> tuple[int, str]:
    """Run a command on its own terminal; return the terminal's output, which is in `shown` as soon as it comes."""
    shown = bytearray() if shown is None else shown
    controller, terminal = pty.openpty()
    with _start(*words, stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | environ) as process:
        os.close(terminal)
        thread = threading.Thread(target=act)
        thread.start()
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # raised by Linux when the other side is closed
                break
            if not piece:
                break
            shown += piece
        process.wait(timeout=20)
    thread.join()
    os.close(controller)
    return process.returncode, shown.decode()


def test_on_a_terminal_progress_is_redrawn_in_place(environment: dict[str, str], platform: FakePlatform):
    so_far = bytearray()

    def act() -> None:
        wait_until(lambda: platform.watches == 1)
        platform.status("tiny", phase="Starting", message="llama.cpp on 2 threads")
        wait_until(lambda: so_far.count(b"Starting") >= 3)  # the stopwatch is redrawn
        platform.status("tiny", phase="Ready")

    code, shown = _on_a_terminal(["serve", "demo://tiny"], act, so_far, TERM="xterm", COLUMNS="60")
    assert code == 0
    assert shown.count("Starting") >= 3
    assert "\x1b[1A" in shown
    assert "\x1b[32mReady" in shown
    last = shown.rpartition("\x1b[J")[0].rpartition("\x1b[2K")[0].rpartition("A\r")[2]
    assert "Starting" in last
    code, shown = _on_a_terminal(["ps"], lambda: None, TERM="xterm", NO_COLOR="1", COLUMNS="60")
    assert code == 0
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_ps_shows_what_others_share_in_sections_of_its_own(run: Run, platform: FakePlatform):
    platform.put({**modelservice("house"), "metadata": {"name": "house", "namespace": "public"}})
    platform.put({**modelservice("eyes"), "metadata": {"name": "eyes", "namespace": "group-vision"}})
    platform.put({**modelservice("secret"), "metadata": {"name": "secret", "namespace": "user-bob"}})
    lines = run("ps")[1].splitlines()
    assert lines[0].startswith("No model is served here yet")
    assert [line.split()[0] for line in lines[lines.index("In public") :] if line.strip()][:3] == [
        "In",
        "NAME",
        "public/house",
    ]
    assert "In group-vision" in lines
    assert "secret" not in " ".join(lines)
    assert "house" not in run("ps", "-n", "user-ada")[1]


def test_a_name_that_is_elsewhere_is_answered_with_where(run: Run, platform: FakePlatform):
    platform.put({**modelservice("house"), "metadata": {"name": "house", "namespace": "public"}})
    code, _, err = run("describe", "house")
    assert code == 1
    assert 'There is no modelservice "house" in user-ada, but in public: add -n public (not_found' in err
    assert run("describe", "house", "-n", "public")[0] == 0


@pytest.mark.parametrize(
    ("word", "verb"), [("list", "ps"), ("ls", "ps"), ("rm", "delete"), ("show", "describe"), ("run", "serve")]
)
def test_words_of_docker_and_ollama_are_understood(word: str, verb: str):
    assert parse([word, *(["x"] if verb in {"delete", "describe", "serve"} else [])])[0].name == verb


def test_pull_leads_to_serve(run: Run):
    code, _, err = run("pull", "qwen3")
    assert code == 2
    assert "llmos serve MODEL" in err


def test_line_ends_that_are_not_ascii_stay_in_an_answer(run: Run, platform: FakePlatform):
    """U+2028, U+2029 and U+0085 end a line for Python, not in a stream of events."""
    platform.put(modelservice("chat"))
    platform.answer = ["one\u2028two", "\u2029three\x85", "four"]
    code, out, err = run("chat", "chat", "hi")
    assert (code, err) == (0, "")
    assert out == "one\u2028two\u2029three\x85four\n"


def test_documents_on_a_terminal_cannot_steer_it(environment: dict[str, str], platform: FakePlatform):
    evil = "a\x9b31mb\x7fc\u202ed"
    chat = modelservice("chat")
    chat["metadata"]["annotations"] = {"note": evil}
    platform.put(chat)
    for form in ("json", "yaml", "wide"):
        code, shown = _on_a_terminal(["get", "ms", "chat", "-o", form], lambda: None, TERM="xterm", NO_COLOR="1")
        assert code == 0
        assert not set("\x9b\x7f\u202e") & set(shown), form
    code, shown = _on_a_terminal(["describe", "chat"], lambda: None, TERM="xterm", NO_COLOR="1")
    assert not set("\x9b\x7f\u202e") & set(shown)
    platform.logs["user-ada", "chat"] = [evil]
    code, shown = _on_a_terminal(["logs", "chat"], lambda: None, TERM="xterm", NO_COLOR="1")
    assert shown.strip() == "a31mbcd"


def test_json_keeps_every_character_as_an_escape_where_it_must(run: Run, platform: FakePlatform):
    chat = modelservice("chat")
    chat["metadata"]["annotations"] = {"note": "a\x9b\x7f\u202eü"}
    platform.put(chat)
    out = run("get", "ms", "chat", "-o", "json")[1]
    assert "\\u009b\\u007f\\u202eü" in out
    assert json.loads(out)["metadata"]["annotations"]["note"] == "a\x9b\x7f\u202eü"


def test_deletion_is_asked_about_on_a_terminal(environment: dict[str, str], platform: FakePlatform):
    platform.put(modelservice("chat"))
    controller, terminal = pty.openpty()
    with _start("delete", "ms", "chat", stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(controller, 4096)
        os.write(controller, b"n\n")
        while b"Nothing was deleted." not in shown:
            shown += os.read(controller, 4096)
        assert process.wait(timeout=20) == 0
    os.close(controller)
    assert b"Delete modelservice/chat? This can't be undone. [y/N]" in shown
    assert ("modelservices", "user-ada", "chat") in platform.objects


def test_a_notebooks_cell_is_not_asked(environment: dict[str, str], platform: FakePlatform):
    platform.put(modelservice("chat"))
    code, shown = _on_a_terminal(
        ["delete", "ms", "chat"], lambda: None, JPY_PARENT_PID="1"
    )  # like ``!`` in a cell runs it
    assert code == 0
    assert "[y/N]" not in shown
    assert platform.objects == {}


def test_an_answer_cannot_steer_the_terminal(environment: dict[str, str], platform: FakePlatform):
    platform.put(modelservice("chat"))
    platform.answer = ["\x1b]0;owned\x07", "fine"]
    code, shown = _on_a_terminal(["chat", "chat", "hi"], lambda: None, TERM="xterm", NO_COLOR="1")
    # standard input is a terminal too, so nothing is read from it
    assert code == 0
    assert "\x1b" not in shown
    assert "fine" in shown
    assert "12 tokens · first after" in shown


def test_a_conversation_in_the_terminal(environment: dict[str, str], platform: FakePlatform):
    platform.put(modelservice("chat"))
    controller, terminal = pty.openpty()
    with _start(
        "chat", "chat", stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "dumb"}
    ) as process:
        os.close(terminal)
        shown = b""

        def say(text: bytes, until: bytes, times: int) -> None:
            nonlocal shown
            os.write(controller, text)
            while shown.count(until) < times:
                shown += os.read(controller, 4096)

        while b"> " not in shown:
            shown += os.read(controller, 4096)
        say(b"one\n", b"tokens", 1)
        say(b"two\n", b"tokens", 2)
        say(b"/new\n", b"Started over", 1)
        say(b"three\n", b"tokens", 3)
        os.write(controller, b"/bye\n")
        assert process.wait(timeout=20) == 0
    os.close(controller)
    assert [len(chat["messages"]) for chat in platform.chats] == [1, 3, 1]


def test_platform_verbs_become_llmos_hub(tmp_path: Path):
    program = tmp_path / "llmos-hub"
    program.write_text('#!/bin/sh\necho "hub: $@"\nexit 7\n')
    program.chmod(0o755)
    code = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; from llmos.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "up", "--port", "8100"], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (7, "hub: up --port 8100\n")
    program.unlink()
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "Install it with: pip install 'llmos[platform]'" in done.stderr


def test_version_and_overview(run: Run):
    assert run("--version")[1].startswith("llmos 0.")
    assert "  serve " in run()[1]
    assert "for example:" in run("help", "serve")[1]


@pytest.mark.parametrize("verb", ["serve", "set", "scale", "start", "delete"])
def test_waiting_can_be_asked_for_and_declined_wherever_there_is_something_to_wait_for(verb):
    words = {"serve": ["demo://tiny"], "scale": ["chat", "2"], "delete": ["chat"]}.get(verb, ["chat"])
    assert parse([verb, *words, "--wait"])[1].wait
    assert not parse([verb, *words, "--no-wait"])[1].wait
