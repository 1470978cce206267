"""Clients that send requests in a loop during faults; their results are counted and timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import httpx

__all__ = ["Loop", "Outcome", "chat", "stream_chat"]

MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Outcome:
    """The result of one request: its start (`time.monotonic`), its duration in seconds, and its error."""

    at: float
    took: float
    error: str

    @property
    def over(self) -> float:
        return self.at + self.took


class Loop:
    """A loop of requests in each of several clients, while it is open.

    Parameters
    ----------
    ask
        Sends one request; its exception is the error.
    clients
        Number of clients.
    fresh
        Whether each request opens its own connection, like ``curl``.
    timeout
        Timeout for connecting and for each response.
    pause
        Seconds between two requests of a client.
    """

    def __init__(
        self,
        ask: Callable[[httpx.Client], None],
        *,
        clients: int = 1,
        fresh: bool = False,
        timeout: httpx.Timeout | float = 30.0,
        pause: float = 0.02,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._ask, self._fresh, self._timeout, self._pause = ask, fresh, timeout, pause
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        """Start the clients."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the clients after their running requests."""
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _run(self) -> None:
        with httpx.Client(timeout=self._timeout, trust_env=False) as kept:
            while not self._over.wait(self._pause):
                began, error = time.monotonic(), ""
                try:
                    if self._fresh:
                        with httpx.Client(timeout=self._timeout, trust_env=False) as client:
                            self._ask(client)
                    else:
                        self._ask(kept)
                except (httpx.HTTPError, AssertionError) as failure:
                    error = f"{type(failure).__name__}: {str(failure)[:300]}"
                self.outcomes.append(Outcome(began, time.monotonic() - began, error))

    @property
    def errors(self) -> list[Outcome]:
        """The failed requests, oldest first."""
        return sorted((one for one in self.outcomes if one.error), key=lambda one: one.over)

    @property
    def slowest(self) -> float:
        """Duration of the slowest request in seconds."""
        return max((one.took for one in self.outcomes), default=0.0)

    def healed(self, broken_at: float) -> float:
        """Return the seconds from `broken_at` until the last error ended; 0 without errors."""
        return max((one.over - broken_at for one in self.errors), default=0.0)

    def words(self, broken_at: float) -> str:
        """Return the figures as a sentence."""
        said = f"{len(self.outcomes)} requests, {len(self.errors)} errors, the slowest {self.slowest:.1f} s"
        if self.errors:
            first, last = self.errors[0].error, self.healed(broken_at)
            said += f", the last error over after {last:.1f} s; the first: {first}"
        return said


def chat(gateway_url: str, token: str, model: str, tokens: int = 4) -> Callable[[httpx.Client], None]:
    """Return a request for a complete answer."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": tokens}

    def ask(client: httpx.Client) -> None:
        answer = client.post(
            f"{gateway_url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"

    return ask


def stream_chat(gateway_url: str, token: str, model: str, tokens: int = 200) -> Callable[[httpx.Client], None]:
    """Return a request for a stream, which must arrive completely."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": tokens, "stream": True}

    def ask(client: httpx.Client) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with client.stream("POST", f"{gateway_url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status_code == 200, f"{answer.status_code} {answer.read()!r}"
            lines = [line for line in answer.iter_lines() if line]
        assert not any('"error"' in line for line in lines), next(line for line in lines if '"error"' in line)
        assert lines[-1] == "data: [DONE]", lines[-1]

    return ask
