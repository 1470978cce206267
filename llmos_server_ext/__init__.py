"""LLMOS' extension of a user's own Jupyter server: a same-origin relay to the API and the models.

Pages and widgets in the browser send requests to their own server, which adds its token: the browser never has one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["_jupyter_server_extension_points"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return the extension points, which jupyter-server looks up by this name."""
    from llmos_server_ext.extension import LLMOSExtension

    return [{"module": "llmos_server_ext", "app": LLMOSExtension}]
