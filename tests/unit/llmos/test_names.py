"""Names of namespaces and homes: readable, valid for Kubernetes, and different for different users."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.names import group_namespace, slug, user_namespace

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize("name", ["ada", "ada-l", "a", "x" * 48, "0"])
def test_a_plain_name_stays(name):
    assert slug(name) == name
    assert user_namespace(name) == f"user-{name}"


@given(st.text(max_size=300))
def test_every_name_gives_the_name_of_a_namespace(name):
    for made in (user_namespace(name), group_namespace(name)):
        assert LABEL.fullmatch(made)


@given(st.text(max_size=60), st.text(max_size=60))
def test_two_names_are_two_namespaces(one, other):
    assert (user_namespace(one) == user_namespace(other)) == (one == other)


@pytest.mark.parametrize("name", ["ada\n", "Ada", "a--b", "-ada", "ada-", "", "é", "x" * 49])
def test_what_is_not_plain_is_told_apart_by_its_hash(name):
    made = slug(name)
    assert re.fullmatch(r"[a-z0-9-]+--[0-9a-f]{16}", made)
    assert slug(made) != made  # so no user gets another's namespace by choosing its name
