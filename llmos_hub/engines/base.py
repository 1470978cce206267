"""The interface of engines, which turn a spec and a model's files into a process.

An engine is the program that computes: llama.cpp, vLLM, or anything else that serves an OpenAI-compatible API. The
functions here are pure and run nothing; their result is passed to a backend.
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
    """The resources of a machine.

    Attributes
    ----------
    cpus
        Number of CPUs that this process may use.
    memory
        Total memory in bytes.
    gpus
        Name of each GPU.
    """

    cpus: int
    memory: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of an engine to whether it can serve a model, with the reason as half a sentence."""

    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for serving a model.

    Attributes
    ----------
    template
        The process.
    task
        The task of the model: ``generate``, ``embed``, ``rerank``.
    task_reason
        The reason why it has this task.
    memory_estimate
        Estimated memory of a replica in bytes; None if unknown.
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
        """Return whether it can serve these files on that machine, with the reason."""
        ...

    def plan(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> Plan:
        """Return the plan for serving the model.

        Raises
        ------
        Unsupported
            The spec asks for something that the model or the engine can't do.
        Insufficient
            The machine doesn't have the resources that the spec or the model needs.
        """
        ...
