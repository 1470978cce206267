"""``%llmos VERB …`` is the command ``llmos`` in a notebook; ``%%chat MODEL`` talks to a model.

The verbs, their options and their words are the command's own (`llmos.cli`); here they write into the cell.
Imports happen at first use: the extension is loaded at every kernel's start.
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
    """A verb was refused or failed. The cell shows the sentence alone and counts as failed, so "run all" stops."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback.

        JupyterLab colours an error's background and breaks its lines anywhere, also inside a name or an id: the
        text has no colour of its own, and its lines end at blanks.
        """
        wrapped = textwrap.wrap(str(self), _ERROR_WIDTH, break_long_words=False, break_on_hyphens=False)
        return ["\n".join(wrapped)]


@magics_class
class LLMOSMagics(Magics):
    """The magics of one kernel."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._client: Any = None
        self._conversations: dict[str, Conversation] = {}

    @property
    def client(self) -> Any:
        """The kernel's client, made at first use."""
        if self._client is None:
            from llmos import Client

            self._client = Client()
        return self._client

    @line_cell_magic
    def llmos(self, line: str, cell: str | None = None) -> Any:
        """Launch and manage models, from inside the notebook.

        %llmos serve demo://smollm2 --name chat     make a model answer, and wait until it does
        %llmos ps                                   what runs: state, memory, replicas
        %llmos describe modelservice chat           everything about one
        %llmos logs chat                            what its processes wrote
        %llmos stop chat · start chat               keep it but run nothing · run it again
        %llmos scale chat 2                         two replicas
        %llmos set chat --memory 6Gi                change it
        %llmos delete modelservice chat             remove it
        %llmos models                               the names that clients can ask for
        %llmos get KIND · events · apply · whoami   as kubectl has them

        %%chat chat                                 talk to it: the question is the cell below
        %%llmos apply                               apply the YAML in the cell

        Every verb explains itself: %llmos serve --help. Interrupting a cell stops the watching, never the model.
        """
        return self._guarded(lambda: self._run(line, cell))

    @cell_magic
    def chat(self, line: str, cell: str) -> Answer:
        """Talk to a model; the answer streams in and is the cell's value.

        %%chat chat
        What is a dictionary in Python?

        The conversation continues in the next ``%%chat chat``. ``{name}`` stands for the notebook's variable of that
        name where it holds text, a number or a list of them.

        %%chat MODEL [--new] [--system TEXT] [--temperature T] [--max-tokens N]

        --new          start the conversation over
        --system       what the model is to be
        --temperature  0 for always the same answer
        --max-tokens   how long an answer may get
        """
        answer: Answer = self._guarded(lambda: self._chat(line, cell))
        return answer

    def _guarded(self, work: Any) -> Any:
        """Errors as one sentence, help as text, an interrupt as a note."""
        failure: CommandFailed | None = None
        try:
            from llmos.cli.parser import HelpRequested
            from llmos.errors import LLMOSError
            from llmos_widgets.output import in_notebook
        except Exception as error:  # noqa: BLE001 - a person's own package may raise anything when it is imported
            failure = CommandFailed(_broken(error))
        if failure is not None:
            raise failure  # outside of the handler: no "during handling of the above" is kept
        try:
            return work()
        except ImportError as error:
            failure = CommandFailed(_broken(error))
        except HelpRequested as help_:
            print(help_.text)  # noqa: T201 - a cell's output is standard output
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
        """Read the words after ``%llmos``; of ``%%llmos apply`` the cell is the manifest."""
        from llmos.cli.manifests import Text
        from llmos.cli.parser import parse
        from llmos.errors import UsageError

        asks_for_help = not {"-h", "--help", "help"}.isdisjoint(words)
        if cell is None or asks_for_help:
            return parse(words, prog="%llmos", only=lambda verb: verb.notebook)
        if words[:1] != ["apply"]:
            raise UsageError("%%llmos has one verb, apply: the cell below it is the manifest. Otherwise use %llmos.")
        verb, args = parse(["apply", "-f", "-", *words[1:]], prog="%llmos")
        args.filename = [Text("cell", cell)]
        return verb, args

    def _chat(self, line: str, cell: str) -> Answer:
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
        prompt, left = fill_in(cell.strip(), self.shell.user_ns)
        if not prompt:
            raise UsageError("%%chat needs a question below its first line.")
        conversation = self._conversations.get(model)
        if conversation is None or args.new:
            conversation = Conversation(model)
        if args.system:
            conversation.system(args.system)
        options = {"temperature": args.temperature, "max_tokens": args.max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        if left:
            NotebookOutput().note(f"Sent as written: {', '.join(left)}. Only text, numbers and lists are filled in.")
        answer = stream_answer(self.client, conversation, prompt, given)
        self._conversations[model] = conversation
        return answer


def _broken(error: Exception) -> str:
    """Return what to say where a package that ``llmos`` needs can't be imported."""
    from llmos.python.kernel import told_of_broken

    return told_of_broken(f"{type(error).__name__}: {error}")


def _split(line: str) -> list[str]:
    from llmos.errors import UsageError

    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"The line can't be split into words: {error}.") from None


def with_empty_body(lines: list[str]) -> list[str]:
    """Give a cell that is the line ``%%chat …`` or ``%%llmos …`` alone a body, for IPython's input transformers.

    Without one IPython doesn't call a cell magic, and ``%%chat --help`` would be its error instead of our help.
    """
    written = [line for line in lines if line.strip()]
    alone = len(written) == 1 and written[0].split(None, 1)[0] in {"%%chat", "%%llmos"}
    return [written[0].rstrip("\n") + "\n", "\n"] if alone else lines


def chat_parser() -> Parser:
    """Return the parser of ``%%chat``'s line."""
    from llmos.cli.parser import Parser

    parser = Parser(
        "%%chat",
        description="Talk to a model: the question is the rest of the cell, the answer the cell's value.",
        example="  %%chat chat\n  What is a dictionary in Python?",
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a name that %%llmos models shows; may be left out where there is one"
    )
    parser.add_argument("--new", action="store_true", help="start the conversation over")
    parser.add_argument("--system", metavar="TEXT", help="what the model is to be")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 for always the same answer")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="how long an answer may get")
    return parser
