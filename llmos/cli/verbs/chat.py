"""``chat``: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from itertools import chain
from typing import Any

from llmos.cli.common import add_chat_options, chat_options
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.client.messages import ChatChunk
from llmos.errors import LLMOSError, ModelNotFound, UsageError
from llmos.present.chat import chat_footer, waiting_for
from llmos.present.text import Line, Span

__all__ = ["configure_chat", "run_chat"]

_WELCOME = 'Talking to {model}. Ctrl-D ends, Ctrl-C stops an answer, /new starts over, """ begins and ends many lines.'


def configure_chat(parser: Parser) -> None:
    """Add the arguments of ``chat``."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a name from `llmos models`; by default the only one")
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="*",
        default=[],
        help="ask this and exit; by default read from standard input, or talk on a terminal",
    )
    add_chat_options(parser)


def run_chat(client: Client, args: argparse.Namespace, output: Output) -> str:
    """Ask one question, or hold a conversation; return the last answer."""
    model = args.model or _only_model(client, output)
    talk = _Talk(client, output, model, chat_options(args), args.system)
    typed = sys.stdin.isatty()
    if typed and not args.prompt:
        return _converse(talk, output)
    piped = "" if typed else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (" ".join(args.prompt), piped) if part)
    if not prompt:
        raise UsageError("llmos chat: nothing came on standard input. Write the question after the model's name.")
    return talk.ask(prompt)


def _only_model(client: Client, output: Output) -> str:
    """Return the only model that is ready to chat."""
    usable = [model for model in client.models() if model.id == model.root and model.task in {"", "generate"}]
    names = [model.id for model in usable if model.ready] or [model.id for model in usable]
    if not names:
        raise ModelNotFound("There is no model that you may use. Serve one with: llmos serve demo://smollm2")
    if len(names) > 1:
        raise UsageError(f"llmos chat: which model? You can use: {', '.join(names[:20])}.")
    output.note(f"Asking {names[0]}, the only model that is ready to chat.")
    return names[0]


class _Talk:
    """A conversation with a model."""

    def __init__(self, client: Client, output: Output, model: str, options: dict[str, Any], system: str | None) -> None:
        self._client = client
        self._output = output
        self.model = model
        self._options = options
        self._system = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._system)

    def restart(self) -> None:
        """Start the conversation over."""
        self._messages = list(self._system)

    def ask(self, prompt: str) -> str:
        """Ask a question, write the answer as it arrives, and keep both; an unanswered question isn't kept."""
        messages = [*self._messages, {"role": "user", "content": prompt}]
        answer: list[str] = []
        tokens: int | None = None
        first_after: float | None = None
        begun = time.monotonic()
        try:
            with closing(self._client.stream_chat(self.model, messages, **self._options)) as chunks:
                for chunk in chain(self._first(chunks), chunks):
                    if chunk.text or chunk.reasoning:
                        first_after = first_after if first_after is not None else time.monotonic() - begun
                    if chunk.text:
                        answer.append(chunk.text)
                        self._output.piece(chunk.text)
                    tokens = chunk.completion_tokens if chunk.completion_tokens is not None else tokens
        finally:
            if answer:
                self._output.piece("\n")
                self._messages = [*messages, {"role": "assistant", "content": "".join(answer)}]
        self._output.footer(chat_footer(tokens=tokens, first_after=first_after, seconds=time.monotonic() - begun))
        return "".join(answer)

    def _first(self, chunks: Iterator[ChatChunk]) -> list[ChatChunk]:
        """Return the chunks up to the first with content; meanwhile show the waiting time."""
        if not self._output.redraws:
            return []
        waiting, pieces = _Waiting(self.model), []
        with self._output.live() as live:
            live.show(waiting)
            try:
                for chunk in chunks:
                    pieces.append(chunk)
                    if chunk.text or chunk.reasoning:
                        break
            finally:
                waiting.over = True
        return pieces


class _Waiting:
    """A line with the time spent waiting for an answer; empty once the answer begins."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._since = time.monotonic()
        self.over = False

    def lines(self, *, now: datetime, width: int | None = None) -> list[Line]:  # noqa: ARG002 - part of Renderable
        """Return the line, or no lines if there is nothing to show."""
        text = "" if self.over else waiting_for(self._model, time.monotonic() - self._since)
        return [(Span(text, "dim"),)] if text else []


def _converse(talk: _Talk, output: Output) -> str:
    """Ask questions from a terminal until Ctrl-D; return the last answer."""
    with suppress(ImportError):  # some builds of Python lack it
        import readline  # noqa: F401 - importing it enables line editing in `input`
    output.note(_WELCOME.format(model=talk.model))
    answer = ""
    while True:
        try:
            prompt = _question()
        except EOFError:
            output.piece("\n")
            return answer
        if prompt == "/new":
            talk.restart()
            output.note("Started over.")
        elif prompt in {"/bye", "/exit", "/quit"}:
            return answer
        elif prompt:
            try:
                answer = talk.ask(prompt)
            except KeyboardInterrupt:
                output.note("Stopped the answer.")
            except LLMOSError as error:
                output.note(str(error))


def _question() -> str:
    """Read a question: one line, or several between triple quotes."""
    text = input("> ").strip()
    if not text.startswith('"""'):
        return text
    lines = [text.removeprefix('"""')]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input(". "))
    return "\n".join(lines).rstrip().removesuffix('"""').strip()
