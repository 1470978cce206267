"""Validation of ``spec.template``: a list of the allowed fields, so that nothing is allowed by mistake.

The template is merged strategically into the pod that the platform makes
(https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/), with ``null`` and the
``$patch`` directives. A template must give no more than a pod of one's own: no access to the node, no other identity,
no Secret, no label by which network policies tell pods apart, no node that the operator reserves for others, and no
other DNS than the cluster's, since the init container ``fetch`` relies on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from llmos.resources import cel

__all__ = ["DIRECTIVE", "TEMPLATE", "Fields", "cel_of", "check_pod_template", "words_of"]

_MAX_BYTES: Final = 32 * 1024
DIRECTIVE: Final = re.compile(r"^\$(patch|retainKeys|deleteFromPrimitiveList/\w+|setElementOrder/\w+)$")
_OWN: Final = "custom.llmos.ai/"
"""Prefix of labels and annotations for users, which no controller reads."""
_SCRAPING: Final = tuple(f"prometheus.io/{name}" for name in ("scrape", "port", "path", "scheme"))
_MAX_ID: Final = 2**31 - 1
_MAX_GRACE: Final = 600
"""Maximum grace period in seconds: longer than any answer takes, and short enough for draining a node."""
_SECONDS: Final = f"must be a whole number of seconds from 0 to {_MAX_GRACE}"
_OWN_NAMES: Final = f"May be set there: {_OWN}… for your own, {', '.join(_SCRAPING)}."
_SAME_NAMESPACE: Final = "Affinity is to pods of the same namespace."
_ELSEWHERE: Final = {
    "tolerations": "Which taints models tolerate is the operator's to say: users.tolerations in the chart's values.",
    "runtimeClassName": "The runtime is the operator's to say: users.gpus.runtimeClass in the chart's values.",
    "hostAliases": "Names mean in every pod what they mean in the cluster.",
    "dnsConfig": "Names mean in every pod what they mean in the cluster.",
    "dnsPolicy": "Names mean in every pod what they mean in the cluster.",
}
"""Fields that can't be set although they are often wanted, with the alternative."""

_Check = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Fields:
    """A check for an object, or (`each`) a list of objects, with only allowed fields.

    Attributes
    ----------
    allowed
        The check for each allowed field.
    each
        Whether the value is a list of such objects.
    """

    allowed: Mapping[str, _Check]
    each: bool = False

    def __call__(self, path: str, value: Any) -> None:
        """Raise `ValueError` if the check fails."""
        if not self.each:
            _object(path, value, self.allowed)
            return
        if not isinstance(value, list):
            raise _refuse(path, "must be a list")
        for index, item in enumerate(value):
            _object(_join(path, index), item, self.allowed)


