"""Starting a process that outlives this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.processes.logs import open_log
from llmos_hub.processes.running import Running
from llmos_hub.processes.users import User

__all__ = ["spawn"]

# Notes the exit code of a process for a controller that wasn't running when it ended. The shell ignores a SIGTERM to
# the group, which the process gets too, and exits as the process does.
_NOTE_EXIT: Final = (
    'out=$1; shift; trap : TERM INT; "$@"; code=$?; trap - TERM INT; '
    'echo $code >"$out.new" && mv "$out.new" "$out"; exit $code'
)


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    *,
    stdin: str = "",
    user: User | None = None,
    note_exit: Path | None = None,
    mark: str = "",
) -> Running:
    """Start a process that leads its own session and writes to `log`.

    Parameters
    ----------
    environment
        Its whole environment; nothing is added, also not for `user`.
    stdin
        Text for its standard input; empty for none.
    user
        The user that it runs as; None: that of this process. The log belongs to this process; a file for `note_exit` must
        be in a directory in which the user can write.
    note_exit
        A file in which its exit code is noted; None: none.
    mark
        The variable of `environment` by which it and its children can be found.

    Raises
    ------
    OSError
        It can't be started.
    """
    command = list(argv)
    if note_exit is not None:
        note_exit.unlink(missing_ok=True)
        command = ["/bin/sh", "-c", _NOTE_EXIT, "llmos-job", str(note_exit), *command]
    output = open_log(log)
    try:
        given = _input(stdin)
        try:
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
        finally:
            os.close(given)
    finally:
        os.close(output)
    handle = ProcessHandle.of(process.pid)
    assert handle is not None, "a child stays, if as a zombie, until it is waited for"
    try:
        running = Running(handle, mark=(mark, environment[mark]) if mark else None, note_exit=note_exit)
    except OSError:
        process.kill()
        process.wait()
        raise
    # it is watched through a pidfd; makes Popen neither wait for it nor warn that it still runs
    process.returncode = 0
    return running


def _input(text: str) -> int:
    """Return a descriptor for a process's standard input that contains `text`."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # in memory, not in a file, as the text may contain a password
    fd = os.memfd_create("stdin")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
