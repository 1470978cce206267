"""Writes docs/reference/commands-and-resources.md from the code.

The page has resources, errors, settings, environment, commands, magics and the SDK.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmos import errors
from llmos.cli.parser import PLATFORM_VERBS, VERBS, build_parser
from llmos.client._sync.client import Client
from llmos.client._sync.collection import Collection
from llmos.resources import API_VERSION, KINDS, Resource
from llmos_hub.app import build_parser as build_platform_parser
from llmos_hub.bundle.command import build_parser as build_bundle_parser
from llmos_hub.managers.settings import DEFINITIONS
from llmos_hub.settings import ProcessSettings
from llmos_widgets.magics import chat_parser

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "commands-and-resources.md"


def nested(annotation: Any) -> type[BaseModel] | None:
    """Return the object type inside an annotation: ``list[Endpoint]``, ``ModelInfo | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := nested(arg))), None)


def type_name(schema: dict[str, Any]) -> str:
    """Return a JSON Schema's type in a readable form."""
    options = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    first = options[0]
    if "enum" in first:
        return " \\| ".join(f"`{value}`" for value in first["enum"])
    if "const" in first:
        return f"`{first['const']}`"
    if first.get("format") == "date-time":
        return "time"
    if first.get("type") == "array":
        return f"list of {type_name(first['items'])}"
    if first.get("type") == "object" and isinstance(first.get("additionalProperties"), dict):
        return "map"
    return str(first.get("type", "object"))


def default_of(field: FieldInfo) -> str:
    """Return the text for a field's default in a table."""
    if field.is_required():
        return "required"
    if field.default in (None, "") or field.default_factory is not None:
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def fields(cls: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield a table row for each field, with the fields of nested objects below it."""
    properties = cls.model_json_schema(by_alias=True).get("properties", {})
    for name, field in cls.model_fields.items():
        alias = field.alias or name
        inner = nested(field.annotation)
        text = " ".join((field.description or (inspect.getdoc(inner) if inner else "") or "").split())
        kind = "object" if inner and "$ref" in str(properties[alias]) else type_name(properties[alias])
        many = "[]" if inner and properties[alias].get("type") == "array" else ""
        yield f"| `{prefix}{alias}{many}` | {kind} | {default_of(field)} | {text.replace('``', '`')} |"
        if inner is not None and inner.__name__ != "Condition":
            yield from fields(inner, f"{prefix}{alias}{many}.")


def resource(cls: type[Resource]) -> Iterator[str]:
    """Yield the section of one kind."""
    yield f"### {cls.kind_name()}\n"
    yield f"{inspect.getdoc(cls)}\n"
    names = ", ".join(f"`{n}`" for n in (cls.plural, cls.singular, *cls.short_names))
    yield f"Called {names}; {'in a namespace' if cls.scope == 'Namespaced' else 'for the whole platform'}.\n"
    for part in ("spec", "status"):
        inner = nested(cls.model_fields[part].annotation)
        assert inner is not None
        yield f"| {part} | type | default | |"
        yield "| --- | --- | --- | --- |"
        yield from fields(inner, f"{part}.")
        yield ""


def error_table() -> Iterator[str]:
    """Yield the table of errors by code."""
    yield "| code | HTTP | what it means |"
    yield "| --- | --- | --- |"
    for name in sorted(errors.__all__):
        cls = getattr(errors, name)
        if inspect.isclass(cls) and issubclass(cls, errors.LLMOSError) and cls is not errors.LLMOSError:
            yield f"| `{cls.code}` | {cls.status} | {' '.join((inspect.getdoc(cls) or '').split()).replace('``', '`')} |"


def settings_table() -> Iterator[str]:
    """Yield the table of platform settings."""
    yield "| setting | default | environment | |"
    yield "| --- | --- | --- | --- |"
    for name, setting in sorted(DEFINITIONS.items()):
        yield f"| `{name}` | `{setting.default}` | `{setting.variable}` | {setting.description} |"


def environment_list() -> Iterator[str]:
    """Yield the list of variables that the platform's processes read, from the settings' docstring."""
    lines = (inspect.getdoc(ProcessSettings) or "").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("---")) + 1
    for line in lines[start:]:
        yield f"- **{line}**:" if line and not line.startswith(" ") else f"  {line.strip().replace('``', '`')}"


def command_list() -> Iterator[str]:
    """Yield the help of every verb of the command."""
    for name, verb in sorted(VERBS.items()):
        yield from help_section(f"llmos {name}", build_parser(verb).format_help())


def help_section(title: str, text: str) -> Iterator[str]:
    """Yield the section of one command."""
    yield f"### {title}\n"
    yield f"```\n{text.rstrip()}\n```\n"


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command below a parser, with its words; groups of commands are left out."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of them
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            continue
        for name, inner in action.choices.items():
            below = [(f"{name} {words}", found) for words, found in subcommands(inner)]
            yield from below or [(name, inner)]


def platform_commands() -> Iterator[str]:
    """Yield the help of the commands for the machine that the platform runs on."""
    for words, parser in subcommands(build_platform_parser()):
        if words.split()[0] in PLATFORM_VERBS:
            yield from help_section(f"llmos {words}", parser.format_help().replace("llmos-hub ", "llmos "))
    yield from help_section("llmos bundle", build_bundle_parser().format_help())


def magics() -> Iterator[str]:
    """Yield the section about the magics."""
    yield "`%llmos VERB …` is the command `llmos VERB …` in a notebook; `%%llmos apply` applies the YAML in its cell.\n"
    yield from help_section("%%chat", chat_parser().format_help())


def sdk() -> Iterator[str]:
    """Yield the tables of public methods of the SDK's classes."""
    yield "`llmos.AsyncClient` has the same methods as coroutines and async generators.\n"
    for cls, called in ((Client, "client"), (Collection, "client.collection(ModelService)")):
        yield f"### {cls.__name__}\n"
        yield f"{first_paragraph(cls)}\n"
        yield "| | |"
        yield "| --- | --- |"
        for name, member in vars(cls).items():
            function = member.fget if isinstance(member, property) else member
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            signature = "" if isinstance(member, property) else f"({', '.join(parameters(function))})"
            yield f"| `{called}.{name}{signature}` | {first_paragraph(member)} |"
        yield ""


def parameters(function: Callable[..., Any]) -> Iterator[str]:
    """Yield a method's parameters with their defaults, without types."""
    keyword_only = False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        keyword_only = keyword_only or parameter.kind is parameter.VAR_POSITIONAL
        yield f"{star}{parameter.name}{default}"


def first_paragraph(documented: Any) -> str:
    """Return the first paragraph of a docstring as Markdown."""
    text = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|")


def files() -> dict[Path, str]:
    """Return the text of the page by its path."""
    lines = [
        "# Resources, settings, errors and commands",
        "",
        "Made from the code by `make generate`; don't edit it.",
        "",
        f"## Resources (`{API_VERSION}`)",
        "",
        *(line for cls in KINDS.values() for line in resource(cls)),
        "## Settings",
        "",
        *settings_table(),
        "",
        "## Errors",
        "",
        "Every error carries its code and, where a request was made, the request's id.",
        "",
        *error_table(),
        "",
        "## Environment of the platform's processes",
        "",
        "Set by the supervisor; a cluster's chart sets the same.",
        "",
        *environment_list(),
        "",
        "## Commands",
        "",
        *command_list(),
        "## Commands on the platform's machine",
        "",
        *platform_commands(),
        "## In a notebook",
        "",
        *magics(),
        "## Python: `llmos.Client`",
        "",
        *sdk(),
    ]
    return {TARGET: "\n".join(lines).rstrip() + "\n"}
