"""Set-up: its errors, and the cases in which it has nothing to do. The installation itself is tested by `make up`."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmos.python import check
from tests.support.wheels import make_wheel

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """Return the script as a module, on its own checkout."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.really_complete_notebook = module.complete_notebook
    (tmp_path / "requirements").mkdir()
    for name in ("bootstrap", "platform", "dev", "kernel", "data"):
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for folder in module.COPIED:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config").write_text("1")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / ".venv" / ".llmos-setup"))
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "NOTEBOOK", str(tmp_path / ".venv-notebook"))
    monkeypatch.setattr(module, "install_notebook", lambda step, *, whole: make_notebook(module, whole=whole))
    monkeypatch.setattr(module, "complete_notebook", lambda step: Path(module.NOTEBOOK, ".llmos-complete").touch())
    make_site(tmp_path / ".venv")
    monkeypatch.setattr(module, "LOG", str(tmp_path / "setup.log"))
    return module


def make_site(prefix):
    """Make an environment with one package, like set-up does."""
    site = prefix / "lib" / "python3.11" / "site-packages"
    (site / "good-1.0.dist-info").mkdir(parents=True)
    (site / "good.py").write_text("VALUE = 1\n")
    (site / "good-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: good\nVersion: 1.0\n")
    rows = ["good.py,,10", "good-1.0.dist-info/METADATA,,", "good-1.0.dist-info/RECORD,,"]
    (site / "good-1.0.dist-info" / "RECORD").write_text("\n".join(rows) + "\n")
    check.record(str(prefix))
    return site


def make_notebook(module, *, whole):
    """Make the notebook environment, like set-up does."""
    shutil.rmtree(module.NOTEBOOK, ignore_errors=True)
    make_site(Path(module.NOTEBOOK))
    Path(module.NOTEBOOK, ".llmos-setup").write_text(module.fingerprint("kernel", "data"))
    if whole:
        Path(module.NOTEBOOK, ".llmos-complete").touch()


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


def installs(bootstrap, monkeypatch):
    """Record what set-up installs from here on, and return the record."""
    done = []

    def install(lock, step):
        done.append(lock)
        make_site(Path(bootstrap.VENV)) if not Path(bootstrap.VENV, "lib").exists() else None
        return 1

    monkeypatch.setattr(bootstrap, "install_python", install)
    monkeypatch.setattr(bootstrap, "install_proxy", lambda step: None)
    monkeypatch.setattr(
        bootstrap,
        "install_notebook",
        lambda step, *, whole: [done.append("notebook"), make_notebook(bootstrap, whole=whole)],
    )
    return done


DAMAGE = {
    "another version": lambda site: (site / "good-1.0.dist-info").rename(site / "good-0.9.dist-info"),
    "a file that is gone": lambda site: (site / "good.py").unlink(),
    "a stranger": lambda site: (site / "sitecustomize.py").write_text("raise SystemExit\n"),
    "a package more": lambda site: (site / "evil-1.0.dist-info").mkdir(),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("which", ["VENV", "NOTEBOOK"])
def test_what_was_changed_since_is_made_anew_and_named(bootstrap, monkeypatch, capsys, which, harm):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    assert done == ["platform", "notebook"]
    assert not bootstrap.set_up("platform")
    done.clear()
    prefix = Path(getattr(bootstrap, which))
    harm(prefix / "lib" / "python3.11" / "site-packages")
    assert bootstrap.set_up("platform")
    assert done == (["platform"] if which == "VENV" else ["notebook"])
    assert f"{prefix.name} is not as it was set up: " in capsys.readouterr().out
    assert not bootstrap.set_up("platform")


def test_what_was_edited_in_place_is_fetched_anew(bootstrap, monkeypatch):
    installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    ran = []
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda words, **_: ran.append(words))
    (Path(bootstrap.VENV) / "lib" / "python3.11" / "site-packages" / "good.py").write_text("VALUE = 42\n")
    check.distrust(bootstrap.VENV)
    assert bootstrap.set_up("platform")
    assert ran[0][1:] == ["cache", "clean", "--quiet", "good"]


def test_bytecode_and_times_are_no_damage(bootstrap, monkeypatch):
    installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    site = Path(bootstrap.VENV, "lib", "python3.11", "site-packages")
    (site / "__pycache__").mkdir()
    os.utime(site, (1, 1))
    assert not bootstrap.set_up("platform")


