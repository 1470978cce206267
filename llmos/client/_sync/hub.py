# Made from ../_async/hub.py by `make generate`; don't edit it.
"""Search for repositories on a model hub."""

from __future__ import annotations

import os
from typing import Final

import httpx

from llmos.client.addresses import FoundRepository, read_repositories, search_words
from llmos.client.requests import is_loopback
from llmos.errors import Unavailable

__all__ = ["search_hub"]

_HUB: Final = "https://huggingface.co"
_TIMEOUT: Final = 5.0
_LIMIT: Final = 5


def search_hub(model: str) -> list[FoundRepository]:
    """Return the most downloaded GGUF repositories that match a short name.

    Parameters
    ----------
    model
        A short name such as ``qwen3:4b``.

    Raises
    ------
    Unavailable
        The hub can't be reached, or its response can't be decoded; the message is one sentence.
    """
    url = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    params = {
        "search": search_words(model),
        "filter": "gguf",
        "sort": "downloads",
        "direction": "-1",
        "limit": str(_LIMIT),
        "expand[]": "gguf",
    }
    host = httpx.URL(url).host
    try:
        with httpx.Client(timeout=_TIMEOUT, trust_env=not is_loopback(url)) as client:
            response = client.get(f"{url}/api/models", params=params)
        response.raise_for_status()
        return read_repositories(response.json())
    except httpx.HTTPStatusError as error:
        message = f"{host}, which would know what is meant, answered HTTP {error.response.status_code}."
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        message = f"{host}, which would know what is meant, can't be reached from here."
    raise Unavailable(message)
