"""The authorization rules as a complete table, so that any change of a rule is seen here."""

from __future__ import annotations

from typing import get_args

import pytest

from llmos.errors import Forbidden
from llmos.resources import KINDS, Credential, ModelService, Resource, Setting
from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from llmos_hub.policy import Caller, Ref, Rights, Rule, Verb

BOTH = frozenset({SCOPE_MANAGE, SCOPE_INVOKE})
ADA = Caller("ada", scopes=BOTH)
ROOT = Caller("root", admin=True, scopes=BOTH)
VERBS: tuple[Verb, ...] = get_args(Verb)
READ: tuple[Verb, ...] = ("get", "list", "watch", "logs")
WRITE: tuple[Verb, ...] = ("create", "update", "delete")


def allowed(caller: Caller, kind: type[Resource], namespace: str | None) -> set[Verb]:
    rights = Rights(caller)
    return {verb for verb in VERBS if rights.may(verb, Ref(kind, namespace))}


@pytest.mark.parametrize("kind", KINDS.values())
def test_admins_may_everything_everywhere(kind: type[Resource]) -> None:
    for namespace in (None, "public", "user-ada", "group-vision"):
        assert allowed(ROOT, kind, namespace) == set(VERBS)


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k.scope == "Namespaced"])
def test_ones_own_namespace_is_ones_own(kind: type[Resource]) -> None:
    assert allowed(ADA, kind, "user-ada") == set(VERBS) - {"approve"}


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k.scope == "Namespaced"])
@pytest.mark.parametrize(
    "namespace", [None, "user-grace", "user-ada-2", "group-vision", "user-", "default", "USER-ADA"]
)
def test_nothing_of_anybody_elses(kind: type[Resource], namespace: str | None) -> None:
    assert allowed(ADA, kind, namespace) == set()


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k.scope == "Namespaced"])
def test_a_groups_namespace_is_its_members(kind: type[Resource]) -> None:
    member = Caller("ada", groups=frozenset({"vision", "Speech & Text"}), scopes=BOTH)
    assert allowed(member, kind, "group-vision") == set(VERBS) - {"approve"}
    assert allowed(member, kind, "group-nlp") == set()
    (other,) = set(member.group_namespaces) - {"group-vision"}
    assert allowed(member, kind, other) == set(VERBS) - {"approve"}
    assert member.search_path == ("user-ada", "public", *member.group_namespaces)
    with pytest.raises(Forbidden, match=r"Yours are user-ada, group-speech-text--[0-9a-f]{16}, group-vision\."):
        Rights(member).require("get", Ref(kind, "group-nlp"))
    assert allowed(Caller("ada", groups=member.groups, scopes=frozenset({SCOPE_INVOKE})), kind, "group-vision") == {
        "invoke"
    }


def test_public_is_to_read_and_to_use() -> None:
    assert allowed(ADA, ModelService, "public") == {*READ, "invoke"} - {"logs"}
    with pytest.raises(Forbidden, match="Only admins may read the logs of what is in public: others' prompts"):
        Rights(ADA).require("logs", Ref(ModelService, "public"))
    assert allowed(ADA, Credential, "public") == set()


def test_settings_are_to_read() -> None:
    assert allowed(ADA, Setting, None) == set(READ)


@pytest.mark.parametrize("caller", [ADA, ROOT])
def test_a_token_may_not_more_than_its_scopes(caller: Caller) -> None:
    narrow = Caller(caller.name, admin=caller.admin, scopes=frozenset({SCOPE_INVOKE}))
    manage = Caller(caller.name, admin=caller.admin, scopes=frozenset({SCOPE_MANAGE}))
    none = Caller(caller.name, admin=caller.admin)
    assert allowed(narrow, ModelService, caller.namespace) == {"invoke"}
    assert allowed(manage, ModelService, caller.namespace) >= set(VERBS) - {"invoke", "approve"}
    assert "invoke" not in allowed(manage, ModelService, caller.namespace)
    assert allowed(none, ModelService, caller.namespace) == set()
    with pytest.raises(Forbidden, match=SCOPE_MANAGE):
        Rights(narrow).require_admin("look")


def test_a_refusal_says_whose_it_would_be() -> None:
    with pytest.raises(Forbidden, match=r"You may not delete modelservices in user-grace\. Yours is user-ada\."):
        Rights(ADA).require("delete", Ref(ModelService, "user-grace"))
    with pytest.raises(Forbidden, match=r"^You may not read the logs of modelservices in user-grace\."):
        Rights(ADA).require("logs", Ref(ModelService, "user-grace"))
    with pytest.raises(Forbidden, match="Only admins may look at this"):
        Rights(ADA).require_admin("look at this")
    Rights(ROOT).require_admin("look at this")


def test_names_that_differ_have_namespaces_that_differ() -> None:
    names = ["ada", "Ada", "ada ", "a-da", "ada-", "ada--2", "ada@example.org", "ada-example-org", "é", "è", "a" * 60]
    assert len({Caller(n).namespace for n in names}) == len(names)