def test_a_notebook_environment_that_was_not_finished_is_made_anew(bootstrap, monkeypatch):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    done.clear()
    Path(bootstrap.NOTEBOOK, ".llmos-setup-unfinished").touch()  # a power cut during installation
    bootstrap.set_up("platform")
    assert done == ["notebook"]


def add_half_a_package(prefix):
    """Leave what an installation leaves that was killed: one package whole, one without its files, one without its list."""
    Path(prefix, ".llmos-data-unfinished").touch()
    site = Path(prefix, "lib", "python3.11", "site-packages")
    for name in ("whole", "half", "unlisted"):
        (site / name).mkdir()
        (site / f"{name}-2.0.dist-info").mkdir()
        (site / f"{name}-2.0.dist-info" / "RECORD").write_text(f"{name}/__init__.py,,0\n")
    (site / "whole" / "__init__.py").touch()
    (site / "unlisted" / "__init__.py").touch()
    (site / "unlisted-2.0.dist-info" / "RECORD").unlink()
    return site


def test_data_packages_whose_installation_was_interrupted_are_completed_and_nothing_is_taken_away(
    bootstrap, monkeypatch
):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    done.clear()
    site = add_half_a_package(bootstrap.NOTEBOOK)
    assert not bootstrap.set_up("platform")  # `llmos up` completes it in the background
    ran = []
    monkeypatch.setattr(bootstrap, "complete_notebook", bootstrap.really_complete_notebook)
    monkeypatch.setattr(bootstrap, "run", lambda words, *_, **__: ran.append(words))
    monkeypatch.setattr(bootstrap, "finish_notebook", lambda: check.record(bootstrap.NOTEBOOK))
    bootstrap.complete()
    again = [word for word in ran[0] if word.startswith("--reinstall")]
    assert again == ["--reinstall-package=half", "--reinstall-package=unlisted"]
    assert (site / "good.py").exists()
    assert done == []
    assert bootstrap.notebook_complete()


def test_make_test_completes_what_it_finds(bootstrap, monkeypatch):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    done.clear()
    monkeypatch.setattr(bootstrap, "complete_notebook", lambda step: done.append("complete"))
    bootstrap.set_up("dev")
    assert done == ["dev", "complete"]


def test_what_is_missing_of_the_kernels_is_made_anew_also_while_data_packages_are_missing(
    bootstrap, monkeypatch, capsys
):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    done.clear()
    site = add_half_a_package(bootstrap.NOTEBOOK)
    (site / "good.py").unlink()
    assert bootstrap.set_up("platform")
    assert done == ["notebook"]
    assert "good.py is missing" in capsys.readouterr().out