def check_pod_template(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the template if all its fields may be set.

    Raises
    ------
    ValueError
        A field can't be set or has the wrong type; the message has its path.
    """
    if len(json.dumps(template)) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES // 1024} KiB as JSON")
    _object("", template, TEMPLATE)
    return template


def _join(path: str, name: object) -> str:
    return f"{path}[{name}]" if isinstance(name, int) else f"{path}.{name}" if path else str(name)


def _refuse(path: str, why: str) -> ValueError:
    return ValueError(f"{path} {why}")


def _object(path: str, value: Any, allowed: Mapping[str, _Check]) -> None:
    """Check an object: only allowed fields, each by its own check; null removes a field and is always allowed."""
    if not isinstance(value, Mapping):
        raise _refuse(path or "it", "must be an object")
    for name, item in value.items():
        where = _join(path, name)
        if not isinstance(name, str):
            raise _refuse(where, "is no name of a field")
        if DIRECTIVE.match(name):
            continue
        check = allowed.get(name)
        if check is None:
            close = get_close_matches(name, allowed, n=1)
            if allowed is _SPEC_FIELDS and name in _ELSEWHERE:
                raise _refuse(where, f"can't be set. {_ELSEWHERE[name]}")
            meant = f'Did you mean "{close[0]}"?' if close else f"May be set there: {', '.join(allowed)}."
            raise _refuse(where, f"can't be set. {meant}")
        if item is not None:
            check(where, item)


def _anything(path: str, value: Any) -> None:
    """Accept any value; the API server validates it."""


def _harmless_metadata(path: str, value: Any) -> None:
    """Check that labels or annotations have no effect on the pod."""
    # An allowlist: clusters have controllers that give a pod a cloud identity, a sidecar, another network or a secret's
    # content because of a label or an annotation, and nobody knows all of them.
    if not isinstance(value, Mapping):
        raise _refuse(path, "must be an object")
    for name, item in value.items():
        if DIRECTIVE.match(str(name)):
            continue
        if not str(name).startswith(_OWN) and name not in _SCRAPING:
            raise _refuse(_join(path, name), f"can't be set. {_OWN_NAMES}")
        if item is not None and not isinstance(item, str):
            raise _refuse(_join(path, name), "must be a text")


def _grace(path: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_GRACE:
        raise _refuse(path, _SECONDS)


def _affinity(path: str, value: Any) -> None:
    """Check that affinity is to pods of the same namespace only: it could locate or displace the pods of others."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            where = _join(path, name)
            if name in ("namespaces", "namespaceSelector") and item is not None:
                raise _refuse(where, f"can't be set. {_SAME_NAMESPACE}")
            _affinity(where, item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _affinity(_join(path, index), item)


def _user(path: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_ID:
        raise _refuse(path, "must be a number over 0: nothing runs as root")


def _users(path: str, value: Any) -> None:
    if not isinstance(value, list):
        raise _refuse(path, "must be a list")
    for index, item in enumerate(value):
        _user(_join(path, index), item)


def _same(names: Iterable[str]) -> dict[str, _Check]:
    return dict.fromkeys(names, _anything)


_ENV: Final = Fields(
    {
        **_same(("name", "value")),
        "valueFrom": Fields(_same(("fieldRef", "resourceFieldRef", "configMapKeyRef"))),
    },
    each=True,
)
# no "host": the node's own agent would ask any address in the network for it
_ACTIONS: Final[Mapping[str, _Check]] = {
    "exec": _anything,
    "sleep": _anything,
    "grpc": _anything,
    "httpGet": Fields(_same(("path", "port", "scheme", "httpHeaders"))),
    "tcpSocket": Fields(_same(("port",))),
}
_HANDLER: Final = Fields(_ACTIONS)
_NUMBERS: Final = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
_PROBE: Final = Fields({**_ACTIONS, **_same(_NUMBERS), "terminationGracePeriodSeconds": _grace})
_CONTAINER: Final[Mapping[str, _Check]] = {
    **_same(("name", "image", "imagePullPolicy", "command", "args", "workingDir", "resources", "restartPolicy")),
    "volumeMounts": _anything,
    "lifecycle": Fields({"preStop": _HANDLER, "postStart": _HANDLER}),
    **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe"), _PROBE),
    "env": _ENV,
    "envFrom": Fields(_same(("prefix", "configMapRef")), each=True),
    "ports": Fields(_same(("name", "containerPort", "protocol")), each=True),
    "securityContext": Fields({"runAsUser": _user, "runAsGroup": _user, "readOnlyRootFilesystem": _anything}),
}
_VOLUME: Final = _same(("name", "emptyDir", "persistentVolumeClaim", "configMap", "downwardAPI", "ephemeral"))
_METADATA: Final = Fields({"labels": _harmless_metadata, "annotations": _harmless_metadata})
_SPEC_FIELDS: Final[Mapping[str, _Check]] = {
    **_same(("nodeSelector", "topologySpreadConstraints", "imagePullSecrets", "resourceClaims")),
    "affinity": _affinity,
    "terminationGracePeriodSeconds": _grace,
    "containers": Fields(_CONTAINER, each=True),
    "initContainers": Fields(_CONTAINER, each=True),
    "volumes": Fields(_VOLUME, each=True),
    "securityContext": Fields(
        {"runAsUser": _user, "runAsGroup": _user, "fsGroup": _user, "supplementalGroups": _users}
    ),
}
_SPEC: Final = Fields(_SPEC_FIELDS)
TEMPLATE: Final[Mapping[str, _Check]] = {"metadata": _METADATA, "spec": _SPEC}
"""Checks for the fields of a template."""


def cel_of(check: _Check, value: str) -> str:
    """Return the CEL expression of a check for one value; empty if the check accepts everything.

    Parameters
    ----------
    check
        A check in `TEMPLATE` that is not a `Fields`.
    value
        The CEL expression of the value.
    """
    return _IN_CEL[check].format(value=value) if check in _IN_CEL else ""


def words_of(check: _Check) -> str:
    """Return what a check in `TEMPLATE` that is not a `Fields` says of a value that it refuses."""
    return _IN_WORDS[check]


def _affinity_in_cel() -> str:
    """Return the rule for the affinities that Kubernetes has, with their lists of terms."""
    # CEL can't recurse as `_affinity` does
    free = "(!('namespaces' in {0}) && !('namespaceSelector' in {0}))"
    terms = {
        "requiredDuringSchedulingIgnoredDuringExecution": free.format("t"),
        "preferredDuringSchedulingIgnoredDuringExecution": (
            f"(!('podAffinityTerm' in t) || t.podAffinityTerm == null || {free.format('t.podAffinityTerm')})"
        ),
    }
    rules = []
    for part in ("podAffinity", "podAntiAffinity"):
        where = f"{{value}}.{part}"
        each = [
            f"(!('{name}' in {where}) || {where}.{name} == null || {where}.{name}.all(t, {rule}))"
            for name, rule in terms.items()
        ]
        rules.append(f"(!('{part}' in {{value}}) || {where} == null || ({' && '.join(each)}))")
    return " && ".join(["type({value}) == map", *rules])


_IN_CEL: Final[Mapping[_Check, str]] = {
    _harmless_metadata: (
        f"type({{value}}) == map && {{value}}.all(k, k.startsWith({cel.text(_OWN)}) || k in {cel.text(list(_SCRAPING))} || "
        f"k.matches({cel.text(DIRECTIVE.pattern)}))"
    ),
    _user: f"type({{value}}) == int && {{value}} > 0 && {{value}} <= {_MAX_ID}",
    _users: f"type({{value}}) == list && {{value}}.all(u, type(u) == int && u > 0 && u <= {_MAX_ID})",
    _grace: f"type({{value}}) == int && {{value}} >= 0 && {{value}} <= {_MAX_GRACE}",
    _affinity: _affinity_in_cel(),
}
_IN_WORDS: Final[Mapping[_Check, str]] = {
    _harmless_metadata: f"has what can't be set. {_OWN_NAMES}",
    _grace: f"{_SECONDS}.",
    _affinity: f"has what can't be set. {_SAME_NAMESPACE}",
}
