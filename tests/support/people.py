"""Users of a Hub, with servers and kernels, all over HTTP like their browsers."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import wait_until

__all__ = ["HubClient", "Kernel", "Output", "wait_until"]


class HubClient:
    """Operations on a Hub, wherever it runs."""

    start_timeout = 60.0
    """Maximum time in seconds for starting or stopping a server."""

    @property
    def hub_url(self) -> str:
        """The Hub's public URL."""
        raise NotImplementedError

    @property
    def admin_token(self) -> str:
        """A token with all permissions."""
        raise NotImplementedError

    def hub(self, method: str, path: str, *, token: str = "", body: Any = None) -> httpx.Response:
        """Send a request to the Hub's API, by default with the admin's token."""
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        return httpx.request(method, f"{self.hub_url}/hub/api{path}", headers=headers, json=body, timeout=30)

    def add_user(self, name: str, password: str = "", *, admin: bool = False) -> str:
        """Add a user with a password of their own; return the password."""
        password = password or f"{name}-has-a-password"
        body = {"password": password, "one_time": False, "create": True, "admin": admin}
        answer = self.hub("POST", f"/llmos/users/{quote(name, safe='')}/password", body=body)
        assert answer.status_code == 201, answer.text
        return password

    def token(self, user: str, *scopes: str, note: str = "test") -> str:
        """Create a token of a user; without scopes it has all of the user's permissions."""
        body = {"note": note, **({"scopes": list(scopes)} if scopes else {})}
        answer = self.hub("POST", f"/users/{quote(user, safe='')}/tokens", body=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    @contextmanager
    def browser(self, user: str, password: str) -> Iterator[httpx.Client]:
        """Yield a client that has logged in through the log-in page, with its cookies."""
        # a kept connection may be closed by the proxy in the moment in which it is used again
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self.hub_url, timeout=30, follow_redirects=True, limits=limits) as client:
            answer = self.log_in(client, user, password)
            assert "login" not in answer.url.path, answer.text
            yield client

    def log_in(self, client: httpx.Client, user: str, password: str) -> httpx.Response:
        """Send the log-in form like a browser."""
        page = client.get("/hub/login")
        found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert found, page.text
        form = {"username": user, "password": password, "_xsrf": found[1]}
        return client.post("/hub/login", data=form)

    def choose_password(
        self, client: httpx.Client, page: httpx.Response, password: str, **fields: str
    ) -> httpx.Response:
        """Send the form for a new password on `page`."""
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert xsrf, page.text
        form = {"_xsrf": xsrf[1], "new_password": password, "new_password_again": password, **fields}
        return client.post(str(page.url), data=form)

    # Servers

    def server_url(self, user: str, name: str = "") -> str:
        """Return the URL of a user's server."""
        return f"{self.hub_url}/user/{quote(user, safe='')}/" + (f"{name}/" if name else "")

    def start_server(self, user: str, token: str, name: str = "", options: dict[str, Any] | None = None) -> str:
        """Start a notebook server and wait until it is ready; return its URL."""
        path = f"/users/{quote(user, safe='')}/" + (f"servers/{name}" if name else "server")
        answer = self.hub("POST", path, token=token, body=options)
        assert answer.status_code in (201, 202), answer.text

        def ready() -> bool:
            found = self.hub("GET", f"/users/{quote(user, safe='')}", token=token).json()["servers"].get(name)
            if answer.status_code == 202 and found is None:
                pytest.fail(f"{user}'s server didn't start")
            return bool(found and found["ready"])

        wait_until(ready, self.start_timeout, f"{user}'s server is ready")
        return self.server_url(user, name)

    def stop_server(self, user: str, token: str, name: str = "") -> None:
        """Stop a server and wait until it is gone."""
        path = f"/users/{quote(user, safe='')}/" + (f"servers/{name}" if name else "server")
        answer = self.hub("DELETE", path, token=token)
        assert answer.status_code in (202, 204), answer.text

        def gone() -> bool:
            return name not in self.hub("GET", f"/users/{quote(user, safe='')}", token=token).json()["servers"]

        wait_until(gone, self.start_timeout, f"{user}'s server is gone")

    def kernel(self, client: httpx.Client, user: str, name: str = "") -> Kernel:
        """Start a kernel in a user's running server, like their browser, and return it."""
        url = self.server_url(user, name)
        page = client.get(url + "lab")  # goes through the Hub's OAuth and leaves the server's cookies
        assert page.status_code == 200, page.text
        path = httpx.URL(url).path
        cookies = [c for c in client.cookies.jar if c.path in ("/", path)]
        xsrf = next(c.value for c in cookies if c.name == "_xsrf" and c.path == path)
        assert xsrf
        started = client.post(url + "api/kernels", headers={"X-XSRFToken": xsrf}, json={"name": "python3"})
        assert started.status_code == 201, started.text
        return Kernel(url, started.json()["id"], "; ".join(f"{c.name}={c.value}" for c in cookies))


# Kernels


@dataclass
class Output:
    """The output of one cell: its streams, the data of its displays and updates, and its error."""

    text: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def shown(self) -> str:
        """The whole output as text."""
        return "\n".join([self.text, *(str(d.get("text/plain", "")) for d in self.data), self.error])


class Kernel:
    """A kernel, used over its websocket like JupyterLab does (Jupyter's messaging protocol 5.3, in JSON)."""

    def __init__(self, url: str, kernel_id: str, cookies: str) -> None:
        self.address = url.replace("http", "ws", 1) + f"api/kernels/{kernel_id}/channels"
        self._headers = {"Cookie": cookies, "Origin": url.split("/user", maxsplit=1)[0]}
        self._session = uuid.uuid4().hex
        self._stack = ExitStack()
        self._socket: ClientConnection | None = None

    def __enter__(self) -> Self:
        """Open the websocket."""
        address = f"{self.address}?session_id={self._session}"
        self._socket = self._stack.enter_context(
            connect(address, additional_headers=self._headers, max_size=None, open_timeout=30)
        )
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the websocket; the kernel stays."""
        self._stack.close()

    def run(self, code: str, timeout: float = 60.0) -> Output:
        """Run a cell until it is done.

        Raises
        ------
        TimeoutError
            The cell takes longer than `timeout` seconds.
        """
        assert self._socket is not None
        number = uuid.uuid4().hex
        header = {"msg_id": number, "msg_type": "execute_request", "username": "", "version": "5.3"}
        request = {
            "header": {**header, "session": self._session, "date": "2026-01-01T00:00:00Z"},
            "parent_header": {},
            "metadata": {},
            "channel": "shell",
            "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {}},
        }
        self._socket.send(json.dumps(request))
        out, over = Output(), time.monotonic() + timeout
        replied = idle = False
        while not (replied and idle):
            message = json.loads(self._socket.recv(timeout=max(0.0, over - time.monotonic())))
            if message["parent_header"].get("msg_id") != number:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            if kind == "stream":
                out.text += content["text"]
            elif kind in ("display_data", "update_display_data", "execute_result"):
                out.data.append(content["data"])
            elif kind == "error":
                out.error = f"{content['ename']}: {content['evalue']}"
        return out
