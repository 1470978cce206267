"""Writes the chart's ValidatingAdmissionPolicy for `spec.template`, which a custom resource definition can't validate.

A template is part of a pod, whose fields the definition leaves open, and validation rules in a definition can't access
such fields; those of a policy can. The rules are those of `llmos.resources.podtemplate`, so that ``kubectl apply`` and
the API refuse the same. Templates stored earlier may stay as they are, because a policy must not prevent their
deletion. Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from llmos.resources import ModelService
from llmos.resources.cel import text
from llmos.resources.podtemplate import DIRECTIVE, TEMPLATE, Fields, cel_of, words_of

TARGET = Path(__file__).parent.parent / "helm" / "llmos" / "templates" / "admission" / "modelservices.yaml"
_NAME: Final = "RELEASE-modelservices"
_HEADER: Final = (
    "{{- /* Made from llmos/resources by `make generate`; don't edit it. */}}\n{{- if .Values.rbac.create }}\n"
)


def expression(check: Callable[[str, Any], None], value: str, depth: int = 0) -> str:
    """Return the CEL expression of a check for a value; empty if everything is allowed."""
    if not isinstance(check, Fields):
        return cel_of(check, value)
    item = f"i{depth}" if check.each else value
    inner = " && ".join([_known(item, check.allowed), *_parts(item, check.allowed, depth + 1)])
    return f"type({value}) == list && {value}.all({item}, {inner})" if check.each else inner


def _known(value: str, allowed: Mapping[str, Any]) -> str:
    # a value of another type would be an error, for which the server shows the expression instead of the message
    return f"type({value}) == map && {value}.all(k, k in {text(list(allowed))} || k.matches({text(DIRECTIVE.pattern)}))"


def _parts(value: str, allowed: Mapping[str, Any], depth: int) -> list[str]:
    return [
        f"(!({text(name)} in {value}) || {value}.{name} == null || ({inner}))"
        for name, check in allowed.items()
        if (inner := expression(check, f"{value}.{name}", depth))
    ]


def validations() -> list[dict[str, str]]:
    """Return one validation per field that the API has a check for, so that the message names the field."""
    made = [_only("spec.template", "variables.template", TEMPLATE)]
    for part, check in TEMPLATE.items():
        assert isinstance(check, Fields), part
        made.append(_only(f"spec.template.{part}", f"variables.{part}", check.allowed))
        for name, inner in check.allowed.items():
            if not (holds := expression(inner, f"variables.{part}.{name}")):
                continue
            there = f"!({text(name)} in variables.{part}) || variables.{part}.{name} == null"
            made.append(
                {"expression": f"{there} || ({holds})", "message": _message(f"spec.template.{part}.{name}", inner)}
            )
    return made


def _only(path: str, value: str, allowed: Mapping[str, Any]) -> dict[str, str]:
    others = f"{value}.filter(k, !(k in {text(list(allowed))} || k.matches({text(DIRECTIVE.pattern)})))"
    instead = f" can't be set. May be set there: {', '.join(allowed)}."
    says = f"{text(path + '.')} + {others}[0] + {text(instead)}"
    return {"expression": _known(value, allowed), "messageExpression": says, "message": f"{path} must be an object."}


def _message(path: str, check: Callable[[str, Any], None]) -> str:
    if not isinstance(check, Fields):
        return f"{path} {words_of(check)}"
    known = ", ".join(check.allowed)
    return f"{path} has what can't be set. May be set there: {known}. The API, or llmos apply, says what it is."


def policy() -> list[dict[str, Any]]:
    """Return the policy and its binding."""
    group, _, _ = str(ModelService.model_fields["api_version"].default).partition("/")
    # has() on a value that isn't an object is an error and so refuses it
    variables = {
        "template": "object.spec.template",
        **{
            part: f"{text(part)} in variables.template && variables.template.{part} != null ? variables.template.{part} : {{}}"
            for part in TEMPLATE
        },
    }
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [group],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [ModelService.plural],
                }
            ]
        },
        "matchConditions": [
            {
                "name": "template-is-new",
                "expression": "has(object.spec) && has(object.spec.template) && (oldObject == null || !has(oldObject.spec)"
                " || !has(oldObject.spec.template) || object.spec.template != oldObject.spec.template)",
            }
        ],
        "variables": [{"name": name, "expression": each} for name, each in variables.items()],
        "validations": [{**rule, "reason": "Invalid"} for rule in validations()],
    }
    bound = {"policyName": _NAME, "validationActions": ["Deny"]}
    version = "admissionregistration.k8s.io/v1"
    kinds = {"ValidatingAdmissionPolicy": spec, "ValidatingAdmissionPolicyBinding": bound}
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": _NAME, "labels": "LABELS"}, "spec": content}
        for kind, content in kinds.items()
    ]


def files() -> dict[Path, str]:
    """Return the text of the chart's template by its path."""
    body = yaml.safe_dump_all(policy(), sort_keys=False, allow_unicode=True, width=120)
    labels = '\n    {{- include "llmos.labels" (list . "admission") | nindent 4 }}'
    body = body.replace(" LABELS\n", labels + "\n").replace("RELEASE", '{{ include "llmos.clusterName" . }}')
    return {TARGET: f"{_HEADER}{body}{{{{- end }}}}\n"}
