"""Manifest files: YAML or JSON with one or more documents, validated before any request.

Error messages have file and line: ``chat.yaml:7: spec.resources.memory: "2GiB" is not a quantity. …``
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from llmos.errors import Cause, Invalid
from llmos.resources import Resource, parse

__all__ = ["Manifest", "ManifestText", "read_manifests"]

_SUFFIXES = (".yaml", ".yml", ".json")
_LIMIT = 16 * 1024 * 1024
_NOT_WANTED = frozenset(
    {
        *("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "finalizers"),
        *("managedFields", "selfLink", "deletionGracePeriodSeconds", "ownerReferences"),
    }
)
"""Metadata fields that the platform or a cluster sets, which exported manifests contain."""


@dataclass(frozen=True)
class Manifest:
    """A resource and its place in a file.

    Attributes
    ----------
    resource
        The resource.
    place
        ``chat.yaml:1``.
    """

    resource: Resource
    place: str


@dataclass(frozen=True)
class ManifestText:
    """Manifests that aren't in a file.

    Attributes
    ----------
    name
        Name for messages: ``cell``.
    content
        YAML or JSON.
    """

    name: str
    content: str

    def __str__(self) -> str:
        return f"the {self.name}"


class _ManifestLoader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys and reads dates as strings, as in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                message = f'"{key}" is here twice'
                raise yaml.MarkedYAMLError(problem=message, problem_mark=key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            text = f'"{node.value[:40]}"' if isinstance(node.value, str) else "this"
            message = f"{text} is no {node.tag.rpartition(':')[2][:40]}"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark) from None


_ManifestLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifests(paths: Sequence[str | ManifestText]) -> list[Manifest]:
    """Return all resources in the given files, in their order.

    Parameters
    ----------
    paths
        Files, directories (all ``.yaml``, ``.yml`` and ``.json`` files in them), ``-`` for standard input, or texts.

    Raises
    ------
    Invalid
        Something in the files is invalid; the error has all mistakes with file and line.
    """
    manifests: list[Manifest] = []
    causes: list[Cause] = []
    for path in paths:
        for name, text in _texts(path):
            for found in _documents(name, text):
                if isinstance(found, Manifest):
                    manifests.append(found)
                else:
                    causes += found
    if causes:
        more = f" (and {len(causes) - 3} more)" if len(causes) > 3 else ""
        raise Invalid("; ".join(str(cause) for cause in causes[:3]) + more, causes=causes)
    if not manifests:
        raise Invalid(f"There is no resource in {', '.join(map(str, paths))}.")
    return manifests


def _texts(path: str | ManifestText) -> Iterator[tuple[str, str]]:
    if isinstance(path, ManifestText):
        yield path.name, path.content
        return
    if path == "-":
        yield "standard input", sys.stdin.read(_LIMIT)
        return
    place = Path(path).expanduser()
    files = sorted(p for p in place.iterdir() if p.suffix in _SUFFIXES) if place.is_dir() else [place]
    for file in files:
        try:
            yield str(file), file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise Invalid(f"There is no file {file}.") from None
        except UnicodeDecodeError:
            raise Invalid(f"{file} is not a text in UTF-8.") from None
        except OSError as error:
            raise Invalid(f"{file} can't be read: {error.strerror}.") from None


def _documents(name: str, text: str) -> Iterator[Manifest | list[Cause]]:
    """Yield the resource of each document, or its mistakes."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            yield [Cause(f"{name}:{error.lineno}", f"not JSON: {error.msg}")]
            return
        except (ValueError, RecursionError):  # such as a number of 5,000 digits or ten thousand nested brackets
            yield [Cause(name, "not JSON that can be read: a number is too long, or it is nested too deeply")]
            return
        yield from _resources(data, f"{name}:1", lambda _: f"{name}:1")
        return
    loader = _ManifestLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said that there is one"
            data = loader.construct_document(node)
            if data is not None:
                yield from _resources(data, f"{name}:{node.start_mark.line + 1}", partial(_line_of, name, node))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        yield [Cause(f"{name}:{line}", error.problem or "not YAML")]
    except yaml.YAMLError as error:
        yield [Cause(name, f"not YAML: {error}")]
    finally:
        loader.dispose()


def _resources(data: Any, place: str, locate: Any) -> Iterator[Manifest | list[Cause]]:
    """Yield the resource of a document, or those of a ``List``."""
    is_list = isinstance(data, dict) and data.get("kind") == "List"
    if is_list or isinstance(data, list):
        items, field = (data.get("items"), "items") if is_list else (data, "")
        for n, item in enumerate(items if isinstance(items, list) else []):
            where = f"{field}[{n}]"
            yield from _resources(item, place, lambda path, where=where: locate(f"{where}.{path}" if path else where))
        return
    try:
        yield Manifest(parse(_wanted(data)), place)
    except Invalid as error:
        found = error.causes or (Cause("", error.message),)
        yield [Cause(locate(cause.field), str(cause)) for cause in found]


def _wanted(data: Any) -> Any:
    """Return a manifest without the fields that the platform or a cluster sets; it may have been exported."""
    if not isinstance(data, dict):
        return data
    data = {key: value for key, value in data.items() if key != "status"}
    if isinstance(data.get("metadata"), dict):
        data["metadata"] = {key: value for key, value in data["metadata"].items() if key not in _NOT_WANTED}
    return data


def _line_of(name: str, root: yaml.Node, path: str) -> str:
    """Return ``file:line`` of the field at `path` in a YAML document, or of the nearest field around it."""
    node, line = root, root.start_mark.line
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        found = _item(node, int(index)) if index else _value(node, key)
        if found is None:
            break
        node, line = found
    return f"{name}:{line + 1}"


def _value(node: yaml.Node, key: str) -> tuple[yaml.Node, int] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((value, name.start_mark.line) for name, value in node.value if name.value == key), None)


def _item(node: yaml.Node, index: int) -> tuple[yaml.Node, int] | None:
    if not isinstance(node, yaml.SequenceNode) or index >= len(node.value):
        return None
    return node.value[index], node.value[index].start_mark.line
