"""Authentication: bearer tokens become callers."""

from llmos_hub.identity.base import Identity
from llmos_hub.identity.hub import HubIdentity

__all__ = ["HubIdentity", "Identity"]
