"""The chart's jobs around an uninstall, with an API server that holds a few objects."""

import json
import runpy
import urllib.error

import pytest

from tests.support.helm import CHART

CONTROLLERS = "/apis/apps/v1/namespaces/llmos/deployments/llmos-controllers"
MODELS = "/apis/llmos.ai/v1alpha1/namespaces/user-ada/modelservices"
CRATES = MODELS.replace("modelservices", "crates")
HUBS = "/api/v1/namespaces/jhub/pods?labelSelector=component%3Dhub"


@pytest.fixture
def server(monkeypatch):
    """Objects by path, and recorded changes."""

    class Server(dict):
        """Answer requests by path."""

    found = Server()

    def call(method, path, body=None, kind="application/json"):
        found.methods.add(method)
        if method == "PATCH":
            found.patched.append(path)
            found.bodies.append(body)
            return {}
        path = path.partition("&")[0]
        if path not in found:
            raise urllib.error.HTTPError(path, 404, "Not Found", None, None)
        return found[path]

    module = runpy.run_path(str(CHART / "files" / "hooks.py"))
    module["main"].__globals__["call"] = call
    found.run = lambda *words: (monkeypatch.setattr("sys.argv", ["hooks.py", *words]), module["main"]())
    found.patched, found.bodies, found.methods = [], [], set()
    return found


def models(server):
    labels = "app.kubernetes.io/managed-by%3Dllmos%2Capp.kubernetes.io/instance%3Dllmos"
    server[f"/api/v1/namespaces?labelSelector={labels}"] = {"items": [{"metadata": {"name": "user-ada"}}]}
    meta = {"namespace": "user-ada", "name": "chat", "resourceVersion": "1", "finalizers": ["llmos.ai/workloads"]}
    server[f"{MODELS}?limit=500"] = {"metadata": {}, "items": [{"metadata": meta}]}
    server[f"{CRATES}?limit=500"] = {"metadata": {}, "items": []}


RELEASE = ("release", "llmos", "llmos", "llmos-controllers", "modelservices", "crates")


def test_after_an_uninstall_the_finalizer_is_taken_off(server, capsys):
    models(server)
    server.run(*RELEASE)
    assert server.patched == [f"{MODELS}/chat"]
    assert "user-ada/chat: free to be deleted" in capsys.readouterr().out


def test_every_kinds_finalizers_are_taken_off_others_stay_and_nothing_is_deleted(server):
    models(server)
    meta = {"namespace": "user-ada", "name": "data", "resourceVersion": "1"}
    finalizers = ["llmos.ai/crate", "example.org/backup"]
    server[f"{CRATES}?limit=500"] = {"metadata": {}, "items": [{"metadata": {**meta, "finalizers": finalizers}}]}
    server.run(*RELEASE)
    assert server.patched == [f"{MODELS}/chat", f"{CRATES}/data"]
    assert json.loads(server.bodies[-1])["metadata"]["finalizers"] == ["example.org/backup"]
    assert server.methods == {"GET", "PATCH"}


def test_while_the_release_is_installed_nothing_is_taken_off(server, capsys):
    """`helm template | kubectl apply` runs every job of the chart."""
    models(server)
    server[CONTROLLERS] = {"metadata": {"name": "llmos-controllers"}}
    server.run(*RELEASE)
    assert server.patched == []
    assert "the release is installed" in capsys.readouterr().out


def test_controllers_on_their_way_out_are_gone(server):
    models(server)
    server[CONTROLLERS] = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    server.run(*RELEASE)
    assert server.patched == [f"{MODELS}/chat"]


def hub(*variables):
    env = [{"name": name, "value": "x"} for name in variables]
    return {"items": [{"metadata": {"name": "hub-1"}, "spec": {"containers": [{"env": env}, {}]}}]}


def test_a_hub_that_still_has_llmos_holds_the_uninstall_up_in_words(server):
    server[HUBS] = hub("A", "LLMOS_SERVICE_TOKEN")
    with pytest.raises(SystemExit, match=r"The Hub in namespace jhub still has LLMOS.*upgrade the Hub with your own"):
        server.run("unused", "jhub", "component=hub")


def test_a_hub_without_it_holds_nothing_up(server, capsys):
    server[HUBS] = hub("A")
    server.run("unused", "jhub", "component=hub")
    assert "No Hub in namespace jhub" in capsys.readouterr().out


def test_a_refusal_of_the_api_server_is_told(server):
    with pytest.raises(SystemExit, match="unused other component=hub: HTTP 404"):
        server.run("unused", "other", "component=hub")
