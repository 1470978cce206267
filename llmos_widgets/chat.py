"""``%%chat``: a conversation with a model, streamed into the cell as formatted text."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from html import escape
from numbers import Number
from typing import Any

from llmos.errors import LLMOSError
from llmos.present.chat import chat_footer, waiting_for
from llmos_widgets.markdown import answer_html
from llmos_widgets.output import RedrawnPart, in_notebook, show_bundle
from llmos_widgets.values import ShownOnce

__all__ = ["Answer", "Conversation", "fill_in", "fillable", "from_history", "stream_answer"]

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_EVERY = 0.08
"""Seconds between two updates: faster than reading, slow enough for long answers, since each update sends all of it."""
_MAX_FILLED = 200_000
_NONE: Mapping[str, Any] = {}


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


def from_history(name: str, value: Any, hidden: Mapping[str, Any]) -> bool:
    """Return whether a variable is one in which IPython keeps earlier cells, such as ``In``, ``_dh`` or ``_i3``.

    They aren't inserted either, except for ``_``, the last result. `hidden` is the shell's ``user_ns_hidden``; variables
    of startup files are there too, and are their owner's own.
    """
    return (name == "In" or (name.startswith("_") and name != "_")) and hidden.get(name) is value


def fill_in(text: str, names: Mapping[str, Any], hidden: Mapping[str, Any] = _NONE) -> tuple[str, list[str]]:
    """Replace ``{name}`` by the notebook's variable of that name if it is `fillable` and not `from_history`.

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
        if not fillable(value) or from_history(found[1], value, hidden):
            left[found[0]] = None
            return found[0]
        return str(value)[:_MAX_FILLED]

    return _FIELD.sub(replace, text), list(left)


class _Page(RedrawnPart):
    """The formatted answer while it grows, with a small grey line below it at the end; until it begins, the waiting time.

    The waiting time is drawn by a thread, since the cell's own thread is blocked: a model may take a minute to read a
    long prompt.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._since = time.monotonic()
        self._drawn_at = 0.0
        super().__init__(lambda answer: answer or self._waiting())
        self.show({})

    def _waiting(self) -> dict[str, str]:
        text = waiting_for(self._model, time.monotonic() - self._since)
        return {"text/html": f"<p>{_small(text)}</p>", "text/plain": text} if text else {}

    def write(self, text: str, *, thought: str = "", footer: str = "", now: bool = False) -> None:
        """Update the page, at most once per interval; while there is no text yet, the model's reasoning is shown."""
        moment = time.monotonic()
        if not now and moment - self._drawn_at < _EVERY:
            return
        self._drawn_at = moment
        html = answer_html(text) if text or not thought else f"<p><em>{escape(thought)}</em></p>"
        if footer:
            html += f"<p>{_small(footer)}</p>"
        # never text/markdown: JupyterLab would run what is in it (see `answer_html`)
        self.show({"text/html": html, "text/plain": f"{text}\n\n{footer}" if footer else text})

    def close(self) -> None:
        """End the updates, and clear the page if only the waiting time was shown."""
        super().close()
        if self._shown and not self._content:
            self.show({"text/plain": ""})


def _small(text: str) -> str:
    return f'<small style="opacity:.6">{escape(text)}</small>'


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
    text, thought, tokens = "", "", None
    first_after: float | None = None
    begun = time.monotonic()
    stopped = ""
    chunks = client.stream_chat(conversation.model, messages, **options)
    with closing(_Page(conversation.model)) as page, closing(chunks):
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
                    page.write(text, thought=thought[-400:])
        except KeyboardInterrupt:
            stopped = "interrupted"
        except LLMOSError as error:
            if not text:
                raise
            stopped = in_notebook(error.message)
        footer = chat_footer(tokens=tokens, first_after=first_after, seconds=time.monotonic() - begun)
        page.write(text, footer=" · ".join(part for part in (footer, stopped) if part), now=True)
    if text:
        conversation.messages = [*messages, {"role": "assistant", "content": text}]
    return Answer(text)
