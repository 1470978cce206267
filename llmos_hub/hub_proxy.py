"""The Hub's proxy in a process or pod of its own, whose routes are in its memory and lost when it is restarted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy
from tornado.ioloop import PeriodicCallback
from traitlets import Float

__all__ = ["WatchedProxy"]


class WatchedProxy(ConfigurableHTTPProxy):  # type: ignore[misc]  # JupyterHub publishes no types
    """configurable-http-proxy whose routes are restored within seconds after a restart.

    JupyterHub itself only checks the routes once in `JupyterHub.last_activity_interval`; until then nobody could reach
    the API or a server.
    """

    watch_interval = Float(
        3.0,
        config=True,
        help="Seconds between two checks whether the proxy still has its routes; after its restart the platform is "
        "unreachable for up to this time.",
    )

    _watching: PeriodicCallback | None = None
    _known: tuple[Mapping[Any, Any], Mapping[str, Any]] = ({}, {})

    async def check_routes(
        self, user_dict: Mapping[Any, Any], service_dict: Mapping[str, Any], routes: Mapping[str, Any] | None = None
    ) -> None:
        """Set missing routes, and start to watch the proxy; JupyterHub calls this once it knows all servers."""
        self._known = (user_dict, service_dict)
        await super().check_routes(user_dict, service_dict, routes)
        if self._watching is None:
            self._watching = PeriodicCallback(self._look, 1000 * self.watch_interval)
            self._watching.start()

    async def _look(self) -> None:
        try:
            routes = await self.get_all_routes()
            if self.app.hub.routespec not in routes:
                self.log.warning("The proxy was restarted and has lost its routes; setting them again")
                await self.check_routes(*self._known, routes)
        except Exception as error:  # noqa: BLE001 - whatever the error is, the next check may succeed
            self.log.warning("The proxy's routes can't be checked: %s", error)
