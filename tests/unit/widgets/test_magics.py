"""The magics in a real IPython shell, against a fake API over real HTTP."""

import builtins
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from llmos.client.messages import WhoAmI
from llmos.errors import ModelNotFound, ModelNotReady, UpstreamFailed
from llmos.present.tables import Row, Table
from llmos.present.text import Span
from llmos.resources import ModelService
from llmos.resources.base import utcnow
from llmos_widgets import load_ipython_extension
from llmos_widgets.chat import Answer, Conversation, fill_in, stream_answer
from llmos_widgets.completion import complete
from llmos_widgets.html import bundle, lines_html, table_html
from llmos_widgets.magics import CommandFailed
from llmos_widgets.output import NotebookOutput, RedrawnPart, in_notebook
from llmos_widgets.values import quiet


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOS_URL", "http://127.0.0.1:9/services/llmos")
    monkeypatch.setenv("LLMOS_TOKEN", "t")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    monkeypatch.delattr(builtins, "_", raising=False)  # gettext's, which IPython leaves in place of the last value
    load_ipython_extension(shell)
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


class Chunk:
    def __init__(self, text="", tokens=None, finish=""):
        self.text, self.reasoning, self.finish_reason = text, "", finish
        self.completion_tokens, self.prompt_tokens = tokens, None


class FakeClient:
    """A client that answers with the number of messages."""

    def __init__(self):
        self.asked = []

    def stream_chat(self, model, messages, **options):
        self.asked.append((model, messages, options))
        yield Chunk("**answer** ")
        yield Chunk(str(len(messages)))
        yield Chunk(tokens=7)


def test_a_wrong_verb_is_one_sentence_and_fails_the_cell(shell):
    with capture_output() as captured:
        result = shell.run_cell("%llmos srve demo://tiny")
    assert not result.success
    assert "Traceback" not in captured.stdout + captured.stderr
    assert "serve" in captured.stdout + captured.stderr


def test_a_platform_that_is_away_is_one_sentence(shell):
    with capture_output() as captured:
        result = shell.run_cell("%llmos ps")
    assert not result.success
    text = captured.stdout + captured.stderr
    assert "does not answer" in text
    assert "Traceback" not in text


def test_help_is_shown_for_the_magic_and_for_each_verb(shell):
    with capture_output() as captured:
        assert shell.run_cell("%llmos serve --help").success
    assert "%llmos serve demo://smollm2 --name chat" in captured.stdout
    assert "Talk to a model" in shell.find_cell_magic("chat").__doc__
    assert "%llmos serve" in shell.find_line_magic("llmos").__doc__


def test_chat_needs_a_question(shell):
    with capture_output() as captured:
        result = shell.run_cell("%%chat chat\n   \n")
    assert not result.success
    assert "question" in captured.stdout + captured.stderr


def test_the_conversation_goes_on_and_starts_over(shell):
    magics = shell.find_cell_magic("chat").__self__
    magics._client = client = FakeClient()
    shell.user_ns["topic"] = "lists"
    with capture_output():
        shell.run_cell("%%chat chat\nExplain {topic}")
        shell.run_cell("%%chat chat --temperature 0\nMore {unknown}")
        shell.run_cell("%%chat chat --new --system 'Be brief'\nAgain")
    first, second, third = client.asked
    assert first[1] == [{"role": "user", "content": "Explain lists"}]
    assert [m["role"] for m in second[1]] == ["user", "assistant", "user"]
    assert second[1][-1]["content"] == "More {unknown}"
    assert second[2] == {"temperature": 0.0}
    assert [m["content"] for m in third[1]] == ["Be brief", "Again"]


def test_the_answer_is_the_cells_value_and_shown_once(shell):
    shell.find_cell_magic("chat").__self__._client = FakeClient()
    with capture_output() as captured:
        result = shell.run_cell("%%chat chat\nHello")
    assert result.result == "**answer** 1"
    shown = [o.data.get("text/html", "") for o in captured.outputs]
    assert all("7 tokens" in text or "<strong>answer</strong>" in text for text in shown)
    assert not any("text/markdown" in o.data for o in captured.outputs)  # JupyterLab would run scripts in it
    assert "answer" not in captured.stdout  # only displayed while it arrived


def test_a_refusal_leaves_the_conversation_as_it_was():
    class Refusing:
        def stream_chat(self, *_args, **_options):
            raise ModelNotFound('No model "x" that you may use.')
            yield

    conversation = Conversation("x")
    with pytest.raises(ModelNotFound):
        stream_answer(Refusing(), conversation, "Hello", {})
    assert conversation.messages == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a} and {b}", "1 and {b}"),
        ("{a.real}", "{a.real}"),
        ("{a.__class__}", "{a.__class__}"),
        ("{{a}}", "{1}"),
        ('{"a": {a}}', '{"a": 1}'),
    ],
)
def test_variables_are_filled_in_and_other_braces_stay(text, expected):
    assert fill_in(text, {"a": 1}) == (expected, [])


