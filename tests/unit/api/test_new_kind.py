"""A made-up kind in two files, `tests.support.crate` and `crate_controller`, is found everywhere: nothing else is edited."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.cli.entry import main
from llmos.cli.verbs.completion import SHELLS, script
from llmos.client import AsyncClient
from llmos.errors import NotReady, Unsupported
from llmos.resources import KINDS
from llmos_hub.backends.local.backend import LocalBackend
from llmos_hub.controllers.parts import Parts, local_context
from llmos_hub.controllers.registry import load_specs
from llmos_hub.controllers.runner import Controllers
from llmos_hub.managers.nodes import LocalNodes
from llmos_hub.names import DataDir
from llmos_hub.settings import ProcessSettings
from tests.support.crate import Crate
from tests.support.crate_controller import SPEC

from .conftest import Api, token_of

ROOT = Path(__file__).parents[3]
Run = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def crates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "Crate", Crate)


@pytest.fixture
async def controllers(crates: None, api: Api, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Controllers]:
    """Yield running controllers of all kinds and of crates, with real processes."""
    backend = LocalBackend(api.workloads, tmp_path_factory.mktemp("run"))
    await backend.start()
    settings = ProcessSettings(DataDir(api.workloads / "data"), "")
    parts = Parts(api.store, backend, local_context(settings))
    made = Controllers(parts, settings, environ={}, specs=[*load_specs(), SPEC])
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await backend.close(stop=True)


@pytest.fixture
async def client(controllers: Controllers, api: Api) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url, token_of("ada")) as made:
        yield made


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command, which must succeed, and return its output."""
    monkeypatch.setenv("LLMOS_URL", api.url)
    monkeypatch.setenv("LLMOS_TOKEN", token_of("ada"))

    async def run(*words: str, code: int = 0) -> str:
        found = await asyncio.to_thread(main, words)
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out + err

    return run


async def test_api_sdk_and_controllers(client: AsyncClient, api: Api) -> None:
    crate = await client.crates.create({"metadata": {"name": "photos"}, "spec": {"replicas": 2}})
    assert crate.metadata.finalizers == ["llmos.ai/crate"]
    phases: list[str] = []
    ready = await client.crates.wait_ready("photos", timeout=30, on_progress=lambda p: phases.append(p.phase))
    assert ready.status.replicas == 3
    assert phases[-1] == "Stored"
    async with aclosing(client.crates.logs("photos", follow=True)) as log:
        assert "guarding" in await anext(log)
    assert [work.name for node in await LocalNodes(api.store).all() for work in node.running] == ["photos"]
    await client.crates.scale("photos", 1)
    assert (await client.crates.wait_ready("photos", timeout=30)).spec.replicas == 1
    await client.crates.stop("photos")
    with pytest.raises(NotReady, match=r"photos is closed\. Start it with: llmos start crate/photos"):
        await client.crates.wait_ready("photos", timeout=30)
    await client.crates.start("photos")
    await client.crates.wait_ready("photos", timeout=30)
    await client.crates.delete("photos")
    await client.crates.wait_deleted("photos", timeout=30)
    for able in (client.credentials.stop("x"), client.credentials.scale("x", 1), client.settings.wait_ready("x")):
        with pytest.raises(Unsupported):
            await able


async def test_command_line(client: AsyncClient, run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "crate.yaml"
    manifest.write_text("kind: Crate\nmetadata: {name: photos}\nspec: {size: 4194304}\n")
    assert "crate/photos" in await run("apply", "-f", str(manifest))
    assert "Stored" in await run("wait", "crate/photos", "--timeout", "30")
    assert "4194304" not in (listed := await run("get", "crates"))
    assert [*listed.split()[:4]] == ["NAME", "SIZE", "STATE", "AGE"]
    assert "4.0 MiB" in await run("describe", "crate", "photos")
    async with aclosing(client.crates.logs("photos", follow=True)) as log:
        assert "guarding" in await anext(log)
    assert "guarding" in await run("logs", "cr/photos")
    assert "Stored" in await run("scale", "crate/photos", "2", "--wait", "--timeout", "30")
    assert "llmos start crate/photos" in await run("stop", "crate/photos")
    assert "Stored" in await run("start", "crate/photos", "--timeout", "30")
    assert "crate/photos deleted" in await run("delete", "crate", "photos", "--yes")
    assert "have no logs; these do: modelservices, crates" in await run("logs", "credential/x", code=2)
    assert "Did you mean" in await run("get", "crats", code=2)
    assert "size" in await run("explain", "crate.spec")
    assert "crate/NAME" in await run("scale", "--help")


async def test_magics_and_completion(client: AsyncClient, run: Run) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    from llmos_widgets import load_ipython_extension
    from llmos_widgets.completion import complete

    await client.crates.create({"metadata": {"name": "photos"}})
    await client.crates.wait_ready("photos", timeout=30)

    def in_a_notebook() -> Any:
        shell = InteractiveShell()
        load_ipython_extension(shell)
        result = shell.run_cell("found = %llmos get crates")
        assert result.success
        return [item.status.phase for item in shell.user_ns["found"]]

    assert await asyncio.to_thread(in_a_notebook) == ["Stored"]
    shell = SimpleNamespace()
    assert "crates" in complete(shell, "%llmos get cra")
    assert await asyncio.to_thread(complete, shell, "%llmos describe crate pho") == ["photos"]
    assert all("crates" in script(shell) for shell in SHELLS)


def test_definition_rights_uninstall_and_pages() -> None:
    tools = runpy.run_path(str(ROOT / "tools" / "crds.py"))
    found = tools["definition"](Crate)
    assert found["metadata"]["name"] == "crates.llmos.ai"
    assert found["spec"]["versions"][0]["subresources"]["scale"]
    # the chart reads the plurals for rights and the uninstall hook from the definitions: test_chart_hooks, _templates
    sys.path.insert(0, str(ROOT))
    pages = runpy.run_path(str(ROOT / "tools" / "reference.py"))
    text = "\n".join(pages["resource"](Crate))
    assert "Number of guards" in text
