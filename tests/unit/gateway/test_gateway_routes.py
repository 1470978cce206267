"""The table of routes, with routes that are made up."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_hub.gateway.routes import Route, Router

ROUTES = [
    Route("POST", "/v1/responses"),
    Route("GET", "/v1/responses/{id}"),
    Route("DELETE", "/v1/responses/{id}"),
    Route("GET", "/v1/responses/{id}/input_items"),
    Route("GET", "/v1/responses/latest"),
    Route("POST", "/v1/threads/{thread}/runs/{run}"),
    Route("GET", "/v1/models"),
    Route("GET", "/v1/models/{id}", slashes=True),
]


@pytest.fixture
def router() -> Router[str]:
    return Router({route: str(route) for route in ROUTES})


@pytest.mark.parametrize(
    ("method", "path", "handler", "parameters"),
    [
        ("POST", "/v1/responses", "POST /v1/responses", {}),
        ("GET", "/v1/responses/r1", "GET /v1/responses/{id}", {"id": "r1"}),
        ("DELETE", "/v1/responses/r1", "DELETE /v1/responses/{id}", {"id": "r1"}),
        ("GET", "/v1/responses/r1/input_items", "GET /v1/responses/{id}/input_items", {"id": "r1"}),
        ("GET", "/v1/responses/latest", "GET /v1/responses/latest", {}),
        ("DELETE", "/v1/responses/latest", "DELETE /v1/responses/{id}", {"id": "latest"}),
        ("POST", "/v1/threads/t/runs/r", "POST /v1/threads/{thread}/runs/{run}", {"thread": "t", "run": "r"}),
        ("GET", "/v1/models/public/tiny", "GET /v1/models/{id}", {"id": "public/tiny"}),
        ("GET", "/v1/models/../../etc/passwd", "GET /v1/models/{id}", {"id": "../../etc/passwd"}),
        ("GET", "/v1/models//", "GET /v1/models", {}),
    ],
)
def test_a_method_and_a_path_find_their_handler(
    router: Router[str], method: str, path: str, handler: str, parameters: dict[str, str]
) -> None:
    found = router.find(method, path)
    assert found is not None
    assert (found.handler, str(found.route), dict(found.parameters)) == (handler, handler, parameters)


@pytest.mark.parametrize(
    "path", ["/v1/responses/", "/v1/responses/r1/", "/v1/responses/latest//", "/v1/models/", "/v1/models/a/"]
)
def test_slashes_at_the_end_do_not_matter(router: Router[str], path: str) -> None:
    found = router.find("POST" if path == "/v1/responses/" else "GET", path)
    assert found is not None
    assert found.parameters.get("id") in {None, "r1", "a/"}  # only a rest of the path keeps them


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/responses", "POST"),
        ("POST", "/v1/responses/r1", "DELETE, GET"),
        ("BREW", "/v1/responses/r1", "DELETE, GET"),
        ("OPTIONS", "/v1/responses/latest", "DELETE, GET"),
        ("get", "/v1/models", "GET"),
        ("DELETE", "/v1/models/", "GET"),
        ("DELETE", "/v1/models/public/tiny", "GET"),
    ],
)
def test_another_method_is_told_those_of_the_path(router: Router[str], method: str, path: str, allowed: str) -> None:
    assert router.find(method, path) is None
    assert router.allowed(path) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "v1/models",
        "/v1/responsesx",
        "/v2/responses/r1",
        "/v1/responses//",
        "/v1/responses/a/b",
        "/v1/responses/.",
        "/v1/responses/..",
        "/v1/responses/../input_items",
        "/v1/threads//runs/r",
        "/v1/responses/{id}/more",
    ],
)
def test_what_is_no_path_has_no_methods(router: Router[str], path: str) -> None:
    assert router.find("GET", path) is None
    assert router.allowed(path) == ""


def test_a_head_is_answered_as_a_get(router: Router[str]) -> None:
    found = router.find("HEAD", "/v1/responses/r1")
    assert found is not None
    assert found.route.method == "GET"
    assert router.find("HEAD", "/v1/responses") is None


@pytest.mark.parametrize(
    ("raw", "id_"),
    [
        ("/v1/responses/a%20b", "a b"),
        ("/v1/responses/%C3%A4", "ä"),
        ("/v1/responses/100%25", "100%"),
        ("/v1/responses/a%252Fb", "a%2Fb"),  # decoded once
        ("/v1/responses/a%0Ab", "a\nb"),
        ("/v1/respons%65s/r1", "r1"),
        ("/v1/responses/a%3Fb%23c", "a?b#c"),
        ("/v1/responses/...", "..."),
    ],
)
def test_a_parameter_is_decoded_once_and_encoded_again(router: Router[str], raw: str, id_: str) -> None:
    found = router.find("GET", unquote(raw))  # as the server does
    assert found is not None
    assert found.parameters == {"id": id_}
    target = found.route.fill(found.parameters)
    assert target.isascii()
    assert not set(target) & set(" ?#\r\n")
    assert unquote(target) == unquote(raw)


def test_an_encoded_slash_separates_segments(router: Router[str]) -> None:
    assert router.find("GET", unquote("/v1/responses/a%2Fb")) is None
    found = router.find("GET", unquote("/v1/models/public%2Ftiny"))
    assert found is not None
    assert found.parameters == {"id": "public/tiny"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1))
def test_whatever_a_parameter_is_the_filled_path_leads_back_to_it(value: str) -> None:
    route = Route("GET", "/v1/responses/{id}")
    target = route.fill({"id": value})
    assert target.isascii()
    assert target.count("/") == 3
    found = Router({route: "x"}).find("GET", unquote(target))
    if value in {".", ".."}:
        assert found is None
    else:
        assert found is not None
        assert found.parameters == {"id": value}


def test_the_routes_and_methods_are_listed_in_order(router: Router[str]) -> None:
    assert [str(r) for r in router.routes] == [str(r) for r in ROUTES]
    assert router.methods == ["DELETE", "GET", "POST"]
