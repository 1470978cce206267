"""The gateway's endpoints. Each module declares its routes; to add a module, list its routes in `ROUTES`."""

from collections.abc import Mapping
from typing import Final

from llmos_hub.gateway.context import Handler
from llmos_hub.gateway.endpoints import inference, models, operations
from llmos_hub.gateway.routes import Route

__all__ = ["ROUTES"]

ROUTES: Final[Mapping[Route, Handler]] = {**models.ROUTES, **inference.ROUTES, **operations.ROUTES}
