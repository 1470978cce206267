"""Every request of an authenticated caller is audited once, with the verb that was authorised and what became of it."""

from __future__ import annotations

import logging

import httpx
import pytest

from llmos.resources import Resource
from llmos_hub.api import endpoints
from llmos_hub.api.audit import log_action
from llmos_hub.api.dependencies import Call
from tests.unit.api.conftest import SECRET, credentials, manifest, models

Actions = list[tuple[str, ...]]


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> Actions:
    """Everything that is passed to the audit."""
    found: Actions = []

    def audit(call: Call, verb: str, outcome: str) -> None:
        kind, name = call.kind.plural if call.kind is not Resource else "", call.request.path_params.get("name", "")
        found.append((call.caller.name, verb, kind, call.namespace or "", name, outcome))
        log_action(call, verb, outcome)

    monkeypatch.setattr(endpoints, "log_action", audit)
    return found


async def test_each_action_is_audited_once(ada: httpx.AsyncClient, grace: httpx.AsyncClient, actions: Actions) -> None:
    await ada.post(models(), json=manifest())
    await ada.get(f"{models()}/chat")
    await ada.get(models(), params={"watch": "1", "timeoutSeconds": "1"})
    await grace.delete(f"{models()}/chat")
    await ada.post(models(), json=manifest())
    await ada.get("/apis/llmos.ai/v1alpha1/whoami")
    assert actions == [
        ("ada", "create", "modelservices", "user-ada", "", "201"),
        ("ada", "get", "modelservices", "user-ada", "chat", "200"),
        ("ada", "watch", "modelservices", "user-ada", "", "200"),
        ("grace", "delete", "modelservices", "user-ada", "chat", "forbidden"),
        ("ada", "create", "modelservices", "user-ada", "", "already_exists"),
        ("ada", "", "", "", "", "200"),
    ]


async def test_without_a_caller_there_is_nothing_to_audit(nobody: httpx.AsyncClient, actions: Actions) -> None:
    assert (await nobody.get(models())).status_code == 401
    assert (await nobody.get("/health")).status_code == 200
    assert actions == []


async def test_changes_are_logged_and_reading_and_secrets_are_not(
    ada: httpx.AsyncClient, grace: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    secret = {"metadata": {"name": "hf"}, "spec": {"data": {"HF_TOKEN": SECRET}}}
    with caplog.at_level(logging.INFO, "llmos.audit"):
        created = await ada.post(credentials(), json=secret)
        await ada.get(f"{credentials()}/hf")
        await ada.get("/apis/llmos.ai/v1alpha1/whoami")
        refused = await grace.delete(f"{credentials()}/hf")
    assert SECRET not in caplog.text
    made, not_deleted = (response.headers["x-request-id"] for response in (created, refused))
    assert [record.message for record in caplog.records if record.name == "llmos.audit"] == [
        f"ada: create credentials/user-ada: 201 ({made})",
        f"grace: delete credentials/user-ada/hf: forbidden ({not_deleted})",
    ]