def test_only_text_numbers_and_lists_get_into_a_prompt(shell, monkeypatch):
    """A prompt copied from a web page must not send the environment, a client or a module's content to a model."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    names = {"os": os, "environment": dict(os.environ), "words": ["a", 2], "nested": [os.environ], "x": 0.5}
    text = "{os.environ} {os} {environment} {nested} {words} {x}"
    filled, left = fill_in(text, names)
    assert filled == "{os.environ} {os} {environment} {nested} ['a', 2] 0.5"
    assert left == ["{os}", "{environment}", "{nested}"]
    magics = shell.find_cell_magic("chat").__self__
    magics._client = client = FakeClient()
    shell.user_ns["os"] = os
    with capture_output() as captured:
        shell.run_cell("%%chat chat\n{os.environ} {os}")
    assert client.asked[0][1][0]["content"] == "{os.environ} {os}"
    assert "Sent as written: {os}" in captured.outputs[0].data["text/plain"]


def test_earlier_cells_do_not_get_into_a_prompt(shell):
    """IPython's history holds all that was typed and shown; a prompt copied from a web page must not send it."""
    shell.find_cell_magic("chat").__self__._client = client = FakeClient()
    history = "{In} {_ih} {Out} {_oh} {_dh} {_i} {_i1} {_ii} {__} {_2}"
    with capture_output() as captured:
        shell.run_cell("'a password'", store_history=True)
        shell.run_cell("'the last result'", store_history=True)
        shell.run_cell(f"%%chat chat\n{history} {{_}}", store_history=True)
    assert client.asked[0][1][0]["content"] == f"{history} the last result"
    said = [shown.data.get("text/plain", "") for shown in captured.outputs]
    assert any("Sent as written: {In}, {_ih}, {Out}" in text for text in said)
    shell.push({"topic": "lists"}, interactive=False)  # as from a startup file
    with capture_output():
        shell.run_cell("In, _i9 = 'my own', 'mine'")
        shell.run_cell("%%chat chat --new\n{In} {_i9} {topic}")
    assert client.asked[1][1][0]["content"] == "my own mine lists"


def test_html_escapes_what_others_wrote_and_keeps_the_words():
    table = Table(["NAME", "STATE"], [Row(["<b>x", "Ready"], {"STATE": "good"}, "why <i>")])
    html = table_html(table)
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html
    assert "why &lt;i&gt;" in html
    assert "Ready</span>" in html
    events = table_html(Table(["AGE", "MESSAGE"], [Row(["1 s", "long " * 40])], elastic=["MESSAGE"]))
    assert re.findall('<td[^>]*white-space:(.*?)"', events) == [
        "nowrap",
        "normal",
    ]  # long cells wrap, so the output needs no scrolling
    assert "<script" not in lines_html([(Span("<script>", "bad"),)])
    assert "NAME" in bundle(table, utcnow())["text/plain"]


def test_a_stopwatch_goes_on_and_the_last_state_stays(shell, monkeypatch):
    monkeypatch.setattr("llmos_widgets.output._TICK", 0.01)
    ticked = threading.Event()
    texts = []

    def render(content):
        texts.append(f"{content} {len(texts)}")
        if len(texts) > 3:
            ticked.set()
        return {"text/plain": texts[-1]}

    with capture_output() as captured:
        redrawn = RedrawnPart(render)
        redrawn.show("waiting")
        assert ticked.wait(10)
        redrawn.close()
    assert captured.outputs[0].data["text/plain"] == "waiting 0"
    assert not redrawn._ticker.is_alive()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Give it more: llmos set chat --memory 6Gi", "Give it more: %llmos set chat --memory 6Gi"),
        ("Look with: llmos ps. See llmos status", "Look with: %llmos ps. See llmos status"),
        ("`llmos describe` names it", "`%llmos describe` names it"),
        ("%llmos ps, !llmos python and /bin/llmos ps", "%llmos ps, !llmos python and /bin/llmos ps"),
        ("llmos servers, llmos get-together", "llmos servers, llmos get-together"),
        ("Make one with: llmos token", "Make one with: llmos token"),
    ],
)
def test_commands_are_written_as_one_types_them_here(said, shown):
    assert in_notebook(said) == shown
    assert in_notebook(shown) == shown, "written once"


