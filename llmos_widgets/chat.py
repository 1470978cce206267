"""``%%chat``: a conversation with a model, streamed into the cell as formatted text."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from llmos.errors import LLMOSError
from llmos.present.chat import chat_footer
from llmos_widgets.markdown import answer_html

__all__ = ["Answer", "Conversation", "fill_in", "stream_answer"]

_FIELD = re.compile(r"\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")
_EVERY = 0.08
"""Seconds between two redraws: faster than anyone reads, slow enough for long answers (each redraw sends it all)."""
_MAX_FILLED = 200_000


class Answer(str):
    """An answer, as a text. A cell doesn't show it again: it was shown while it came."""

    __slots__ = ()

    def _ipython_display_(self) -> None:
        """Show nothing."""


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


def fill_in(text: str, names: Mapping[str, Any]) -> str:
    """The text with ``{name}`` and ``{name.attribute}`` replaced where the notebook has such a variable.

    Other braces stay: prompts are full of code.

    >>> fill_in("Explain {topic} in {words} words: f'{x}'", {"topic": "lists", "words": 10})
    "Explain lists in 10 words: f'{x}'"
    """

    def replace(found: re.Match[str]) -> str:
        first, *attributes = found[1].split(".")
        if first not in names:
            return found[0]
        value = names[first]
        for attribute in attributes:
            if attribute.startswith("_") or not hasattr(value, attribute):
                return found[0]
            value = getattr(value, attribute)
        return str(value)[:_MAX_FILLED]

    return _FIELD.sub(replace, text)


class _Page:
    """The answer as it grows, formatted, with a small grey line under it at the end."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn_at = 0.0

    def draw(self, text: str, *, thought: str = "", footer: str = "", now: bool = False) -> None:
        """Redraw, unless it was done just before; before there is a text, what the model thinks is shown."""
        moment = time.monotonic()
        if not now and moment - self._drawn_at < _EVERY:
            return
        self._drawn_at = moment
        html = answer_html(text) if text or not thought else f"<p><em>{escape(thought)}</em></p>"
        if footer:
            html += f'<p><small style="opacity:.6">{escape(footer)}</small></p>'
        # never text/markdown: JupyterLab would run what is in it (see `answer_html`)
        data = {"text/html": html, "text/plain": f"{text}\n\n{footer}" if footer else text}
        if self._handle is None:
            from llmos_widgets.output import show_bundle

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
    page = _Page()
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
            page.draw(text, thought=thought[-400:])
    except KeyboardInterrupt:
        stopped = "interrupted"
    except LLMOSError as error:
        if not text:
            raise
        stopped = error.message
    finally:
        chunks.close()
    footer = chat_footer(tokens=tokens, first_after=first_after, seconds=time.monotonic() - begun)
    page.draw(text, footer=" · ".join(part for part in (footer, stopped) if part), now=True)
    if text:
        conversation.messages = [*messages, {"role": "assistant", "content": text}]
    return Answer(text)
