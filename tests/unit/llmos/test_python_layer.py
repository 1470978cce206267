"""Users' own packages: creation, upgrades and damage of the layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.cli.parser import parse
from llmos.errors import Unsupported
from llmos.python import kernel, managed
from llmos.python.layer import ENV_BASE, Layer
from llmos.python.notebook import notebook_environment
from tests.support.wheels import make_wheel

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def layer(tmp_path):
    """Return a layer in front of the environment of these tests, in a home with a space in its path."""
    home = tmp_path / "a home"
    home.mkdir()
    found = Layer.of({"HOME": str(home), ENV_BASE: sys.prefix})
    assert found.ensure()
    return found


@pytest.fixture(autouse=True)
def profile(tmp_path_factory, monkeypatch):
    """Return the directory of an IPython configuration of its own, which is empty."""
    directory = tmp_path_factory.mktemp("ipython")
    monkeypatch.setenv("IPYTHONDIR", str(directory))
    monkeypatch.delenv("PYTHONSTARTUP", raising=False)
    folder = directory / "profile_default"
    (folder / "startup").mkdir(parents=True)
    return folder


def python(layer, code):
    done = subprocess.run([str(layer.python), "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def pip(layer, *words):
    command = [str(layer.root / "bin" / "pip"), *words, "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_sees_everybodys_packages_behind_its_own(layer):
    assert layer.root.name == f"python{VERSION}"
    assert layer.untouched
    assert python(layer, "import sys, pydantic; print(sys.prefix)") == str(layer.root)
    (layer.site / "pydantic.py").write_text("MINE = 1\n")
    assert not layer.untouched
    assert python(layer, "import pydantic; print(pydantic.MINE)") == "1"


def test_pip_writes_there_whatever_a_configuration_says(layer, tmp_path):
    wheel = make_wheel(tmp_path, "own_thing", "1.0", {"own_thing.py": ""})
    configured = layer.root.parent.parent / ".config" / "pip"
    configured.mkdir(parents=True)
    (configured / "pip.conf").write_text("[install]\nuser = yes\n")
    done = subprocess.run(
        [str(layer.root / "bin" / "pip"), "install", "--no-index", str(wheel)],
        env={"HOME": str(layer.root.parent.parent), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (layer.site / "own_thing.py").exists()
    assert layer.packages() == [("own_thing", "1.0")]


def test_making_it_again_changes_nothing_of_its_owners(layer):
    (layer.root / "bin" / "pip").write_text("#!/bin/sh\necho mine\n")
    (layer.site / "mine.py").write_text("")
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in layer.root.rglob("*"))
    assert not layer.ensure()
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in layer.root.rglob("*")) == before


def test_an_environment_that_has_moved_is_found_again(layer, tmp_path):
    (tmp_path / "elsewhere").symlink_to(sys.prefix)
    moved = Layer(layer.root, tmp_path / "elsewhere")
    moved.ensure()
    assert str(tmp_path / "elsewhere") in python(moved, "import sys; print(sys.path)")


def test_another_python_has_a_layer_beside_and_says_what_was_in_the_old_one(layer, tmp_path):
    old = Layer(layer.root.with_name("python3.9"), layer.base)
    old.site.mkdir(parents=True)
    make_info = old.site / "kept-1.0.dist-info"
    make_info.mkdir()
    (make_info / "METADATA").write_text("Metadata-Version: 2.1\nName: kept\nVersion: 1.0\n")
    assert [other.root for other in layer.others()] == [old.root]
    layer.reset()
    start = kernel._prepare(layer)
    assert start.packages
    assert "%pip install kept" in start.notes[0]
    assert kernel._prepare(layer) == kernel._Start()
    assert make_info.exists()


def test_reset_takes_everything_out_and_nothing_else(layer):
    (layer.site / "evil.py").write_text("")
    neighbour = layer.root.with_name("python3.9")
    neighbour.mkdir()
    layer.reset()
    assert not layer.root.exists()
    assert neighbour.exists()
    assert layer.ensure()
    assert layer.untouched


def test_a_home_that_cannot_be_written_does_not_stop_a_kernel(tmp_path):
    (tmp_path / ".llmos").write_text("a file")
    start = kernel._prepare(Layer.of({"HOME": str(tmp_path), ENV_BASE: sys.prefix}))
    assert not start.packages
    assert "can't be written" in start.notes[0]


def test_what_was_tried_is_not_tried_again_until_the_packages_change(layer, monkeypatch):
    tries = []
    monkeypatch.setattr(kernel, "_try", lambda found: tries.append(found) or kernel._Trial())
    (layer.site / "one.py").write_text("")
    kernel._prepare(layer)
    (layer.root / "starting").unlink()  # it has started
    kernel._prepare(layer)
    assert len(tries) == 1
    kernel._prepare(layer)  # the previous one has not started
    assert len(tries) == 2
    (layer.root / "starting").unlink()
    (layer.site / "two.py").write_text("")
    kernel._prepare(layer)
    assert len(tries) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise RuntimeError('no such luck')", "no such luck"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import sys; sys.exit('enough')", "enough"),
    ],
)
def test_what_keeps_a_kernel_from_starting_is_found_before_it_is_started(layer, text, why):
    (layer.site / "zmq.py").write_text(text + "\n")
    start = kernel._prepare(layer)
    assert not start.packages
    assert why in start.notes[0]
    assert "llmos python reset" in start.notes[0]


def test_a_file_beside_the_notebook_is_not_taken_for_a_package(layer, tmp_path, monkeypatch):
    (layer.site / "one.py").write_text("")
    (tmp_path / "random.py").write_text("raise RuntimeError('mine')\n")
    monkeypatch.chdir(tmp_path)
    assert kernel._prepare(layer) == kernel._Start()


def test_what_kept_a_kernel_from_starting_is_looked_for_again_each_time(layer, profile):
    (layer.site / "one.py").write_text("")
    config = profile / "ipython_config.py"
    config.write_text("import os; os._exit(7)\n")
    start = kernel._prepare(layer)
    assert start.packages
    assert not start.configuration
    assert "exit code 7" in start.notes[0]
    config.unlink()
    assert kernel._prepare(layer) == kernel._Start()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("ipython_config.py", "import os; os._exit(7)", "ends it (exit code 7)"),
        ("ipython_kernel_config.py", "raise SystemExit(4)", "ends it (exit code 4)"),
        ("startup/00-first.py", "import os; os.kill(os.getpid(), 9)", "ends it (killed by signal 9)"),
    ],
)
def test_a_file_of_the_configuration_that_ends_a_kernel_is_named_and_left_out(layer, profile, name, text, why):
    (profile / "startup" / "good.py").write_text("1 + 1\n")
    (profile / name).write_text(text + "\n")
    start = kernel._prepare(layer)
    assert start.packages
    assert not start.configuration
    (note,) = start.notes
    assert str(profile / name) in note
    assert "good.py" not in note
    assert why in note
    (profile / name).unlink()
    assert kernel._prepare(layer) == kernel._Start()


def test_a_file_of_the_configuration_that_hangs_is_named_and_not_waited_for_again(layer, profile, monkeypatch):
    startup = profile / "startup" / "hangs.py"
    startup.write_text("input()\n")
    tries = []

    def run(words, **options):
        tries.append(options["env"]["IPYTHONDIR"])
        if options["env"]["IPYTHONDIR"] == str(profile.parent):
            said = f"begins {profile / 'good.py'}\ndone\nbegins {startup}\n"
            raise subprocess.TimeoutExpired(words, options["timeout"], output=said.encode())
        return subprocess.CompletedProcess(words, 0, b"kernel\nllmos\n", b"")

    monkeypatch.setattr(subprocess, "run", run)
    start = kernel._prepare(layer)
    assert (start.packages, start.configuration) == (True, False)
    assert f"{startup} does not end within" in start.notes[0]
    (layer.root / "starting").unlink()  # it has started
    assert kernel._prepare(layer) == start
    assert len(tries) == 2


def test_a_setting_that_ends_a_kernel_is_left_out_with_where_it_is(layer, profile):
    (profile / "ipython_kernel_config.json").write_text('{"IPKernelApp": {"kernel_class": "no.such.Kernel"}}')
    start = kernel._prepare(layer)
    assert (start.packages, start.configuration) == (True, False)
    assert f"in {profile}: " in start.notes[0]
    assert "CRITICAL" not in start.notes[0]
    assert "no.such.Kernel" in start.notes[0] or "No module named" in start.notes[0]


def test_what_a_configuration_only_fails_at_is_ipythons_to_say(layer, profile):
    (profile / "ipython_config.py").write_text("1 / 0\n")
    (profile / "startup" / "wrong.py").write_text("1 / 0\n")
    assert kernel._prepare(layer) == kernel._Start()


def test_packages_are_not_blamed_for_a_configuration_nor_the_other_way(layer, profile):
    (profile / "startup" / "good.py").write_text("x = 1\n")
    (layer.site / "zmq.py").write_text("raise RuntimeError('no such luck')\n")
    start = kernel._prepare(layer)
    assert (start.packages, start.configuration) == (False, True)
    assert len(start.notes) == 1
    assert "no such luck" in start.notes[0]
    (profile / "startup" / "bad.py").write_text("import os; os._exit(7)\n")
    start = kernel._prepare(layer)
    assert (start.packages, start.configuration) == (False, False)
    assert "no such luck" in start.notes[0]
    assert str(profile / "startup" / "bad.py") in start.notes[1]


def test_a_configuration_is_tried_once_until_it_changes(layer, profile, monkeypatch):
    tries = []
    monkeypatch.setattr(kernel, "_try", lambda found: tries.append(found) or kernel._Trial())
    kernel._prepare(layer)
    assert not tries
    startup = profile / "startup" / "one.py"
    startup.write_text("x = 1\n")
    for _ in range(2):
        kernel._prepare(layer)
        (layer.root / "starting").unlink()  # it has started
    assert len(tries) == 1
    os.utime(startup, ns=(1, 1))
    kernel._prepare(layer)
    assert len(tries) == 2


def test_the_environment_leads_to_it_once(layer):
    first = layer.environment({"PATH": "/usr/bin"})
    assert first["PATH"].split(":")[:2] == [str(layer.root / "bin"), f"{sys.prefix}/bin"]
    assert layer.environment({**first}) == first


def test_a_prefix_without_a_notebook_environment_is_its_own(tmp_path):
    assert notebook_environment(str(tmp_path / "env")) == tmp_path / "env"
    (tmp_path / "env-notebook" / "bin").mkdir(parents=True)
    (tmp_path / "env-notebook" / "bin" / "python").touch()
    assert notebook_environment(str(tmp_path / "env")) == tmp_path / "env-notebook"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["-m", "pip", "install", "x"], True),
        (["/a/bin/pip3", "uninstall", "x"], True),
        (["-I", "-m", "pip", "--quiet", "install", "x"], True),
        (["-m", "pip", "install", "--target", "/tmp", "x"], False),
        (["-m", "pip", "list"], False),
        (["mine.py", "install"], False),
    ],
)
def test_the_mark_stops_pip_and_nothing_else(tmp_path, words, refused):
    library = tmp_path / "lib" / f"python{VERSION}" / "site-packages"
    library.mkdir(parents=True)
    managed.mark(str(tmp_path))
    line = (library / "llmos_managed.pth").read_text()
    code = (
        f"import sys; sys.prefix = {str(tmp_path)!r}; sys.orig_argv = ['python', *{words!r}]\n"
        f"exec({line!r})\nprint('passed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode == 1) is refused
    assert ("externally-managed-environment" in done.stderr) is refused
    assert ("passed" in done.stdout) is not refused
    managed.unmark(str(tmp_path))


class Said:
    """An output that records its texts."""

    def __init__(self, answer=True):
        self.said = []
        self.answer = answer
        self.text = self.note = self.said.append

    def confirm(self, question):
        self.said.append(question)
        return self.answer


def run(words, output):
    verb, args = parse(["python", *words])
    return verb.run(None, args, output)


def test_the_command_shows_and_resets(layer, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(layer.root.parent.parent))
    monkeypatch.setenv(ENV_BASE, sys.prefix)
    assert (
        pip(layer, "install", "--no-index", str(make_wheel(tmp_path, "own_thing", "1.0", {"own.py": ""}))).returncode
        == 0
    )
    output = Said(answer=False)
    assert run([], output) == ["own_thing==1.0"]
    assert any("own_thing==1.0" in line for line in output.said)
    run(["reset"], output)
    assert "own_thing==1.0" in output.said[-2]  # packages are listed before they are removed
    assert not layer.untouched
    output = Said()
    run(["reset", "--yes"], output)
    assert layer.untouched
    assert "pip install own_thing==1.0" in output.said[-1]


def test_elsewhere_the_command_names_the_environment_of_kernels(layer, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(layer.root.parent.parent))
    monkeypatch.delenv(ENV_BASE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    (tmp_path / "env-notebook" / "bin").mkdir(parents=True)
    (tmp_path / "env-notebook" / "bin" / "python").touch()
    output = Said()
    run([], output)
    assert output.said[0].endswith(str(tmp_path / "env-notebook"))


def test_the_command_says_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(ENV_BASE, raising=False)
    with pytest.raises(Unsupported, match="notebook server"):
        run([], Said())
    assert list(Path(tmp_path).iterdir()) == []
