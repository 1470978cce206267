"""The command ``llmos bundle DIR``: its arguments, progress and result."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from llmos.errors import BadRequest, UsageError
from llmos_hub.bundle.engines import ENGINES

__all__ = ["build_parser", "main"]

_MACHINES: Final = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "linux/arm64"}
_PLATFORM: Final = re.compile(r"linux/(amd64|arm64)")

_EXAMPLES: Final = """\
examples:
  llmos bundle /media/usb/llmos --from docker --models demo://smollm2 hf://Qwen/Qwen3-4B-GGUF
  llmos bundle bundle --images llmos-*.tar --platform linux/amd64,linux/arm64 --values site.yaml
"""


def _platforms(text: str) -> list[str]:
    found = text.split(",")
    if not all(_PLATFORM.fullmatch(each) for each in found):
        raise argparse.ArgumentTypeError(f'"{text[:60]}" is not among linux/amd64, linux/arm64')
    return list(dict.fromkeys(found))


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of its words."""
    parser = argparse.ArgumentParser(
        prog="llmos bundle",
        description="Write images, chart and models to a directory that installs in a cluster without internet.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=_path, metavar="DIR", help="where to; made if it isn't there")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="URI",
        help="models to bring: demo://tiny, hf://org/repo, file:///path",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        type=_path,
        metavar="FILE",
        help="archives of images, as docker save writes them",
    )
    parser.add_argument(
        "--from", dest="engine", choices=ENGINES, default="", help="take the images that are not in archives from there"
    )
    parser.add_argument(
        "--platform",
        type=_platforms,
        default=[_MACHINES.get(platform.machine(), "linux/amd64")],
        metavar="P[,P]",
        help="of the cluster's machines: linux/amd64, linux/arm64 (default: this machine's)",
    )
    parser.add_argument(
        "--chart", type=_path, metavar="PATH", help="a chart's directory or archive (default: that of the checkout)"
    )
    parser.add_argument(
        "--values", type=_path, metavar="FILE", help="values for the chart; images are named as they say"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="images of the chart to leave out: notebook"
    )
    parser.add_argument(
        "--models-only", action="store_true", help="neither images nor chart: for a cluster that has them"
    )
    parser.add_argument(
        "--add", nargs="+", default=[], type=_path, metavar="FILE", help="more files to bring: helm, k3s and its images"
    )
    return parser


def _values(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadRequest(f"{path} can't be read: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path} holds no values: it has to be a YAML mapping.")
    return data


def main(argv: Sequence[str]) -> int:
    """Write a bundle, and return the exit code.

    Raises
    ------
    LLMOSError
        The bundle can't be written; the next attempt continues with what was written.
    """
    options = build_parser().parse_args(argv)
    if options.models_only and not options.models:
        raise UsageError("--models-only without --models would write nothing. Name some: --models demo://smollm2")
    from llmos_hub.bundle.chart import Chart, default_chart
    from llmos_hub.bundle.writer import BundleSpec, ConsoleReporter, write_bundle

    chart = options.chart or default_chart()
    if chart is None:
        raise UsageError(
            "This is no checkout of LLMOS, which has the chart. Name its directory or archive: --chart helm/llmos"
        )
    spec = BundleSpec(
        directory=options.directory,
        chart=Chart.load(chart),
        values=_values(options.values),
        platforms=tuple(options.platform),
        archives=tuple(options.images),
        engine=options.engine,
        without=frozenset(options.without),
        models_only=options.models_only,
        models=tuple(dict.fromkeys(options.models)),
        extra=tuple(options.add),
    )
    try:
        size = write_bundle(spec, ConsoleReporter())
    except OSError as error:
        raise BadRequest(f"{error.filename or options.directory}: {error.strerror or error}.") from error
    sys.stdout.write(
        f"\n  {options.directory} is ready: {size / 1e9:.1f} GB.\n"
        "  Copy it to a machine of the cluster and run there, as root: ./install.sh\n"
    )
    return 0