def test_all_that_one_may_see_are_these_namespaces() -> None:
    member = Caller("ada", groups=frozenset({"vision"}), scopes=BOTH)
    assert Rights(member).namespaces("list", ModelService) == {"user-ada", "group-vision", "public"}
    assert Rights(member).namespaces("list", Credential) == {"user-ada", "group-vision"}
    assert Rights(member).namespaces("logs", ModelService) == {"user-ada", "group-vision"}
    assert Rights(ROOT).namespaces("list", Credential) is None
    narrow = Rights(Caller("ada", scopes=frozenset({SCOPE_INVOKE})))
    assert narrow.namespaces("list", ModelService) == frozenset()
    with pytest.raises(Forbidden, match=SCOPE_MANAGE):
        narrow.require_some("list", Ref(ModelService))
    assert Rights(member).require_some("list", Ref(ModelService, "public")) is None
    with pytest.raises(Forbidden, match="You may not list modelservices in user-grace"):
        Rights(member).require_some("list", Ref(ModelService, "user-grace"))
    assert Rights(ADA).require_some("list", Ref(Setting)) is None


def model(name: str, namespace: str = "user-grace", **labels: str) -> ModelService:
    return ModelService.parse(
        {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"model": "demo://smollm2"}}
    )


def test_what_is_in_public_is_for_admins_to_change() -> None:
    Rights(ADA).require("delete", Ref(ModelService, "user-ada", "chat"))
    with pytest.raises(Forbidden, match=r"^Only admins may delete modelservices in public\."):
        Rights(ADA).require("delete", Ref(ModelService, "public", "chat"))


def test_a_rule_for_names_decides_by_name() -> None:
    rule = Rule(
        frozenset({"get", "list", "delete", "invoke"}),
        kinds=frozenset({"modelservices"}),
        namespaces=frozenset({"user-grace"}),
        names=frozenset({"chat", "draft"}),
    )
    rights = Rights(ADA, (rule,))
    assert rights.may("invoke", Ref(ModelService, "user-grace", "chat"))
    assert rights.may("delete", Ref.of(model("draft")))
    assert not rights.may("update", Ref(ModelService, "user-grace", "chat"))
    assert not rights.may("get", Ref(ModelService, "user-grace", "other"))
    assert not rights.may("get", Ref(ModelService, "user-grace"))  # not all of them
    assert not rights.may("get", Ref(Credential, "user-grace", "chat"))
    assert not rights.needs_labels("get", Ref(ModelService, "user-grace", "other"))
    with pytest.raises(Forbidden):
        rights.require_some("delete", Ref(Credential, "user-grace"))
    narrow = Rights(Caller("ada", scopes=frozenset({SCOPE_INVOKE})), (rule,))
    assert narrow.may("invoke", Ref.of(model("chat")))
    assert not narrow.may("get", Ref.of(model("chat")))


def test_a_rule_for_labels_decides_by_labels() -> None:
    rule = Rule(frozenset({"get", "list", "create"}), frozenset({"modelservices"}), labels={"team": "nlp"})
    rights = Rights(ADA, (rule,))
    assert rights.may("get", Ref.of(model("chat", team="nlp", tier="gold")))
    assert not rights.may("get", Ref.of(model("chat", team="vision")))
    unknown = Ref(ModelService, "user-grace", "chat")
    assert not rights.may("get", unknown)
    assert rights.needs_labels("get", unknown)
    assert not rights.needs_labels("delete", unknown)
    assert not rights.needs_labels("get", Ref(ModelService, "user-ada", "chat"))
    rights.require_some("create", Ref(ModelService, "user-grace"))  # its labels decide, once they are known
    with pytest.raises(Forbidden):
        rights.require("create", Ref.of(model("chat")))


def test_lists_are_filtered_by_item() -> None:
    verbs: frozenset[Verb] = frozenset({"list"})
    named = Rule(verbs, namespaces=frozenset({"user-grace"}), names=frozenset({"chat"}))
    labelled = Rule(verbs, namespaces=frozenset({"user-bob"}), labels={"team": "nlp"})
    within = Rights(ADA, (named, labelled)).require_some("list", Ref(ModelService))
    assert within is not None
    assert within.namespaces == {"user-ada", "public", "user-grace", "user-bob"}
    shown = [model("chat"), model("a", "user-ada"), model("b", "public"), model("c", "user-bob", team="nlp")]
    hidden = [model("other"), model("chat", "user-bob"), model("chat", "user-eve")]
    assert [each.key for each in (*shown, *hidden) if within.keeps(each)] == [each.key for each in shown]
    one = Rights(ADA, (named,)).require_some("list", Ref(ModelService, "user-grace"))
    assert one is not None
    assert [each.key for each in (*shown, *hidden) if one.keeps(each)] == ["user-grace/chat"]
    fewer = Rights(ADA, (named,)).require_some("list", Ref(ModelService))
    assert fewer is not None
    assert fewer <= within
    assert not within <= fewer
