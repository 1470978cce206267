"""Tab completion for the magics: verbs, options, kinds, and names from what the caller may see."""

from __future__ import annotations

import argparse
import time
from typing import Any

__all__ = ["complete", "register_completion"]

_FRESH = 5.0
"""Seconds that a list of names is remembered: Tab is pressed several times in a row."""
_cache_key = "_llmos_names"


def _names(shell: Any, which: str) -> list[str]:
    """Names from the platform, remembered for a moment; none when it doesn't answer, since Tab must not raise."""
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
    except Exception:  # noqa: BLE001 - whatever it is, completion stays silent
        names = []
    cache[which] = (time.monotonic(), names)
    return names


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]  # noqa: SLF001 - argparse has no public list


def complete(shell: Any, text: str, line: str) -> list[str]:
    """What can stand in place of `text` at the end of `line`, which begins with a magic."""
    words = line.split()
    if line.endswith(" ") or not words:
        words.append("")
    if words[0] in {"%%chat", "%chat"}:
        options = ["--new", "--system", "--temperature", "--max-tokens"]
        return [c for c in (*options, *_names(shell, "models")) if c.startswith(text)]
    from llmos.cli.parser import VERBS, build_parser
    from llmos.resources import KINDS

    verbs = {name: verb for name, verb in VERBS.items() if verb.notebook}
    if len(words) <= 2:
        return [name for name in verbs if name.startswith(text)]
    verb = verbs.get(words[1])
    if verb is None:
        return []
    if text.startswith("-"):
        return [option for option in _options(build_parser(verb, "%llmos")) if option.startswith(text)]
    candidates: list[str] = []
    if words[1] == "serve":
        candidates = ["demo://tiny", "demo://smollm2", "demo://minilm", "hf://", "file:///"]
    elif words[1] in {"get", "describe", "events", "delete", "explain"}:
        if len(words) <= 3:
            candidates = [name for cls in KINDS.values() for name in (cls.singular, cls.plural)]
        else:
            candidates = _names(shell, words[2])
    elif words[1] in {"logs", "stop", "start", "scale", "set"}:
        candidates = _names(shell, "modelservices")
    return [candidate for candidate in candidates if candidate.startswith(text)]


def register_completion(shell: Any) -> None:
    """Hook into IPython's completer."""

    def completer(shell_: Any, event: Any) -> list[str]:
        return complete(shell_, event.symbol, event.line)

    for magic in ("%llmos", "%%llmos", "%%chat"):
        shell.set_hook("complete_command", completer, str_key=magic)
