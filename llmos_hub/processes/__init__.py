"""One process of this machine: spawn, adopt, probe, stop; its log, its memory, its environment.

Such a process leads its own session, writes to a file and outlives the one that started it, which identifies it by
`handle.ProcessHandle` and watches it by `running.Running`. Used by the supervisor and by the local backend.
"""
