"""The three layers of Python in a real Hub: packages that a user installs, however broken, affect that user alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from llmos.python import check
from llmos.python.layer import ENV_BASE, Layer
from llmos.python.notebook import notebook_environment
from tests.support.wheels import make_wheel

NOTEBOOK = notebook_environment()
pytestmark = pytest.mark.skipif(
    sys.prefix == str(NOTEBOOK), reason="needs .venv-notebook beside .venv: `make test` makes it"
)


class Person:
    """A user without special permissions, logged in in a browser, with a server."""

    def __init__(self, platform, name, browser):
        self.platform, self.name, self.browser = platform, name, browser
        self.token = platform.token(name)
        platform.start_server(name, self.token)
        self.home = platform.root / "homes" / name

    def restart_server(self):
        self.platform.stop_server(self.name, self.token)
        self.platform.start_server(self.name, self.token)

    def run(self, *cells):
        """Return the outputs of some cells in a new kernel."""
        with self.platform.kernel(self.browser, self.name) as kernel:
            return [kernel.run(cell) for cell in cells]

    def terminal(self, line):
        """Return the output of a command in a terminal of JupyterLab."""
        url = self.platform.server_url(self.name)
        assert self.browser.get(url + "lab").status_code == 200
        path = url.removeprefix(self.platform.hub_url)
        cookies = [c for c in self.browser.cookies.jar if c.path in ("/", path)]
        xsrf = next(c.value for c in cookies if c.name == "_xsrf" and c.path == path)
        name = self.browser.post(url + "api/terminals", headers={"X-XSRFToken": xsrf}).json()["name"]
        headers = {"Cookie": "; ".join(f"{c.name}={c.value}" for c in cookies), "Origin": self.platform.hub_url}
        address = url.replace("http", "ws", 1) + f"terminals/websocket/{name}"
        with connect(address, additional_headers=headers, open_timeout=30) as socket:
            socket.send(json.dumps(["stdin", f"{line}; echo the-'end'\r"]))
            text, over = "", time.monotonic() + 60
            while "the-end" not in text:
                kind, *said = json.loads(socket.recv(timeout=max(0.0, over - time.monotonic())))
                text += "".join(map(str, said)) if kind == "stdout" else ""
            return text.replace("\r", "")


@contextmanager
def person_of(platform, name):
    with platform.browser(name, platform.add_user(name)) as browser:
        person = Person(platform, name, browser)
        yield person
        platform.stop_server(name, person.token)


@pytest.fixture(scope="module")
def somebody(platform):
    with person_of(platform, "mallory-py") as person:
        yield person


@pytest.fixture
def mallory(somebody):
    """Return a user who has installed nothing yet."""
    layer = Layer.of({"HOME": str(somebody.home), ENV_BASE: str(NOTEBOOK)})
    layer.reset()
    layer.ensure()  # the running server uses it
    return somebody


@pytest.fixture(scope="module")
def vera(platform):
    with person_of(platform, "vera-py") as person:
        yield person


@pytest.fixture
def wheels(tmp_path):
    """Return packages that break what they can."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "pydantic", "1.10.26", {"pydantic/__init__.py": "VERSION = '1.10.26'\nclass BaseModel: pass\n"})
    make_wheel(folder, "ipykernel", "99.0", {"ipykernel/__init__.py": "raise RuntimeError('not a kernel')\n"})
    make_wheel(folder, "llmos", "99.0", {"llmos/__init__.py": "print('somebody else')\n"})
    make_wheel(folder, "evil", "1.0", {"sitecustomize.py": "import os\nos._exit(3)\n"})
    return folder


def damage():
    return [check.damage(prefix) for prefix in (sys.prefix, str(NOTEBOOK))]


@pytest.fixture(scope="module")
def at_first():
    return damage()


@pytest.fixture(autouse=True)
def nothing_of_the_platforms_changes(at_first):
    """Check that the environments of platform and notebooks are unchanged after each test."""
    yield
    assert damage() == at_first


def notebook_version():
    return "python{}.{}".format(*sys.version_info[:2])


def assert_works_for_everybody_else(platform, vera):
    used, verb = vera.run("import pydantic; print(pydantic.VERSION[0], pydantic.__file__)", "%llmos whoami")
    assert used.text.startswith("2 "), used.shown
    assert str(NOTEBOOK) in used.text
    assert "vera-py" in verb.shown
    assert platform.run("status").returncode == 0
    doctor = platform.run("doctor").stdout
    assert f"as locked, in {sys.prefix}\n" in doctor, doctor
    assert f"as locked, in {NOTEBOOK}\n" in doctor, doctor


