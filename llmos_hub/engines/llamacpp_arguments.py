"""A parser of llama.cpp's command line, which turns flags into typed values.

`xllamacpp` has llama.cpp's parameters as an object, but not its command line. So a flag may be given in two ways: by
the name in llama.cpp's own server (``--ctx-size 8192``, ``-c 8192``, ``--no-warmup``), through the table below; and by
the name of any parameter (``--n-ctx=8192``, ``--sampling.top-k 40``). Types and choices come from the object itself,
so all parameters of the installed version can be set.

Only the standard library is imported: the engine's process uses this module too and must start fast.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ALIASES", "RESERVED", "BadArgument", "Parameter", "parse", "schema_of"]


class BadArgument(ValueError):
    """An unknown or invalid argument of llama.cpp; the message is for people."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of llama.cpp's parameters.

    Attributes
    ----------
    kind
        ``bool``, ``int``, ``float``, ``str``, ``enum``, ``list``, ``set`` or ``dict``.
    choices
        The short names of an enumeration's members: ``q8_0`` for ``GGML_TYPE_Q8_0``.
    """

    kind: str
    choices: tuple[str, ...] = ()


# llama-server's names without leading dashes, if they differ from the parameter's name. "!" inverts a switch.
ALIASES: Final[Mapping[str, str]] = {
    "c": "n_ctx", "ctx-size": "n_ctx", "n": "n_predict", "predict": "n_predict", "b": "n_batch",
    "batch-size": "n_batch", "ub": "n_ubatch", "ubatch-size": "n_ubatch", "np": "n_parallel", "parallel": "n_parallel",
    "keep": "n_keep", "t": "cpuparams.n_threads", "threads": "cpuparams.n_threads",
    "tb": "cpuparams_batch.n_threads", "threads-batch": "cpuparams_batch.n_threads", "threads-http": "n_threads_http",
    "prio": "cpuparams.priority", "poll": "cpuparams.poll", "cpu-strict": "cpuparams.strict_cpu",
    "ngl": "n_gpu_layers", "gpu-layers": "n_gpu_layers", "sm": "split_mode", "ts": "tensor_split", "mg": "main_gpu",
    "fit": "fit_params", "fit-ctx": "fit_params_min_ctx", "fit-target": "fit_params_target",
    "fa": "flash_attn_type", "flash-attn": "flash_attn_type", "ctk": "cache_type_k", "ctv": "cache_type_v",
    "kvu": "kv_unified", "cram": "cache_ram_mib", "cache-ram": "cache_ram_mib", "cache-reuse": "n_cache_reuse",
    "ctxcp": "n_ctx_checkpoints", "ctx-checkpoints": "n_ctx_checkpoints", "swa-checkpoints": "n_ctx_checkpoints",
    "cb": "cont_batching", "context-shift": "ctx_shift", "kv-offload": "!no_kv_offload", "op-offload": "!no_op_offload",
    "repack": "!no_extra_bufts", "perf": "!no_perf", "mmproj": "mmproj.path", "mm": "mmproj.path",
    "mmproj-offload": "mmproj_use_gpu", "pooling": "pooling_type", "attention": "attention_type",
    "embeddings": "embedding", "reranking": "rerank", "jinja": "use_jinja", "metrics": "endpoint_metrics",
    "slots": "endpoint_slots", "props": "endpoint_props", "a": "model_alias", "alias": "model_alias",
    "tags": "model_tags", "sps": "slot_prompt_similarity", "chat-template-kwargs": "default_template_kwargs",
    "reasoning-budget": "sampling.reasoning_budget_tokens",
    "reasoning-budget-message": "sampling.reasoning_budget_message", "rope-scaling": "rope_scaling_type",
    "override-tensor": "tensor_buft_overrides", "ot": "tensor_buft_overrides", "s": "sampling.seed",
    "seed": "sampling.seed", "temp": "sampling.temp", "temperature": "sampling.temp", "top-k": "sampling.top_k",
    "top-p": "sampling.top_p", "min-p": "sampling.min_p", "typical": "sampling.typ_p", "typical-p": "sampling.typ_p",
    "xtc-probability": "sampling.xtc_probability", "xtc-threshold": "sampling.xtc_threshold",
    "repeat-last-n": "sampling.penalty_last_n", "repeat-penalty": "sampling.penalty_repeat",
    "presence-penalty": "sampling.penalty_present", "frequency-penalty": "sampling.penalty_freq",
    "dry-multiplier": "sampling.dry_multiplier", "dry-base": "sampling.dry_base",
    "dry-allowed-length": "sampling.dry_allowed_length", "dry-penalty-last-n": "sampling.dry_penalty_last_n",
    "dynatemp-range": "sampling.dynatemp_range", "dynatemp-exp": "sampling.dynatemp_exponent",
    "mirostat": "sampling.mirostat", "mirostat-lr": "sampling.mirostat_eta", "mirostat-ent": "sampling.mirostat_tau",
    "samplers": "sampling.samplers", "grammar": "sampling.grammar.grammar", "ignore-eos": "sampling.ignore_eos",
    "spec-type": "speculative.types", "md": "speculative.draft.mparams.path",
    "model-draft": "speculative.draft.mparams.path", "spec-draft-model": "speculative.draft.mparams.path",
    "ngld": "speculative.draft.n_gpu_layers", "gpu-layers-draft": "speculative.draft.n_gpu_layers",
    "spec-draft-ngl": "speculative.draft.n_gpu_layers", "draft": "speculative.draft.n_max",
    "draft-max": "speculative.draft.n_max", "draft-min": "speculative.draft.n_min",
    "draft-p-min": "speculative.draft.p_min", "spec-draft-n-max": "speculative.draft.n_max",
    "spec-draft-n-min": "speculative.draft.n_min", "spec-draft-p-min": "speculative.draft.p_min",
    "ctkd": "speculative.draft.cache_type_k", "ctvd": "speculative.draft.cache_type_v",
    "threads-draft": "speculative.draft.cpuparams.n_threads", "lcs": "speculative.ngram_cache.lookup_cache_static",
    "lcd": "speculative.ngram_cache.lookup_cache_dynamic", "lv": "verbosity", "log-verbosity": "verbosity",
    "mlock": "load_mode=mlock", "no-mmap": "load_mode=none", "mmap": "load_mode=mmap", "lora": "lora_adapters",
}  # fmt: skip

_REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "the platform decides where the engine listens": (
        "hostnames", "port", "api_prefix", "reuse_port", "ssl_file_cert", "ssl_file_key",
    ),
    "the gateway checks who asks; make a key there": ("api_keys",),
    "arguments are readable by everyone on the machine; use spec.credentialRef": ("hf_token",),
    "the model is spec.model": ("model.path", "model.url", "model.hf_repo", "model.hf_file", "model.docker_repo"),
    "one service serves one model": ("models_dir", "models_preset", "models_preset_hf"),
    "say spec.task: embed": ("embedding",),
    "say spec.task: rerank": ("rerank",),
}  # fmt: skip
RESERVED: Final[Mapping[str, str]] = {name: reason for reason, names in _REASONS.items() for name in names}
"""Parameters that users may not set, with the reasons."""
_RESERVED_FLAGS: Final[Mapping[str, str]] = {
    "host": "hostnames", "m": "model.path", "model": "model.path", "mu": "model.url", "model-url": "model.url",
    "hf": "model.hf_repo", "hfr": "model.hf_repo", "hf-repo": "model.hf_repo", "hff": "model.hf_file",
    "hf-file": "model.hf_file", "docker-repo": "model.docker_repo", "api-key": "api_keys", "api-key-file": "api_keys",
    "ssl-key-file": "ssl_file_key", "ssl-cert-file": "ssl_file_cert", "hft": "hf_token",
}  # fmt: skip
_FILES: Final = {"chat-template-file": "chat_template", "grammar-file": "sampling.grammar.grammar"}
_TRUE, _FALSE = ("true", "on", "yes", "1", "enabled"), ("false", "off", "no", "0", "disabled")


def schema_of(parameters: Any) -> dict[str, Parameter]:
    """Return all parameters of a ``CommonParams`` object by dotted name, with their types."""
    return dict(_walk(parameters, "", 0))


def _walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Parameter]]:
    for name in dir(node):
        if name.startswith("_"):
            continue
        value = getattr(node, name)
        path, kind = prefix + name, type(value)
        if kind in (bool, int, float, str, list, set, dict):
            yield path, Parameter(kind.__name__)
        elif hasattr(kind, "__members__"):
            yield path, Parameter("enum", tuple(_short_names(list(kind.__members__))))
        elif not callable(value) and depth < 4:
            yield from _walk(value, path + ".", depth + 1)


def _short_names(members: Sequence[str]) -> Iterator[str]:
    """Return the names without their common beginning, in lower case: ``f16`` for ``GGML_TYPE_F16``."""
    words = [m.split("_") for m in members]
    common = 0
    while all(len(w) > common + 1 and w[common] == words[0][common] for w in words):
        common += 1
    return ("_".join(w[common:]).lower() for w in words)


def parse(arguments: Sequence[str], schema: Mapping[str, Parameter], *, trusted: bool = False) -> dict[str, Any]:
    """Read a command line.

    Parameters
    ----------
    arguments
        Flags and values, as for llama.cpp's server.
    schema
        All parameters by name.
    trusted
        True if the parameters that users may not set are allowed.

    Returns
    -------
    dict
        Values by dotted name: for an enumeration its member's short name, for ``chat_template`` given as a file
        ``{"file": path}``.

    Raises
    ------
    BadArgument
        A flag is unknown (the message has a similar one), or its value is invalid.
    """
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("-") or flag in ("-", "--"):
            raise BadArgument(f'"{flag[:60]}" stands where a flag such as --ctx-size should stand')
        name, equals, given = flag.lstrip("-").partition("=")
        target, turned = _resolve(name, flag, schema, trusted=trusted)
        path, has_fixed, fixed = target.partition("=")
        if has_fixed:
            values[path] = fixed
        elif name in _FILES:
            values[path] = {"file": given if equals else _next(rest, flag)}
        elif schema[path].kind == "bool":
            takes_value = not equals and bool(rest) and rest[0].lower() in _TRUE + _FALSE
            text = given if equals else rest.pop(0) if takes_value else "true"
            values[path] = _switch(text, flag) != turned
        elif turned:
            values[path] = _turned_off(path, flag, schema)
        else:
            values[path] = _convert(given if equals else _next(rest, flag, schema[path]), schema[path], flag)
    return values


def _next(rest: list[str], flag: str, parameter: Parameter | None = None) -> str:
    follows_flag = bool(rest) and rest[0].startswith("-") and not rest[0][1:2].isdigit()
    if not rest or follows_flag:
        if parameter is not None and "enabled" in parameter.choices:
            return "enabled"  # -fa without a value
        raise BadArgument(f"{flag} needs a value")
    return rest.pop(0)


def _resolve(name: str, flag: str, schema: Mapping[str, Parameter], *, trusted: bool) -> tuple[str, bool]:
    """Return the parameter that a flag sets, and whether the flag inverts it."""
    reserved = _RESERVED_FLAGS.get(name)
    target, turned = ALIASES.get(name) or _FILES.get(name) or reserved or name.replace("-", "_"), False
    if target.startswith("!"):
        target, turned = target[1:], True
    known = target.partition("=")[0] in schema
    if not known and target not in RESERVED and name.startswith("no-"):
        target, turned = _resolve(name[3:], flag, schema, trusted=trusted)
        return target, not turned
    if target in RESERVED and not trusted:
        raise BadArgument(f"{flag.partition('=')[0]} can't be set here: {RESERVED[target]}")
    if not known:
        raise BadArgument(_unknown(flag, name, schema))
    return target, turned


def _unknown(flag: str, name: str, schema: Mapping[str, Parameter]) -> str:
    words = [*ALIASES, *(path.replace("_", "-") for path in schema if path not in RESERVED)]
    words = [w for w in words if len(w) > 3]
    meant = difflib.get_close_matches(name.replace("_", "-"), words, n=1, cutoff=0.6)
    hint = f'. Did you mean "--{meant[0]}"?' if meant else ""
    return f'"{flag.partition("=")[0][:60]}" is not an argument of the installed llama.cpp{hint}'


def _switch(text: str, flag: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise BadArgument(f'{flag.partition("=")[0]}: "{text[:40]}" is neither on nor off')


def _turned_off(path: str, flag: str, schema: Mapping[str, Parameter]) -> Any:
    """Return the value that ``--no-…`` means for a parameter that isn't a switch."""
    if "disabled" in schema[path].choices:
        return "disabled"
    raise BadArgument(f'"{flag[:60]}" is invalid: it is not a switch, it takes a value')