def test_a_failure_names_commands_as_one_types_them_here(shell):
    class Failing:
        def models(self):
            raise ModelNotReady("chat is paused. Start it with: llmos start chat")

        def stream_chat(self, *_args, **_options):
            yield Chunk("Half")
            raise UpstreamFailed("chat ran out of memory. Give it more: llmos set chat --memory 6Gi")

    shell.find_cell_magic("chat").__self__._client = Failing()
    with capture_output() as captured:
        assert not shell.run_cell("%llmos models").success
    assert "Start it with: %llmos start chat" in captured.stdout + captured.stderr
    with capture_output() as captured:
        assert shell.run_cell("%%chat chat\nHi").success
    assert "Give it more: %llmos set chat" in captured.outputs[-1].data["text/plain"]


def test_results_name_commands_as_one_types_them_here(monkeypatch):
    shown = []
    monkeypatch.setattr("llmos_widgets.output.show_bundle", lambda data, **_: shown.append(data))
    note = "chat ran out of memory. Give it more: llmos set chat --memory 6Gi"
    NotebookOutput().show(Table(["NAME"], [Row(["chat"], note=note)]))
    NotebookOutput().show(Table(["NAME"], [], empty="Serve one with: llmos serve demo://tiny"))
    NotebookOutput().lines([(Span("Message: " + note, "bad"),)])
    NotebookOutput().note(note)
    for data, command in zip(shown, ("set chat", "serve demo", "set chat", "set chat"), strict=True):
        assert f": %llmos {command}" in data["text/html"]
        assert f": %llmos {command}" in data["text/plain"]


@pytest.mark.parametrize("cell", ["%llmos ps", "%%chat chat\nHi"])
def test_packages_that_break_llmos_are_one_sentence_in_every_cell(shell, monkeypatch, cell):
    monkeypatch.setitem(sys.modules, "llmos.cli.parser", None)  # makes its import raise
    with capture_output() as captured:
        assert not shell.run_cell(cell).success
    said = " ".join((captured.stdout + captured.stderr).split())
    assert "Traceback" not in said
    assert "%llmos does not work with your own packages: ModuleNotFoundError" in said
    assert "!llmos python reset --yes" in said


def test_values_are_there_but_not_shown_again():
    service = ModelService.parse(
        {"kind": "ModelService", "metadata": {"name": "chat"}, "spec": {"model": "demo://tiny"}}
    )
    value = quiet(service)
    assert isinstance(value, ModelService)
    assert value.spec.model == "demo://tiny"
    assert quiet([service])[0] is service
    assert isinstance(quiet(Answer("x")), str)


@pytest.mark.parametrize("value", ["answer", "resource", "list"])
def test_a_value_is_not_shown_in_its_own_cell_and_is_in_later_ones(shell, value):
    service = ModelService.parse(
        {"kind": "ModelService", "metadata": {"name": "chat"}, "spec": {"model": "demo://tiny"}}
    )
    shell.user_ns["make"] = lambda: {"answer": Answer("chat"), "resource": quiet(service), "list": quiet([service])}[
        value
    ]
    with capture_output() as first:
        shell.run_cell("make()", store_history=True)
    with capture_output() as second:
        shell.run_cell("_", store_history=True)
    assert not first.outputs
    assert "chat" not in first.stdout
    assert "chat" in second.outputs[0].data["text/plain"]
    assert "chat" in second.outputs[0].data["text/html"]


def test_an_identity_that_was_shown_in_words_is_not_shown_again_as_a_value(shell):
    shell.user_ns["who"] = quiet(WhoAmI("ada", "user-ada"))
    with capture_output() as first:
        shell.run_cell("who", store_history=True)
    with capture_output() as second:
        shell.run_cell("_", store_history=True)
    assert not first.outputs
    assert "ada" not in first.stdout
    assert "name='ada', namespace='user-ada'" in second.stdout
    assert isinstance(shell.user_ns["who"], WhoAmI)


def _tab(shell, code):
    with provisionalcompleter():  # like the kernel does
        found = list(shell.Completer.completions(code, len(code)))
    return [code[: completion.start] + completion.text for completion in found]


def test_tab_completes_verbs_options_kinds_and_models(shell):
    assert complete(shell, "%llmos se") == ["serve", "set"]
    assert "--replicas" in complete(shell, "%llmos serve demo://tiny --rep")
    assert complete(shell, "%llmos serve demo://s") == ["demo://smollm2"]
    assert "modelservice" in complete(shell, "%llmos describe ")
    assert complete(shell, "%llmos get modelservices -o y") == ["yaml"]
    assert "--timeout" in complete(shell, "%llmos scale chat 2 --t")
    assert complete(shell, "%llmos python s") == ["show"]
    assert complete(shell, "%llmos set chat --model demo://t") == ["demo://tiny"]
    assert complete(shell, "%llmos scale x") == []  # no error although the platform can't be reached
    assert complete(shell, "%%chat chat --n") == ["--new"]
    assert complete(shell, "%llmos show mod") == complete(shell, "%llmos describe mod")


