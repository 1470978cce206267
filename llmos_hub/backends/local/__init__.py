"""The local backend, which runs workloads as processes on this machine.

`backend` manages all workloads, `deployment` one of them, `replica` one process through its starts and ends;
`rollout` has the pure decisions; `adoption` finds the processes that an earlier controller left running.
"""

from llmos_hub.backends.local.backend import LocalBackend
from llmos_hub.backends.local.logs import read_logs
from llmos_hub.backends.local.options import Options

__all__ = ["LocalBackend", "Options", "read_logs"]
