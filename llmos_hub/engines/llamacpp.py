"""Engine ``llamacpp``: llama.cpp through `xllamacpp`, for GGUF models on CPUs, and on GPUs if the build has them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final, Literal

from llmos.errors import Cause, Insufficient, Invalid, Unsupported
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.quantities import format_bytes
from llmos_hub.engines.base import Machine, Plan, Verdict
from llmos_hub.engines.llamacpp_arguments import BadArgument, parse
from llmos_hub.engines.llamacpp_build import find_build
from llmos_hub.engines.memory import MIB, Estimate, MemorySettings, at_least, check_limit, estimate
from llmos_hub.sources.base import Header, ModelFiles
from llmos_hub.workload import Probe, ProcessTemplate

__all__ = ["LlamaCpp", "task_of"]

Task = Literal["generate", "embed", "rerank"]

_LADDER: Final = ((4, 8192), (2, 8192), (2, 4096), (1, 4096), (1, 2048), (1, 1024))
"""Concurrent requests and tokens for each, best first; the first that fits the memory is used."""
_LADDER_EMBED: Final = ((4, 2048), (4, 1024), (4, 512), (1, 512))
_MODEST: Final = 512 * MIB
"""Memory in addition to the weights that a model may use by default."""
_LIMIT_FLOOR: Final = 256 * MIB
_DEMO_TOKENS: Final = 512
_DEMO_PENALTY: Final = "1.15"
_HTTP_THREADS: Final = 32
"""Threads for waiting requests, so that one is free for health checks."""
_LIVENESS: Final = Probe("/health", period=10.0, timeout=10.0, failures=12)
"""Tolerant, so that a busy machine doesn't end requests under way."""
_READINESS: Final = Probe("/health", period=1.0, timeout=5.0, failures=5)
_PARTED: Final = (
    "Callers' prompts are kept separate: each is computed again. An admin may set promptCache: shared, which answers "
    "sooner, but lets people find out by trying what others asked."
)
_GENERATING_ENCODERS: Final = ("t5",)
_NOT_SERVED: Final = {
    "adapter": "it is an adapter (LoRA), not a model: serve the model it belongs to, with the adapter in args: --lora PATH",
    "mmproj": "it is the vision part of a model (mmproj), not a model: name it in args with --mmproj",
    "clip": "it is the vision part of a model (mmproj), not a model: name it in args with --mmproj",
    "dream": "diffusion models have no server in llama.cpp",
    "llada": "diffusion models have no server in llama.cpp",
}


def task_of(header: Header) -> tuple[Task, str]:
    """Return the task of a model, and how its header shows it."""
    if header.classifier or header.pooling == "rank":
        return "rerank", "the header has a classification head"
    if header.pooling in ("mean", "cls", "last"):
        return "embed", f"the header asks for {header.pooling} pooling"
    if not header.causal and not header.architecture.startswith(_GENERATING_ENCODERS):
        return "embed", "the header says that attention is not causal: an encoder"
    return "generate", "the header names neither pooling nor a classification head"


