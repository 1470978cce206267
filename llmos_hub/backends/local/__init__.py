"""The local backend, which runs workloads as processes on this machine.

`backend` manages all workloads, `deployment` one of them, `replica` one process through its starts and ends;
`rollout` has the pure decisions; `adoption` finds the processes that an earlier controller left running.
"""
