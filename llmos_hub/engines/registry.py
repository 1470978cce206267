"""The registry of engines. To add one, write a module with a class and list it in `ENGINES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llmos.errors import Unsupported
from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.base import Engine, Machine
from llmos_hub.engines.custom import Custom
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.sources.base import ModelFiles

__all__ = ["ENGINES", "choose"]

ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in (LlamaCpp(), Custom())}
"""Engines by name, in the order in which ``auto`` tries them."""
_ONLY_BY_NAME: Final = ("custom",)


def choose(spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> tuple[Engine, str]:
    """Return the engine that will serve a model, and the reason as half a sentence.

    Raises
    ------
    Unsupported
        The engine in `spec` can't serve these files, or no engine can; the message has the reason of each.
    """
    if spec.engine != "auto":
        engine = ENGINES[spec.engine]
        verdict = engine.accepts(model, machine)
        if not verdict.accepted:
            raise Unsupported(f"{engine.title} can't serve {spec.model}: {verdict.reason}.")
        return engine, f"spec.engine says so; {verdict.reason}"
    reasons = []
    for name, engine in ENGINES.items():
        if name in _ONLY_BY_NAME:
            continue
        verdict = engine.accepts(model, machine)
        if verdict.accepted:
            return engine, verdict.reason
        reasons.append(f"{engine.title}: {verdict.reason}")
    raise Unsupported(f"No engine here can serve {spec.model}. {'; '.join(reasons)}.")