def install(wheels, package):
    return f"%pip install --quiet --upgrade --no-index --no-deps --find-links {wheels} '{package}'"


def reset(person):
    said = person.terminal("llmos python reset --yes")
    assert "taken out" in said, said


def test_what_a_data_person_expects_is_there(vera):
    (out,) = vera.run(
        "import numpy, pandas, polars, matplotlib, sklearn, scipy, ipywidgets, openai, llmos; print('all')"
    )
    assert out.text.endswith("all\n"), out.shown


def test_pip_puts_packages_into_the_persons_own_and_they_survive_a_restart(mallory, vera, tmp_path):
    make_wheel(tmp_path, "own_thing", "1.0", {"own_thing.py": "VALUE = 42\n"})
    mallory.run(f"%pip install --quiet --no-index --find-links {tmp_path} own_thing")
    mallory.restart_server()
    here, shell = mallory.run(
        "import own_thing; print(own_thing.VALUE, own_thing.__file__)",
        "!python -c 'import own_thing; print(own_thing.VALUE)'",
    )
    assert here.text.startswith(f"42 {mallory.home}"), here.shown
    assert "42" in shell.text
    make_wheel(tmp_path, "uv_thing", "1.0", {"uv_thing.py": ""})
    here, found = mallory.run(
        f"!uv pip install --quiet --no-index --find-links {tmp_path} uv_thing",
        "import uv_thing; print(uv_thing.__file__)",
    )
    assert found.text.startswith(str(mallory.home)), here.shown
    (other,) = vera.run("import own_thing")
    assert "ModuleNotFoundError" in other.error
    said = mallory.terminal("llmos python")
    assert "own_thing==1.0" in said.replace("own-thing", "own_thing")
    reset(mallory)


def test_a_terminal_finds_the_same_python_and_llmos(mallory):
    said = mallory.terminal(
        "command -v llmos pip python uv; python -c 'import sys; print(sys.prefix)'; llmos whoami; llmos status"
    )
    layer = mallory.home / ".llmos"
    assert f"{NOTEBOOK}/bin/llmos\n{layer}" in said, said
    assert said.count(str(layer)) >= 3
    assert "user-mallory-py" in said  # the namespace
    # the platform's own program, in another environment; it knows that this is a notebook server
    assert "this notebook server has its data elsewhere" in said or "LLMOS at" in said


