"""``jupyterhub-singleuser`` that starts faster, and starts despite broken packages or configuration of its owner.

``jsonschema`` imports ``rfc3987_syntax`` if it is installed, only for the formats "iri" and "iri-reference", which a
notebook server doesn't use. That package builds a grammar at import, which takes 0.8 s. None in ``sys.modules`` makes
the import fail as if the package weren't installed; kernels are separate processes and not affected.

``jupyter/labconfig`` disables JupyterLab's question to each user whether it may fetch news.
``jupyter/jupyter_server_config.json`` makes the server check its sessions with the Hub every ten seconds instead of every
five minutes, so that a session ends soon after a change of password.

The server itself runs without its owner's packages; its kernels and terminals use them (`llmos.python.layer`). If the
owner has a configuration, the server runs in a child of this process: whichever way that ends before it listens, unless
it was stopped, the server starts again without the configuration.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import sys
from pathlib import Path

from llmos.python.kernel import ENV_NOTE
from llmos.python.layer import Layer
from llmos.trust import ENV_CA_CERTIFICATES, trust_site

__all__ = ["main"]

CONFIGURATION = Path(__file__).parent / "jupyter"
DISABLE_USER_CONFIG = "JUPYTERHUB_DISABLE_USER_CONFIG"
_LISTENS = "listens"
_MESSAGE_BYTES = 1024
_STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_NOTE = (
    "This server runs without your own Jupyter configuration and extensions, with which it does not work: {why}\n"
    "Mend that, then stop the server and start it again. Configuration is in ~/.jupyter, or in your home itself as "
    "jupyter_server_config.py."
)


def main() -> None:
    """Run the server until it is stopped."""
    trust_site(os.environ)
    os.environ.pop(ENV_CA_CERTIFICATES, None)  # written to a file now; too long for the environment of terminals
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None makes the import fail
    os.environ.update(_layer_environment())
    paths = [*filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")]), str(CONFIGURATION)]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(dict.fromkeys(os.pathsep.join(paths).split(os.pathsep)))
    if not os.environ.get(DISABLE_USER_CONFIG) and (why := _unreadable(Path.home())):
        _leave_configuration_out(why)
    if os.environ.get(DISABLE_USER_CONFIG) or not _has_configuration():
        _serve()
    else:
        _serve_watched()


def _serve() -> None:
    from jupyterhub.singleuser import main as singleuser

    singleuser()


def _serve_watched() -> None:
    """Run the server in a child, with its exit status; if it ends before it listens, start again without configuration.

    The child is in this process' session, and ends with it.
    """
    said = mmap.mmap(-1, _MESSAGE_BYTES)  # shared with the child, which may end without being able to write to a pipe
    stops: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stops.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    child = os.fork()
    if child:
        for number in _STOPS:
            signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    if not child:
        _end_with(parent)
        _serve_and_say(said)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    message = said[:].rstrip(b"\0").decode(errors="replace")
    if stops or message == _LISTENS or -status in {*_STOPS, signal.SIGKILL}:
        sys.exit(status if status >= 0 else 128 - status)  # as in a shell
    _leave_configuration_out(message or "it ends the server; see the server's log.")
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, dict(os.environ))  # noqa: S606 - a list, no shell; the pid must not change


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _serve_and_say(said: mmap.mmap) -> None:
    """Run the server; write into `said` that it listens, or the exception with which it ends before."""
    from jupyter_server.serverapp import ServerApp

    def say(text: str) -> None:
        said[:] = text.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")

    init = ServerApp.init_httpserver

    def init_and_say(app: ServerApp) -> None:
        init(app)
        say(_LISTENS)

    ServerApp.init_httpserver = init_and_say  # type: ignore[assignment, method-assign]
    try:
        _serve()
    except Exception as exc:
        if said[: len(_LISTENS)] != _LISTENS.encode():
            say(f"{type(exc).__name__}: {exc}".splitlines()[0][:200])
        raise


def _layer_environment() -> dict[str, str]:
    layer = Layer.of()
    try:
        layer.ensure()
    except OSError as exc:  # on a full disk the owner needs the server to free space
        sys.stderr.write(f"No packages of your own: {layer.root} can't be written: {exc}\n")
    return layer.environment()


def _has_configuration() -> bool:
    """Return whether the owner has any configuration."""
    home = Path.home()
    found = [*home.glob("jupyter*_config.*"), *(home / ".jupyter").glob("jupyter*_config*")]
    return bool(found)


def _unreadable(home: Path) -> str:
    """Return a message about a file that JupyterLab needs for its page and that can't be read; empty if there is none.

    With such a file every page is an error, although the server itself starts.
    """
    data = [Layer.of().root / "share" / "jupyter", home / ".local" / "share" / "jupyter"]
    files = [path for place in data for path in (place / "labextensions").glob("**/package.json")]
    for path in [*files, *(home / ".jupyter" / "labconfig").glob("*.json")]:
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            return f"{path} can't be read ({exc})"
    return ""


def _leave_configuration_out(why: str) -> None:
    """Disable the owner's configuration, with a note that kernels show."""
    note = _NOTE.format(why=why)
    sys.stderr.write(f"{note}\n")
    sys.stderr.flush()
    # JUPYTERHUB_DISABLE_USER_CONFIG doesn't disable ~/.jupyter/labconfig, so another directory is used meanwhile
    os.environ.update(
        {DISABLE_USER_CONFIG: "1", ENV_NOTE: note, "JUPYTER_CONFIG_DIR": str(Path.home() / ".llmos" / "jupyter")}
    )


if __name__ == "__main__":
    main()
