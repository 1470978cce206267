"""Tab completion for the magics: verbs, options, kinds, and names of resources that the caller may see."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.cli.parser import Parser, Verb

__all__ = ["complete", "register_completion"]

_FRESH = 5.0
"""Seconds for which names are cached, since Tab is often pressed several times in a row."""
_PRIORITY = 1000.0
"""A priority above all of IPython's matchers, so that they aren't asked about lines of these magics."""
_cache_key = "_llmos_names"
_LINE_MAGIC = re.compile(r"\s*(?:[\w, ]+=\s*)?(%llmos\s.*)")
_CELL_MAGIC = re.compile(r"\s*(%%(?:llmos|chat)\b)")


def _names(shell: Any, which: str) -> list[str]:
    """Return names from the platform, briefly cached; an empty list on any error, since completion must not raise."""
    cache: dict[str, tuple[float, list[str]]] = shell.__dict__.setdefault(_cache_key, {})
    at, names = cache.get(which, (0.0, []))
    if time.monotonic() - at < _FRESH:
        return names
    try:
        from llmos import Client

        with Client(timeout=1.5, retries=0) as client:
            if which == "models":
                names = [model.id for model in client.models()]
            else:
                names = [item.metadata.name for item in client.collection(which).list()]
    except Exception:  # noqa: BLE001 - completion shows no errors
        names = []
    cache[which] = (time.monotonic(), names)
    return names


def complete(shell: Any, line: str) -> list[str]:
    """Return the completions for the last word of `line`, which begins with a magic."""
    *words, last = line.split(" ") if line else [""]
    words = [word for word in words if word]
    candidates = _candidates(shell, words, last)
    return [candidate for candidate in dict.fromkeys(candidates) if candidate.startswith(last)]


def _candidates(shell: Any, words: Sequence[str], last: str) -> list[str]:
    from llmos.cli.parser import ALIASES, VERBS, build_parser
    from llmos.cli.verbs.completion import fixed_words

    if words[:1] == ["%%chat"]:
        from llmos_widgets.magics import chat_parser

        return [*_names(shell, "models"), *_options(chat_parser())]
    if words[:1] == ["%%llmos"] and len(words) == 1:
        return ["apply"]
    verbs = {name: verb for name, verb in VERBS.items() if verb.notebook}
    if len(words) <= 1:
        return list(verbs)
    verb = verbs.get(ALIASES.get(words[1], words[1]))
    if verb is None:
        return []
    parser = build_parser(verb, "%llmos")
    if last.startswith("-"):
        return _options(parser)
    values = [
        word for action in parser.actions if words[-1] in action.option_strings for word in fixed_words(verb, action)
    ]
    given = [word for word in words[2:] if not word.startswith("-")]
    return values or [*_positional(shell, verb, parser, given), *_options(parser)]


def _positional(shell: Any, verb: Verb, parser: Parser, given: Sequence[str]) -> list[str]:
    """Return the candidates for a verb's next positional argument."""
    from llmos.cli.verbs.completion import OF_KIND, fixed_words, kind_of_names

    actions = [action for action in parser.actions if not action.option_strings]
    action = next(iter(actions[len(given) :]), actions[-1] if actions else None)
    if action is None or (len(given) >= len(actions) and action.nargs != "*"):
        return []
    kind = kind_of_names(verb, action)
    names = _names(shell, given[0] if kind == OF_KIND else kind) if kind else []
    return [*names, *fixed_words(verb, action)]


def _options(parser: Parser) -> list[str]:
    return [option for action in parser.actions for option in action.option_strings if option.startswith("--")]


def _variables(shell: Any, text: str) -> tuple[str, list[str]]:
    """Return the word after an open ``{`` at the end of a prompt, and the matching variables."""
    from llmos_widgets.chat import fillable, from_history

    found = re.search(r"\{([A-Za-z_]\w*)?$", text)
    if found is None:
        return "", []
    word = found[1] or ""
    names = {name: value for name, value in shell.user_ns.items() if not name.startswith("_") and fillable(value)}
    own = [name for name, value in names.items() if not from_history(name, value, shell.user_ns_hidden)]
    return word, [name for name in own if name.startswith(word)]


def _found(shell: Any, full_text: str, cursor_line: int, column: int) -> tuple[str, list[str]] | None:
    """Return the word at the cursor and its completions; None if the cursor isn't in one of these magics."""
    lines = full_text.split("\n")
    before = lines[cursor_line][:column] if cursor_line < len(lines) else ""
    first = next((n for n, text in enumerate(lines) if text.strip()), 0)
    cell = _CELL_MAGIC.match(lines[first])
    if cell and cursor_line > first:
        return _variables(shell, before) if cell[1] == "%%chat" else ("", [])
    if cell and cursor_line == first and column > cell.end():
        text = before.lstrip()
    elif line := _LINE_MAGIC.match(before):
        text = line[1]
    else:
        return None
    return text.rpartition(" ")[2], complete(shell, text)


def register_completion(shell: Any) -> None:
    """Add a matcher to IPython's completer.

    Version 2 of matchers (https://ipython.readthedocs.io/en/stable/api/generated/IPython.core.completer.html) gets
    the whole word, such as ``demo://t``, while hooks get only the part after the last colon, and can suppress other
    matchers.
    """
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="llmos_widgets.completion", priority=_PRIORITY)
    def llmos_matcher(context: Any) -> dict[str, Any]:
        found = _found(shell, context.full_text, context.cursor_line, context.cursor_position)
        if found is None:
            return {"completions": [], "suppress": False}
        word, matches = found
        # only a matcher with results can suppress others; the word itself as the only result changes nothing
        completions = [SimpleCompletion(text=text, type="magic") for text in matches or [word]]
        return {"completions": completions, "suppress": True, "ordered": True, "matched_fragment": word}

    shell.Completer.custom_matchers.append(llmos_matcher)
