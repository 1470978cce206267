"""The magics ``%llmos VERB …``, the command ``llmos`` in a notebook, and ``%%chat MODEL``, a conversation.

Verbs, options and messages are those of the command (`llmos.cli`); the output goes to the cell. Imports are made at
first use, because every kernel loads this extension at its start.
"""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class

if TYPE_CHECKING:
    import argparse

    from llmos.cli.parser import Parser, Verb
    from llmos_widgets.chat import Answer, Conversation

__all__ = ["CommandFailed", "LLMOSMagics", "chat_parser", "with_empty_body"]


_ERROR_WIDTH = 96


class CommandFailed(Exception):
    """A verb failed or was refused. The cell shows only the message and counts as failed, so that "run all" stops."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        # JupyterLab colours the background of errors and breaks lines anywhere, also inside a name or an id; so the
        # text has no colours, and its lines are broken at spaces
        wrapped = textwrap.wrap(str(self), _ERROR_WIDTH, break_long_words=False, break_on_hyphens=False)
        return ["\n".join(wrapped)]


@magics_class
class LLMOSMagics(Magics):
    """The magics of a kernel."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._client: Any = None
        self._conversations: dict[str, Conversation] = {}

    @property
    def client(self) -> Any:
        """The kernel's client, created at first use."""
        if self._client is None:
            from llmos import Client

            self._client = Client()
        return self._client

    @line_cell_magic
    def llmos(self, line: str, cell: str | None = None) -> Any:
        """Serve and manage models from a notebook.

        %llmos serve demo://smollm2 --name chat     serve a model and wait until it is ready
        %llmos ps                                   show model services: state, memory, replicas
        %llmos describe ms chat                     show everything about one
        %llmos logs chat                            show the log of its processes
        %llmos stop chat · start chat               stop it but keep it · start it again
        %llmos scale chat 2                         set the number of replicas
        %llmos set chat --memory 6Gi                change it
        %llmos delete ms chat                       delete it
        %llmos models                               show the names that clients can ask for
        %llmos get KIND · events · apply · whoami   as in kubectl

        %%chat chat                                 talk to it: the question is the rest of the cell
        %%llmos apply                               apply the YAML in the cell

        All options of a verb: %llmos serve --help. Interrupting a cell ends the waiting, not the model.
        """
        return self._guarded(lambda: self._run(line, cell))

    @cell_magic
    def chat(self, line: str, cell: str) -> Answer:
        """Talk to a model; the answer is shown while it arrives and is the cell's value.

        %%chat chat
        What is a dictionary in Python?

        The conversation continues in the next ``%%chat chat``. ``{name}`` is replaced by the notebook's variable of
        that name if it is text, a number or a list of them.

        %%chat MODEL [--new] [--system TEXT] [--temperature T] [--max-tokens N]

        --new          start the conversation over
        --system       the system message, which tells the model how to behave
        --temperature  0 for the most likely answer, higher for variety
        --max-tokens   the longest answer, in tokens
        """
        answer: Answer = self._guarded(lambda: self._chat(line, cell))
        return answer

    def _guarded(self, work: Any) -> Any:
        """Run `work` and return its result; show errors as one sentence, and help as text."""
        failure: CommandFailed | None = None
        try:
            from llmos.cli.parser import HelpRequested
            from llmos.errors import LLMOSError
            from llmos_widgets.output import in_notebook
        except Exception as error:  # noqa: BLE001 - the user's own packages may raise anything on import
            failure = CommandFailed(_broken(error))
        if failure is not None:
            raise failure  # outside of the handler, so that no "during handling of the above" is shown
        try:
            return work()
        except ImportError as error:
            failure = CommandFailed(_broken(error))
        except HelpRequested as help_:
            print(help_)  # noqa: T201 - a cell's output is standard output
            return None
        except LLMOSError as error:
            failure = CommandFailed(in_notebook(str(error)))
        raise failure

    def _run(self, line: str, cell: str | None) -> Any:
        from llmos_widgets.output import NotebookOutput
        from llmos_widgets.values import quiet

        verb, args = self._parse(_split(line), cell)
        output = NotebookOutput()
        try:
            return quiet(verb.run(self.client if verb.needs_client else None, args, output))
        except KeyboardInterrupt as stopped:
            from llmos.cli.waiting import WatchStopped

            if not isinstance(stopped, WatchStopped):
                output.note("Stopped.")
            return None

    def _parse(self, words: list[str], cell: str | None) -> tuple[Verb, argparse.Namespace]:
        """Parse the words after ``%llmos``; the cell of ``%%llmos apply`` is its manifest."""
        from llmos.cli.manifests import ManifestText
        from llmos.cli.parser import parse
        from llmos.errors import UsageError

        asks_for_help = not {"-h", "--help", "help"}.isdisjoint(words)
        if cell is None or asks_for_help:
            return parse(words, prog="%llmos", only=lambda verb: verb.notebook)
        if words[:1] != ["apply"]:
            raise UsageError("%%llmos has one verb, apply: the cell below it is the manifest. Otherwise use %llmos.")
        verb, args = parse(["apply", "-f", "-", *words[1:]], prog="%llmos")
        args.filename = [ManifestText("cell", f"\n{cell}")]  # lines are counted from the cell's first
        return verb, args

    def _chat(self, line: str, cell: str) -> Answer:
        from llmos.cli.common import chat_options
        from llmos.errors import UsageError
        from llmos_widgets.chat import Conversation, fill_in, stream_answer
        from llmos_widgets.output import NotebookOutput

        args = chat_parser().parse_args(_split(line))
        model = args.model
        if model is None:
            models = [found.id for found in self.client.models()]
            if len(models) != 1:
                known = (
                    f"You can use: {', '.join(models)}."
                    if models
                    else "Serve one with: %llmos serve demo://smollm2 --name chat"
                )
                raise UsageError(f"%%chat needs a model. {known}")
            (model,) = models
        assert self.shell is not None
        prompt, left = fill_in(cell.strip(), self.shell.user_ns, self.shell.user_ns_hidden)
        if not prompt:
            raise UsageError("%%chat needs a question below its first line.")
        conversation = self._conversations.get(model)
        if conversation is None or args.new:
            conversation = Conversation(model)
        if args.system:
            conversation.system(args.system)
        if left:
            NotebookOutput().note(
                f"Sent as written: {', '.join(left)}. Only your own text, numbers and lists are filled in."
            )
        answer = stream_answer(self.client, conversation, prompt, chat_options(args))
        self._conversations[model] = conversation
        return answer


