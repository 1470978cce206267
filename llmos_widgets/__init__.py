"""``%llmos`` and ``%%chat`` in notebooks: ``%load_ext llmos_widgets``, or nothing at all in servers of the Hub."""

from __future__ import annotations

from typing import Any

__all__ = ["load_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics. What they need is imported at their first use, so that kernels start fast."""
    from llmos_widgets.completion import register_completion
    from llmos_widgets.magics import LLMOSMagics, with_empty_body

    shell.register_magics(LLMOSMagics(shell))
    shell.input_transformers_cleanup.append(with_empty_body)
    register_completion(shell)
