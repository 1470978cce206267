"""The notebook environment while a platform runs: completion, messages, and detection of damage."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from llmos.cli import entry
from llmos.python import check
from llmos_hub import app
from llmos_hub.supervisor import doctor, notebook
from tests.support.waiting import eventually


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return a function that makes a text the program of the second part of set-up."""

    def make(text):
        path = tmp_path / "fetch.py"
        path.write_text(text)
        monkeypatch.setattr(notebook, "setup_command", lambda: [sys.executable, "-I", str(path)])

    return make


async def test_what_fails_is_said_and_tried_again(tmp_path, monkeypatch, script):
    monkeypatch.setattr(notebook, "_AGAIN_FIRST", 0.01)
    code = (
        "import os, sys\n"
        f"if not os.path.exists({str(tmp_path / 'once')!r}):\n"
        f"    open({str(tmp_path / 'once')!r}, 'w').close()\n"
        "    sys.exit('no such host')\n"
    )
    said = []
    script(code)
    await notebook.complete_notebook(os.environ, said.append)
    assert "notebooks work meanwhile" in said[0]
    assert "no such host" in said[1]
    assert "complete" in said[2]
    assert len(said) == 3


async def test_where_nothing_is_missing_nothing_is_said(monkeypatch):
    monkeypatch.setattr(notebook, "setup_command", list)
    said = []
    await notebook.complete_notebook(os.environ, said.append)
    assert said == []


async def test_a_platform_that_stops_ends_the_fetch(tmp_path, script):
    pid = tmp_path / "pid"
    code = f"import os, time\nopen({str(pid)!r} + '.new', 'w').write(str(os.getpid()))\nos.rename({str(pid)!r} + '.new', {str(pid)!r})\ntime.sleep(600)\n"
    script(code)
    task = asyncio.create_task(notebook.complete_notebook(os.environ, print))
    await eventually(pid.exists)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """Return a directory with environments of platform and notebooks, with one package each."""
    for name in ("env", "env-notebook"):
        site = tmp_path / name / "lib" / "python3.11" / "site-packages"
        (site / "good-1.0.dist-info").mkdir(parents=True)
        (site / "good.py").write_text("VALUE = 1\n")
        digest = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
        (site / "good-1.0.dist-info" / "RECORD").write_text(
            f"good.py,,10\ngood-1.0.dist-info/RECORD,,\nother.py,{digest},\n"
        )
        (site / "other.py").write_text("")
        (tmp_path / name / "bin").mkdir()
        (tmp_path / name / "bin" / "python").touch()
        check.record(str(tmp_path / name))
    monkeypatch.setattr(doctor, "setup_command", list)
    return tmp_path


def test_doctor_reads_every_source(environments):
    assert [finding.level for finding in doctor._environments(environments / "env", running=True)] == ["ok", "ok"]
    for place in ("env", "env-notebook"):
        (environments / place / "lib" / "python3.11" / "site-packages" / "other.py").write_text("VALUE = 2\n")
    first, second = doctor._environments(environments / "env", running=True)
    assert (first.level, second.level) == ("fail", "fail")
    assert "good-1.0: other.py was changed" in first.detail
    assert "llmos down" in first.advice
    # `make up` now also finds damage that its quick check misses
    assert not check.unchanged(str(environments / "env"))
    assert check.damage(str(environments / "env"), contents=True) == ["good-1.0: other.py was changed"]


def test_another_build_of_llamacpp_is_no_damage(environments):
    site = environments / "env" / "lib" / "python3.11" / "site-packages"
    (site / "xllamacpp-2.0+cu128.dist-info").mkdir()
    (site / "xllamacpp-2.0+cu128.dist-info" / "RECORD").write_text("xllamacpp.py,,\n")
    (site / "xllamacpp.py").write_text("")
    assert check.damage(str(environments / "env"), contents=True) == []


def test_a_command_that_damaged_packages_keep_from_starting_says_so(environments, monkeypatch, capsys):
    def dispatch(options):
        raise ImportError(f"cannot import name for {options}")

    monkeypatch.setattr(app, "_dispatch", dispatch)
    monkeypatch.setattr(sys, "prefix", str(environments / "env"))
    with pytest.raises(ImportError):  # a mistake of ours: nothing is damaged
        app.main(["doctor"])
    site = environments / "env" / "lib" / "python3.11" / "site-packages"
    (site / "good-1.0.dist-info").rename(site / "good-0.9.dist-info")
    assert app.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "good is 0.9 instead of 1.0, in" in said
    assert "make up" in said
    monkeypatch.setattr(entry, "_run", dispatch)
    assert entry.main(["ps"]) == 1
    assert "good is 0.9 instead of 1.0, in" in capsys.readouterr().err


def test_doctor_says_what_is_missing(environments):
    (environments / "env-notebook" / "bin" / "python").unlink()
    found = doctor._environments(environments / "env", running=False)
    assert [finding.level for finding in found][1:] == ["fail"]
    assert "env-notebook is missing" in found[1].detail
    assert "make up" in found[1].advice


def test_doctor_leaves_environments_alone_that_set_up_did_not_make(tmp_path):
    assert doctor._environments(Path(tmp_path), running=False) == []
