"""Mistakes in workloads are found when they are made, and what is new changes no hash of what exists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmos_hub.workload import Mount, PodOptions, Probe, ProcessTemplate, Role, Workload, WorkloadRef

REF = WorkloadRef("MLCluster", "user-ada", "ray", "u1")
HEAD = Role("head", 1, ProcessTemplate(("head",), ports={"gcs": 6379}))


def make(*argv: str, after: tuple[str, ...] = (), name: str = "worker", **fields: Any) -> Workload:
    return Workload(REF, (HEAD, Role(name, 2, ProcessTemplate(argv, **fields), after)))


def test_what_placeholders_name_is_found_and_other_braces_are_left_alone() -> None:
    made = make(
        '{"a": {head.port.gcs}}',
        "{worker.address} {port.own} {mount.data} {{user.address}} ${x.address.y} {other}",
        env={"HEAD": "{head.address}"},
        ports={"own": 1},
        mounts={"data": Mount("/data", "/data")},
        after=("head",),
    )
    assert made.addressed == {"head", "worker"}


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"argv": ("a", "{hed.address}")}, "ray, role worker, argv[1]:", "{hed.address} names none of the roles"),
        ({"env": {"A": "{head.port.gsc}"}}, "ray, role worker, env.A:", 'role head has no port "gsc" (gcs)'),
        ({"argv": ("{port.gcs}",)}, "ray, role worker, argv[0]:", "none of its ports (none)"),
        ({"argv": ("{mount.data}",)}, "ray, role worker, argv[0]:", "none of its mounts (none)"),
        ({"init": (ProcessTemplate(("{x.address}",)),)}, "role worker, init[0].argv[0]:", "{x.address}"),
        ({"init": (ProcessTemplate(("a",), ports={"p": 1}),)}, "role worker, init[0]:", "only the role's own"),
        ({"ports": {"GCS": 1}}, 'role worker, port "GCS":', "lowercase"),
        ({"ports": {"http": 1}}, 'role worker, port "http":', "isn't http"),
        ({"ports": {"a": 0}}, "role worker, port a:", "0 is not"),
        ({"ports": {"a": 1, "b": 1}}, "role worker, port a:", "of its own"),
        ({"mounts": {"a": Mount("/data", "data")}}, "role worker, mount a:", "absolute"),
        ({"after": ("haed",)}, "role worker:", 'after "haed"'),
        ({"after": ("worker",)}, "ray:", "worker after worker"),
        ({"name": "head"}, "ray, roles:", "the same name"),
        ({"name": "port"}, 'role "port":', "isn't mount, port"),
        ({"name": "worker-group-1"}, 'role "worker-group-1":', "12 lowercase"),
    ],
)
def test_mistakes_are_refused_with_their_place(fields: dict[str, Any], where: str, what: str) -> None:
    argv = fields.get("argv", ("worker",))
    with pytest.raises(ValueError) as caught:
        make(*argv, **{name: value for name, value in fields.items() if name != "argv"})
    assert where in str(caught.value)
    assert what in str(caught.value)


def test_roles_in_a_circle_are_refused() -> None:
    roles = [Role(name, 1, HEAD.template, (other,)) for name, other in ("ab", "bc", "ca")]
    with pytest.raises(ValueError, match="ray: roles are started after each other"):
        Workload(REF, tuple(roles))


def test_an_unknown_operator_is_refused() -> None:
    assert Workload(REF, (HEAD,), operator="ray").operator == "ray"
    with pytest.raises(ValueError, match=r'no operator "spark", only dask, ray\.'):
        Workload(REF, (HEAD,), operator="spark")


def test_hashes_are_those_of_earlier_versions() -> None:
    plain = ProcessTemplate(("server", "{socket}"), readiness=Probe("/health"), memory_limit=5)
    init = replace(plain, init=(ProcessTemplate(("fetch",)),), pod=PodOptions("llamacpp"))
    assert (plain.hash, init.hash) == ("c8638dcc9519", "13400e41e47a")
    changed = (
        replace(plain, ports={"gcs": 1}),
        replace(plain, mounts={"data": Mount("/data", "/data")}),
        replace(plain, user="ada"),
    )
    assert len({plain.hash, *(template.hash for template in changed)}) == 4
