"""Fields added to a request so that one caller's prompts can't be guessed from the timing of another's answers.

Engines cache what they computed for a prompt and reuse it for the next one with the same beginning; llama.cpp also
reports how much it reused (``usage.prompt_tokens_details.cached_tokens``). Where strangers share a model, one of them
could find out another's prompt that way, token by token. vLLM and SGLang separate their caches by ``cache_salt``, which
is derived from the caller here; llama.cpp has no such separation, and is told to compute each prompt again.

Source: https://docs.vllm.ai/en/latest/design/prefix_caching.html (cache isolation for security).
"""

from __future__ import annotations

import base64
import hmac
from functools import lru_cache
from typing import Final

__all__ = ["PromptCaches"]

_ANEW: Final = b'"cache_prompt":false'
_ONLY_LLAMACPP: Final = frozenset({"llamacpp"})
_REMEMBERED: Final = 4096


class PromptCaches:
    """A source of the fields by which engines separate the prompt caches of callers.

    Parameters
    ----------
    secret
        A secret of the platform, the same in all gateways: with it one could make another's salt and share their cache.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"llmos prompt cache", "sha256")
        self._salt = lru_cache(maxsize=_REMEMBERED)(self._make_salt)

    def fields(self, engine: str, uid: str, caller: str) -> bytes:
        """Return JSON fields to append to a request's body, so that they override those that the caller sent.

        Parameters
        ----------
        engine
            The engine that serves the model. An unknown one gets both fields.
        uid
            The uid of the model service.
        caller
            The name of the caller.
        """
        return _ANEW if engine in _ONLY_LLAMACPP else b'%s,"cache_salt":"%s"' % (_ANEW, self._salt(uid, caller))

    def _make_salt(self, uid: str, caller: str) -> bytes:
        digest = hmac.digest(self._secret, f"{uid}\0{caller}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=")
