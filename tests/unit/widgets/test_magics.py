"""The magics in a real IPython shell, against a real HTTP server that plays the API."""

import threading

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from llmos.present.tables import Row, Table
from llmos.present.text import Span
from llmos.resources import ModelService
from llmos.resources.base import utcnow
from llmos_widgets import load_ipython_extension
from llmos_widgets.chat import Answer, Conversation, fill_in, stream_answer
from llmos_widgets.completion import complete
from llmos_widgets.html import bundle, lines_html, table_html
from llmos_widgets.output import Redrawn, in_notebook
from llmos_widgets.values import quiet


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOS_URL", "http://127.0.0.1:9/services/llmos")
    monkeypatch.setenv("LLMOS_TOKEN", "t")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    load_ipython_extension(shell)
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


class Chunk:
    def __init__(self, text="", tokens=None, finish=""):
        self.text, self.reasoning, self.finish_reason = text, "", finish
        self.completion_tokens, self.prompt_tokens = tokens, None


class FakeClient:
    """Answers with the number of messages it was sent."""

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
    assert (
        "make a model answer" in shell.find_cell_magic("chat").__doc__
        or "Talk to a model" in shell.find_cell_magic("chat").__doc__
    )
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
    assert not any("text/markdown" in o.data for o in captured.outputs)  # JupyterLab runs what is in that
    assert "answer" not in captured.stdout  # only what was displayed while it came


def test_a_refusal_leaves_the_conversation_as_it_was():
    from llmos.errors import ModelNotFound

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
        ("{a.real}", "1"),
        ("{a.__class__}", "{a.__class__}"),
        ("{{a}}", "{1}"),
        ('{"a": {a}}', '{"a": 1}'),
    ],
)
def test_variables_are_filled_in_and_other_braces_stay(text, expected):
    assert fill_in(text, {"a": 1}) == expected


def test_html_escapes_what_others_wrote_and_keeps_the_words():
    table = Table(["NAME", "STATE"], [Row(["<b>x", "Ready"], {"STATE": "good"}, "why <i>")])
    html = table_html(table)
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html
    assert "why &lt;i&gt;" in html
    assert "Ready</span>" in html
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
        redrawn = Redrawn(render)
        redrawn.show("waiting")
        assert ticked.wait(10)
        redrawn.finish()
    assert captured.outputs[0].data["text/plain"] == "waiting 0"
    assert not redrawn._ticker.is_alive()


def test_commands_are_written_as_one_types_them_here():
    assert in_notebook("Look with: llmos ps. See llmos status") == "Look with: %llmos ps. See llmos status"
    assert in_notebook("%llmos ps and /bin/llmos ps") == "%llmos ps and /bin/llmos ps"


def test_values_are_there_but_not_shown_again():
    service = ModelService.parse(
        {"kind": "ModelService", "metadata": {"name": "chat"}, "spec": {"model": "demo://tiny"}}
    )
    value = quiet(service)
    assert isinstance(value, ModelService)
    assert value.spec.model == "demo://tiny"
    assert value._ipython_display_() is None
    assert quiet([service])[0] is service
    assert isinstance(quiet(Answer("x")), str)


def test_tab_completes_verbs_options_kinds_and_models(shell, monkeypatch):
    assert complete(shell, "se", "%llmos se") == ["serve", "set"]
    assert "--replicas" in complete(shell, "--rep", "%llmos serve demo://tiny --rep")
    assert "demo://smollm2" in complete(shell, "demo://", "%llmos serve demo://")
    assert "modelservice" in complete(shell, "", "%llmos describe ")
    assert complete(shell, "x", "%llmos scale x") == []  # the platform is away: no error
    assert "--new" in complete(shell, "--n", "%%chat chat --n")


def test_the_completer_is_hooked_in(shell):
    with provisionalcompleter():  # as the kernel asks
        found = [completion.text for completion in shell.Completer.completions("%llmos se", 9)]
    assert "serve" in found