@pytest.mark.parametrize("program", [["-m", "pip"], ["bin/pip"]])
@pytest.mark.parametrize("prefix", [sys.prefix, str(NOTEBOOK)])
def test_pip_refuses_the_platforms_environments_and_says_what_to_do(prefix, program):
    words = [f"{prefix}/{program[0]}"] if program[0].startswith("bin") else [f"{prefix}/bin/python", *program]
    done = subprocess.run([*words, "install", "pydantic<2"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "externally-managed-environment" in done.stderr
    assert "%pip install" in done.stderr
    listed = subprocess.run([*words, "list"], capture_output=True, text=True, timeout=60, check=False)
    assert listed.returncode == 0


def test_an_old_pydantic_takes_llmos_from_its_owner_alone_who_is_told(platform, mallory, vera, wheels):
    mallory.run(install(wheels, "pydantic<2"))
    mallory.restart_server()
    first, second, verb, again = mallory.run(
        "import pydantic; print(pydantic.VERSION)",
        "print('and on')",
        "%llmos whoami",
        "!llmos whoami",
    )
    assert "1.10.26" in first.text, first.shown
    assert "%llmos does not work with your own packages" in first.text
    assert "llmos python reset" in first.text
    assert "Traceback" not in verb.shown
    assert "llmos python reset" in verb.shown
    assert second.text == "and on\n"
    assert "mallory-py" in again.text, again.shown  # the command has an environment of its own
    assert_works_for_everybody_else(platform, vera)
    (taken_out,) = mallory.run("!llmos python reset")
    assert "are taken out" in taken_out.text  # without a question, as a notebook can't answer one
    mallory.restart_server()
    first, verb = mallory.run("import pydantic; print(pydantic.VERSION[0])", "%llmos whoami")
    assert first.text == "2\n"
    assert "mallory-py" in verb.shown


@pytest.mark.parametrize(
    ("package", "why"), [("ipykernel", "RuntimeError: not a kernel"), ("evil", "exit code 3")], ids=["kernel", "exit"]
)
def test_a_kernel_that_cannot_start_starts_without_its_owners_packages_and_says_so(
    platform, mallory, vera, wheels, package, why
):
    mallory.run(install(wheels, package))
    mallory.restart_server()
    first, verb = mallory.run("print('here')", "%llmos whoami")
    assert first.text.endswith("here\n")
    assert "without your own packages" in first.text
    assert why in first.text
    assert "llmos python reset" in first.text
    assert "mallory-py" in verb.shown
    assert_works_for_everybody_else(platform, vera)
    reset(mallory)
    (first,) = mallory.run("print('here')")
    assert first.text == "here\n"


def test_a_package_named_llmos_is_its_owners_alone(platform, mallory, vera, wheels):
    mallory.run(install(wheels, "llmos"))
    (first,) = mallory.run("print('here')")
    assert "here" in first.text
    assert "llmos python reset" in first.text
    assert_works_for_everybody_else(platform, vera)
    reset(mallory)
    assert "mallory-py" in mallory.run("%llmos whoami")[0].shown


def test_a_package_whose_files_are_half_gone_is_noticed_at_the_next_start(mallory, tmp_path):
    make_wheel(tmp_path, "tornado", "99.0", {"tornado/__init__.py": "version_info = (99,)\nversion = '99'\n"})
    mallory.run(f"%pip install --quiet --upgrade --no-index --no-deps --find-links {tmp_path} tornado")
    (first,) = mallory.run("print('here')")
    assert "without your own packages" in first.text
    assert "tornado" in first.text
    reset(mallory)


def test_a_file_that_breaks_every_page_is_left_out_and_said(mallory):
    own = mallory.home / ".llmos" / notebook_version() / "share" / "jupyter" / "labextensions" / "bad" / "package.json"
    for file in (own, mallory.home / ".jupyter" / "labconfig" / "page_config.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{")
        try:
            mallory.restart_server()
            (first,) = mallory.run("print('here')")  # JupyterLab's page has loaded before
        finally:
            file.unlink()
        assert f"{file} can't be read" in first.text
    mallory.restart_server()
    assert mallory.run("print('here')")[0].text == "here\n"


def test_a_configuration_that_ends_the_server_is_left_out_and_said(mallory):
    file = mallory.home / ".jupyter" / "jupyter_server_config.py"
    file.parent.mkdir(exist_ok=True)
    try:
        missing = "c.ServerApp.contents_manager_class = 'no.such.Manager'"
        for setting in ("raise SystemExit(3)", missing, "import os; os._exit(4)", "import ctypes; ctypes.string_at(0)"):
            file.write_text(setting + "\n")
            mallory.restart_server()
            first, second = mallory.run("print('here')", "print('on')")
            assert "without your own Jupyter configuration and extensions" in first.text, (setting, first.shown)
            assert second.text == "on\n"
    finally:
        file.unlink()
    mallory.restart_server()
    assert mallory.run("print('here')")[0].text == "here\n"


def test_a_startup_file_that_ends_the_kernel_is_left_out_and_named(mallory):
    startup = mallory.home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "00-good.py").write_text("good = 'well'\n")
    bad = startup / "10-bad.py"
    bad.write_text("import os; os._exit(7)\n")
    try:
        first, second, verb = mallory.run("print('here')", "print('on')", "%llmos whoami")
    finally:
        bad.unlink()
    assert f"{bad} ends it (exit code 7)" in first.text, first.shown
    assert first.text.endswith("here\n")
    assert second.text == "on\n"
    assert "mallory-py" in verb.shown
    assert mallory.run("print(good)")[0].text == "well\n"
    (startup / "00-good.py").unlink()


def test_a_module_that_is_still_to_come_says_so(mallory, tmp_path):
    """A package that is still being fetched, as in a platform's first minute, gives an explanation."""
    base = tmp_path / "notebook"
    (base / "bin").mkdir(parents=True)
    (base / ".llmos-expected").write_text("pandas\n")
    script = (
        "from llmos.python.notebook import await_packages; await_packages()\n"
        "try:\n    import pandas\nexcept ModuleNotFoundError as exc:\n    print(exc)\n"
        "try:\n    import nothing_like_it\nexcept ModuleNotFoundError as exc:\n    print(exc)\n"
    )
    environment = {"LLMOS_NOTEBOOK_ENVIRONMENT": str(base), "PATH": "/usr/bin"}
    script = "import sys; sys.modules.pop('pandas', None)\n" + script
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert "pandas is still being fetched" in first
    assert second == "No module named 'nothing_like_it'"
