"""The structure that all resources of ``llmos.ai/v1alpha1`` share.

It is Kubernetes' own: ``apiVersion kind metadata spec status``. On a cluster a resource is a custom resource; on a
workstation it reads like one. Field names are camelCase in JSON and snake_case in Python. This module does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr, ValidationError
from pydantic.alias_generators import to_camel

from llmos.errors import Cause, Invalid, NotReady
from llmos.resources import cel

__all__ = [
    "API_VERSION",
    "Condition",
    "Meaning",
    "Model",
    "Name",
    "ObjectMeta",
    "Resource",
    "Scope",
    "StoredAs",
    "Timestamp",
    "Titles",
    "Unit",
    "Usage",
    "condition",
    "invalid",
    "metadata_name_rule",
    "set_condition",
    "utcnow",
]

API_VERSION = "llmos.ai/v1alpha1"
Scope = Literal["Namespaced", "Cluster"]
StoredAs = Literal["CustomResource", "Secret", "Database"]
Meaning = Literal["working", "ready", "degraded", "failed", "stopped"]
"""Meaning of a phase: on the way to ready; ready; ready in part; failed; stopped by its owner."""

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
_MAX_ANNOTATIONS = 256 * 1024


def utcnow() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a field's value, as metadata of the field: ``Annotated[int, Unit("bytes")]``.

    Attributes
    ----------
    name
        ``bytes`` (of memory, in powers of 1024), ``file bytes`` (in powers of 1000), ``count``, ``age`` (a time in the
        past), ``wait`` (a time in the future), ``command`` (words of a command line).
    """

    name: Literal["bytes", "file bytes", "count", "age", "wait", "command"]


@dataclass(frozen=True, slots=True)
class Titles:
    """The names of a field's values for people, as metadata of the field.

    Attributes
    ----------
    of
        Names by value; a value without one is its own name.
    """

    of: Mapping[str, str]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A time in UTC; in JSON as RFC 3339."""


def _check_name(name: str) -> str:
    if len(name) > 63 or not _NAME.fullmatch(name):
        meant = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
        message = f'"{name[:80]}" is not a name: use 1 to 63 of a-z, 0-9 and "-", not first or last' + (
            f'. Did you mean "{meant}"?' if meant else "."
        )
        raise ValueError(message)
    return name


def metadata_name_rule() -> dict[str, str]:
    """Return the CEL rule for the name of a resource."""
    # the API server already checks that it is lower case and has no other separator than dots
    return _name_rule("self.metadata.name", "self.metadata.name.replace('.', '-')", field=".metadata.name")


def _name_rule(value: str, meant: str, *, field: str = "") -> dict[str, str]:
    name = f"{meant}.find('^[a-z0-9]([-a-z0-9]{{0,61}}[a-z0-9])?')"
    return cel.rule(
        f"{value}.size() <= 63 && {value}.matches({cel.text(_NAME.pattern)})",
        says=f"{cel.quoted(value, 80)} + ' is not a name: use 1 to 63 of a-z, 0-9 and \"-\", not first or last' + "
        f"(!{meant}.matches('^[a-z0-9][-a-z0-9]*$') ? '.' : '. Did you mean \"' + {name} + '\"?')",
        field=field,
    )


_PLAIN = "self.lowerAscii().replace('_', '-').replace('.', '-').replace(' ', '-')"
Name = Annotated[
    str,
    AfterValidator(_check_name),
    # the bound keeps the rule's estimated cost low; the rule itself limits the length of a name
    Field(json_schema_extra=cel.validations(_name_rule("self", _PLAIN), maxLength=253)),
]
"""A DNS label (RFC 1123), as Kubernetes requires for names."""


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            message = f'"{key[:80]}" is not a label key: letters, digits, "-", "_", ".", at most 63, an optional "domain/" before'
            raise ValueError(message)
        if not _LABEL_VALUE.fullmatch(value):
            message = f'"{value[:80]}" (of {key}) is not a label value: at most 63 letters, digits, "-", "_", "."'
            raise ValueError(message)
    return labels


def _check_annotations(annotations: dict[str, str]) -> dict[str, str]:
    if sum(len(k) + len(v) for k, v in annotations.items()) > _MAX_ANNOTATIONS:
        raise ValueError("all annotations together may have at most 256 KiB")
    return annotations


class Model(BaseModel):
    """Base of all API types: camelCase aliases, and unknown fields are rejected."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        validate_assignment=False,
        use_attribute_docstrings=True,
    )


