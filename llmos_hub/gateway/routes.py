"""Routes: the methods and path templates that the gateway answers, each with its handler.

Each module in `llmos_hub.gateway.endpoints` declares its routes as a mapping ``{Route("GET", "/v1/models"): handler}``.
The `Router` finds the one for a request. Most paths are literal, and are found with one lookup.

A path is matched as the server passes it: decoded once, without its query. So an encoded slash separates segments as a
plain one does; only the last parameter of a route with `Route.slashes` may contain one. A HEAD request is answered by
the route for GET. Slashes at the end of a path are ignored where a route has the method, and a literal path takes
precedence over a template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

__all__ = ["NOWHERE", "Match", "Route", "Router"]

H = TypeVar("H")
"""The type of the handlers."""

_PARAMETER: Final = re.compile(r"\{([a-z_]+)\}")
_SEGMENT: Final = r"(?!\.{1,2}(?:/|\Z))[^/]+"
"""Pattern of a parameter. Neither ``.`` nor ``..``: in a path that is sent to an engine they would change its meaning."""


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path template.

    Attributes
    ----------
    method
        The HTTP method.
    path
        The path, without the prefix under the Hub; ``{name}`` in it stands for one segment. It is also the route's name
        in logs, metrics and messages.
    quiet
        True if requests are so frequent and uninteresting that they are logged at debug level only.
    slashes
        True if the last parameter stands for the whole rest of the path, which may be empty or contain slashes.
    """

    method: str
    path: str
    quiet: bool = False
    slashes: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def fill(self, parameters: Mapping[str, str]) -> str:
        """Return the path with the values of its parameters, percent-encoded."""
        if not parameters:
            return self.path
        return _PARAMETER.sub(lambda found: quote(parameters[found[1]], safe=""), self.path)


NOWHERE: Final = Route("", "")
"""The route of a request for which none was found."""


@dataclass(frozen=True, slots=True)
class Match(Generic[H]):
    """A route that was found, its handler, and the decoded values of the path's parameters."""

    route: Route
    handler: H
    parameters: Mapping[str, str]


class Router(Generic[H]):
    """A table of routes.

    Parameters
    ----------
    routes
        The routes with their handlers. Of several templates that match a path, the first one counts.

    Attributes
    ----------
    routes
        The routes, in the order in which they were declared.
    methods
        All their methods, sorted.
    """

    def __init__(self, routes: Mapping[Route, H]) -> None:
        self.routes = tuple(routes)
        self.methods = sorted({route.method for route in routes})
        self._literal: dict[tuple[str, str], Match[H]] = {}
        self._templates: list[tuple[re.Pattern[str], Route, H]] = []
        for route, handler in routes.items():
            if _PARAMETER.search(route.path):
                self._templates.append((_pattern(route), route, handler))
            else:
                self._literal[route.method, route.path] = Match(route, handler, {})

    def find(self, method: str, path: str) -> Match[H] | None:
        """Return the route for a request; None if there is none with that path and method."""
        if method == "HEAD":
            method = "GET"
        found = self._literal.get((method, path))
        if found is not None:
            return found
        bare = path.rstrip("/")
        return self._literal.get((method, bare)) or self._by_template(method, path) or self._by_template(method, bare)

    def _by_template(self, method: str, path: str) -> Match[H] | None:
        for pattern, route, handler in self._templates:
            if route.method == method and (found := pattern.fullmatch(path)):
                return Match(route, handler, found.groupdict())
        return None

    def allowed(self, path: str) -> str:
        """Return the methods that a path has, as in the header ``Allow``; empty if the path has no route."""
        methods = {method for method, literal in self._literal if literal == path}
        methods.update(route.method for pattern, route, _ in self._templates if pattern.fullmatch(path))
        return ", ".join(sorted(methods))


def _pattern(route: Route) -> re.Pattern[str]:
    literals = _PARAMETER.split(route.path)  # literal, name, literal, name, …, literal
    names, parts = literals[1::2], [re.escape(literal) for literal in literals[::2]]
    values = [_SEGMENT] * len(names)
    if route.slashes:
        values[-1] = ".*"
    groups = [f"(?P<{name}>{value})" for name, value in zip(names, values, strict=True)]
    pattern = "".join(part + group for part, group in zip(parts, [*groups, ""], strict=True))
    return re.compile(pattern, re.DOTALL)