@pytest.mark.parametrize(
    ("code", "completed"),
    [
        ("%llmos sca", ["%llmos scale"]),
        ("%llmos serve demo://t", ["%llmos serve demo://tiny"]),
        ("found = %llmos who", ["found = %llmos whoami"]),
        ("x = 1\n%llmos mod", ["x = 1\n%llmos models"]),
        ("%llmos set chat --mem", ["%llmos set chat --memory"]),
        ("%%llmos a", ["%%llmos apply"]),
        # without a match Python's own completions aren't offered either, and the text stays
        ("%llmos zz", ["%llmos zz"]),
        ("%llmos logs x", ["%llmos logs x"]),
        ("%%llmos apply\nkind: Mod", ["%%llmos apply\nkind: Mod"]),
        ("%%chat chat\nWhat is pri", ["%%chat chat\nWhat is pri"]),
        ("%%chat chat\nExplain {top", ["%%chat chat\nExplain {topic"]),
        ("%%chat chat\nExplain {I", ["%%chat chat\nExplain {I"]),  # not In, the earlier cells
    ],
)
def test_tab_offers_nothing_of_python_in_a_line_of_ours(shell, code, completed):
    shell.user_ns["topic"] = "lists"
    assert _tab(shell, code) == completed


def test_tab_leaves_python_alone(shell):
    assert "print" in _tab(shell, "pri")
    assert "%llmos" in _tab(shell, "%llm")
    assert "%%chat" in _tab(shell, "%%ch")


def test_help_of_a_cell_magic_needs_no_body_and_the_overview_names_it(shell):
    with capture_output() as captured:
        assert shell.run_cell("%%chat --help").success
        assert shell.run_cell("%%llmos --help\n").success
    assert "--temperature" in captured.stdout
    assert "%%chat NAME" in captured.stdout
    with capture_output() as captured:
        result = shell.run_cell("%%chat chat")
    assert not result.success
    assert "question below" in captured.stdout + captured.stderr


@pytest.mark.parametrize(("word", "said"), [("pull demo://tiny", "%llmos serve MODEL"), ("chat chat", "%%chat")])
def test_a_word_that_is_no_verb_here_leads_to_the_one_that_is(shell, word, said):
    with capture_output() as captured:
        assert not shell.run_cell(f"%llmos {word}").success
    assert said in captured.stdout + captured.stderr


def test_an_error_breaks_at_blanks_and_has_no_colour_of_its_own():
    error = CommandFailed(f"{'word ' * 30}(model_not_found · req 0123456789abcdef)")
    (text,) = error._render_traceback_()
    assert "\x1b" not in text
    assert all(len(line) <= 96 for line in text.splitlines())
    assert "0123456789abcdef)" in text


def test_a_mistake_in_a_cells_manifest_names_the_cell_and_the_line(shell):
    with capture_output() as captured:
        result = shell.run_cell("%%llmos apply\nkind: ModelService\nmetadata:\n  name: Bad Name\nspec: {}\n")
    assert not result.success
    assert "cell:4:" in captured.stdout + captured.stderr
    assert "/tmp" not in captured.stdout + captured.stderr


def test_a_long_line_hangs_below_its_last_cell():
    html = lines_html([(Span("Message:  "), Span("word " * 40)), ()])
    # the same length twice, and no percentage, which would be of another width each time
    assert "padding-left:min(10ch,40vw);text-indent:calc(-1*min(10ch,40vw))" in html
    assert html.count("<div") == 2


def test_the_wait_for_the_first_word_is_shown_and_gone_once_it_comes(shell, monkeypatch):
    monkeypatch.setattr("llmos_widgets.output._TICK", 0.01)
    monkeypatch.setattr("llmos.present.chat._SILENT", 0.0)
    waited = threading.Event()
    pages = []

    def show(data, **_):
        pages.append(data["text/plain"])
        waited.set()
        return SimpleNamespace(update=show)

    monkeypatch.setattr("llmos_widgets.output.show_bundle", show)

    class Slow(FakeClient):
        def stream_chat(self, *args, **options):
            yield Chunk("")  # the role arrives at once
            assert waited.wait(10)
            yield from super().stream_chat(*args, **options)

    stream_answer(Slow(), Conversation("chat"), "Hello", {})
    assert pages[0].startswith("chat is reading the question")
    assert pages[-1].startswith("**answer** 1")

    class Refusing(Slow):
        def stream_chat(self, *_args, **_options):
            waited.clear()
            assert waited.wait(10)
            raise ModelNotFound("gone")
            yield

    with pytest.raises(ModelNotFound):
        stream_answer(Refusing(), Conversation("chat"), "Hello", {})
    assert pages[-1] == ""
