"""``python``: the user's own packages and their removal. It also works if these packages are broken."""

from __future__ import annotations

import argparse
import os
import sys

from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.errors import Unsupported
from llmos.python.layer import ENV_BASE, Layer
from llmos.python.notebook import notebook_environment
from llmos.resources.quantities import format_bytes

__all__ = ["configure_python", "run_python"]


def configure_python(parser: Parser) -> None:
    """Add the arguments of ``python``."""
    parser.add_argument(
        "action", nargs="?", choices=("show", "reset"), default="show", help="show them (default) or remove all"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")


def run_python(client: None, args: argparse.Namespace, output: Output) -> list[str]:  # noqa: ARG001 - every verb's signature
    """Show or remove the user's own packages.

    Raises
    ------
    Unsupported
        This isn't a notebook server of LLMOS.
    """
    # in a terminal outside notebook servers, kernels' environment is beside the command's own
    layer = Layer.of({ENV_BASE: str(notebook_environment(sys.prefix)), **os.environ})
    if not os.environ.get(ENV_BASE) and not layer.root.exists():
        raise Unsupported("Only notebook servers that LLMOS started have packages of your own.")
    found = [f"{name}=={version}" for name, version in layer.packages()]
    if args.action == "show":
        return _show(layer, found, output)
    if layer.untouched:
        output.note("There is nothing to take out: you have no packages of your own.")
        return []
    what = " ".join(found) or "what lies there"
    if not args.yes and not output.confirm(f"Take out your own packages ({what})? Files in {layer.site} go with them."):
        output.note("Nothing was taken out.")
        return found
    layer.reset()
    layer.ensure()
    output.text("Your own packages are taken out. Restart kernels that run.")
    if found:
        output.note(f"To have them again: pip install {' '.join(found)}")
    return found


def _show(layer: Layer, found: list[str], output: Output) -> list[str]:
    output.text(f"Everybody's environment   {layer.base}")
    how_much = "none" if layer.untouched else format_bytes(layer.size(), binary=False)
    output.text(f"Your own packages         {layer.root}  ({how_much})")
    for package in found:
        output.text(f"  {package}")
    for other in layer.others():
        output.text(f"For another Python        {other.root}  ({len(other.packages())} packages, kept)")
    output.note(
        "Add some: pip install NAME (in a notebook %pip). Take one out: pip uninstall NAME. All of them: llmos python reset"
    )
    return found
