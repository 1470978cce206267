"""The shape that all resources of ``llmos.ai/v1alpha1`` share.

It is Kubernetes' own: ``apiVersion kind metadata spec status``, so that on a cluster a resource *is* a
custom resource, and on a workstation reads as one. Field names are camelCase on the wire and
snake_case in Python. Pure pydantic: nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr, ValidationError
from pydantic.alias_generators import to_camel

from llmos.errors import Cause, Invalid
from llmos.resources import cel

__all__ = [
    "API_VERSION",
    "Condition",
    "Model",
    "Name",
    "ObjectMeta",
    "Resource",
    "Scope",
    "StoredAs",
    "Timestamp",
    "condition",
    "invalid",
    "metadata_name_rule",
    "set_condition",
    "utcnow",
]

API_VERSION = "llmos.ai/v1alpha1"
Scope = Literal["Namespaced", "Cluster"]
StoredAs = Literal["CustomResource", "Secret", "Database"]

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
_MAX_ANNOTATIONS = 256 * 1024


def utcnow() -> datetime:
    """Now, in UTC, to the microsecond."""
    return datetime.now(UTC)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A moment in UTC, RFC 3339 on the wire."""


def _check_name(name: str) -> str:
    if len(name) > 63 or not _NAME.fullmatch(name):
        meant = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
        message = f'"{name[:80]}" is not a name: use 1 to 63 of a-z, 0-9 and "-", not first or last' + (
            f'. Did you mean "{meant}"?' if meant else "."
        )
        raise ValueError(message)
    return name


def _reference_rule() -> dict[str, str]:
    """The same check for a cluster's API server."""
    plain = "".join(f".replace('{other}', '-')" for other in "_. ")
    return _name_rule("self", f"self.lowerAscii(){plain}")


def metadata_name_rule() -> dict[str, str]:
    """The same for a resource's own name, of which Kubernetes makes sure that it is lower-case, with dots at most."""
    return _name_rule("self.metadata.name", "self.metadata.name.replace('.', '-')", field=".metadata.name")


def _name_rule(value: str, meant: str, *, field: str = "") -> dict[str, str]:
    name = f"{meant}.find('^[a-z0-9]([-a-z0-9]{{0,61}}[a-z0-9])?')"
    return cel.rule(
        f"{value}.size() <= 63 && {value}.matches({cel.text(_NAME.pattern)})",
        says=f"{cel.quoted(value, 80)} + ' is not a name: use 1 to 63 of a-z, 0-9 and \"-\", not first or last' + "
        f"(!{meant}.matches('^[a-z0-9][-a-z0-9]*$') ? '.' : '. Did you mean \"' + {name} + '\"?')",
        field=field,
    )


Name = Annotated[
    str,
    AfterValidator(_check_name),
    # the bound is for the rule's cost; the rule itself says how long a name may be
    Field(json_schema_extra=cel.validations(_reference_rule(), maxLength=253)),
]
"""A DNS label (RFC 1123), as Kubernetes wants names."""


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
        message = "all annotations together may have at most 256 KiB"
        raise ValueError(message)
    return annotations