class ObjectMeta(Model):
    """A resource's metadata: its identity, labels and annotations."""

    name: Name
    """Name of the resource, unique among the resources of its kind in its namespace."""
    namespace: Name | None = None
    """``user-<slug>``, ``group-<slug>`` or ``public``; unset for cluster-scoped kinds."""
    labels: Annotated[dict[str, str], AfterValidator(_check_labels)] = Field(default_factory=dict)
    """Short values to select resources by."""
    annotations: Annotated[dict[str, str], AfterValidator(_check_annotations)] = Field(default_factory=dict)
    """Free text for people and programs, at most 256 KiB in total."""
    uid: str | None = None
    """Identifier set by the store. A name can be used again, a uid can't."""
    resource_version: str | None = None
    """Version set by the store at each write; opaque. An update that has it fails if the resource was changed since."""
    generation: int = 0
    """Number of changes to ``spec``, counted by the store."""
    creation_timestamp: Timestamp | None = None
    """Time of creation, set by the store."""
    deletion_timestamp: Timestamp | None = None
    """Time when deletion was requested, set by the store while finalizers remain."""
    finalizers: list[str] = Field(default_factory=list, max_length=20)
    """Steps that must be completed before the resource is deleted; the responsible controller removes each."""


class Condition(Model):
    """One aspect of a resource's status, in the form of Kubernetes' conditions."""

    type: str
    """Name of the aspect: ``Ready``, ``Downloaded``, ``ModelRecognised``."""
    status: Literal["True", "False", "Unknown"]
    """``True`` if the condition holds."""
    reason: str = ""
    """Reason for the status, one word for programs."""
    message: str = ""
    """Reason for the status, a sentence for people."""
    last_transition_time: Timestamp = Field(default_factory=utcnow)
    """Time when ``status`` last changed."""


def condition(conditions: list[Condition], type_: str) -> Condition | None:
    """Return the condition of a type, or None."""
    return next((c for c in conditions if c.type == type_), None)


