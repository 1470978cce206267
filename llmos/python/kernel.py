"""The start of a Python kernel with the user's own packages and IPython configuration, or without what prevents it.

The result of a trial is kept until the packages or the files of the configuration change, so that a start usually costs
no trial. Until the kernel reports that it has started (`started`), the next start tries again: packages can break
without a trace in their folder. A user who has neither packages nor configuration never costs one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
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
# Starts the kernel as usual, except for its loop: sockets, shell, extensions. It names each of the configuration's files
# before and after that file runs.
_TRIAL = """
import os, sys, tempfile
out = os.dup(1)
def say(word):
    os.write(out, (word + "\\n").encode())
def named(function, name):
    def run(self, *args, **options):
        say("begins " + name(self, *args))
        try:
            result = function(self, *args, **options)
        except Exception:
            say("done")
            raise
        say("done")
        return result
    return run
def in_words(exc):
    return f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
import ipykernel.kernelspec
if "curve" not in ipykernel.kernelspec.get_kernel_dict()["metadata"].get("supported_encryption", ()):
    raise ImportError(f"ipykernel {ipykernel.__version__} is older than the one that the server talks to")
from ipykernel.kernelapp import IPKernelApp
from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader
for loader in (PyFileConfigLoader, JSONFileConfigLoader):
    loader._read_file_as_dict = named(loader._read_file_as_dict, lambda self: self.full_filename)
IPKernelApp._exec_file = named(IPKernelApp._exec_file, lambda self, path, *_: path)
with tempfile.TemporaryDirectory() as folder:
    app = IPKernelApp.instance()
    try:
        app.initialize(["-f", os.path.join(folder, "kernel.json")])
    except Exception as exc:  # sys.stderr is the kernel's by now
        say("fails " + in_words(exc))
        raise
    say("kernel")
    try:
        import llmos.client, llmos_widgets.magics, llmos.cli.verbs.ps
        say("llmos")
    except Exception as exc:
        say(in_words(exc))