class LlamaCpp:
    """The engine that serves GGUF files with llama.cpp."""

    name = "llamacpp"
    title = "llama.cpp"

    def accepts(self, model: ModelFiles | None, machine: Machine) -> Verdict:
        """Accept GGUF files of architectures that llama.cpp's server can serve."""
        if model is None:
            return Verdict(False, "it needs a model")
        if model.format != "gguf":
            return Verdict(False, f"it reads GGUF, the files are {model.format}")
        if reason := _NOT_SERVED.get(model.header.type or model.header.architecture):
            return Verdict(False, reason)
        return Verdict(True, f"{_where(machine)}, the file is GGUF")

    def plan(self, spec: ModelServiceSpec, model: ModelFiles | None, machine: Machine) -> Plan:
        """Return the plan for serving the model.

        Raises
        ------
        Invalid
            An argument is unknown or invalid.
        Unsupported
            The model can't do `spec.task`, or this llama.cpp can't use the GPUs that the spec asks for.
        Insufficient
            There is not enough memory, or there are not enough GPUs.
        """
        verdict = self.accepts(model, machine)
        if not verdict.accepted or model is None:
            raise Unsupported(f"{self.title} can't serve {spec.model}: {verdict.reason}.")
        check_limit(spec, machine)
        task, task_reason = _task(spec, model)
        on_gpu = _uses_gpu(spec, machine)
        users = _users_arguments(spec)
        settings, need = _fit(spec, model, machine, task, users, on_gpu=on_gpu)
        threads = _threads(spec, machine)
        flags = _flags(spec, model, task, settings, threads, on_gpu=on_gpu)
        module = [sys.executable, "-I", "-m", "llmos_hub.engines.llamacpp_server"]
        template = ProcessTemplate(
            argv=(*module, "--socket", "{socket}", "--model", model.path, *flags, "--", *spec.args),
            env=dict(spec.env),
            readiness=_READINESS,
            liveness=_LIVENESS,
            startup_timeout=60.0 + model.size / 20e6,  # a slow disk reads 20 MB/s
            memory_limit=_limit(spec, machine, need.total, on_gpu=on_gpu),
            memory_request=None if on_gpu else need.total,
            cpus=spec.resources.cpus,
        )
        where = f"the GPU ({machine.gpus[0]})" if on_gpu else f"{threads} thread{'s' if threads != 1 else ''}"
        summary = f"{self.title} on {where}: {verdict.reason}"
        notes = [*_notes(model, task, settings, users, need, on_gpu=on_gpu)]
        if task == "generate" and spec.prompt_cache == "perCaller":
            notes.append(_PARTED)
        if (asked := _cpus_asked_for(spec)) > machine.cpus:
            notes.append(
                f"resources.cpu asks for {asked} CPUs; the machine has {machine.cpus}, and as many threads are used."
            )
        if threads == machine.cpus - 1 and not spec.resources.cpu:
            notes.append(f"One of {machine.cpus} CPUs is left to everything else; resources.cpu says otherwise.")
        return Plan(template, task, task_reason, None if on_gpu else need.total, summary, tuple(notes))


def _where(machine: Machine) -> str:
    """Return half a sentence that says which GPU there is, and whether this build uses it."""
    if not machine.gpus:
        return "no GPU found"
    if find_build().devices:
        return f"on {machine.gpus[0]}"
    return f"{machine.gpus[0]} is not used, since this build of llama.cpp computes on CPUs only"


def _threads(spec: ModelServiceSpec, machine: Machine) -> int:
    """Return the number of threads to compute on: the CPUs that the spec asks for and the machine has, otherwise all but one.

    llama.cpp's threads wait for each other at every step, so one that shares its CPU with another process delays all:
    on two CPUs with another busy process, two threads generated 20 tokens a second, and one thread 120.
    """
    if asked := _cpus_asked_for(spec):
        return min(asked, machine.cpus)
    return max(1, machine.cpus - 1)


def _cpus_asked_for(spec: ModelServiceSpec) -> int:
    """Return the CPUs that the spec asks for, rounded up; 0 if it does not say."""
    return math.ceil(spec.resources.cpus or 0)


def _task(spec: ModelServiceSpec, model: ModelFiles) -> tuple[Task, str]:
    """Return the task of the service, which is `spec.task` if the model can do it, and the reason."""
    able, reason = task_of(model.header)
    if spec.task in ("auto", able):
        return able, reason
    if spec.task == "embed" and able == "generate":
        return "embed", "spec.task says so; this model was made to generate, so its embeddings may be poor"
    name = model.header.name or PurePath(model.path).name
    what = {"generate": "a generating", "embed": "an embedding", "rerank": "a reranking"}[able]
    raise Unsupported(
        f'spec.task: {name} is {what} model ({reason}) and can\'t be served for "{spec.task}". '
        f"Leave task out, or choose a model that was made to {spec.task}.",
        causes=[Cause("spec.task", f"the model can only {able}")],
    )


def _uses_gpu(spec: ModelServiceSpec, machine: Machine) -> bool:
    """Return whether layers are put on a GPU: if there is one and this build can use it."""
    wanted, there = spec.resources.gpus, len(machine.gpus)
    if wanted > there:
        found = "none was found" if there == 0 else f"there {'is' if there == 1 else 'are'} {there}"
        raise Insufficient(
            f"spec.resources.gpus: {wanted} GPU{'s' if wanted > 1 else ''} asked for, {found}. llama.cpp also computes on CPUs: leave gpus out.",
            causes=[Cause("spec.resources.gpus", found)],
        )
    if not machine.gpus:
        return False
    usable = bool(find_build().devices)
    if wanted and not usable:
        raise Unsupported(
            "spec.resources.gpus: the llama.cpp that is installed here computes on CPUs only. Leave gpus out, or install a build for your GPU (docs/how-to/use-gpus.md).",
            causes=[Cause("spec.resources.gpus", "this llama.cpp computes on CPUs only")],
        )
    return usable


