"""Concurrent starts of pods: a limited number at a time; the others wait, with a message, and without a time limit."""

import asyncio
from collections import Counter

import pytest
from llmos_spawners.kubernetes import LLMOSKubeSpawner

from tests.unit.spawners.kubernetes.test_manifest import cluster, make

__all__ = ["cluster", "make"]


@pytest.fixture
async def pupils(make, monkeypatch):
    """Return spawners by user that share a queue of two places, and whose pods are ready when the test says so."""
    monkeypatch.setattr(LLMOSKubeSpawner, "_starts", None)
    monkeypatch.setattr("llmos_spawners.kubernetes.spawner.mint_invoke_token", lambda _: "invoke")
    monkeypatch.setattr("llmos_spawners.base.revoke_tokens", lambda _: 0)
    found = {}
    for name in ("ada", "bob", "cy", "dee", "eve"):
        spawner = found[name] = make(name, concurrent_starts=2)
        spawner.begun, spawner.up = asyncio.Event(), asyncio.get_running_loop().create_future()

        spawner.pod_id = "uid"

        async def start(spawner=spawner):
            spawner.begun.set()
            return await spawner.up

        monkeypatch.setattr(spawner, "_start_watched", start)
    return found


async def start(spawner):
    """Start a server as the Hub does, with a time limit that begins after the hook."""
    try:
        await spawner.run_pre_spawn_hook()
        return await asyncio.wait_for(spawner.start(), spawner.start_timeout)
    except Exception:
        await spawner.run_post_stop_hook()
        raise


async def begun(spawner):
    await asyncio.wait_for(spawner.begun.wait(), 30)


def waiting(pupils):
    return [name for name, spawner in pupils.items() if spawner.waiting]


@pytest.fixture
async def starts(pupils):
    tasks = {}
    for name, spawner in pupils.items():
        tasks[name] = asyncio.create_task(start(spawner))
        await asyncio.sleep(0)
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_places_go_on_in_order_after_successes_failures_and_timeouts(pupils, starts):
    await begun(pupils["ada"])
    await begun(pupils["bob"])
    assert waiting(pupils) == ["cy", "dee", "eve"]
    assert Counter(spawner.begun.is_set() for spawner in pupils.values()) == {True: 2, False: 3}
    pupils["ada"].up.set_result("http://ada")
    assert await starts["ada"] == "http://ada"
    await begun(pupils["cy"])
    assert waiting(pupils) == ["dee", "eve"]
    pupils["bob"].up.set_exception(RuntimeError("no node"))
    with pytest.raises(RuntimeError):
        await starts["bob"]
    await begun(pupils["dee"])
    starts["cy"].cancel()  # as the Hub does after `start_timeout`
    await begun(pupils["eve"])
    assert waiting(pupils) == []


async def test_who_waits_is_told_so_and_nothing_of_an_earlier_start(pupils):
    eve = pupils["eve"]
    eve._start_future = asyncio.get_running_loop().create_future()
    eve._start_future.set_result("http://earlier")  # of an earlier start
    tasks = [asyncio.create_task(start(pupils[name])) for name in ("ada", "bob", "cy")]
    await begun(pupils["bob"])
    tasks.append(asyncio.create_task(start(eve)))
    while not eve.waiting:
        await asyncio.sleep(0)
    said = eve.progress()
    assert (await anext(said))["message"] == (
        "Waiting: others are starting at this moment, 1 before you. Yours starts by itself."
    )
    pupils["ada"].up.set_result("http://ada")
    assert (await anext(said))["message"] == "Waiting: others are starting at this moment. Yours starts by itself."
    pupils["bob"].up.set_result("http://bob")
    assert (await anext(said))["message"] == "Beginning"
    for name in ("cy", "eve"):
        pupils[name].up.set_result(f"http://{name}")
    assert await asyncio.gather(*tasks) == ["http://ada", "http://bob", "http://cy", "http://eve"]


async def test_a_sites_hook_runs_when_it_is_ones_turn_and_its_failure_frees_the_place(pupils):
    def fails(_):
        raise RuntimeError("no licence")

    for name in ("ada", "bob", "cy"):
        pupils[name].pre_spawn_hook = fails
        with pytest.raises(RuntimeError, match="no licence"):
            await start(pupils[name])
    task = asyncio.create_task(start(pupils["dee"]))
    await begun(pupils["dee"])
    pupils["dee"].up.set_result("http://dee")
    assert await task == "http://dee"
