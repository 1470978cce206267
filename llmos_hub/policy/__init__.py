"""Authorization: pure functions without I/O, used by every part that serves requests."""

from llmos_hub.policy.rules import Caller, Decision, Verb, may, require, require_admin

__all__ = ["Caller", "Decision", "Verb", "may", "require", "require_admin"]
