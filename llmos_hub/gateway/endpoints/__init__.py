"""The gateway's endpoints. To add one, write a class like the others and list it in `ENDPOINTS`."""

from typing import Final

from llmos_hub.gateway.endpoints.base import Context, Endpoint
from llmos_hub.gateway.endpoints.inference import INFERENCE
from llmos_hub.gateway.endpoints.models import ListModels, RetrieveModel
from llmos_hub.gateway.endpoints.operations import Health, MetricsPage, Ready

__all__ = ["ENDPOINTS", "Context", "Endpoint"]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    ListModels(),
    RetrieveModel(),
    *INFERENCE,
    Health(),
    Ready(),
    MetricsPage(),
)
