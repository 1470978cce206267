"""What is added to a request so that nobody's prompt can be read by how fast another one is answered.

Engines keep what they computed of a prompt and take it up where the next one begins alike; llama.cpp also says how much
that was (``usage.prompt_tokens_details.cached_tokens``). Where strangers share a model, one finds another's prompt so,
a token at a time. vLLM and SGLang part what they keep by ``cache_salt``, which is made here of the caller; llama.cpp
knows no callers, and is told to compute each prompt anew.

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
    """Makes the fields by which engines keep callers apart.

    Parameters
    ----------
    secret
        Known to the platform alone, and the same in all gateways: who could make another's salt would share their cache.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"llmos prompt cache", "sha256")
        self._salt = lru_cache(maxsize=_REMEMBERED)(self._make_salt)

    def fields(self, engine: str, uid: str, caller: str) -> bytes:
        """Fields of a JSON object that end a request's body, so that they count instead of what the caller wrote.

        Parameters
        ----------
        engine
            What serves the model; of an unknown one nothing is known, so it gets both.
        uid
            The model's.
        caller
            Who asks.
        """
        return _ANEW if engine in _ONLY_LLAMACPP else b'%s,"cache_salt":"%s"' % (_ANEW, self._salt(uid, caller))

    def _make_salt(self, uid: str, caller: str) -> bytes:
        digest = hmac.digest(self._secret, f"{uid}\0{caller}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=")
