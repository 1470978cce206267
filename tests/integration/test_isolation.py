"""Two users on one real platform: neither can see, call, change or delete the other's resources.

The routes come from the applications themselves, so that a new one is covered or makes a test fail.
"""

import httpx
import pytest

import llmos
from llmos.resources import KINDS
from tests.support.platform import Platform

GROUP = "/apis/llmos.ai/v1alpha1"
SECRET = "the-secret-of-grace"


@pytest.fixture(scope="module")
def people(platform: Platform):
    """Yield the tokens of grace, who has a model, a credential and a server, and of oscar, who has an account."""
    tokens = {}
    for name in ("grace", "oscar"):
        platform.add_user(name)
        tokens[name] = platform.token(name)
    with llmos.Client(
        url=platform.api_url,
        token=tokens["grace"],
        gateway_url=f"{platform.gateway_url}/v1",
        gateway_token=tokens["grace"],
    ) as grace:
        grace.credentials.apply(
            {"kind": "Credential", "metadata": {"name": "mine"}, "spec": {"data": {"HF_TOKEN": SECRET}}}
        )
        grace.serve("demo://tiny", name="mine", aliases=["private-alias"], timeout=60)
        yield tokens


@pytest.fixture(params=["oscar", "invoke-only", "nobody"])
def attacker(request, people, platform):
    """Return an attacker's headers, with another user's token, grace's own that may only call models, or none."""
    if request.param == "nobody":
        return {}
    if request.param == "invoke-only":
        return {"Authorization": f"Bearer {platform.token('grace', 'custom:llmos:invoke')}"}
    return {"Authorization": f"Bearer {people['oscar']}"}


def openapi_operations(platform: Platform) -> list[tuple[str, str]]:
    """Return every (method, path template) in the API's own description."""
    document = httpx.get(f"{platform.api_url}/openapi.json", timeout=10).json()
    methods = {"get", "post", "put", "patch", "delete"}
    return [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method in methods
    ]


def test_every_route_of_every_kind_is_described(platform):
    operations = openapi_operations(platform)
    for cls in KINDS.values():
        where = (
            f"{GROUP}/namespaces/{{namespace}}/{cls.plural}" if cls.scope == "Namespaced" else f"{GROUP}/{cls.plural}"
        )
        assert ("GET", where) in operations
        assert ("DELETE", f"{where}/{{name}}") in operations


def test_nobody_else_reads_changes_or_deletes(platform, people, attacker):
    tried = 0
    for method, template in openapi_operations(platform):
        path = (
            template.replace("{namespace}", "user-grace").replace("{name}", "mine").replace("{plural}", "modelservices")
        )
        if "namespaces" not in template:
            continue
        kind = next((cls.kind_name() for cls in KINDS.values() if f"/{cls.plural}" in path), "Namespace")
        body = {"kind": kind, "metadata": {"name": "mine", "namespace": "user-grace"}, "spec": {}}
        content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        for suffix in ("", "?watch=1&resourceVersion=0", "?follow=1"):
            answer = httpx.request(
                method,
                f"{platform.api_url}{path}{suffix}",
                headers={**attacker, "Content-Type": content_type},
                json=body if method in ("POST", "PUT", "PATCH") else None,
                timeout=10,
            )
            assert answer.status_code == (403 if attacker else 401), (method, path, answer.text)
            assert SECRET not in answer.text
            assert "demo://" not in answer.text
            tried += 1
    assert tried > 20


def test_lists_of_all_namespaces_have_what_one_may_see(platform, people):
    headers = {"Authorization": f"Bearer {people['oscar']}"}
    for cls in KINDS.values():
        answer = httpx.get(f"{platform.api_url}{GROUP}/{cls.plural}", headers=headers, timeout=10)
        assert answer.status_code == 200, cls.plural
        assert "user-grace" not in answer.text
        assert SECRET not in answer.text
    answer = httpx.get(
        f"{platform.api_url}{GROUP}/modelservices", headers={"Authorization": f"Bearer {platform.client['token']}"}
    )
    assert answer.status_code == 200
    assert "user-grace" in answer.text


def test_settings_are_read_by_all_and_changed_by_admins(platform, people):
    headers = {"Authorization": f"Bearer {people['oscar']}"}
    names = [
        s["metadata"]["name"] for s in httpx.get(f"{platform.api_url}{GROUP}/settings", headers=headers).json()["items"]
    ]
    body = {"kind": "Setting", "metadata": {"name": names[0]}, "spec": {"value": "1"}}
    answer = httpx.put(f"{platform.api_url}{GROUP}/settings/{names[0]}", headers=headers, json=body)
    assert answer.status_code == 403


@pytest.mark.parametrize("model", ["mine", "user-grace/mine", "private-alias", "user-grace/private-alias"])
@pytest.mark.parametrize("base", ["gateway", "hub"])
def test_nobody_else_calls_or_learns_of_a_model(platform, people, base, model):
    url = f"{platform.gateway_url}/v1" if base == "gateway" else f"{platform.hub_url}/services/llm/v1"
    headers = {"Authorization": f"Bearer {people['oscar']}"}
    unknown = httpx.post(f"{url}/chat/completions", headers=headers, json={"model": "user-grace/no", "messages": []})
    for path in ("chat/completions", "completions", "embeddings"):
        answer = httpx.post(
            f"{url}/{path}", headers=headers, json={"model": model, "messages": [], "prompt": "x", "input": "x"}
        )
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == unknown.json()["error"]["code"]
        assert "mine" not in answer.text.replace(model, "")
    assert httpx.get(f"{url}/models", headers=headers).json()["data"] == []
    assert httpx.get(f"{url}/models/{model}", headers=headers).status_code == 404


def test_cookies_open_neither_api_nor_gateway(platform, people):
    with platform.browser("grace", "grace-has-a-password") as page:
        assert page.get("/hub/home").status_code == 200
        assert page.get(f"/services/llmos{GROUP}/namespaces/user-grace/modelservices").status_code == 401
        assert page.get("/services/llm/v1/models").status_code == 401


def test_the_secret_itself_is_never_read_back_and_not_stored_in_the_clear(platform, people):
    headers = {"Authorization": f"Bearer {people['grace']}"}
    answer = httpx.get(f"{platform.api_url}{GROUP}/namespaces/user-grace/credentials/mine", headers=headers)
    assert answer.json()["status"]["keys"] == ["HF_TOKEN"]
    assert SECRET not in answer.text
    for path in platform.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path


def test_tokens_are_in_no_log(platform, people):
    secrets = [*people.values(), platform.client["token"], *(v for k, v in platform.secrets.items() if "token" in k)]
    logs = list((platform.root / "logs").glob("*.log*")) + list((platform.root / "workloads").rglob("*.log"))
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        for secret in secrets:
            assert str(secret) not in text, path


def test_what_the_platform_keeps_is_for_its_user_alone(platform):
    assert platform.root.stat().st_mode & 0o777 == 0o700
    for name in ("secrets.json", "client.json"):
        assert (platform.root / name).stat().st_mode & 0o777 == 0o600
