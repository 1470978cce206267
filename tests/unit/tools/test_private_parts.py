"""Parts of libraries that are private or not documented are still there, as the code uses them.

A failure names the library's part and the module of ours that depends on it. Where the part is only renamed, follow;
where its meaning changed, the module's own tests have to say what breaks.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import re
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.spawner import Spawner
from kubespawner import KubeSpawner
from tornado.web import RequestHandler
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

METHODS = [
    # class, name and parameters, "async" if it is a coroutine, our module
    (HttpToolsProtocol, "connection_made(self, transport)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "connection_lost(self, exc)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "data_received(self, data)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "on_message_begin(self)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "on_headers_complete(self)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "on_body(self, body)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "on_message_complete(self)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "on_response_complete(self)", "", "llmos_hub.bounded_http"),
    (HttpToolsProtocol, "send_400_response(self, msg)", "", "llmos_hub.bounded_http"),
    (uvicorn.Server, "on_tick(self, counter)", "async", "llmos_hub.bounded_http"),
    (uvicorn.Server, "serve(self, sockets)", "async", "llmos_hub.gateway.server"),
    (uvicorn.Server, "capture_signals(self)", "", "llmos_hub.gateway.server"),
    (BaseHandler, "_set_cookie(self, key, value, encrypted, overrides)", "", "llmos_hub.accounts.authenticator"),
    (SpawnHandler, "_get_user_options(self, query_options)", "", "llmos_hub.accounts.hub_handlers"),
    (
        SpawnHandler,
        "_render_form(self, for_user, spawner_options_form, message, html_message)",
        "async",
        "llmos_hub.accounts.hub_handlers",
    ),
    (
        SpawnHandler,
        "_wrap_spawn_single_user(self, user, server_name, display_name, spawner, pending_url, options)",
        "async",
        "llmos_hub.accounts.hub_handlers",
    ),
    (KubeSpawner, "_start(self)", "async", "llmos_spawners.kubernetes"),
    (KubeSpawner, "_make_create_pod_request(self, pod, request_timeout)", "async", "llmos_spawners.kubernetes"),
    (KubeSpawner, "_make_create_pvc_request(self, pvc, request_timeout)", "async", "llmos_spawners.kubernetes"),
    (KubeSpawner, "_build_common_annotations(self, extra_annotations)", "", "llmos_spawners.kubernetes"),
    (KubeSpawner, "_build_common_labels(self, extra_labels)", "", "llmos_spawners.kubernetes"),
    (KubeSpawner, "_sorted_dict_values(self, src)", "", "llmos_spawners.kubernetes_choices"),
    (KubeSpawner, "_ensure_namespace(self)", "async", "llmos_spawners.kubernetes_namespace"),
    (KubeSpawner, "_expand_all(self, src)", "", "llmos_spawners.kubernetes_namespace"),
    (KubeSpawner, "_expand_user_properties(self, template, slug_scheme)", "", "llmos_spawners.kubernetes_namespace"),
]

ATTRIBUTES = [
    (HttpToolsProtocol, "loop transport connections cycle headers url parser", "llmos_hub.bounded_http"),
    (RequestResponseCycle, "response_started response_complete keep_alive", "llmos_hub.bounded_http"),
    (ServerState, "connections", "llmos_hub.bounded_http"),
    (uvicorn.Server, "server_state should_exit force_exit", "llmos_hub.gateway.server"),
    (RequestHandler, "_headers_written", "llmos_server_ext.handlers"),
    (KubeSpawner, "_start_future _pvc_exists", "llmos_spawners.kubernetes"),
    (Spawner, "_stop_pending", "llmos_hub.accounts.hub_handlers"),
    (Spawner, "_log_name", "llmos_spawners.local"),
    (KubeSpawner, "_options_form_default _options_from_form_default", "llmos_spawners.kubernetes_choices"),
    (argparse.ArgumentParser, "_actions", "llmos.cli.parser"),
]


@pytest.mark.parametrize(("owner", "signature", "kind", "module"), METHODS, ids=lambda value: str(value)[:40])
def test_a_method_has_the_parameters_that_its_override_passes_on(owner: type, signature: str, kind: str, module: str):
    name, _, parameters = signature.rstrip(")").partition("(")
    method = getattr(owner, name, None)
    assert method is not None, f"{owner.__module__}.{owner.__name__} has no {name} any more, which {module} overrides."
    found = ", ".join(inspect.signature(method).parameters)
    assert found == parameters, f"{owner.__name__}.{name} takes ({found}) now; {module} passes on ({parameters})."
    assert inspect.iscoroutinefunction(method) == (kind == "async"), f"{owner.__name__}.{name}: see {module}."


@pytest.mark.parametrize(("owner", "names", "module"), ATTRIBUTES, ids=lambda value: str(value)[:40])
def test_an_attribute_is_still_set(owner: type, names: str, module: str):
    sources = "".join(inspect.getsource(base) for base in owner.__mro__[:-1] if base.__module__ != "builtins")
    for name in names.split():
        here = hasattr(owner, name) or re.search(rf"self\.{name}(: [^=\n]+)? = ", sources)
        assert here, f"{owner.__module__}.{owner.__name__} has no {name} any more, which {module} uses."


async def test_uvicorn_ticks_ten_times_a_second_and_stops_when_a_tick_says_so():
    server = _server()
    times = []
    tick = server.on_tick

    async def counted(counter: int) -> bool:
        times.append((counter, asyncio.get_running_loop().time()))
        return await tick(counter) or len(times) == 4

    server.on_tick = counted  # type: ignore[method-assign]
    await asyncio.wait_for(server.serve(), 30)
    assert [counter for counter, _ in times] == [0, 1, 2, 3], "llmos_hub.bounded_http counts uvicorn's ticks."
    pauses = [after[1] - before[1] for before, after in pairwise(times)]
    assert min(pauses) >= 0.09, "llmos_hub.bounded_http looks once in ten ticks and expects that to be a second."


async def test_uvicorn_gives_a_fraction_of_a_second_for_the_rest_of_requests_too():
    server = _server(timeout_graceful_shutdown=0.2)
    server.should_exit = True
    endless = asyncio.create_task(asyncio.sleep(600))
    server.server_state.tasks.add(endless)
    await asyncio.wait_for(server.serve(), 30)
    assert endless.cancelling(), "llmos_hub.gateway.server passes a float as timeout_graceful_shutdown."
    await asyncio.gather(endless, return_exceptions=True)


def _server(**options: Any) -> uvicorn.Server:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, **options)
    return uvicorn.Server(config)


def test_uvicorn_still_logs_what_the_gateway_leaves_out():
    assert "without completing response" in inspect.getsource(RequestResponseCycle), (
        "llmos_hub.gateway.server filters this message of uvicorn's out of the log."
    )


def test_kubespawner_starts_by_the_method_that_is_overridden():
    starting = inspect.getsource(KubeSpawner.start)
    assert "self._start_future = asyncio.ensure_future(self._start())" in starting, (
        "KubeSpawner.start no longer keeps _start() in _start_future, as llmos_spawners.kubernetes does."
    )


def test_the_hub_marks_a_server_that_stops():
    assert Spawner._stop_pending is False, "llmos_hub.accounts.hub_handlers leaves out servers that stop."
