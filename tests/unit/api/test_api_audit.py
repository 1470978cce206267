"""Every request of an authenticated caller is audited once, with the verb that was authorised and what became of it."""

from __future__ import annotations

import logging

import httpx
import pytest

from llmos_hub.api.audit import Action, log_changes
from tests.unit.api.conftest import SECRET, Api, credentials, manifest, models


async def test_each_action_is_audited_once(api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest())
    await ada.get(f"{models()}/chat")
    await ada.get(models(), params={"watch": "1", "timeoutSeconds": "1"})
    await grace.delete(f"{models()}/chat")
    await ada.post(models(), json=manifest())
    await ada.get("/apis/llmos.ai/v1alpha1/whoami")
    seen = [(a.caller, a.verb, a.kind, a.namespace, a.name, a.outcome) for a in api.actions]
    assert seen == [
        ("ada", "create", "modelservices", "user-ada", "", "201"),
        ("ada", "get", "modelservices", "user-ada", "chat", "200"),
        ("ada", "watch", "modelservices", "user-ada", "", "200"),
        ("grace", "delete", "modelservices", "user-ada", "chat", "forbidden"),
        ("ada", "create", "modelservices", "user-ada", "", "already_exists"),
        ("ada", "", "", "", "", "200"),
    ]
    assert len({action.request_id for action in api.actions}) == len(seen)


async def test_without_a_caller_there_is_nothing_to_audit(api: Api, nobody: httpx.AsyncClient) -> None:
    assert (await nobody.get(models())).status_code == 401
    assert (await nobody.get("/health")).status_code == 200
    assert api.actions == []


async def test_no_secret_gets_into_the_audit(api: Api, ada: httpx.AsyncClient) -> None:
    await ada.post(credentials(), json={"metadata": {"name": "hf"}, "spec": {"data": {"HF_TOKEN": SECRET}}})
    assert SECRET not in repr(api.actions)


def test_changes_are_logged_and_reading_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmos.audit"):
        log_changes(Action("ada", "get", "modelservices", "user-ada", "chat", "200", "r1"))
        log_changes(Action("ada", "delete", "modelservices", "user-ada", "chat", "200", "r2"))
    assert caplog.messages == ["ada: delete modelservices/user-ada/chat: 200 (r2)"]
