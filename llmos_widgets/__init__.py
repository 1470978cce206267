"""``%llmos`` and ``%%chat`` in notebooks: ``%load_ext llmos_widgets``, or nothing at all in servers of the Hub."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

__all__ = ["load_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics. What they need is imported at their first use, so that kernels start fast."""
    from llmos_widgets.completion import register_completion
    from llmos_widgets.magics import LLMOSMagics, with_empty_body

    shell.register_magics(LLMOSMagics(shell))
    shell.input_transformers_cleanup.append(with_empty_body)
    register_completion(shell)
    _tell(shell)


def _tell(shell: Any) -> None:
    """Say in the first cell what kept this kernel or its server from starting as usual."""
    with contextlib.suppress(ImportError):  # a person may have installed something of the name llmos
        from llmos.python.kernel import started
        from llmos.python.notebook import await_packages

        started()
        await_packages()
    note = os.environ.pop("LLMOS_NOTE", "")  # llmos.python.kernel.ENV_NOTE
    if not note:
        return

    def say(*_: Any) -> None:
        shell.events.unregister("pre_run_cell", say)
        sys.stdout.write(f"{note}\n")  # before what the cell prints, in one stream with it

    shell.events.register("pre_run_cell", say)
