"""The command's entry point and its exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from llmos.cli.parser import PLATFORM_VERBS, HelpRequested, Verb, parse
from llmos.errors import LLMOSError, Unsupported, UsageError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv
        The words after ``llmos``; by default the process's own.

    Returns
    -------
    int
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can't show "…" must not end the command
    try:
        return _run(words)
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except LLMOSError as error:
        _tell(error)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        _tell(error)
        return EXIT_FAILED


def _run(words: list[str]) -> int:
    if words and words[0] in PLATFORM_VERBS:
        return _run_platform_verb(words)
    if words and words[0] in {"--version", "-V", "version"}:
        import llmos

        sys.stdout.write(f"llmos {llmos.__version__}\n")
        return 0
    try:
        verb, args = parse(words)
    except HelpRequested as help_:
        sys.stdout.write(str(help_))
    else:
        _run_verb(verb, args)
    sys.stdout.flush()
    return 0


def _run_platform_verb(words: list[str]) -> int:
    """Replace this process by ``llmos-hub`` with the same arguments; the program is beside this interpreter or on PATH."""
    import shutil
    from pathlib import Path

    beside = Path(sys.executable).parent / "llmos-hub"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("llmos-hub")
    if program is None:
        raise Unsupported(
            f"`llmos {words[0]}` is about the platform itself, which is not installed here. "
            "Install it with: pip install 'llmos[platform]'"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, [program, *words])  # noqa: S606 - replacing the process lets signals reach it directly
    except OSError as error:
        raise Unsupported(f"{program} can't be started: {error.strerror}.") from None


def _run_verb(verb: Verb, args: Any) -> None:
    from llmos.cli.terminal import TerminalOutput

    output = TerminalOutput()
    if not verb.needs_client:
        verb.run(None, args, output)
        return
    from llmos.client import Client

    with Client() as client:
        verb.run(client, args, output)


def _tell(error: BaseException) -> None:
    """Print the error on one line, or with its traceback if ``LLMOS_DEBUG`` is set."""
    if os.environ.get("LLMOS_DEBUG"):
        import traceback

        traceback.print_exception(error)
        return
    if isinstance(error, LLMOSError):
        text = str(error)
    elif not (text := _damage(error)):
        text = f"{type(error).__name__}: {error} (internal). This is a mistake in llmos; LLMOS_DEBUG=1 shows where."
    from llmos.present.text import clean

    sys.stderr.write(clean(text) + "\n")


def _damage(error: BaseException) -> str:
    """Say what is wrong with the packages, where that may be why something could not be imported."""
    if not isinstance(error, (ImportError, AttributeError, SyntaxError, SystemError)):
        return ""
    from llmos.python.damaged import explain_damage

    return explain_damage(sys.prefix)


def _silence_stdout() -> None:
    """Discard buffered output after a broken pipe, which would raise again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
