"""LLMOS inside a person's own Jupyter server: one same-origin relay to the API and the models.

Pages and widgets in the browser talk to their own server, and the server adds its token: the browser
never holds one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["_jupyter_server_extension_points"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter-server finds the extension."""
    from llmos_server_ext.extension import LLMOSExtension

    return [{"module": "llmos_server_ext", "app": LLMOSExtension}]
