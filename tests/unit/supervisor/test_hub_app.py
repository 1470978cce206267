"""`llmos-hub`: messages, exit codes, and modules that it must not import."""

import subprocess
import sys

import pytest

from llmos_hub.app import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--port", "99999"], "99999"),
        (["up", "--port", "http"], "http"),
        (["up", "--redis-url", "localhost"], "redis://"),
        (["up", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["user"], "ACTION"),
        ([], "COMMAND"),
    ],
)
def test_wrong_words_are_exit_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_time_span_that_is_none_is_exit_code_2(tmp_path, capsys):
    assert main(["token", "--expires", "soon", "--data-dir", str(tmp_path)]) == 2
    assert "30d" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["token"], ["user", "add", "ada"]])
def test_without_a_platform_the_next_step_is_named(arguments, tmp_path, capsys):
    assert main([*arguments, "--data-dir", str(tmp_path / "none")]) == 1
    assert "llmos up" in capsys.readouterr().err


def test_the_data_directory_may_stand_before_the_action(tmp_path, capsys):
    assert main(["user", "--data-dir", str(tmp_path / "here"), "add", "ada"]) == 1
    assert str(tmp_path / "here") in capsys.readouterr().err


def test_status_and_down_of_what_never_ran(tmp_path, capsys):
    assert main(["status", "--data-dir", str(tmp_path / "none")]) == 1
    assert main(["down", "--data-dir", str(tmp_path / "none")]) == 0
    assert "llmos up" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_a_part_without_its_environment_says_who_sets_it(monkeypatch, capsys):
    monkeypatch.delenv("LLMOS_REDIS_URL", raising=False)
    assert main(["api"]) == 2
    assert "llmos up" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["llmos_hub.app", "llmos_hub.supervisor.up", "llmos_hub.supervisor.status"])
def test_the_supervisor_stays_small(module):
    script = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"traitlets", "jupyterhub", "httpx", "pydantic", "tornado", "sqlalchemy", "redis", "starlette"}


def test_doctor_names_what_is_taken_and_what_to_do(tmp_path, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = main(["doctor", "--port", str(port), "--data-dir", str(tmp_path / "new")])
    output = capsys.readouterr().out
    assert code == 1
    assert f"fail  Port {port}" in output
    assert f"--port {port + 100}" in output
    assert not (tmp_path / "new").exists()
