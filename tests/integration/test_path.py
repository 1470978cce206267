"""The main path through a whole real platform: a model is served, and every kind of client gets an answer."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import openai
import pytest

import llmos
from tests.support.people import wait_until
from tests.support.platform import Platform

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def ada(platform: Platform):
    """Yield the client of a user with a model, her token, and the phases of the model's start."""
    platform.add_user("ada")
    token = platform.token("ada")
    with llmos.Client(
        url=platform.api_url, token=token, gateway_url=f"{platform.gateway_url}/v1", gateway_token=token
    ) as client:
        phases = []
        client.serve("demo://tiny", name="tiny", on_progress=lambda p: phases.append(p.phase), timeout=60)
        yield client, token, phases


@pytest.fixture(params=["gateway", "hub"])
def base_url(request, platform: Platform):
    """Return the URL of the gateway: on its own port, and through the Hub's proxy."""
    return f"{platform.gateway_url}/v1" if request.param == "gateway" else f"{platform.hub_url}/services/llm/v1"


def test_serve_shows_the_way_to_ready_and_ps_what_runs(ada):
    client, _, phases = ada
    assert phases[-1] == "Ready"
    service = client.modelservices.get("tiny")
    assert service.status.engine == "llamacpp"
    assert service.status.task == "generate"
    assert service.status.ready_replicas == 1
    assert {c.type for c in service.status.conditions} >= {"Downloaded", "ModelRecognised", "Ready"}
    assert service.status.memory_estimate
    assert [e.reason for e in client.modelservices.events("tiny")]


def test_the_openai_client_chats(ada, base_url):
    _, token, _ = ada
    with openai.OpenAI(base_url=base_url, api_key=token, max_retries=0) as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=16, temperature=0)
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0
        chunks = list(
            client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=16, temperature=0, stream=True)
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == answer.choices[0].message.content
        assert len(chunks) > 2


def test_the_openai_client_completes(ada, base_url):
    _, token, _ = ada
    with openai.OpenAI(base_url=base_url, api_key=token, max_retries=0) as client:
        whole = client.completions.create(model="tiny", prompt="A list is", max_tokens=8, temperature=0)
        pieces = client.completions.create(model="tiny", prompt="A list is", max_tokens=8, temperature=0, stream=True)
        assert "".join(p.choices[0].text for p in pieces if p.choices) == whole.choices[0].text != ""


def test_embeddings_where_the_model_makes_them(platform, ada, base_url):
    client, token, _ = ada
    try:
        client.serve("demo://minilm", name="embed", timeout=110)
    except llmos.LLMOSError as error:
        if error.code == "model_not_ready" and "registr" in str(error).lower() + "index":
            pytest.skip(f"the embedding model can't be fetched here: {error.message}")
        raise
    with openai.OpenAI(base_url=base_url, api_key=token, max_retries=0) as models:
        found = models.embeddings.create(model="embed", input=["a list", "a dictionary"], encoding_format="float")
        assert [len(item.embedding) for item in found.data] == [384, 384]
        with pytest.raises(openai.BadRequestError, match="embed"):
            models.chat.completions.create(model="embed", messages=MESSAGES)


