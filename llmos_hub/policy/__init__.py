"""Authorization: pure functions without I/O, used by every part that serves requests."""

from llmos_hub.policy.rights import NamespaceOwner, Rights
from llmos_hub.policy.rules import Caller, Decision, Verb, may

__all__ = ["Caller", "Decision", "NamespaceOwner", "Rights", "Verb", "may"]
