"""Set-up: what it refuses in words, and when it has nothing to do. The real thing is run by whoever types `make up`."""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The script as a module, on a checkout of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "requirements").mkdir()
    for name in ("bootstrap", "platform", "dev"):
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for folder in module.COPIED:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config").write_text("1")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / ".venv" / ".llmos-setup"))
    monkeypatch.setattr(module, "LOG", str(tmp_path / "setup.log"))
    return module


def test_an_old_python_is_told_which_is_needed(bootstrap, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "MINIMUM", (3, 99))
    assert bootstrap.main([]) == 1
    words = capsys.readouterr().err
    assert "too old" in words
    assert "make up PYTHON=python3.99" in words


def test_a_python_without_venv_is_told_the_package(bootstrap, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert bootstrap.main([]) == 1
    assert f"apt install python3.{sys.version_info[1]}-venv" in capsys.readouterr().err


def test_a_failing_step_shows_the_end_of_its_output(bootstrap):
    with pytest.raises(bootstrap.SetupFailed, match=r"(?s)Installing failed \(exit code 3\).*no such host.*make up"):
        bootstrap.run(
            [sys.executable, "-c", "print('no such host'); raise SystemExit(3)"],
            "Installing",
            bootstrap.Step(1, 4, "Python environment"),
        )


def test_nothing_is_installed_twice_and_the_larger_lock_will_do(bootstrap, monkeypatch):
    done = []
    monkeypatch.setattr(bootstrap, "install_python", lambda lock, step: done.append(lock) or 1)
    monkeypatch.setattr(bootstrap, "install_proxy", lambda step: done.append("proxy"))
    bootstrap.set_up("platform")
    bootstrap.set_up("platform")
    assert done == ["platform", "proxy"]
    bootstrap.set_up("dev")
    bootstrap.set_up("platform")
    assert done == ["platform", "proxy", "dev", "proxy"]


@pytest.mark.parametrize("change", ["requirements/platform.txt", "pyproject.toml", "llmos_widgets/ipython/config"])
def test_a_changed_lock_or_copied_file_is_taken_over(bootstrap, monkeypatch, tmp_path, change):
    done = []
    monkeypatch.setattr(bootstrap, "install_python", lambda lock, step: done.append(lock) or 1)
    monkeypatch.setattr(bootstrap, "install_proxy", lambda step: None)
    bootstrap.set_up("platform")
    (tmp_path / change).write_text("2")
    bootstrap.set_up("platform")
    assert done == ["platform", "platform"]


def test_a_set_up_that_fails_is_not_taken_for_done(bootstrap, monkeypatch):
    def fail(lock, step):
        raise bootstrap.SetupFailed("no network")

    monkeypatch.setattr(bootstrap, "install_python", fail)
    assert bootstrap.main(["--only-install"]) == 1
    assert bootstrap.installed() is None


def make_environment(bootstrap, place, *, programs=("python", "pip")):
    (place / "bin").mkdir(parents=True, exist_ok=True)
    (place / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {bootstrap.VENV}\n")
    for name in programs:
        (place / "bin" / name).write_text("")
        (place / "bin" / name).chmod(0o755)


def test_half_an_environment_and_one_that_was_moved_are_made_anew(bootstrap, monkeypatch, tmp_path):
    place = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "VENV", str(place))
    monkeypatch.setattr(bootstrap, "BIN", str(place / "bin"))
    assert not bootstrap.usable_environment()
    make_environment(bootstrap, place, programs=("python",))  # Ctrl-C, while pip was being put in
    assert not bootstrap.usable_environment()
    make_environment(bootstrap, place)
    assert bootstrap.usable_environment()
    monkeypatch.setattr(bootstrap, "UNFINISHED", str(place / "unfinished"))
    Path(bootstrap.UNFINISHED).touch()  # Ctrl-C, while packages were being put in
    assert not bootstrap.usable_environment()
    Path(bootstrap.UNFINISHED).unlink()
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path / "renamed" / ".venv"))
    assert not bootstrap.usable_environment()


def test_a_moved_checkout_is_set_up_anew(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "install_python", lambda lock, step: 1)
    monkeypatch.setattr(bootstrap, "install_proxy", lambda step: None)
    bootstrap.set_up("platform")
    assert bootstrap.installed() == "platform"
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path / "renamed" / ".venv"))
    assert bootstrap.installed() is None


def test_what_takes_long_is_said_before_it_is_done(bootstrap, monkeypatch, capsys):
    step = bootstrap.Step(1, 4, "Python environment")
    bootstrap.run([sys.executable, "-c", ""], "Installing uv", step)
    assert capsys.readouterr().out == "      Installing uv …\n"
    step.done("156 packages")
    assert capsys.readouterr().out.startswith("[1/4] Python environment      156 packages")


def test_the_second_of_two_makes_says_that_it_waits_and_installs_nothing(bootstrap, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(bootstrap, "install_python", lambda lock, step: done.append(lock) or 1)
    monkeypatch.setattr(bootstrap, "install_proxy", lambda step: None)
    with bootstrap.checkout_locked():
        second = threading.Thread(target=bootstrap.set_up, args=("platform",))
        second.start()
        while "waiting" not in capsys.readouterr().out:
            assert second.is_alive()
            second.join(0.01)
        Path(bootstrap.STAMP).write_text(f"platform {bootstrap.fingerprint('platform')}\n")
    second.join(10)
    assert done == []


def test_a_checkout_that_cannot_be_written_is_refused_in_words(bootstrap, monkeypatch, capsys):
    def refuse(lock, step):
        raise PermissionError(13, "Permission denied", bootstrap.VENV)

    monkeypatch.setattr(bootstrap, "install_python", refuse)
    assert bootstrap.main(["--only-install"]) == 1
    words = capsys.readouterr().err
    assert "Permission denied" in words
    assert "checkout of your own" in words


def test_the_locks_name_no_server():
    for path in [
        *(ROOT / "requirements").glob("*.txt"),
        ROOT / "llmos_hub" / "supervisor" / "proxy" / "package-lock.json",
    ]:
        text = path.read_text()
        assert "resolved" not in text
        assert "index-url" not in text
    assert "--hash=sha256:" in (ROOT / "requirements" / "bootstrap.txt").read_text()


def test_an_older_python_can_read_the_script_to_be_told():
    # what 3.8 parses, 3.8 can refuse in words
    script = "import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 7))"
    subprocess.run([sys.executable, "-c", script, str(ROOT / "tools" / "bootstrap.py")], check=True, timeout=30)
