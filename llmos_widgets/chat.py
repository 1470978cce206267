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
from llmos_widgets.output import show_bundle
from llmos_widgets.values import ShownOnce

__all__ = ["Answer", "Conversation", "fill_in", "fillable", "stream_answer"]

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_EVERY = 0.08
"""Seconds between two redraws: faster than anyone reads, slow enough for long answers (each redraw sends it all)."""
_WAITING_EVERY = 1.0
"""Seconds between two looks at how long the first piece is waited for."""
_MAX_FILLED = 200_000


class Answer(ShownOnce, str):  # noqa: SLOT000 - it remembers whether it was shown
    """An answer, as a text. Its cell doesn't show it again: it was shown while it came."""

    def show(self) -> None:
        """Show it as it was shown in its cell."""
        show_bundle({"text/html": answer_html(self), "text/plain": str(self)})


@dataclass
class Conversation:
    """What was said so far, with one model.

    Attributes
    ----------
    model
        With whom.
    messages
        In OpenAI's form, oldest first.
    """

    model: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def system(self, text: str) -> None:
        """Say what the model is to be, instead of what was said of that before."""
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *rest]


def fillable(value: Any) -> bool:
    """Return whether a variable can stand in a prompt: text, a number, or a list or tuple of them.

    Nothing else is written out: ``{os}`` or ``{client}`` in a prompt that was copied from somewhere must not hand
    the model what is in them.
    """
    if isinstance(value, list | tuple):
        return all(isinstance(item, str | Number) for item in value)
    return isinstance(value, str | Number)


def fill_in(text: str, names: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Replace ``{name}`` where the notebook has such a variable and it is `fillable`.

    Other braces stay, attributes (``{name.attribute}``) among them: prompts are full of code.

    Returns
    -------
    tuple
        The text, and each ``{name}`` that stayed although the notebook has a variable of that name.

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
    """The answer as it grows, formatted, with a small grey line under it at the end.

    Until the first piece comes the time that passes is shown, by a thread, since the cell's own thread waits: a long
    prompt takes a model a minute to read. The thread has the cell's context, by which the kernel knows where its
    output belongs.
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
        """Redraw, unless it was done just before; before there is a text, what the model thinks is shown."""
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
        """End the waiting; an empty page is taken away."""
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
    """Ask, show the answer while it comes, and remember both.

    Parameters
    ----------
    client
        `llmos.Client`.
    conversation
        What was said before; grows by this question and its answer, also by a part of one that was interrupted.
    prompt
        The question.
    options
        Further fields of the request, such as ``temperature``.

    Raises
    ------
    LLMOSError
        The gateway or the engine refuses; the conversation is as before.
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
        stopped = error.message
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
