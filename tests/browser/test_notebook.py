"""The session of the README in a real browser: log in, start a server, serve a model, chat, call it with openai.

Screenshots are written to ``LLMOS_SCREENSHOTS`` (a temporary directory where it isn't set).
"""

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.platform import Platform, running_platform

CHROMIUM = os.environ.get("LLMOS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PASSWORD = "a-good-password"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Yield a platform on which rosa's server can't start."""
    root = tmp_path_factory.mktemp("browser") / "data"
    root.mkdir(mode=0o700)
    (root / "jupyterhub_config.py").write_text(
        "def no_server(spawner):\n"
        '    if spawner.user.name == "rosa":\n'
        """        spawner.cmd = ["/bin/sh", "-c", "echo 'no <server> today' >&2; exit 3"]\n"""
        "c.Spawner.pre_spawn_hook = no_server\n"
    )
    with running_platform(root) as platform:
        platform.add_user("ada", PASSWORD)
        yield platform


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    assert CHROMIUM, "Chromium is not installed. Install it with: apt-get install chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 860},
            locale="en-US",
        )
        context.set_default_timeout(30_000)
        yield context.pages[0]
        context.close()


@pytest.fixture(scope="module")
def shoot(tmp_path_factory, page):
    directory = Path(os.environ.get("LLMOS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    directory.mkdir(parents=True, exist_ok=True)

    def shoot(name: str) -> Path:
        path = directory / f"{name}.png"
        page.screenshot(path=str(path))
        return path

    return shoot


class Notebook:
    """The open notebook, cell by cell."""

    def __init__(self, page: Page):
        self.page = page
        self.cells = page.locator(".jp-Notebook-cell.jp-CodeCell")

    def run(self, source: str) -> "Cell":
        """Type into the last cell and run it, as Shift-Enter does."""
        number = self.cells.count() - 1
        cell = self.cells.nth(number)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
        expect(self.cells).to_have_count(number + 2)
        for _ in range(10):  # JupyterLab drops what is run while it connects to the kernel: a person presses again
            with contextlib.suppress(AssertionError):
                expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[ ]:", timeout=5_000)
                return Cell(cell)
            cell.locator(".cm-content").click()
            self.page.keyboard.press("Shift+Enter")
        pytest.fail("the kernel takes nothing")


class Cell:
    def __init__(self, locator):
        self.locator = locator
        self.output = locator.locator(".jp-OutputArea-output")

    def wait_done(self, timeout: float = 60.0) -> "Cell":
        prompt = self.locator.locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=timeout * 1000)
        return self

    @property
    def text(self) -> str:
        return "\n".join(self.output.all_inner_texts())

    @property
    def line_beginnings(self) -> list[float]:
        """Return the distance of each output line's beginning from the left edge, in pixels."""
        return self.output.locator("pre > div").evaluate_all(
            """lines => lines.map(line => {
                const range = document.createRange();
                range.selectNodeContents(line);
                const edge = line.parentElement.getBoundingClientRect().left;
                return Math.round(range.getClientRects()[0].left - edge);
            })"""
        )


def test_a_wrong_password_is_refused(running: Platform, page: Page, shoot):
    page.goto(running.hub_url)
    shoot("1-log-in")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name=re.compile("(log|sign) in", re.IGNORECASE)).click()
    expect(page.locator("body")).to_contain_text(re.compile("invalid", re.IGNORECASE))


def test_log_in_and_start_a_server(running: Platform, page: Page, shoot):
    page.goto(running.hub_url)
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("(log|sign) in", re.IGNORECASE)).click()
    page.wait_for_url(re.compile("/hub/(spawn|home)"))
    if "/hub/home" in page.url:
        page.get_by_role("button", name=re.compile("start my server", re.IGNORECASE)).or_(
            page.locator("#start")
        ).first.click()
    expect(page.locator("form#spawn_form, form").first).to_be_visible()
    shoot("2-profile")
    page.locator("input[type=submit], button[type=submit]").last.click()
    page.wait_for_url(re.compile("/user/ada/"), timeout=60_000)
    expect(page.locator(".jp-LauncherCard").first).to_be_visible(timeout=60_000)
    shoot("3-lab")


def test_the_session_of_the_readme(running: Platform, page: Page, shoot):
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    notebook = Notebook(page)
    expect(notebook.cells).to_have_count(1)
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=60_000)

    served = notebook.run("%llmos serve demo://smollm2 --name chat").wait_done(300)
    assert "Ready" in served.text, served.text
    assert "%%chat chat" in served.text
    assert set(served.line_beginnings) == {0}, served.line_beginnings
    shoot("4-served")

    asked = notebook.run("%%chat chat\nWhat is a dictionary in Python?").wait_done(180)
    assert "tokens/s" in asked.text, asked.text
    assert re.search("dictionary|key|value", asked.text, re.IGNORECASE)
    shoot("5-chat")

    called = notebook.run(
        "import openai\n"
        "answer = openai.OpenAI().chat.completions.create(\n"
        '    model="chat", messages=[{"role": "user", "content": "Say hello."}], max_tokens=20)\n'
        "print(answer.choices[0].message.content)"
    ).wait_done(120)
    assert called.text.strip()
    assert "Error" not in called.text

    listed = notebook.run("%llmos ps").wait_done()
    assert listed.locator.locator("table").count() == 1
    assert re.search(r"chat.*Ready", listed.text, re.DOTALL), listed.text
    shoot("6-ps")

    described = notebook.run("%llmos describe chat").wait_done()
    assert set(described.line_beginnings) == {0}, described.line_beginnings

    wrong = notebook.run("%llmos serve demo://tinny --name x").wait_done()
    assert "Traceback" not in wrong.text
    assert "tiny" in wrong.text, wrong.text
    unknown = notebook.run("%%chat chta\nHello").wait_done()
    assert 'Did you mean "chat"' in unknown.text, unknown.text
    shoot("7-errors")

    notebook.run("?%llmos").wait_done()
    expect(page.locator("body")).to_contain_text("serve a model and wait until it is ready")


def test_interrupting_stops_the_waiting_and_not_the_model(running: Platform, page: Page, shoot):
    notebook = Notebook(page)
    cell = notebook.run("%llmos ps -w")
    expect(cell.locator).to_contain_text("Ready")
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    cell.wait_done()
    assert "Traceback" not in cell.text
    assert re.search(r"Ready", notebook.run("%llmos ps").wait_done().text)


def test_the_page_knows_no_token(running: Platform, page: Page):
    environment = running.server_environment("ada")
    seen = page.content() + page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    for name in ("JUPYTERHUB_API_TOKEN", "OPENAI_API_KEY"):
        assert environment[name] not in seen


def test_a_server_that_dies_at_once_says_why_and_offers_to_try_again(running: Platform, page: Page, shoot):
    running.add_user("rosa", PASSWORD)
    page.context.clear_cookies()
    page.goto(running.hub_url)
    page.get_by_label("Username").fill("rosa")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("(log|sign) in", re.IGNORECASE)).click()
    page.wait_for_url(re.compile("/hub/(spawn|home)"))
    page.goto(f"{running.hub_url}/hub/spawn")
    page.locator("input[type=submit], button[type=submit]").last.click()
    expect(page.get_by_role("heading")).to_have_text(re.compile("did not start"), timeout=30_000)
    shoot("8-did-not-start")
    body = page.locator("body")
    expect(body).to_contain_text("no <server> today")
    expect(body).not_to_contain_text("starting up")
    expect(body).not_to_contain_text("Stop Server")
    assert body.inner_text().count("exit status 3") == 1
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
