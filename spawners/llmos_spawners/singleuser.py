"""Starts a notebook server as ``jupyterhub-singleuser`` does, sooner, and whatever its owner has installed or configured.

``jsonschema`` takes up ``rfc3987_syntax`` where it is installed, for the formats "iri" and "iri-reference"
alone, which a notebook server doesn't use; that package builds a grammar when it is imported, 0.8 s. An entry
of None in ``sys.modules`` makes the import fail as if it weren't installed; kernels are processes of their own
and are not concerned.

And JupyterLab doesn't ask each person anew whether it may look for news outside: ``jupyter/labconfig`` turns that
off. ``jupyter/jupyter_server_config.json`` has the server ask the Hub every ten seconds about whom it has let in, and
not every five minutes: so soon ends a session that a new password ends.

The server itself runs without its owner's packages; its kernels and terminals find them (`llmos.python.layer`). Where
its owner's configuration ends it before it listens, it starts again without that.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from llmos.python.kernel import ENV_NOTE
from llmos.python.layer import Layer
from llmos.trust import ENV_CA_CERTIFICATES, trust_site

__all__ = ["main"]

CONFIGURATION = Path(__file__).parent / "jupyter"
DISABLE_USER_CONFIG = "JUPYTERHUB_DISABLE_USER_CONFIG"
_NOTE = (
    "This server runs without your own Jupyter configuration and extensions, with which it does not work: {why}\n"
    "Mend that, then stop the server and start it again. Configuration is in ~/.jupyter, or in your home itself as "
    "jupyter_server_config.py."
)


def main() -> None:
    """Run the server until it is stopped."""
    trust_site(os.environ)
    os.environ.pop(ENV_CA_CERTIFICATES, None)  # in the file now: nobody needs pages of it in a terminal's environment
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is how the import system is told
    os.environ.update(_layer_environment())
    paths = [*filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")]), str(CONFIGURATION)]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(dict.fromkeys(os.pathsep.join(paths).split(os.pathsep)))
    if not os.environ.get(DISABLE_USER_CONFIG) and (why := _unreadable(Path.home())):
        _leave_configuration_out(why)
    from jupyterhub.singleuser import main as singleuser

    try:
        singleuser()
    except (Exception, SystemExit) as exc:
        if os.environ.get(DISABLE_USER_CONFIG) or not _failed(exc) or _listened() or not _has_configuration():
            raise
        _start_again_without_configuration(exc)


def _layer_environment() -> dict[str, str]:
    layer = Layer.of()
    try:
        layer.ensure()
    except OSError as exc:  # a full disk is no reason not to let its owner make room
        sys.stderr.write(f"No packages of your own: {layer.root} can't be written: {exc}\n")
    return layer.environment()


def _failed(exc: BaseException) -> bool:
    return not isinstance(exc, SystemExit) or exc.code not in (None, 0)


def _listened() -> bool:
    """Whether the server got as far as to listen; what ends it later isn't its configuration."""
    from jupyter_server.serverapp import ServerApp

    return ServerApp.initialized() and hasattr(ServerApp.instance(), "_http_server")


def _has_configuration() -> bool:
    """Whether its owner has any configuration."""
    home = Path.home()
    found = [*home.glob("jupyter*_config.*"), *(home / ".jupyter").glob("jupyter*_config*")]
    return bool(found)


def _unreadable(home: Path) -> str:
    """Say which of the files that JupyterLab reads for its page can't be read; empty where all can.

    With one of them every page is an error, although the server itself starts.
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
    """Leave out what its owner has configured; its kernels say so."""
    note = _NOTE.format(why=why)
    sys.stderr.write(f"{note}\n")
    sys.stderr.flush()
    # the Hub's switch leaves ~/.jupyter/labconfig in; what is set meanwhile has a place of its own
    os.environ.update(
        {DISABLE_USER_CONFIG: "1", ENV_NOTE: note, "JUPYTER_CONFIG_DIR": str(Path.home() / ".llmos" / "jupyter")}
    )


def _start_again_without_configuration(exc: BaseException) -> None:
    """Become the same server without its owner's configuration."""
    in_words = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
    _leave_configuration_out("it ends the server; see the server's log." if isinstance(exc, SystemExit) else in_words)
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, dict(os.environ))  # noqa: S606 - the same process goes on


if __name__ == "__main__":
    main()
