"""Who may do what: pure functions, no I/O. Every part that serves a request asks here and nowhere else."""

from llmos_hub.policy.rules import Caller, Decision, Verb, may, require, require_admin

__all__ = ["Caller", "Decision", "Verb", "may", "require", "require_admin"]