def set_condition(conditions: list[Condition], new: Condition) -> list[Condition]:
    """Return the conditions with `new` in place of the one of its type.

    If the status is unchanged, the old transition time is kept.
    """
    old = condition(conditions, new.type)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    if old is None:
        return [*conditions, new]
    return [new if c.type == new.type else c for c in conditions]


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that processes use on a machine.

    Attributes
    ----------
    cpus
        The CPUs that they ask for.
    memory
        The bytes of memory that they use.
    gpus
        The GPUs that are assigned to them.
    """

    cpus: float = 0.0
    memory: int = 0
    gpus: int = 0


class Resource(Model):
    """An object with a desired state (``spec``) and an observed state (``status``).

    A kind is a subclass that sets ``kind``, ``spec`` and ``status`` and the class attributes below;
    listing it in `llmos.resources.KINDS` gives it REST routes, CLI verbs, SDK collection and schema.
    """

    plural: ClassVar[str]
    singular: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]] = ()
    nouns: ClassVar[tuple[str, str]] = ("", "")
    """Words for one and for several of its workloads, as in "2 models"; empty for the kind's name."""
    scope: ClassVar[Scope] = "Namespaced"
    columns: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Columns of lists beside NAME and AGE: (heading, path such as ``status.phase``)."""
    write_only: ClassVar[tuple[str, ...]] = ()
    """Fields of ``spec`` that reads don't return and the store encrypts."""
    stored_as: ClassVar[StoredAs] = "CustomResource"
    """Storage on a cluster: a custom resource, a Secret (only for ``spec.data``), or an entry of the platform's
    database as on a workstation."""
    has_logs: ClassVar[bool] = False
    """True if processes with readable logs run for resources of this kind."""
    log_parts: ClassVar[tuple[str, ...]] = ("serve",)
    """Parts of its workloads with a log; that of the first one that has run is read."""
    holds_data: ClassVar[bool] = False
    """True if resources of this kind hold data that can't be made again: a clean-up of namespaces keeps them, unless it
    is set to delete volumes too."""
    has_files: ClassVar[bool] = False
    """True if resources of this kind are directories whose files can be listed, read and written through the API."""
    finalizer: ClassVar[str] = ""
    """Finalizer set at creation and removed by the kind's controller, so that a deletion waits for its clean-up; begins
    with ``llmos.ai/``. Empty if there is nothing to clean up."""
    phases: ClassVar[Mapping[str, Meaning]] = {}
    """Meaning of each ``status.phase``, by which lists are coloured and waiting ends; empty if the kind has no phases."""
    refusals: ClassVar[frozenset[str]] = frozenset()
    """Reasons of the condition ``Ready`` for which a changed spec isn't rolled out, so that waiting doesn't help."""
    not_ready: ClassVar[type[NotReady]] = NotReady
    """Error of a wait that ends without success."""
    scalable: ClassVar[bool] = False
    """True if ``spec.replicas`` is a number of processes, which ``scale`` sets."""
    pausable: ClassVar[bool] = False
    """True if ``spec.paused`` ends all processes and keeps the resource, as ``stop`` and ``start`` do."""
    undo: ClassVar[str] = ""
    """Words after ``llmos`` that undo a deletion, with ``{name}``; empty if a deletion can't be undone."""
    placeholder: ClassVar[Mapping[str, Any]] = {}
    """A valid ``spec`` that replaces one that can't be read at all."""

    api_version: Literal["llmos.ai/v1alpha1"] = "llmos.ai/v1alpha1"
    kind: str
    metadata: ObjectMeta
    spec: Any
    status: Any
    _unread: str = PrivateAttr(default="")

    @property
    def unread(self) -> str:
        """The reason why this version can't read the stored resource completely; empty if it can.

        If set, ``spec`` holds only what could be read; show it, but don't act on it.
        """
        return self._unread

    def marked_unread(self, why: str) -> Self:
        """Return a copy of the resource with `why` as `unread`."""
        found = self.model_copy()
        found._unread = why  # noqa: SLF001 - of its own class
        return found

    @classmethod
    def parse(cls, data: Any, *, by_name: bool = True) -> Self:
        """Validate what a user sent and return it as a resource.

        Parameters
        ----------
        data
            The decoded manifest.
        by_name
            Whether Python names of fields are accepted too; the API accepts only the JSON names.

        Raises
        ------
        Invalid
            The manifest is invalid; the error has a cause with a path for each invalid field.
        """
        if not isinstance(data, dict):
            raise Invalid(f"A {cls.kind_name()} is an object with metadata and spec, not {type(data).__name__}.")
        try:
            return cls.model_validate(data, by_alias=True, by_name=by_name)
        except ValidationError as error:
            raise invalid(error, cls) from None

    @classmethod
    def kind_name(cls) -> str:
        """Return the kind's name: ``Setting``."""
        return str(cls.model_fields["kind"].default)

    @property
    def claims(self) -> Mapping[str, str]:
        """Names that only one resource of the kind in a namespace can have, each with the path of its field.

        The store refuses a write that claims a name of another resource.
        """
        return {}

    @property
    def uses(self) -> Sequence[tuple[str, str]]:
        """The resources of its namespace without which it doesn't work, by kind and name, while it is to work."""
        return ()

    @property
    def rests_until(self) -> datetime | None:
        """The time until which its deletion can be undone; None if it isn't deleted, or can't be undone.

        Only who may delete the resource may change it.
        """
        return None

    def usage(self) -> Usage | None:
        """Return what its processes on this machine use; None if it has none. Only for kinds with logs."""
        return None

    def dump(self) -> dict[str, Any]:
        """Return the resource as JSON, without unset metadata."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def document(self) -> dict[str, Any]:
        """Return the resource as it can be written again: without secrets that were not read, whose absence keeps them."""
        data = self.dump()
        for name in self.write_only:
            if name not in self.spec.model_fields_set:
                data["spec"].pop(name, None)
        return data

    @property
    def key(self) -> str:
        """``namespace/name``, or only the name for cluster-scoped kinds."""
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name


_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "there is no such field",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _known_fields(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the names that a field at `path` could have, to suggest one of them."""
    current: type[BaseModel] | None = cls
    for part in path[:-1]:
        if current is None or isinstance(part, int):
            continue
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return [f.alias or n for n, f in current.model_fields.items()] if current else []


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def invalid(error: ValidationError, cls: type[Any]) -> Invalid:
    """Convert pydantic's error: a path and a sentence for each field, with suggestions where possible."""
    from difflib import get_close_matches

    causes = []
    for item in error.errors(include_url=False)[:20]:
        location = item["loc"]
        message = _MESSAGES.get(item["type"], item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            known = _known_fields(cls, location)
            close = get_close_matches(str(location[-1]), known, n=1)
            message += f'. Did you mean "{close[0]}"?' if close else f". Known here: {', '.join(known)}."
        causes.append(Cause(_path(location), message))
    return Invalid("; ".join(str(c) for c in causes[:3]) + (" …" if len(causes) > 3 else ""), causes=causes)
