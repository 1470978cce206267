"""The extension application: settings and routes."""

from __future__ import annotations

import os

from jupyter_server.extension.application import ExtensionApp
from traitlets import Float, Integer

from llmos_server_ext.handlers import RelayHandler
from llmos_server_ext.manager import Relay

__all__ = ["LLMOSExtension"]


class LLMOSExtension(ExtensionApp):
    """An extension that serves the API (``/llmos/apis/…``) and the models (``/llmos/v1/…``) to its server's pages."""

    name = "llmos"
    extension_url = "/llmos/"
    load_other_extensions = True

    max_body_bytes = Integer(
        32 * 1024 * 1024,
        config=True,
        help="Bytes of a request's body at most; the gateway's own limit, so that a refusal comes early.",
    )
    connect_timeout = Float(5.0, config=True, help="Seconds until the API or gateway must have taken the connection.")
    read_timeout = Float(
        600.0,
        config=True,
        help="Seconds between two pieces of an answer: a model may think long, a watch has a bookmark every 30 s.",
    )

    def initialize_settings(self) -> None:
        """Make the relay from the environment variables that the spawner sets."""
        relay = Relay(
            os.environ,
            max_body_bytes=self.max_body_bytes,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
        )
        self.settings["llmos_relay"] = relay
        if not relay.api_url:
            self.log.info("llmos: LLMOS_URL is not set, so there is no platform to relay to.")

    def initialize_handlers(self) -> None:
        """Register the handler for both targets."""
        self.handlers.append((r"/llmos/(?P<target>apis|v1)/(?P<path>.+)", RelayHandler, {}))

    async def stop_extension(self) -> None:
        """Close the relay's connections."""
        await self.settings["llmos_relay"].close()