def test_curl_gets_an_answer(ada, base_url):
    _, token, _ = ada
    body = json.dumps({"model": "tiny", "messages": MESSAGES, "max_tokens": 4})
    command = ["curl", "-sS", f"{base_url}/chat/completions", "-H", f"Authorization: Bearer {token}", "-d", body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"


def test_a_wrong_name_says_what_there_is(ada, base_url):
    _, token, _ = ada
    with (
        openai.OpenAI(base_url=base_url, api_key=token, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match='Did you mean "tiny"') as raised,
    ):
        client.chat.completions.create(model="tniy", messages=MESSAGES)
    assert raised.value.code == "model_not_found"
    assert raised.value.response.headers["x-request-id"]


@pytest.mark.parametrize("token", ["", "nonsense", "../../x"])
def test_without_a_good_token_there_is_no_answer(base_url, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.post(f"{base_url}/chat/completions", headers=headers, json={"model": "tiny", "messages": MESSAGES})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"


def test_a_token_that_is_deleted_in_the_hub_dies(platform, ada, base_url):
    """A real Hub says that it doesn't know a token, without which a refusal wouldn't count."""
    answer = platform.hub("POST", "/users/ada/tokens", body={"note": "short-lived"})
    token, token_id = answer.json()["token"], answer.json()["id"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{base_url}/models", headers=headers).status_code == 200
    assert platform.hub("DELETE", f"/users/ada/tokens/{token_id}").status_code == 204
    codes: list[int] = []

    def refused() -> bool:
        codes.append(httpx.get(f"{base_url}/models", headers=headers).status_code)
        return codes[-1] == 401

    wait_until(refused, timeout=20, what="401 for a deleted token")
    assert set(codes) <= {200, 401}
    assert token not in platform.log("hub")


def test_the_servers_own_variables_are_enough_for_the_openai_client(platform, ada):
    _, token, _ = ada
    platform.start_server("ada", token)
    try:
        environment = platform.server_environment("ada")
        code = (
            "import openai; print(openai.OpenAI().chat.completions.create(model='tiny', max_tokens=4,"
            " messages=[{'role': 'user', 'content': 'Hello'}]).object)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=False
        )
        assert done.stdout.strip() == "chat.completion", done.stderr
        assert environment["OPENAI_API_KEY"] != environment["JUPYTERHUB_API_TOKEN"]
    finally:
        platform.stop_server("ada", token)


def test_the_command_line_does_the_same(platform, ada, tmp_path):
    _, token, _ = ada
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LLMOS_URL": platform.api_url,
        "LLMOS_TOKEN": token,
        "OPENAI_BASE_URL": f"{platform.gateway_url}/v1",
        "OPENAI_API_KEY": token,
    }

    def run(*words, code=0, stdin=""):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("llmos")), *words],
            capture_output=True, text=True, timeout=90, env=environment, input=stdin, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    manifest = "kind: ModelService\nmetadata: {name: second}\nspec: {model: 'demo://tiny', replicas: 2}\n"
    run("apply", "-f", "-", stdin=manifest)
    assert "Ready" in run("start", "second")
    assert "second" in run("ps")
    assert "2/2" in run("ps")
    assert "demo://tiny" in run("describe", "modelservice", "second")
    assert run("logs", "second", "--tail", "5").strip()
    assert run("chat", "second", "Hello").strip()
    assert "Paused" in run("stop", "second") + run("ps")
    assert "deleted" in run("delete", "modelservice", "second")
    assert "second" in run("get", "modelservice", "second", code=1)
    wrong = manifest.replace("replicas: 2", "resources: {memory: 2GiB}")
    assert 'spec.resources.memory: "2GiB" is not a quantity. Did you mean "2Gi"?' in run(
        "apply", "-f", "-", stdin=wrong, code=1
    )
    run("srve", code=2)


def test_what_the_engine_wrote_can_be_read_and_followed(ada):
    client, _, _ = ada
    with closing(client.modelservices.logs("tiny", tail=5)) as pieces:
        assert "".join(pieces).strip()


def test_a_model_that_cannot_be_had_fails_in_words(ada):
    client, _, _ = ada
    with pytest.raises(llmos.errors.ModelNotReady, match="nowhere"):
        client.serve("file:///nowhere/model.gguf", name="nowhere", timeout=60)
    client.modelservices.delete("nowhere")


def test_what_the_machine_does_not_have_is_refused_in_words(ada):
    client, _, _ = ada
    with pytest.raises(llmos.errors.ModelNotReady, match="GPU"):
        client.serve("demo://tiny", name="big", gpus=2, timeout=60)
    client.modelservices.delete("big")


ASKS_FOR_ITS_KEY = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        known = self.headers.get("authorization") == "Bearer " + os.environ["MY_KEY"]
        body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "mine"}}]}).encode()
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_who_only_has_an_account_of_the_machine_can_not_call_an_engine_on_a_port(ada, platform: Platform):
    client, token, _ = ada
    command = [sys.executable, "-c", ASKS_FOR_ITS_KEY, "{port}"]
    service = client.serve(None, "keyed", engine="custom", args=command, env={"MY_KEY": "{api_key}"}, timeout=60)
    (endpoint,) = service.status.endpoints
    body = {"model": "keyed", "messages": MESSAGES}
    for headers in ({}, {"authorization": f"Bearer {token}"}, {"authorization": f"Bearer {platform.token('ada')}"}):
        assert httpx.post(f"{endpoint.url}/v1/chat/completions", json=body, headers=headers).status_code == 401
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(f"{platform.gateway_url}/v1/chat/completions", json=body, headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "mine"
    client.modelservices.delete("keyed")


def test_a_change_that_can_not_be_followed_is_said_at_once_and_nothing_else_changes(ada):
    client, _, _ = ada
    with pytest.raises(llmos.errors.ModelNotReady, match=r"tiny did not change: .*Give it \d+Mi"):
        client.serve("tiny", memory="1Mi", timeout=40)  # well below the minute after which it gives up
    assert client.serve("tiny", memory="256Mi", timeout=60).status.phase == "Ready"
    assert client.serve("tiny", timeout=60).spec.resources.memory == "256Mi"
    with pytest.raises(llmos.errors.ModelNotReady, match="1000Gi asked for, this machine has"):
        client.serve("demo://tiny", "huge", memory="1000Gi", timeout=40)
    client.modelservices.delete("huge")
