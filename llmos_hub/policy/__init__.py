"""Authorization: pure functions without I/O, used by every part that serves requests."""

from llmos_hub.policy.rights import NamespaceOwner, Rights, Within
from llmos_hub.policy.rules import Caller, Ref, Rule, Verb

__all__ = ["Caller", "NamespaceOwner", "Ref", "Rights", "Rule", "Verb", "Within"]
