"""The program that writes what is made from other code, and finds what is stale."""

import pytest

from tools import admission, chart_schema, crds, generate, unasync


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Return a function that runs the program, whose files are in a directory of the test."""
    for module, name in ((unasync, "TARGET"), (crds, "TARGET"), (admission, "TARGET"), (chart_schema, "PAGE")):
        monkeypatch.setattr(module, name, tmp_path / getattr(module, name).relative_to(generate.ROOT))
    for name in ("VALUES", "SCHEMA"):
        monkeypatch.setattr(chart_schema, name, tmp_path / name)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "GENERATORS", (unasync, crds, admission, chart_schema))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["generate", *words])
        return generate.main()

    return run


def test_all_that_is_committed_is_current(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert not generate.stale()


def test_what_is_missing_or_old_is_named_and_written_again(made, capsys, tmp_path):
    assert made("--check") == 1
    named = capsys.readouterr().err
    for name in (
        "docs/reference/chart.md",
        "crds/modelservices.yaml",
        "admission/modelservices.yaml",
        "_sync/client.py",
    ):
        assert f"{name} is stale" in named
    assert "make generate" in named
    assert made() == 0
    assert made("--check") == 0
    (tmp_path / "llmos/client/_sync/client.py").write_text("old")
    assert made("--check") == 1
    assert capsys.readouterr().err.count("is stale") == 1


def test_what_nothing_makes_any_more_is_stale_and_deleted(made, capsys, tmp_path):
    made()
    left = [tmp_path / "helm/llmos/crds/gone.yaml", tmp_path / "llmos/client/_sync/left_over.py"]
    for path in left:
        path.write_text("")
    assert made("--check") == 1
    named = capsys.readouterr().err
    assert "gone.yaml is stale" in named
    assert "left_over.py is stale" in named
    assert made() == 0
    assert not any(path.exists() for path in left)
