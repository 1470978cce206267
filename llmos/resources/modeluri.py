"""Model URIs: ``hf://org/repo``, ``file:///path/model.gguf``, ``volume://name/path``, ``demo://smollm2``."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from llmos.resources import cel

__all__ = ["DEMOS", "ModelURI", "is_repository", "volume_of"]

_SCHEMES = ("hf", "file", "volume", "demo")
DEMOS = ("tiny", "smollm2", "minilm")
_URI = re.compile(r"^([a-z][a-z0-9+]*)://([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])$")
"""A file's name may have all printable characters, also spaces inside."""
_HF = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,100})?(:[^\x00-\x1f\x7f-\x9f\\]{1,255})?$")


_VOLUME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")


def volume_of(uri: str | None) -> tuple[str, str] | None:
    """Return the volume and the path in it that a URI names; None if it names another source.

    >>> volume_of("volume://data/models/a.gguf"), volume_of("demo://tiny")
    (('data', 'models/a.gguf'), None)
    """
    if uri is None or not uri.startswith("volume://"):
        return None
    name, _, path = uri.removeprefix("volume://").partition("/")
    return name, path


def is_repository(text: str) -> bool:
    """Return whether a text has the form of what follows ``hf://``.

    >>> is_repository("Qwen/Qwen3-4B-GGUF:Q8_0"), is_repository("llama3"), is_repository("../x/y")
    (True, False, False)
    """
    return _HF.fullmatch(text) is not None and ".." not in text


def _check_uri(uri: str) -> str:
    found = _URI.fullmatch(uri)
    if not found:
        meant = (
            f' Did you mean "hf://{uri}"?'
            if _HF.fullmatch(uri)
            else f' Did you mean "file://{uri}"?'
            if uri.startswith("/")
            else ""
        )
        raise ValueError(
            f'"{uri[:120]}" is not a model URI such as hf://org/repo, file:///path/model.gguf or demo://smollm2.{meant}'
        )
    scheme, rest = found.groups()
    if scheme not in _SCHEMES:
        message = f'"{scheme}://" is no source that is known here. Use one of: {", ".join(s + "://" for s in _SCHEMES)}'
        raise ValueError(message)
    if scheme == "hf" and not is_repository(rest):
        raise ValueError(
            f'"{uri[:120]}" should read hf://org/repo, hf://org/repo:file.gguf or hf://org/repo@revision:file.gguf'
        )
    if scheme == "demo" and rest not in DEMOS:
        close = get_close_matches(rest, DEMOS, n=1)
        meant = (
            f'Did you mean "demo://{close[0]}"?' if close else f"There are: {', '.join(f'demo://{n}' for n in DEMOS)}."
        )
        raise ValueError(f'"{uri[:120]}" is no demo model. {meant}')
    if scheme == "file" and (not rest.startswith("/") or "/../" in rest + "/"):
        raise ValueError(f'"{uri[:120]}" needs an absolute path without "..": file:///path/model.gguf')
    if scheme == "volume" and (not _VOLUME.fullmatch(rest) or "/../" in rest + "/"):
        raise ValueError(f'"{uri[:120]}" should read volume://NAME/PATH, without "..": volume://data/models/a.gguf')
    return uri


def _uri_rules() -> dict[str, Any]:
    """Return the rules of `_check_uri` for a cluster's API server; for each value at most one rule fails."""
    shown, uri, hf = cel.quoted("self", 120), cel.text(_URI.pattern), cel.text(_HF.pattern)
    schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
    known = " || ".join(f"self.startsWith('{scheme}://')" for scheme in _SCHEMES)
    demos = ", ".join(f"demo://{name}" for name in DEMOS)
    return cel.validations(
        cel.rule(
            f"self.matches({uri})",
            says=f"{shown} + ' is not a model URI such as hf://org/repo, file:///path/model.gguf or demo://smollm2.' + "
            f"(self.matches({hf}) ? ' Did you mean \"hf://' + self + '\"?' : "
            "self.startsWith('/') ? ' Did you mean \"file://' + self + '\"?' : '')",
        ),
        cel.rule(
            f"!self.matches({uri}) || {known}",
            says=f"'\"' + self.split('://')[0] + '://\" is no source that is known here. Use one of: {schemes}'",
        ),
        cel.rule(
            f"!self.startsWith('hf://') || (self.substring(5).matches({hf}) && !self.contains('..'))",
            says=f"{shown} + ' should read hf://org/repo, hf://org/repo:file.gguf or hf://org/repo@revision:file.gguf'",
        ),
        cel.rule(
            "!self.startsWith('file://') || (self.startsWith('file:///') && !(self + '/').contains('/../'))",
            says=f"{shown} + ' needs an absolute path without \"..\": file:///path/model.gguf'",
        ),
        cel.rule(
            f"!self.startsWith('volume://') || "
            f"(self.substring(9).matches({cel.text(_VOLUME.pattern)}) && !(self + '/').contains('/../'))",
            says=f"{shown} + ' should read volume://NAME/PATH, without \"..\": volume://data/models/a.gguf'",
        ),
        cel.rule(
            f"!self.startsWith('demo://') || self.substring(7) in {cel.text(list(DEMOS))}",
            says=f"{shown} + ' is no demo model. There are: {demos}.'",
        ),
    )


ModelURI = Annotated[str, Field(max_length=1024, json_schema_extra=_uri_rules()), AfterValidator(_check_uri)]
"""A model URI with a known scheme."""
