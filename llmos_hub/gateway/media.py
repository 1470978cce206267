"""Images, audio and video that a request refers to by URL.

An engine would fetch them from inside: from the machine's own loopback or the cluster's network, behind the firewall.
So a request has to contain them (``data:``), unless the model's ``mediaHosts`` list the host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from llmos.errors import BadRequest, Cause

__all__ = ["check_media"]

_KEY: Final = b'url"'
"""Ending of the names of fields with a URL: ``image_url``, ``video_url``, ``url``; in upper or lower case."""
_ESCAPE: Final = b"\\u00"
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
"""A letter that is escaped without need, and may be part of a field's name."""
_MOST_FIELDS: Final = 100_000
"""Bodies with more commas are not decoded. Decoding takes about 50 ms then, however long the data in the body is."""
_WEB: Final = re.compile(r"https?://([a-z0-9.-]{1,253})(?::[0-9]{1,5})?(?:[/?#][^\\\s]*)?", re.IGNORECASE)


def check_media(body: bytes, data: Any, hosts: Collection[str]) -> None:
    """Refuse a body that would have the engine fetch something.

    Nearly all large bodies have no such field, which can be seen without decoding them.

    Parameters
    ----------
    body, data
        A JSON object that `llmos_hub.gateway.body.parse_body` accepted, and the decoded value that it returned or None.
    hosts
        The hosts from which the model may fetch.

    Raises
    ------
    BadRequest
        A field has a URL that is not allowed; or the body may have such a field and can't be parsed here,
        while an engine might parse it.
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
    """Return the decoded body if it may contain a URL field, otherwise None."""
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
    """Yield each media URL in a message, after the path of its field."""
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
    where = f'from "{found[1]}"' if found is not None else "from this address"
    raise BadRequest(
        f"{field[:100]}: this model may not fetch media {where}. Send the data itself, as data:image/png;base64,…, or have the "
        "host added to the model's mediaHosts.",
        causes=[Cause(field[:100], "must begin with data:")],
    )
