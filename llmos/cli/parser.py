"""Parsing of a command line into a verb and its arguments; it never exits or prints, so that notebooks can use it.

A verb is a line in `VERBS` and two functions in its module: ``configure_VERB(parser)`` and
``run_VERB(client, args, output)``. The module is imported only when its verb is used, which keeps ``llmos --help``
and completion fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from llmos.errors import UsageError

__all__ = ["ALIASES", "VERBS", "HelpRequested", "Parser", "Verb", "build_parser", "overview", "parse"]


class HelpRequested(Exception):
    """Help was requested on the command line; the message is the help text."""


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpRequested(parser.format_help())


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError` for mistakes and `HelpRequested` for ``--help``."""

    def __init__(self, prog: str, *, description: str = "", example: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"for example:\n{example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        self.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help")

    @property
    def actions(self) -> list[argparse.Action]:
        """The arguments and options, of which argparse has no public list."""
        return self._actions

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` instead of exiting."""
        text = f"{self.prog}: {message}. More: {self.prog} --help"
        raise UsageError(text)


@dataclass(frozen=True)
class Verb:
    """A subcommand of ``llmos`` and ``%llmos``.

    Attributes
    ----------
    name
        Name of the subcommand.
    summary
        Its summary for the overview.
    example
        Example command lines, without the leading ``llmos``.
    module
        The module in ``llmos.cli.verbs`` with its two functions; by default that of its name.
    needs_client
        Whether it makes requests to the platform.
    notebook
        Whether it is available in notebooks.
    """

    name: str
    summary: str
    example: tuple[str, ...]
    module: str = ""
    needs_client: bool = True
    notebook: bool = True

    def _function(self, prefix: str) -> Callable[..., Any]:
        module = import_module(f"llmos.cli.verbs.{self.module or self.name}")
        function: Callable[..., Any] = getattr(module, f"{prefix}_{self.name}")
        return function

    def configure(self, parser: Parser) -> None:
        """Add this verb's arguments to a parser."""
        self._function("configure")(parser)

    def run(self, client: Any, args: argparse.Namespace, output: Any) -> Any:
        """Run the verb.

        Parameters
        ----------
        client
            `llmos.Client`; None if `needs_client` is false.
        args
            The parsed arguments.
        output
            `llmos.cli.output.Output`.

        Returns
        -------
        object
            The value of a notebook's cell: the resources found or changed. A terminal shows only `output`.
        """
        return self._function("run")(client, args, output)


_VERBS = (
    Verb(
        "serve",
        "serve a model and wait until it is ready",
        ("serve demo://smollm2 --name chat", "serve hf://Qwen/Qwen3-4B-GGUF --memory 6Gi --arg=--ctx-size --arg=8192"),
    ),
    Verb("ps", "show model services: state, memory, replicas", ("ps", "ps -w")),
    Verb("chat", "talk to a model", ("chat chat", 'chat chat "What is a dictionary in Python?"'), notebook=False),
    Verb("logs", "show the log of a resource's processes", ("logs chat", "logs chat -f --tail 20")),
    Verb("stop", "stop a resource's processes but keep it", ("stop chat",), module="change"),
    Verb("start", "start a stopped resource again", ("start chat",), module="change"),
    Verb("scale", "set the number of replicas", ("scale chat 2",), module="change"),
    Verb("wait", "wait until a resource is ready", ("wait chat --timeout 60",), module="change"),
    Verb(
        "set",
        "change a model service",
        ("set chat --memory 6Gi", "set chat --arg=--ctx-size --arg=8192"),
        module="change",
    ),
    Verb("models", "show the names that clients can ask for", ("models",)),
    Verb(
        "get",
        "show resources",
        ("get ms", "get ms chat -o yaml", "get credentials -w", "get ms -l team=vision -o wide"),
    ),
    Verb("describe", "show everything about one resource", ("describe ms chat",)),
    Verb("events", "show the events of a resource", ("events ms chat",), module="describe"),
    Verb("apply", "create or change resources from files", ("apply -f chat.yaml", "apply -f - --dry-run")),
    Verb("delete", "delete resources", ("delete ms chat", "delete -f chat.yaml --yes")),
    Verb(
        "volume",
        "make, grow, snapshot and undelete volumes; list, copy and remove files",
        (
            "volume create data 10Gi",
            "volume cp model.gguf data:models/",
            "volume ls data:models",
            "volume cp data:out .",
            "volume snapshot data",
        ),
    ),
    Verb("explain", "explain a kind or a field", ("explain ms.spec.resources",), needs_client=False),
    Verb("nodes", "show the nodes and their free capacity", ("nodes", "nodes node1")),
    Verb("python", "show or remove your own Python packages", ("python", "python reset"), needs_client=False),
    Verb("whoami", "show whom the token belongs to", ("whoami",)),
    Verb(
        "completion",
        "print a completion script for a shell",
        ("completion bash > ~/.local/share/bash-completion/completions/llmos", "completion fish | source"),
        needs_client=False,
        notebook=False,
    ),
)
VERBS = {verb.name: verb for verb in _VERBS}
ALIASES = {"ls": "ps", "list": "ps", "run": "serve", "rm": "delete", "show": "describe", "status": "ps"}
"""Words of docker and ollama for existing verbs; ``status`` only if the platform's own verbs are missing."""

_ELSEWHERE = {
    "pull": "A model is fetched when it is served: {prog} serve MODEL. What was fetched once is kept.",
    "chat": "To talk to a model begin a cell with %%chat NAME.",
}
"""Messages for words that people try although they aren't verbs here."""

PLATFORM_VERBS = {
    "up": "start the platform on this machine",
    "down": "stop the platform on this machine",
    "status": "show the platform's processes with uptime and memory",
    "doctor": "find problems of the platform",
    "token": "create a token for programs",
    "user": "add users, set new passwords",
    "group": "add groups, whose members share a namespace",
    "bundle": "write images, chart and models to a directory that installs without internet",
}
"""Verbs that ``llmos-hub`` implements; it parses their arguments itself."""


def build_parser(verb: Verb, prog: str = "llmos") -> Parser:
    """Return the parser of one verb."""
    example = "\n".join(f"  {prog} {line}" for line in verb.example)
    parser = Parser(
        f"{prog} {verb.name}", description=f"{verb.summary[:1].upper()}{verb.summary[1:]}.", example=example
    )
    verb.configure(parser)
    return parser


def overview(prog: str = "llmos", *, verbs: Iterable[Verb] = VERBS.values(), platform: bool = True) -> str:
    """Return the overview of all verbs, one line each."""
    lines = [f"usage: {prog} VERB …", "", "Models and resources"]
    lines += [f"  {verb.name:<11} {verb.summary}" for verb in verbs]
    if platform:
        lines += ["", "The platform itself (on the machine where it runs)"]
        lines += [f"  {name:<11} {summary}" for name, summary in PLATFORM_VERBS.items()]
    else:
        lines += ["", "Cells", "  %%chat NAME      talk to a model: the question is the cell below; %%chat --help"]
        lines += ["  %%llmos apply    apply the YAML in the cell below"]
    lines += ["", f"An example and all options of a verb: {prog} VERB --help"]
    return "\n".join(lines) + "\n"


def parse(
    words: Sequence[str], *, prog: str = "llmos", only: Callable[[Verb], bool] | None = None
) -> tuple[Verb, argparse.Namespace]:
    """Return the verb and the parsed arguments of a command line.

    Parameters
    ----------
    words
        The words of the command line, such as ``["serve", "demo://tiny"]``.
    prog
        Name of the command in messages: ``llmos``, ``%llmos``.
    only
        Filter for the available verbs; by default all.

    Raises
    ------
    UsageError
        The words can't be parsed; the message has suggestions.
    HelpRequested
        Help was requested.
    """
    verbs = {name: verb for name, verb in VERBS.items() if only is None or only(verb)}
    if not words or words[0] in {"-h", "--help", "help"}:
        if len(words) > 1 and words[0] == "help" and words[1] in verbs:
            raise HelpRequested(build_parser(verbs[words[1]], prog).format_help())
        raise HelpRequested(overview(prog, verbs=verbs.values(), platform=only is None))
    name, *rest = words
    name = name if name in verbs else ALIASES.get(name, name)
    if name not in verbs:
        if name in _ELSEWHERE:
            raise UsageError(_ELSEWHERE[name].format(prog=prog))
        if name in VERBS or (name in PLATFORM_VERBS and only is not None):
            where = "on the platform's machine" if name in PLATFORM_VERBS else "of yours"
            raise UsageError(f'{prog}: "{name}" is not for notebooks. In a terminal {where}: llmos {name}')
        from llmos.present.text import did_you_mean

        known = [*verbs, *(PLATFORM_VERBS if only is None else ())]
        hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
        raise UsageError(f'{prog}: there is no verb "{name[:80]}".{hint}')
    return verbs[name], build_parser(verbs[name], prog).parse_args(rest)