def _broken(error: Exception) -> str:
    """Return the message for a package that can't be imported although ``llmos`` needs it."""
    from llmos.python.kernel import broken_packages_message

    return broken_packages_message(f"{type(error).__name__}: {error}")


def _split(line: str) -> list[str]:
    from llmos.errors import UsageError

    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"The line can't be split into words: {error}.") from None


def with_empty_body(lines: list[str]) -> list[str]:
    """Add a body to a cell that has only the line ``%%chat …`` or ``%%llmos …``; an input transformer for IPython."""
    # IPython doesn't call cell magics without a body; it would answer ``%%chat --help`` with an error of its own
    written = [line for line in lines if line.strip()]
    alone = len(written) == 1 and written[0].split(None, 1)[0] in {"%%chat", "%%llmos"}
    return [written[0].rstrip("\n") + "\n", "\n"] if alone else lines


def chat_parser() -> Parser:
    """Return the parser of the line ``%%chat …``."""
    from llmos.cli.common import add_chat_options
    from llmos.cli.parser import Parser

    parser = Parser(
        "%%chat",
        description="Talk to a model: the question is the rest of the cell, the answer the cell's value.",
        example="  %%chat chat\n  What is a dictionary in Python?",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a name from %%llmos models; by default the only one")
    parser.add_argument("--new", action="store_true", help="start the conversation over")
    add_chat_options(parser)
    return parser