def _users_arguments(spec: ModelServiceSpec) -> Mapping[str, Any]:
    """Return the parsed `spec.args`; they are checked if llama.cpp is installed here."""
    if not spec.args:
        return {}
    for placeholder in ("{port}", "{socket}"):
        if any(placeholder in argument for argument in spec.args):
            raise Invalid(
                f"spec.args: {placeholder} is for engine custom; the platform decides where llama.cpp listens.",
                causes=[Cause("spec.args", f"{placeholder} can't be used")],
            )
    parameters = find_build().parameters
    if parameters is None:
        return {}
    try:
        return parse(spec.args, parameters)
    except BadArgument as error:
        raise Invalid(
            f"spec.args: {error}" + ("" if str(error).endswith("?") else "."), causes=[Cause("spec.args", str(error))]
        ) from error


def _settings(
    task: Task, slots: int, per_slot: int, header: Header, users: Mapping[str, Any], *, keeps: bool
) -> MemorySettings:
    """Return the settings for a number of slots; the user's arguments take precedence.

    Parameters
    ----------
    keeps
        True if prompts are cached, to answer faster when another one has the same beginning.
    """
    slots = max(1, int(users.get("n_parallel", slots)))
    trained = header.context_length or per_slot
    context = int(users.get("n_ctx", 0)) or min(trained, per_slot) * slots
    # an embedding is computed of a whole text at once
    batch = context // slots if task != "generate" else min(512, context)
    settings = MemorySettings(
        context=context,
        slots=slots,
        batch=int(users.get("n_ubatch", batch)),
        key_type=str(users.get("cache_type_k", "f16")),
        value_type=str(users.get("cache_type_v", "f16")),
        embeddings=task != "generate",
    )
    kept = (
        0
        if task != "generate" or not keeps
        else min(1024 * MIB, max(16 * MIB, estimate(header, 0, settings).context // 2))
    )
    return replace(settings, prompt_cache=int(users["cache_ram_mib"]) * MIB if "cache_ram_mib" in users else kept)


def _fit(
    spec: ModelServiceSpec, model: ModelFiles, machine: Machine, task: Task, users: Mapping[str, Any], *, on_gpu: bool
) -> tuple[MemorySettings, Estimate]:
    """Return the best settings whose memory is available and in proportion to the model."""
    there = spec.resources.memory_bytes or machine.memory
    modest = model.size + (max(_MODEST, model.size * 4 // 5) if task == "generate" else 2 * _MODEST)
    enough = there if spec.resources.memory else min(there, modest)
    tried: list[tuple[MemorySettings, Estimate]] = []
    for slots, per_slot in _LADDER if task == "generate" else _LADDER_EMBED:
        settings = _settings(task, slots, per_slot, model.header, users, keeps=spec.prompt_cache != "perCaller")
        need = estimate(model.header, model.size, settings)
        if need.total <= enough:
            return settings, need
        tried.append((settings, need))
    settings, need = tried[-1]
    if need.total > there and not on_gpu:
        raise _too_large(spec, model, machine, settings, need)
    return settings, need


def _too_large(
    spec: ModelServiceSpec, model: ModelFiles, machine: Machine, settings: MemorySettings, need: Estimate
) -> Insufficient:
    """Return the error that says how much memory is missing and what would help."""
    name = model.header.name or PurePath(model.path).name
    parts = (
        f"{format_bytes(need.weights)} weights, "
        f"{format_bytes(need.context + need.compute + need.prompt_cache)} for {settings.context:,} tokens of context "
        f"and buffers, {format_bytes(need.process)} for llama.cpp itself"
    )
    field = "spec.resources.memory" if spec.resources.memory else "spec.model"
    limit = spec.resources.memory_bytes or machine.memory
    have = (
        f"spec.resources.memory gives it {format_bytes(limit)}"
        if spec.resources.memory
        else f"this machine has {format_bytes(limit)}"
    )
    fits = spec.resources.memory and need.total <= machine.memory
    advice = f"Give it {at_least(need.total)}. " if fits else ""
    if need.weights + _LIMIT_FLOOR < limit:
        advice += f"Less context needs less: args --ctx-size {max(512, settings.context // 4)}. "
    return Insufficient(
        f"{name} needs {format_bytes(need.total)} of memory ({parts}); {have}. {advice}{'' if fits else _smaller(model, limit)}".strip(),
        causes=[Cause(field, f"needs {format_bytes(need.total)}, there is {format_bytes(limit)}")],
    )


def _smaller(model: ModelFiles, limit: int) -> str:
    """Return advice to use a smaller quantization that would fit."""
    bits = {"Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q4_K_M": 4.9, "Q3_K_M": 3.9, "Q2_K": 3.0}
    for name, each in bits.items():
        size = int(model.header.parameters * each / 8)
        if size < model.size * 0.9 and size + _MODEST < limit:
            return f"Smaller: the same model as {name} (about {format_bytes(size, binary=False)})."
    return "Take a model with fewer parameters."


def _limit(spec: ModelServiceSpec, machine: Machine, need: int, *, on_gpu: bool) -> int | None:
    usual = None if on_gpu else min(machine.memory, 2 * need + _LIMIT_FLOOR)
    return spec.resources.memory_bytes or usual


def _flags(
    spec: ModelServiceSpec, model: ModelFiles, task: Task, settings: MemorySettings, threads: int, *, on_gpu: bool
) -> Iterator[str]:
    """Yield the platform's part of llama.cpp's command line; the user's part follows it and takes precedence."""
    name = spec.served_model_name or PurePath(model.path).stem
    yield from ("--ctx-size", str(settings.context), "--parallel", str(settings.slots))
    yield from ("--threads", str(threads), "--threads-http", str(_HTTP_THREADS + 4 * settings.slots))
    yield from ("--cache-ram", str(settings.prompt_cache // MIB), "--alias", name.replace(",", " "))
    yield from ("--jinja", "--metrics", "--no-ui")
    if _is_demo(model, task):
        yield from ("--predict", str(_DEMO_TOKENS), "--repeat-penalty", _DEMO_PENALTY)
    if not on_gpu:
        yield from ("--no-fit", "--n-gpu-layers", "0")
    if spec.prompt_cache == "perCaller":
        # The gateway has every prompt computed again (llmos_hub.gateway.prompt_cache), so looking for a similar one in
        # another slot would be useless work.
        yield from ("--slot-prompt-similarity", "0")
    if task == "generate":
        return
    yield from ("--embedding", "--batch-size", str(settings.batch), "--ubatch-size", str(settings.batch))
    if task == "rerank":
        yield from ("--pooling", "rank")
    elif model.header.pooling in (None, "none"):
        yield from ("--pooling", "mean")


def _is_demo(model: ModelFiles, task: Task) -> bool:
    """Return whether it is a generating demo model: those are so small that they repeat themselves without end."""
    return task == "generate" and model.uri.startswith("demo://")


def _notes(
    model: ModelFiles, task: Task, settings: MemorySettings, users: Mapping[str, Any], need: Estimate, *, on_gpu: bool
) -> Iterator[str]:
    """Yield sentences about what was chosen for the user, with the reasons."""
    per_slot = settings.context // settings.slots
    if "n_ctx" not in users:
        trained = model.header.context_length
        more = f"; the model was trained for {trained:,}, more with args --ctx-size" if trained > per_slot else ""
        at_once = f", {settings.slots} at once" if settings.slots > 1 else ""
        yield f"{'Context' if task == 'generate' else 'Texts'} of {per_slot:,} tokens per request{at_once}{more}."
    if _is_demo(model, task) and not {"n_predict", "sampling.penalty_repeat"} & users.keys():
        yield (
            f"A small model rambles: without max_tokens an answer ends after {_DEMO_TOKENS} tokens, and repeating is made less likely; "
            "args --predict and --repeat-penalty say otherwise."
        )
    if task == "generate" and not model.header.chat_template:
        yield "The file has no chat template, so chats may come out wrong; give one with args --chat-template-file."
    if not on_gpu:
        context = f", of which {format_bytes(need.context)} are for the context" if need.context else ""
        yield f"About {format_bytes(need.total)} of memory{context}."
