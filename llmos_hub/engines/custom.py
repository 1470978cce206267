"""Engine ``custom``: any program that speaks OpenAI's API, started by the command in ``spec.args``."""

from __future__ import annotations

from typing import Literal

from llmos.errors import Cause, Insufficient, Invalid
from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.base import Machine, Plan, Verdict
from llmos_hub.engines.llamacpp import task_of
from llmos_hub.engines.memory import check_limit
from llmos_hub.sources.base import ModelFiles
from llmos_hub.workload import Probe, ProcessTemplate

__all__ = ["Custom", "check_listens"]

_READINESS = Probe("/v1/models", period=1.0, timeout=5.0, failures=5)


class Custom:
    """The engine that runs a user's command; the platform only needs to know where it listens."""

    name = "custom"
    title = "custom command"

    def accepts(self, model: ModelFiles | None, machine: Machine) -> Verdict:  # noqa: ARG002 - the protocol's
        """Accept everything: only the program knows what it can serve."""
        return Verdict(True, "spec.args says what to run")

    def plan(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> Plan:
        """Return a plan with the command; ``{model}`` is replaced here, ``{port}`` and ``{socket}`` by the backend.

        Raises
        ------
        Invalid
            The command doesn't say where to listen, or needs a model although the spec has none.
        Insufficient
            The spec asks for more memory or GPUs than the machine has.
        """
        check_listens(spec)
        _check_resources(spec, machine)
        path = model.path if model else ""
        if model is None and any("{model}" in text for text in (*spec.args, *spec.env.values())):
            raise Invalid(
                "spec.args: {model} stands for the model's file, but spec.model is empty.",
                causes=[Cause("spec.model", "required by {model} in args")],
            )
        template = ProcessTemplate(
            argv=tuple(argument.replace("{model}", path) for argument in spec.args),
            env={name: value.replace("{model}", path) for name, value in spec.env.items()},
            readiness=_READINESS,
            startup_timeout=1800.0,  # long, since it is unknown what the program loads
            memory_limit=spec.resources.memory_bytes,
            cpus=spec.resources.cpus,
        )
        task, reason = _task(spec, model)
        program = spec.args[0].rpartition("/")[2]
        return Plan(
            template, task, reason, None, f"{program}, as spec.args says; ready when GET {_READINESS.path} answers"
        )


def _task(spec: ModelServiceSpec, model: ModelFiles | None) -> tuple[Literal["generate", "embed", "rerank"], str]:
    if spec.task != "auto":
        return spec.task, "spec.task says so"
    if model is not None and model.header.architecture:
        return task_of(model.header)
    return "generate", "nothing says otherwise; spec.task can"


def check_listens(spec: ModelServiceSpec) -> None:
    """Refuse a command that doesn't say where to listen.

    Raises
    ------
    Invalid
        The command has neither ``{port}`` nor ``{socket}``, or both; or the key is among the arguments.
    """
    if not spec.args:
        raise Invalid(
            'spec.args: engine custom needs its command, such as ["my-server", "--port", "{port}"].',
            causes=[Cause("spec.args", "is empty")],
        )
    texts = (*spec.args, *spec.env.values())
    ways = [way for way in ("{port}", "{socket}") if any(way in text for text in texts)]
    if not ways:
        raise Invalid(
            "spec.args: the command doesn't say where to listen. Put {port} (a free port on 127.0.0.1) or {socket} "
            '(the path of a unix socket) where it belongs, such as ["my-server", "--port", "{port}"].',
            causes=[Cause("spec.args", "neither {port} nor {socket} is in it")],
        )
    if any("{api_key}" in text for text in spec.args):
        raise Invalid(
            "spec.args: {api_key} would be seen by everyone on the machine. Put it into spec.env, such as "
            '{"MY_KEY": "{api_key}"}; LLMOS_ENGINE_KEY and VLLM_API_KEY hold it anyway.',
            causes=[Cause("spec.args", "{api_key} belongs into spec.env")],
        )
    if len(ways) == 2:
        raise Invalid(
            "spec.args: both {port} and {socket} are in the command; the platform reaches it at one. Keep one.",
            causes=[Cause("spec.args", "both {port} and {socket} are in it")],
        )


def _check_resources(spec: ModelServiceSpec, machine: Machine) -> None:
    if spec.resources.gpus > len(machine.gpus):
        raise Insufficient(
            f"spec.resources.gpus: {spec.resources.gpus} asked for, this machine has {len(machine.gpus) or 'none'}.",
            causes=[Cause("spec.resources.gpus", f"{len(machine.gpus)} found")],
        )
    check_limit(spec, machine)