class Model(BaseModel):
    """Base of everything on the wire: camelCase aliases, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        validate_assignment=False,
        use_attribute_docstrings=True,
    )


class ObjectMeta(Model):
    """What identifies a resource and who labelled it how."""

    name: Name
    """Unique among the resources of its kind in its namespace."""
    namespace: Name | None = None
    """``user-<slug>``, ``group-<slug>`` or ``public``; none for kinds of the whole platform."""
    labels: Annotated[dict[str, str], AfterValidator(_check_labels)] = Field(default_factory=dict)
    """Short values to select by."""
    annotations: Annotated[dict[str, str], AfterValidator(_check_annotations)] = Field(default_factory=dict)
    """Free text for people and programs, 256 KiB at most in all."""
    uid: str | None = None
    """Set by the store: a name can be used again, a uid never is."""
    resource_version: str | None = None
    """Set by the store at each write; opaque. Sent back with an update, it refuses to overwrite what changed since."""
    generation: int = 0
    """Set by the store: counts the changes of ``spec``."""
    creation_timestamp: Timestamp | None = None
    """Set by the store."""
    deletion_timestamp: Timestamp | None = None
    """Set by the store when deletion was asked for and finalizers are still there."""
    finalizers: list[str] = Field(default_factory=list, max_length=20)
    """What must happen before the resource may go; its controller removes them."""


class Condition(Model):
    """One aspect of a status, as Kubernetes' conditions: what, since when, why."""

    type: str
    """The aspect: ``Ready``, ``Downloaded``, ``ModelRecognised``."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = ""
    """One word for programs."""
    message: str = ""
    """A sentence for people."""
    last_transition_time: Timestamp = Field(default_factory=utcnow)
    """When ``status`` last changed."""


def condition(conditions: list[Condition], type_: str) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((c for c in conditions if c.type == type_), None)


def set_condition(conditions: list[Condition], new: Condition) -> list[Condition]:
    """The conditions with `new` in place of its type; its transition time is kept when its status didn't change."""
    old = condition(conditions, new.type)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    if old is None:
        return [*conditions, new]
    return [new if c.type == new.type else c for c in conditions]


class Resource(Model):
    """A thing that is wanted (``spec``) and how it is (``status``).

    A kind is a subclass that sets ``kind``, ``spec`` and ``status`` and the class attributes below;
    listing it in `llmos.resources.KINDS` gives it REST routes, CLI verbs, SDK collection and schema.
    """

    plural: ClassVar[str]
    singular: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Scope] = "Namespaced"
    columns: ClassVar[tuple[tuple[str, str], ...]] = ()
    """What lists show beside NAME and AGE: (heading, path such as ``status.phase``)."""
    write_only: ClassVar[tuple[str, ...]] = ()
    """Fields of ``spec`` that are never read back and lie encrypted in the store."""
    stored_as: ClassVar[StoredAs] = "CustomResource"
    """What it is on a cluster: a custom resource, a Secret (``spec.data`` alone), or an entry of the platform's
    database as on a workstation."""
    has_logs: ClassVar[bool] = False
    """Whether processes run for it whose logs can be read."""
    placeholder: ClassVar[Mapping[str, Any]] = {}
    """A ``spec`` that fits the type, in place of one of which nothing can be read."""

    api_version: Literal["llmos.ai/v1alpha1"] = "llmos.ai/v1alpha1"
    kind: str
    metadata: ObjectMeta
    spec: Any
    status: Any
    _unread: str = PrivateAttr(default="")

    @property
    def unread(self) -> str:
        """Why this version can't read all that is stored of it; empty where it can.

        Then ``spec`` is what could be read: it is to be shown, not to be followed.
        """
        return self._unread

    def marked_unread(self, why: str) -> Self:
        """The resource, with that said of it."""
        found = self.model_copy()
        found._unread = why  # noqa: SLF001 - of its own class
        return found

    @classmethod
    def parse(cls, data: Any, *, by_name: bool = True) -> Self:
        """Validate what a user sent.

        Parameters
        ----------
        data
            The whole resource, decoded.
        by_name
            Whether fields may have their Python names too; on the wire each has one name alone.

        Raises
        ------
        Invalid
            With a cause per field at fault, each with the field's path.
        """
        if not isinstance(data, dict):
            message = f"A {cls.kind_name()} is an object with metadata and spec, not {type(data).__name__}."
            raise Invalid(message)
        try:
            return cls.model_validate(data, by_alias=True, by_name=by_name)
        except ValidationError as error:
            raise invalid(error, cls) from None

    @classmethod
    def kind_name(cls) -> str:
        """The kind, as it is written: ``ModelService``."""
        return str(cls.model_fields["kind"].default)

    def dump(self) -> dict[str, Any]:
        """The resource as JSON has it, without unset metadata."""
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
        """``namespace/name``, or the name alone for kinds of the whole platform."""
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
    """The names a field beside the one at `path` could have, to suggest one."""
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


def invalid(error: ValidationError, cls: type[BaseModel]) -> Invalid:
    """Pydantic's error as ours: a path and a sentence for each field, suggestions where possible."""
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
