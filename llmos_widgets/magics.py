"""``%llmos VERB …`` is the command ``llmos`` in a notebook; ``%%chat MODEL`` talks to a model.

The verbs, their options and their words are the command's own (`llmos.cli`); here they write into the cell.
Imports happen at first use: the extension is loaded at every kernel's start.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class

if TYPE_CHECKING:
    from llmos_widgets.chat import Answer, Conversation

__all__ = ["CommandFailed", "LLMOSMagics"]


class CommandFailed(Exception):
    """A verb was refused or failed. The cell shows the sentence alone and counts as failed, so "run all" stops."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"\x1b[31m{self}\x1b[0m"]


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

        %%llmos apply                               apply the YAML in the cell

        Every verb explains itself: %llmos serve --help. Interrupting a cell stops the watching, never the model.
        """
        return self._guarded(lambda: self._run(line, cell))

    @cell_magic
    def chat(self, line: str, cell: str) -> Answer:
        """Talk to a model; the answer streams in and is the cell's value.

        %%chat chat
        What is a dictionary in Python?

        The conversation goes on in the next ``%%chat chat``. ``{name}`` stands for the notebook's variable of that
        name.

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
        from llmos.cli.parser import HelpRequested
        from llmos.errors import LLMOSError
        from llmos_widgets.output import in_notebook

        try:
            return work()
        except HelpRequested as help_:
            print(help_.text)  # noqa: T201 - a cell's output is standard output
            return None
        except LLMOSError as error:
            failure = CommandFailed(in_notebook(str(error)))
        raise failure  # outside of the handler: no "during handling of the above" is kept

    def _run(self, line: str, cell: str | None) -> Any:
        from llmos.cli.parser import parse
        from llmos_widgets.output import NotebookOutput
        from llmos_widgets.values import quiet

        words = _split(line)
        if cell is not None:
            words = self._with_cell(words, cell)
        verb, args = parse(words, prog="%llmos", only=lambda verb: verb.notebook)
        output = NotebookOutput()
        try:
            return quiet(verb.run(self.client if verb.needs_client else None, args, output))
        except KeyboardInterrupt:
            output.note(
                "Stopped watching. What was begun goes on by itself; look with: %llmos ps"
                if verb.name in {"serve", "start", "scale", "set"}
                else "Stopped."
            )
            return None

    def _with_cell(self, words: list[str], cell: str) -> list[str]:
        """``%%llmos apply``: the cell is the manifest."""
        from llmos.errors import UsageError

        if words[:1] != ["apply"]:
            raise UsageError("%%llmos knows one verb, apply: the cell below it is the manifest. Else use %llmos.")
        import tempfile
        from pathlib import Path

        # named like a file, since the verb reads files; gone with the kernel's temporary directory at the latest
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="cell-", delete=False, encoding="utf-8") as file:
            file.write(cell)
        assert self.shell is not None
        self.shell.events.register("post_run_cell", _once(self.shell, Path(file.name).unlink))
        return ["apply", "-f", file.name, *words[1:]]

    def _chat(self, line: str, cell: str) -> Answer:
        from llmos.errors import UsageError
        from llmos_widgets.chat import Conversation, fill_in, stream_answer

        args = _chat_parser().parse_args(_split(line))
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
        prompt = fill_in(cell.strip(), self.shell.user_ns)
        if not prompt:
            raise UsageError("%%chat needs a question below its first line.")
        conversation = self._conversations.get(model)
        if conversation is None or args.new:
            conversation = Conversation(model)
        if args.system:
            conversation.system(args.system)
        options = {"temperature": args.temperature, "max_tokens": args.max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        answer = stream_answer(self.client, conversation, prompt, given)
        self._conversations[model] = conversation
        return answer


def _split(line: str) -> list[str]:
    from llmos.errors import UsageError

    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"The line can't be split into words: {error}.") from None


def _once(shell: Any, work: Any) -> Any:
    """A hook that runs `work` after this cell and takes itself away."""

    def hook(*_: Any) -> None:
        shell.events.unregister("post_run_cell", hook)
        work()

    return hook


def _chat_parser() -> Any:
    from llmos.cli.parser import Parser

    parser = Parser(
        "%%chat", description="Talk to a model.", example="  %%chat chat\n  What is a dictionary in Python?"
    )
    parser.add_argument("model", nargs="?", help="a name that %%llmos models shows; may be left out where there is one")
    parser.add_argument("--new", action="store_true", help="start the conversation over")
    parser.add_argument("--system", metavar="TEXT", help="what the model is to be")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 for always the same answer")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="how long an answer may get")
    return parser
