"""``jupyterhub-singleuser`` that starts faster, and starts despite broken packages or configuration of its owner.

``jsonschema`` imports ``rfc3987_syntax`` if it is installed, only for the formats "iri" and "iri-reference", which a
notebook server doesn't use. That package builds a grammar at import, which takes 0.8 s. None in ``sys.modules`` makes
the import fail as if the package weren't installed; kernels are separate processes and not affected.

``jupyter/labconfig`` disables JupyterLab's question to each user whether it may fetch news.
``jupyter/jupyter_server_config.json`` makes the server check its sessions with the Hub every ten seconds instead of every
five minutes, so that a session ends soon after a change of password.

The server itself runs without its owner's packages; its kernels and terminals use them (`llmos.python.layer`). If the
owner's configuration ends the server before it listens, it starts again without that configuration.
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
    os.environ.pop(ENV_CA_CERTIFICATES, None)  # written to a file now; too long for the environment of terminals
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None makes the import fail
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
    except OSError as exc:  # on a full disk the owner needs the server to free space
        sys.stderr.write(f"No packages of your own: {layer.root} can't be written: {exc}\n")
    return layer.environment()


def _failed(exc: BaseException) -> bool:
    return not isinstance(exc, SystemExit) or exc.code not in (None, 0)


def _listened() -> bool:
    """Return whether the server has listened; then its configuration isn't the reason for its end."""
    from jupyter_server.serverapp import ServerApp

    return ServerApp.initialized() and hasattr(ServerApp.instance(), "_http_server")


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


def _start_again_without_configuration(exc: BaseException) -> None:
    """Replace this process by the same server without its owner's configuration."""
    in_words = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
    _leave_configuration_out("it ends the server; see the server's log." if isinstance(exc, SystemExit) else in_words)
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, dict(os.environ))  # noqa: S606 - a list, no shell; the pid must not change


if __name__ == "__main__":
    main()
