"""``%llmos`` and ``%%chat`` in notebooks: ``%load_ext llmos_widgets``; servers of the Hub load it by themselves."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

__all__ = ["load_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics. Their dependencies are imported at first use, so that kernels start fast."""
    from llmos_widgets.completion import register_completion
    from llmos_widgets.magics import LLMOSMagics, with_empty_body

    shell.register_magics(LLMOSMagics(shell))
    shell.input_transformers_cleanup.append(with_empty_body)
    register_completion(shell)
    _tell(shell)


def _tell(shell: Any) -> None:
    """Show in the first cell why this kernel or its server didn't start as usual."""
    with contextlib.suppress(ImportError):  # the user may have installed another package named llmos
        from llmos.python.kernel import started
        from llmos.python.notebook import await_packages

        started()
        await_packages()
    note = os.environ.pop("LLMOS_NOTE", "")  # llmos.python.kernel.ENV_NOTE
    if not note:
        return

    def say(*_: Any) -> None:
        shell.events.unregister("pre_run_cell", say)
        sys.stdout.write(f"{note}\n")  # written before the cell's own output, to the same stream

    shell.events.register("pre_run_cell", say)