os._exit(0)
"""


@dataclass(frozen=True)
class _Start:
    """The way to start a kernel.

    Attributes
    ----------
    packages
        Whether with the user's own packages.
    configuration
        Whether with the user's own IPython configuration.
    notes
        What its first cell shows.
    """

    packages: bool = True
    configuration: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Trial:
    """The result of a trial.

    Attributes
    ----------
    trouble
        Why the kernel doesn't start; empty if it does.
    file
        The file of the configuration that it was running when it ended; empty if none.
    warning
        Why ``%llmos`` doesn't work; empty if it does.
    """

    trouble: str = ""
    file: str = ""
    warning: str = ""


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the kernel; `arguments` are the kernel's own."""
    layer = Layer.of()
    start = _prepare(layer)
    notes = list(start.notes)
    environment = _environment(layer, configuration=start.configuration)
    if told := environment.pop(ENV_NOTE, None):
        notes.insert(0, told)
    if notes:
        environment[ENV_NOTE] = "\n".join(notes)
    # as in ipykernel's own kernel specification: the debugger can't trace frozen modules
    command = [_python(layer, packages=start.packages), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", *arguments]
    os.execve(command[0], command, environment)  # noqa: S606 - replacing the process lets signals reach the kernel directly


def _python(layer: Layer, *, packages: bool) -> str:
    return str(layer.python if packages else layer.base / "bin" / "python")


def _environment(layer: Layer, *, configuration: bool) -> dict[str, str]:
    environment = {**os.environ, **layer.environment()}
    if not configuration:
        environment["IPYTHONDIR"] = str(layer.root.parent / "ipython")
        environment.pop("PYTHONSTARTUP", None)
    return environment


def _prepare(layer: Layer) -> _Start:
    """Return the way to start, with the notes to show."""
    try:
        new = layer.ensure()
    except OSError as exc:
        return _Start(
            packages=False,
            notes=[f"Your own packages can't be used: {layer.root} can't be written ({exc.strerror})."],
        )
    notes = [_elsewhere(layer, others[-1])] if new and (others := layer.others()) else []
    files = _configuration()
    if layer.untouched and not files:
        return _Start(notes=notes)
    start = _verdict(layer, files)
    return replace(start, notes=[*notes, *start.notes])


def _ipython_directory() -> Path:
    return Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython").expanduser()


def _configuration() -> list[Path]:
    """Return the files of the user's IPython configuration that a kernel runs at its start."""
    profile = _ipython_directory() / "profile_default"
    found = [
        path for pattern in ("ipython*_config.*", "startup/*.py", "startup/*.ipy") for path in profile.glob(pattern)
    ]
    startup = os.environ.get("PYTHONSTARTUP")
    return sorted([*found, Path(startup)] if startup else found)


def _configuration_note(trial: _Trial) -> str:
    where = f"in {_ipython_directory() / 'profile_default'}: {trial.trouble}"
    if trial.file:
        how = (
            f"does not end within {_TRIAL_SECONDS} s"
            if trial.trouble == _HANGS
            else f"ends it ({trial.trouble.rstrip('.')})"
        )
        where = f"{trial.file} {how}"
    return (
        f"This kernel runs without your own IPython configuration, with which it does not start: {where.rstrip('.')}.\n"
        f"Mend or remove {'that file' if trial.file else 'that'}, then restart the kernel."
    )


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


def _verdict(layer: Layer, files: Sequence[Path]) -> _Start:
    """Return the way to start with this layer and these files of the configuration, by a trial if need be."""
    tried, starting = layer.root / _TRIED, layer.root / _STARTING
    start = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(tried.read_text(encoding="utf-8"))
        if kept.pop("fingerprint") == _fingerprint(layer, files) and not starting.exists():
            start = _Start(**kept)
    if start is None:
        start, settled = _find(layer, files)
        with contextlib.suppress(OSError):
            tried.unlink(missing_ok=True)
            if settled:
                kept = {**asdict(start), "fingerprint": _fingerprint(layer, files)}
                tried.write_text(json.dumps(kept), encoding="utf-8")
    if start.packages:
        with contextlib.suppress(OSError):
            starting.touch()
    return start


def _fingerprint(layer: Layer, files: Sequence[Path]) -> str:
    times = []
    for path in files:
        with contextlib.suppress(OSError):
            times.append(f"{path} {path.stat().st_mtime_ns}")
    return "\n".join([layer.fingerprint, *times])


def _find(layer: Layer, files: Sequence[Path]) -> tuple[_Start, bool]:
    """Return the first way that starts, and whether to keep it until something changes."""
    first = _try(layer)
    if not first.trouble:
        return _Start(notes=_warning_notes(first)), True
    # trouble may have passed by the next start, but what hangs is not waited for again
    settled = first.trouble == _HANGS
    if files:
        without = _try(layer, configuration=False)
        if not without.trouble:
            notes = [_configuration_note(first), *_warning_notes(without)]
            return _Start(configuration=False, notes=notes), settled
        first = without  # its trouble isn't the configuration's
    if layer.untouched:
        return _Start(), False  # neither is to blame: as usual
    notes = [f"This kernel runs without your own packages, with which it does not start: {first.trouble}\n{_ADVICE}"]
    configuration = True
    if files and (shared := _try(layer, packages=False)).trouble:
        configuration = False
        notes.append(_configuration_note(shared))
    return _Start(packages=False, configuration=configuration, notes=notes), settled


def _warning_notes(trial: _Trial) -> list[str]:
    return [broken_packages_message(trial.warning)] if trial.warning else []


def _try(layer: Layer, *, packages: bool = True, configuration: bool = True) -> _Trial:
    import subprocess

    python = _python(layer, packages=packages)
    try:
        done = subprocess.run(
            # files of the working directory are no packages, and the kernel itself does not look there while it loads
            [python, "-P", "-c", _TRIAL],
            env=_environment(layer, configuration=configuration),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        return _Trial(_HANGS, _running_file((exc.stdout or b"").decode(errors="replace").splitlines()))
    except OSError as exc:
        return _Trial(f"{python}: {exc.strerror}.")
    said = done.stdout.decode(errors="replace").splitlines()
    if "kernel" in said:
        return _Trial(warning="" if said[-1] == "llmos" else said[-1])
    fails = [line.removeprefix("fails ") for line in said if line.startswith("fails ")]
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    code = f"exit code {done.returncode}." if done.returncode >= 0 else f"killed by signal {-done.returncode}."
    if file := _running_file(said):
        return _Trial(code, file)
    last = [code, *lines, *fails][-1]
    return _Trial(re.sub(r"^\[\w+\] [A-Z]+ \| ", "", last)[:300])  # without what a logger writes before its message


def _running_file(said: Sequence[str]) -> str:
    """Return the file that a trial had begun and not finished; empty if there is none."""
    running = [""]
    for line in said:
        if line.startswith("begins "):
            running.append(line.removeprefix("begins "))
        elif line == "done" and len(running) > 1:
            running.pop()
    return running[-1]


def started() -> None:
    """Record that the kernel with the user's own packages has started."""
    if os.environ.get("VIRTUAL_ENV") == sys.prefix:
        with contextlib.suppress(OSError):
            Path(sys.prefix, _STARTING).unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