def _convert(text: str, parameter: Parameter, flag: str) -> Any:
    name = flag.partition("=")[0]
    try:
        if parameter.kind == "int":
            return int(text)
        if parameter.kind == "float":
            return float(text)
        if parameter.kind in ("list", "set"):
            items = (
                json.loads(text) if text.startswith("[") else [item.strip() for item in text.split(",") if item.strip()]
            )
            return [_item(item) for item in items]
        if parameter.kind == "dict":
            value = json.loads(text)
            return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in value.items()}
    except (ValueError, AttributeError) as error:
        wanted = {"int": "a whole number", "float": "a number", "dict": "a JSON object"}.get(parameter.kind, "a list")
        raise BadArgument(f'{name}: "{text[:60]}" is not {wanted}') from error
    if parameter.kind == "enum":
        return _choice(text, parameter, name)
    return text


def _item(item: Any) -> Any:
    """Return the item as a number if it can be read as one."""
    for number in (int, float):
        try:
            return number(item)
        except (TypeError, ValueError):
            continue
    return item


def _choice(text: str, parameter: Parameter, name: str) -> str:
    lowered = text.lower().replace("-", "_")
    synonyms = {"on": "enabled", "off": "disabled", "true": "enabled", "false": "disabled"}
    for candidate in (lowered, synonyms.get(lowered, lowered)):
        if candidate in parameter.choices:
            return candidate
    listed = ", ".join(c for c in parameter.choices if c not in ("count", "unspecified"))
    raise BadArgument(f'{name}: "{text[:40]}" is not one of {listed}')