def test_nothing_is_changed_under_a_platform_that_runs(bootstrap, monkeypatch, tmp_path, capsys):
    done = installs(bootstrap, monkeypatch)
    bootstrap.set_up("platform")
    done.clear()
    (tmp_path / "requirements" / "platform.txt").write_text("newer==2\n")
    program = tmp_path / ".venv" / "bin" / "llmos-hub"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    waits = [str(program), "-c", "print('runs', flush=True); input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        running.stdout.readline()  # a command line is empty for a moment after it was replaced
        assert bootstrap.main(["--only-install"]) == 1
        said = capsys.readouterr().err
        running.stdin.write(b"\n")
        running.stdin.close()
    assert f"pid {running.pid}" in said
    assert "llmos down" in said
    assert done == []
    assert bootstrap.main(["--only-install"]) == 0
    assert done == ["platform"]


def test_what_somebody_put_into_the_platforms_environment_is_named_before_it_goes(
    bootstrap, monkeypatch, tmp_path, capsys
):
    installs(bootstrap, monkeypatch)
    place = (
        tmp_path
        / ".venv"
        / "lib"
        / "python{}.{}".format(*sys.version_info[:2])
        / "site-packages"
        / "lately-1.dist-info"
    )
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: lately\nVersion: 1\n")
    (tmp_path / "requirements" / "platform.txt").write_text("good==1.0\n")
    bootstrap.set_up("platform")
    assert "%pip install lately\n" in capsys.readouterr().out


LEAKS = {
    "PIP_USER": "1",
    "PIP_TARGET": "/tmp/x",
    "PIP_PREFIX": "/tmp/x",
    "PIP_REQUIRE_HASHES": "no",
    "PYTHONPATH": "/tmp/x",
    "PYTHONHOME": "/tmp/x",
    "UV_SYSTEM_PYTHON": "1",
    "UV_PYTHON": "3.8",
    "VIRTUAL_ENV": "/tmp/x",
    "NODE_OPTIONS": "--require /tmp/x.js",
    "npm_config_global": "true",
    "NPM_CONFIG_PREFIX": "/tmp/x",
}
PASSED = {
    "PIP_INDEX_URL": "https://mirror.example/simple",
    "UV_DEFAULT_INDEX": "https://mirror.example/simple",
    "UV_INDEX_MIRROR_PASSWORD": "secret",
    "npm_config_registry": "https://mirror.example/npm",
    "SSL_CERT_FILE": "/etc/ours.pem",
    "HTTPS_PROXY": "http://proxy.example",
    "NODE_EXTRA_CA_CERTS": "/etc/ours.pem",
    "LD_LIBRARY_PATH": "/usr/lib/cuda",
}


def test_what_a_starter_has_set_for_other_ends_does_not_reach_the_tools(bootstrap, monkeypatch):
    for name, value in {**LEAKS, **PASSED}.items():
        monkeypatch.setenv(name, value)
    found = bootstrap.tool_environment()
    assert not LEAKS.keys() & found.keys()
    assert PASSED.items() <= found.items()


def test_pip_installs_into_the_environment_whatever_is_configured(bootstrap, monkeypatch, tmp_path):
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    words = f"[install]\nuser = yes\nprefix = {elsewhere}\nroot = {elsewhere}\n[global]\ntarget = {elsewhere}\n"
    (home / ".config" / "pip" / "pip.conf").write_text(words)
    for name, value in {**LEAKS, "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    place = tmp_path / "place"
    environment = bootstrap.tool_environment()
    subprocess.run([sys.executable, "-I", "-m", "venv", str(place)], env=environment, check=True, timeout=60)
    wheel = make_wheel(tmp_path, "thing", "1.0", {"thing.py": ""})
    command = [*bootstrap.pip_install(str(place)), "--no-index", str(wheel)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=60)
    assert list(place.glob("lib/python3*/site-packages/thing.py"))
    assert not elsewhere.exists()


def test_uv_that_is_told_to_install_elsewhere_is_named(bootstrap, monkeypatch, tmp_path):
    config = tmp_path / "home" / ".config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[pip]\ntarget = "{tmp_path / "elsewhere"}"\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    place = tmp_path / "place"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    wheel = make_wheel(tmp_path, "thing", "1.0", {"thing.py": ""})
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--python", str(place / "bin" / "python")]

    def install():
        environment = bootstrap.tool_environment()
        subprocess.run([*uv, "--no-index", str(wheel)], env=environment, cwd=tmp_path, check=True, timeout=60)

    install()
    with pytest.raises(bootstrap.SetupFailed, match=r"into place: .*UV_NO_CONFIG=1 make up"):
        bootstrap.check_place(str(place), "thing")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    install()
    bootstrap.check_place(str(place), "thing")


def test_the_data_modules_are_those_of_the_lock():
    import tomllib

    module = {"scikit-learn": "sklearn"}
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"]["data"]
    names = [name.partition(">")[0] for name in wanted if not name.startswith(("llmos", "uv"))]
    script = (ROOT / "tools" / "bootstrap.py").read_text()
    assert [name for name in names if f'"{module.get(name, name)}"' not in script] == []


def make_environment(bootstrap, place, *, programs=("python", "pip")):
    (place / "bin").mkdir(parents=True, exist_ok=True)
    (place / "lib" / "python{}.{}".format(*sys.version_info[:2])).mkdir(parents=True, exist_ok=True)
    (place / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {bootstrap.VENV}\n")
    for name in programs:
        (place / "bin" / name).write_text("")
        (place / "bin" / name).chmod(0o755)


def test_half_an_environment_and_one_that_was_moved_are_made_anew(bootstrap, monkeypatch, tmp_path):
    place = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "VENV", str(place))
    monkeypatch.setattr(bootstrap, "BIN", str(place / "bin"))
    assert not bootstrap.usable_environment()
    make_environment(bootstrap, place, programs=("python",))  # Ctrl-C during the installation of pip
    assert not bootstrap.usable_environment()
    make_environment(bootstrap, place)
    assert bootstrap.usable_environment()
    (place / "lib").rename(place / "other")  # of a Python that was upgraded later
    assert not bootstrap.usable_environment()
    (place / "other").rename(place / "lib")
    monkeypatch.setattr(bootstrap, "UNFINISHED", str(place / "unfinished"))
    Path(bootstrap.UNFINISHED).touch()  # Ctrl-C during installation
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
    # the script must parse on 3.8 to explain that 3.8 is too old
    script = "import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 7))"
    command = [sys.executable, "-c", script, str(ROOT / "tools" / "bootstrap.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
