"""The relay in a real Jupyter server, in front of a small HTTP server in place of API and gateway."""

import asyncio
import json

import pytest
import tornado.httpclient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler


class Echo(RequestHandler):
    """A handler that returns the request, so that tests see what was forwarded."""

    def prepare(self):
        self.application.settings["seen"].append(self.request)

    async def _answer(self):
        self.set_header("Set-Cookie", "stolen=1")
        self.set_header("X-Request-Id", "abc123")
        if self.request.path.endswith("/missing"):
            self.set_status(404)
        self.write(
            {
                "method": self.request.method,
                "uri": self.request.uri,
                "headers": dict(self.request.headers.get_all()),
                "body": self.request.body.decode(),
            }
        )

    get = post = put = patch = delete = _answer


class Slow(RequestHandler):
    """A handler that streams lines until the client disconnects."""

    async def get(self):
        gone = self.application.settings["gone"]
        self.write(b'{"n": 0}\n')
        await self.flush()
        await asyncio.wait_for(gone.wait(), 30)

    def on_connection_close(self):
        self.application.settings["gone"].set()


@pytest.fixture
async def upstream():
    application = Application([(r"/services/llmos/apis/slow", Slow), (r".*", Echo)], seen=[], gone=asyncio.Event())
    server = HTTPServer(application)
    sock, port = bind_unused_port()
    server.add_socket(sock)
    application.settings["port"] = port
    yield application
    server.stop()
    await server.close_all_connections()


@pytest.fixture
def jp_server_config(upstream, monkeypatch):
    base = f"http://127.0.0.1:{upstream.settings['port']}"
    monkeypatch.setenv("LLMOS_URL", f"{base}/services/llmos")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "server-token")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{base}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "invoke-token")
    return {
        "ServerApp": {"jpserver_extensions": {"llmos_server_ext": True}},
        "LLMOSExtension": {"max_body_bytes": 1000},
    }


async def test_the_api_is_asked_with_the_servers_own_token(jp_fetch):
    response = await jp_fetch("llmos", "apis", "llmos.ai", "v1alpha1", "whoami", params={"limit": "1"})
    seen = json.loads(response.body)
    assert seen["uri"] == "/services/llmos/apis/llmos.ai/v1alpha1/whoami?limit=1"
    assert seen["headers"]["Authorization"] == "Bearer server-token"
    assert response.headers["X-Request-Id"] == "abc123"


async def test_models_are_asked_with_the_invoke_token(jp_fetch):
    response = await jp_fetch("llmos", "v1", "chat", "completions", method="POST", body='{"model": "chat"}')
    seen = json.loads(response.body)
    assert (seen["method"], seen["uri"], seen["body"]) == ("POST", "/v1/chat/completions", '{"model": "chat"}')
    assert seen["headers"]["Authorization"] == "Bearer invoke-token"


async def test_cookies_and_the_pages_own_credentials_stay_here(jp_fetch):
    response = await jp_fetch(
        "llmos", "apis", "x", params={"_xsrf": "secret", "watch": "1"}, headers={"Cookie": "session=secret"}
    )
    assert "secret" not in response.body.decode()
    assert json.loads(response.body)["uri"].endswith("?watch=1")
    assert "stolen" not in str(response.headers.get_list("Set-Cookie"))


async def test_an_upstream_error_keeps_its_status(jp_fetch):
    with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
        await jp_fetch("llmos", "apis", "missing")
    assert raised.value.code == 404


@pytest.mark.parametrize("path", ["..%2f..%2fhub", "a/..%2fb", "a/%252e%252e/b", "a//b", "a\n"])
async def test_a_path_cannot_leave_its_target(jp_fetch, upstream, path):
    with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
        await jp_fetch("llmos/apis/" + path)
    assert raised.value.code == 404
    assert upstream.settings["seen"] == []


async def test_a_body_over_the_limit_is_refused_in_words(jp_fetch):
    with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
        await jp_fetch("llmos", "v1", "completions", method="POST", body="x" * 1001)
    assert raised.value.code == 413
    assert "1,001 bytes" in json.loads(raised.value.response.body)["error"]["message"]


async def test_without_log_in_nothing_is_passed_on(http_server_client, jp_base_url, jp_fetch, upstream):
    for method, body in [("GET", None), ("DELETE", None), ("POST", "{}"), ("PUT", "{}"), ("PATCH", "{}")]:
        with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
            await http_server_client.fetch(
                jp_base_url + "llmos/apis/x", method=method, body=body, follow_redirects=False
            )
        assert raised.value.code in (302, 403), method
    assert upstream.settings["seen"] == []


async def test_reading_and_writing_are_authorized_each_for_itself(jp_fetch, jp_serverapp, monkeypatch):
    async def reads_only(_handler, _user, action, resource):
        return (action, resource) == ("read", "llmos")

    monkeypatch.setattr(jp_serverapp.authorizer, "is_authorized", reads_only)
    await jp_fetch("llmos", "apis", "x")
    for method, body in [("DELETE", None), ("POST", "{}"), ("PUT", "{}"), ("PATCH", "{}")]:
        with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
            await jp_fetch("llmos", "apis", "x", method=method, body=body)
        assert raised.value.code == 403, method


async def test_a_stream_comes_as_it_is_made_and_ends_upstream_when_the_page_leaves(
    http_server, http_server_port, jp_base_url, jp_auth_header, upstream
):
    reader, writer = await asyncio.open_connection("127.0.0.1", http_server_port[1])
    writer.write(
        f"GET {jp_base_url}llmos/apis/slow HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: {jp_auth_header['Authorization']}\r\n\r\n".encode()
    )
    await writer.drain()
    received = await asyncio.wait_for(reader.readuntil(b'{"n": 0}\n'), 30)
    assert b"200 OK" in received
    writer.close()
    await asyncio.wait_for(upstream.settings["gone"].wait(), 30)


async def test_a_platform_that_is_away_is_said_in_words(jp_fetch, jp_serverapp):
    jp_serverapp.web_app.settings["llmos_relay"].api_url = "http://127.0.0.1:1/services/llmos"
    with pytest.raises(tornado.httpclient.HTTPClientError) as raised:
        await jp_fetch("llmos", "apis", "x")
    assert raised.value.code == 503
    assert "llmos status" in json.loads(raised.value.response.body)["message"]
