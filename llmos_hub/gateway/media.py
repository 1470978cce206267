"""Pictures, sounds and films that a request names by address.

An engine that fetches them does so from where it stands: on the machine's own loopback, inside the cluster, past the
firewall. So a request carries them itself (``data:``), unless the model's ``mediaHosts`` name the host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from llmos.errors import BadRequest, Cause

__all__ = ["check_media"]

_KEY: Final = b'url"'
"""How the names of the fields end that hold one: ``image_url``, ``video_url``, ``url``; in letters of any case."""
_ESCAPE: Final = b"\\u00"
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
"""A letter that needed no escape, which may be one of a field's name."""
_MOST_FIELDS: Final = 100_000
"""Bodies with more commas are not decoded: some 50 ms, however long the data in it."""
_WEB: Final = re.compile(r"https?://([a-z0-9.-]{1,253})(?::[0-9]{1,5})?(?:[/?#][^\\\s]*)?", re.IGNORECASE)


def check_media(body: bytes, data: Any, hosts: Collection[str]) -> None:
    """Refuse a body that would have the engine fetch something.

    Nearly all large bodies have none of the fields, which is seen without decoding them.

    Parameters
    ----------
    body, data
        A JSON object, as far as `llmos_hub.gateway.body.look` looks, and what it is where that was decoded.
    hosts
        From where the model may fetch.

    Raises
    ------
    BadRequest
        With the field; or the body may have one, and can't be read here, where an engine might.
    """
    if data is None:
        data = _decoded(body)
    try:
        _check_messages(data, hosts)
    except RecursionError:
        raise _unread("it is nested too deep") from None


def _check_messages(data: Any, hosts: Collection[str]) -> None:
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if content is None or isinstance(content, str):
            continue
        for field, address in _addresses(content, f"messages[{number}].content"):
            _check(field, address, hosts)


def _decoded(body: bytes) -> Any:
    """A large body, where it may have an address in it."""
    named = _KEY in body or _KEY in body.lower()
    if not named and not (_ESCAPE in body and _ESCAPED_LETTER.search(body)):
        return None
    if body.count(b",") > _MOST_FIELDS:
        raise BadRequest(
            f"The request names pictures or other media and has more than {_MOST_FIELDS:,} fields. Send it in several."
        )
    try:
        return json.loads(body)
    except RecursionError:
        raise _unread("it is nested too deep") from None
    except ValueError as error:
        raise _unread(str(error)[:200]) from None


def _unread(why: str) -> BadRequest:
    return BadRequest(f"The request may name pictures or other media, and can't be read: {why}. Send it as plain JSON.")


def _addresses(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every address of a medium in a message, with the field it stands in."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            if isinstance(item, (dict, list)):
                yield from _addresses(item, f"{path}[{number}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and key.lower().endswith("url"):
                yield f"{path}.{key}", value
            elif isinstance(value, (dict, list)):
                yield from _addresses(value, f"{path}.{key}")


def _check(field: str, address: str, hosts: Collection[str]) -> None:
    if address[:5].lower() == "data:":
        return
    found = _WEB.fullmatch(address)
    if found is not None and found[1].lower() in hosts:
        return
    where = f'from "{found[1]}"' if found is not None else "what is not sent along"
    raise BadRequest(
        f"{field[:100]}: this model fetches nothing {where}. Send the data itself, as data:image/png;base64,…, or have the "
        "host added to the model's mediaHosts.",
        causes=[Cause(field[:100], "must begin with data:")],
    )
