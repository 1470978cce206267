"""The Python SDK of LLMOS: ``llmos.Client()`` and ``llmos.AsyncClient()``.

>>> import llmos
>>> with llmos.Client() as client:  # doctest: +SKIP
...     client.serve("demo://smollm2", name="chat")
...     client.openai().chat.completions.create(model="chat", messages=[...])

Names are imported at first use, so that ``import llmos`` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos import errors, resources
    from llmos.client import AsyncClient, Client, Progress, WatchEvent
    from llmos.configuration import Configuration
    from llmos.errors import LLMOSError
    from llmos.resources import Credential, ModelService, Setting

__all__ = [
    "AsyncClient",
    "Client",
    "Configuration",
    "Credential",
    "LLMOSError",
    "ModelService",
    "Progress",
    "Setting",
    "WatchEvent",
    "__version__",
    "errors",
    "resources",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "llmos.client",
    "Client": "llmos.client",
    "Configuration": "llmos.configuration",
    "Credential": "llmos.resources",
    "LLMOSError": "llmos.errors",
    "ModelService": "llmos.resources",
    "Progress": "llmos.client",
    "Setting": "llmos.resources",
    "WatchEvent": "llmos.client",
}
_MODULES = ("errors", "resources")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"llmos.{name}")
    if name in _HOMES:
        value: Any = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'llmos' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
