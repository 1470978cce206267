"""Workloads as processes of this machine: the small Deployment.

`backend` holds all workloads, `deployment` one of them, `replica` one process through its starts and ends;
`rollout` decides without touching anything; `adoption` finds what an earlier controller left running.
"""

from llmos_hub.backends.local.backend import LocalBackend
from llmos_hub.backends.local.logs import read_logs
from llmos_hub.backends.local.options import Options

__all__ = ["LocalBackend", "Options", "read_logs"]
