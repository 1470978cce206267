"""``%%chat``: a conversation with a model, streamed into the cell as formatted text."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from numbers import Number
from typing import Any

from llmos.errors import LLMOSError
from llmos.present.chat import chat_footer, waiting_for
from llmos_widgets.markdown import answer_html
from llmos_widgets.output import in_notebook, show_bundle
from llmos_widgets.values import ShownOnce

__all__ = ["Answer", "Conversation", "fill_in", "fillable", "stream_answer"]

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_EVERY = 0.08
"""Seconds between two updates: faster than reading, slow enough for long answers, since each update sends all of it."""
_WAITING_EVERY = 1.0
"""Seconds between two updates of the waiting time."""
_MAX_FILLED = 200_000


class Answer(ShownOnce, str):  # noqa: SLOT000 - it remembers whether it was shown
    """An answer as a string. Its own cell doesn't show it again, because it was shown while it arrived."""

    def show(self) -> None:
        """Show the answer as in its own cell."""
        show_bundle({"text/html": answer_html(self), "text/plain": str(self)})


@dataclass
class Conversation:
    """A conversation with one model.

    Attributes
    ----------
    model
        Name of the model.
    messages
        The messages in OpenAI's format, oldest first.
    """

    model: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def system(self, text: str) -> None:
        """Set the system message, in place of an earlier one."""
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *rest]


def fillable(value: Any) -> bool:
    """Return whether a variable can be inserted in a prompt: text, a number, or a list or tuple of them.

    Other values aren't inserted: ``{os}`` or ``{client}`` in a prompt that was copied from somewhere must not reveal
    their contents to the model.
    """
    if isinstance(value, list | tuple):
        return all(isinstance(item, str | Number) for item in value)
    return isinstance(value, str | Number)


def fill_in(text: str, names: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Replace ``{name}`` by the notebook's variable of that name if it is `fillable`.

    Other braces, such as attributes (``{name.attribute}``), stay unchanged, since prompts often contain code.

    Returns
    -------
    tuple
        The text, and each ``{name}`` that wasn't replaced although the notebook has a variable of that name.

    >>> fill_in("Explain {topic} in {words} words: f'{x}'", {"topic": "lists", "words": 10})
    ("Explain lists in 10 words: f'{x}'", [])
    """
    left: dict[str, None] = {}

    def replace(found: re.Match[str]) -> str:
        if found[1] not in names:
            return found[0]
        value = names[found[1]]
        if not fillable(value):
            left[found[0]] = None
            return found[0]
        return str(value)[:_MAX_FILLED]

    return _FIELD.sub(replace, text), list(left)


class _Page:
    """The formatted answer while it grows, with a small grey line below it at the end.

    Until the first chunk arrives, a thread shows the waiting time, since the cell's own thread is blocked: a model may
    take a minute to read a long prompt. The thread runs in the cell's context, by which the kernel assigns its output.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._handle: Any = None
        self._drawn_at = 0.0
        self._lock = threading.Lock()
        self._begun = threading.Event()
        ticker = threading.Thread(
            target=contextvars.copy_context().run, args=(self._tick,), name="llmos-waiting", daemon=True
        )
        ticker.start()

    def _tick(self) -> None:
        since = time.monotonic()
        while not self._begun.wait(_WAITING_EVERY):
            text = waiting_for(self._model, time.monotonic() - since)
            with self._lock:
                if text and not self._begun.is_set():
                    self._show(
                        {"text/html": f'<p><small style="opacity:.6">{escape(text)}</small></p>', "text/plain": text}
                    )

    def draw(self, text: str, *, thought: str = "", footer: str = "", now: bool = False) -> None:
        """Update the page, at most once per interval; while there is no text yet, the model's reasoning is shown."""
        moment = time.monotonic()
        if not now and moment - self._drawn_at < _EVERY:
            return
        self._drawn_at = moment
        html = answer_html(text) if text or not thought else f"<p><em>{escape(thought)}</em></p>"
        if footer:
            html += f'<p><small style="opacity:.6">{escape(footer)}</small></p>'
        with self._lock:
            self._begun.set()
            # never text/markdown: JupyterLab would run what is in it (see `answer_html`)
            self._show({"text/html": html, "text/plain": f"{text}\n\n{footer}" if footer else text})

    def close(self) -> None:
        """Stop showing the waiting time, and clear the page if nothing else was shown."""
        with self._lock:
            waiting = not self._begun.is_set()
            self._begun.set()
            if waiting and self._handle is not None:
                self._show({"text/plain": ""})

    def _show(self, data: dict[str, str]) -> None:
        if self._handle is None:
            self._handle = show_bundle(data, display_id=True)
        else:
            self._handle.update(data, raw=True)


def stream_answer(client: Any, conversation: Conversation, prompt: str, options: Mapping[str, Any]) -> Answer:
    """Send a prompt, show the answer while it arrives, and add both to the conversation.

    Parameters
    ----------
    client
        `llmos.Client`.
    conversation
        The conversation; an interrupted answer is added to it as well.
    prompt
        The user's message.
    options
        Further fields of the request, such as ``temperature``.

    Raises
    ------
    LLMOSError
        The gateway or the engine returned an error; the conversation is unchanged.
    """
    messages = [*conversation.messages, {"role": "user", "content": prompt}]
    page = _Page(conversation.model)
    text, thought, tokens = "", "", None
    first_after: float | None = None
    begun = time.monotonic()
    stopped = ""
    chunks = client.stream_chat(conversation.model, messages, **options)
    try:
        for chunk in chunks:
            if first_after is None and (chunk.text or chunk.reasoning):
                first_after = time.monotonic() - begun
            text += chunk.text
            thought += chunk.reasoning
            tokens = chunk.completion_tokens if chunk.completion_tokens is not None else tokens
            if chunk.finish_reason == "length":
                stopped = "cut off at the token limit"
            if text or thought:
                page.draw(text, thought=thought[-400:])
    except KeyboardInterrupt:
        stopped = "interrupted"
    except LLMOSError as error:
        if not text:
            page.close()
            raise
        stopped = in_notebook(error.message)
    except BaseException:
        page.close()
        raise
    finally:
        chunks.close()
    footer = chat_footer(tokens=tokens, first_after=first_after, seconds=time.monotonic() - begun)
    page.draw(text, footer=" · ".join(part for part in (footer, stopped) if part), now=True)
    if text:
        conversation.messages = [*messages, {"role": "assistant", "content": text}]
    return Answer(text)
