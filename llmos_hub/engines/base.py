"""What every engine does: turn a spec and a model's files into a process.

An engine is the program that computes: llama.cpp, vLLM, whatever serves an OpenAI-compatible API. Nothing
here runs; the functions are pure, and their result is handed to a backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.sources.base import ModelFiles
from llmos_hub.workload import ProcessTemplate

__all__ = ["Engine", "Machine", "Plan", "Verdict"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to compute on.

    Attributes
    ----------
    cpus
        CPUs this process may use.
    memory
        Bytes in all.
    gpus
        Name of each GPU.
    """

    cpus: int
    memory: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can serve a model, and why (not), as half a sentence."""

    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model will be served.

    Attributes
    ----------
    template
        The process.
    task
        What it can be asked for: ``generate``, ``embed``, ``rerank``.
    task_reason
        How that is known.
    memory_estimate
        Bytes a replica will need; None where nothing can be said.
    summary
        One line for people: ``llama.cpp on 8 threads: no GPU found, the file is GGUF``.
    """

    template: ProcessTemplate
    task: Literal["generate", "embed", "rerank"]
    task_reason: str
    memory_estimate: int | None
    summary: str
    notes: tuple[str, ...] = field(default=())


class Engine(Protocol):
    """A program that serves models."""

    name: str
    title: str

    def accepts(self, model: ModelFiles | None, machine: Machine) -> Verdict:
        """Whether it can serve these files on that machine."""
        ...

    def plan(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> Plan:
        """The process that serves it.

        Raises
        ------
        Unsupported
            The spec asks for what the model or the engine can't do.
        Insufficient
            The machine doesn't have what the spec or the model needs.
        """
        ...
