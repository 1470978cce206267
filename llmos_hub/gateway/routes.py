"""Routes: the methods and paths that the gateway answers, each with its handler.

Each module in `llmos_hub.gateway.endpoints` declares its routes as a mapping ``{Route("GET", "/v1/models"): handler}``.
The `Router` finds the one for a request. Most paths are literal, and are found with one lookup.

A path is matched as the server passes it: decoded once, without its query. A HEAD request is answered by the route for
GET. Slashes at the end of a path are ignored where a route has the method, and a literal path takes precedence over one
with a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["NOWHERE", "Route", "Router"]

H = TypeVar("H")
"""The type of the handlers."""


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, which may end in a parameter.

    Attributes
    ----------
    method
        The HTTP method.
    path
        The path, without the prefix under the Hub. A ``{name}`` at its end stands for the whole rest of a request's
        path, which may be empty or contain slashes. It is also the route's name in logs, metrics and messages.
    quiet
        True if requests are so frequent and uninteresting that they are logged at debug level only.
    """

    method: str
    path: str
    quiet: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


NOWHERE: Final = Route("", "")
"""The route of a request for which none was found."""


class Router(Generic[H]):
    """A table of routes.

    Parameters
    ----------
    routes
        The routes with their handlers.

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
        self._literal = {(r.method, r.path): (r, handler, "") for r, handler in routes.items() if "{" not in r.path}
        self._prefixes = [(r.path.partition("{")[0], r, handler) for r, handler in routes.items() if "{" in r.path]

    def find(self, method: str, path: str) -> tuple[Route, H, str] | None:
        """Return the route for a request, its handler and the value of its parameter; None if there is no route."""
        if method == "HEAD":
            method = "GET"
        found = self._literal.get((method, path)) or self._literal.get((method, path.rstrip("/")))
        if found is not None:
            return found
        for prefix, route, handler in self._prefixes:
            if route.method == method and path.startswith(prefix):
                return route, handler, path[len(prefix) :]
        return None

    def allowed(self, path: str) -> str:
        """Return the methods that a path has, as in the header ``Allow``; empty if the path has no route."""
        methods = {method for method, literal in self._literal if literal == path}
        methods.update(route.method for prefix, route, _ in self._prefixes if path.startswith(prefix))
        return ", ".join(sorted(methods))
