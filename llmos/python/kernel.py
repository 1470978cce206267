"""The start of a Python kernel with the user's own packages, or without them if they prevent it.

The result of a trial is kept until the packages change, so that a start usually costs no trial. Until the kernel
reports that it has started (`started`), the next start tries again: packages can break without a trace in their
folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llmos.python.layer import Layer

__all__ = ["ENV_NOTE", "broken_packages_message", "main", "started"]

ENV_NOTE = "LLMOS_NOTE"
"""Environment variable with the notes that the kernel's first cell shows."""
_ADVICE = (
    "See them: !llmos python    Take one out: !pip uninstall -y NAME    Take all out: !llmos python reset --yes    "
    "Then restart the kernel."
)
_TRIAL_SECONDS = 60  # an import takes one second, on a machine under load many
_HANGS = f"it doesn't come up within {_TRIAL_SECONDS} s."
_TRIED = "tried"
_STARTING = "starting"
# Starts the kernel as usual, except for its loop: sockets, shell, extensions.
_TRIAL = """
import os, sys, tempfile
out = os.dup(1)
def say(word):
    os.write(out, (word + "\\n").encode())
import ipykernel.kernelspec
if "curve" not in ipykernel.kernelspec.get_kernel_dict()["metadata"].get("supported_encryption", ()):
    raise ImportError(f"ipykernel {ipykernel.__version__} is older than the one that the server talks to")
from ipykernel.kernelapp import IPKernelApp
with tempfile.TemporaryDirectory() as folder:
    app = IPKernelApp.instance()
    app.initialize(["-f", os.path.join(folder, "kernel.json")])
    say("kernel")
    try:
        import llmos.client, llmos_widgets.magics, llmos.cli.verbs.ps
        say("llmos")
    except Exception as exc:
        say(f"{type(exc).__name__}: {exc}".splitlines()[0][:200])
os._exit(0)
"""


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the kernel; `arguments` are the kernel's own."""
    layer = Layer.of()
    own, notes = _prepare(layer)
    environment = {**os.environ, **layer.environment()}
    if told := os.environ.get(ENV_NOTE):
        notes.insert(0, told)
    environment.pop(ENV_NOTE, None)
    if notes:
        environment[ENV_NOTE] = "\n".join(notes)
    python = layer.python if own else layer.base / "bin" / "python"
    # as in ipykernel's own kernel specification: the debugger can't trace frozen modules
    command = [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", *arguments]
    os.execve(command[0], command, environment)  # noqa: S606 - replacing the process lets signals reach the kernel directly


def _prepare(layer: Layer) -> tuple[bool, list[str]]:
    """Return whether to start with the user's own packages, and the notes to show."""
    try:
        new = layer.ensure()
    except OSError as exc:
        return False, [f"Your own packages can't be used: {layer.root} can't be written ({exc.strerror})."]
    notes = [_elsewhere(layer, others[-1])] if new and (others := layer.others()) else []
    if layer.untouched:
        return True, notes
    trouble, warning = _verdict(layer)
    if trouble:
        notes.append(f"This kernel runs without your own packages, with which it does not start: {trouble}\n{_ADVICE}")
    elif warning:
        notes.append(broken_packages_message(warning))
    return not trouble, notes


def broken_packages_message(warning: str) -> str:
    """Return the message for the case that the user's own packages break ``%llmos``.

    Parameters
    ----------
    warning
        The error on import.
    """
    return f"%llmos does not work with your own packages: {warning}\n{_ADVICE}"


def _elsewhere(layer: Layer, other: Layer) -> str:
    names = " ".join(name for name, _ in other.packages())
    return (
        f"Python is {layer.root.name.removeprefix('python')} now. Your own packages for "
        f"{other.root.name.removeprefix('python')} are kept in {other.root} and can be put in again: %pip install {names}"
    )


def _verdict(layer: Layer) -> tuple[str, str]:
    """Return why a kernel doesn't start with this layer, and why ``%llmos`` doesn't work with it; empty if they do."""
    tried, starting = layer.root / _TRIED, layer.root / _STARTING
    known, found = layer.fingerprint, None
    with contextlib.suppress(OSError, ValueError):
        trouble, warning, then = tried.read_text(encoding="utf-8").split("\n", 2)
        # trouble may have been the configuration's, which is not among the packages; what hangs is not waited for again
        settled = not trouble or trouble == _HANGS
        found = (trouble, warning) if then == known and settled and not starting.exists() else None
    if found is None:
        found = _try(layer)
        with contextlib.suppress(OSError):
            tried.write_text("\n".join([*found, layer.fingerprint]), encoding="utf-8")
    if not found[0]:
        with contextlib.suppress(OSError):
            starting.touch()
    return found


def _try(layer: Layer) -> tuple[str, str]:
    import subprocess

    environment = {**os.environ, **layer.environment()}
    try:
        done = subprocess.run(
            # files of the working directory are no packages, and the kernel itself does not look there while it loads
            [str(layer.python), "-P", "-c", _TRIAL],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _HANGS, ""
    except OSError as exc:
        return f"{layer.python}: {exc.strerror}.", ""
    said = done.stdout.decode(errors="replace").splitlines()
    if "kernel" not in said:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        return (lines[-1].strip()[:300] if lines else f"exit code {done.returncode}."), ""
    return "", "" if said[-1] == "llmos" else said[-1]


def started() -> None:
    """Record that the kernel with the user's own packages has started."""
    if os.environ.get("VIRTUAL_ENV") == sys.prefix:
        with contextlib.suppress(OSError):
            Path(sys.prefix, _STARTING).unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
