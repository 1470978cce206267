"""The work queue: one worker per key, no key lost, the earliest time counts; in virtual time."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_hub.controllers.metrics import ProcessMetrics
from llmos_hub.controllers.workqueue import Backoff, ShutDown, WorkQueue
from tests.support.virtual_time import run


def test_a_key_added_often_comes_once() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        assert len(queue) == 0

    run(work())


def test_a_key_added_while_worked_on_comes_again_afterwards_and_not_before() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert queue.idle
        queue.add("a")
        assert not queue.idle
        assert await queue.get() == "a"
        assert not queue.idle
        queue.add("a")
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(100)
        assert not waiting.done()
        queue.done("a")
        assert await waiting == "a"
        queue.add_after("b", 10)
        queue.done("a")
        assert queue.idle, "a delayed key is none to work on yet"

    run(work())


def test_the_earliest_of_several_times_counts() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        began = loop.time()
        queue.add_after("a", 30)
        queue.add_after("a", 10)
        queue.add_after("a", 20)
        assert queue.delayed == 1
        await queue.get()
        assert loop.time() - began == pytest.approx(10)
        queue.done("a")
        queue.add_after("a", 50)
        queue.add("a")
        await queue.get()
        assert loop.time() - began == pytest.approx(10)
        queue.done("a")
        await asyncio.sleep(100)
        assert len(queue) == 0, "the later time was dropped when the key came at once"

    run(work())


def test_backoff_doubles_up_to_its_ceiling_and_forgets_on_success() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue(backoff=Backoff(base=1.0, ceiling=5.0))
        delays = []
        for _ in range(5):
            delays.append(queue.retry("a"))
            await queue.get()
            queue.done("a")
        assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]
        assert queue.failures("a") == 5
        assert queue.retry("b") == 1.0, "another key has its own"
        queue.forget("a")
        assert queue.retry("a") == 1.0

    run(work())


@given(st.integers(min_value=-5, max_value=10**9))
def test_backoff_never_overflows(failures: int) -> None:
    assert 0.05 <= Backoff().delay(failures) <= 60.0


def test_shutting_down_sends_idle_workers_home_and_lets_busy_ones_finish() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("busy")
        assert await queue.get() == "busy"
        idle = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.add_after("later", 5)
        queue.shut_down()
        for task in idle:
            with pytest.raises(ShutDown):
                await task
        queue.add("busy")
        queue.add("new")
        queue.retry("new")
        queue.done("busy")
        assert (len(queue), queue.delayed) == (0, 0)
        with pytest.raises(ShutDown):
            await queue.get()

    run(work())


def test_a_cancelled_worker_takes_no_key_with_it() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        first, second = (asyncio.create_task(queue.get()) for _ in range(2))
        await asyncio.sleep(0)
        queue.add("a")  # wakes the first
        first.cancel()
        assert await asyncio.wait_for(second, 1) == "a"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(work())


def test_metrics_tell_depth_waits_work_and_retries() -> None:
    async def work() -> None:
        metrics = ProcessMetrics()
        queue: WorkQueue[str] = WorkQueue(metrics=metrics.of("Crate"))

        def value(name: str) -> float | None:
            return metrics.registry.get_sample_value(name, {"kind": "Crate"})

        depths = []
        for key in ("a", "b"):
            queue.add(key)
            depths.append(value("llmos_workqueue_depth"))
        await asyncio.sleep(3)
        await queue.get()
        depths.append(value("llmos_workqueue_depth"))
        await asyncio.sleep(2)
        queue.done("a")
        queue.retry("a")
        assert depths == [1, 2, 1]
        assert value("llmos_workqueue_wait_seconds_count") == 1
        assert value("llmos_workqueue_wait_seconds_sum") == pytest.approx(3)
        assert value("llmos_reconcile_seconds_count") == 1
        assert value("llmos_reconcile_seconds_sum") == pytest.approx(2)
        assert value("llmos_workqueue_retries_total") == 1
        queue.shut_down()

    run(work())


_KEYS = st.sampled_from("abc")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _KEYS, st.just(0.0)),
        st.tuples(st.just("after"), _KEYS, st.floats(0.1, 5.0)),
        st.tuples(st.just("retry"), _KEYS, st.just(0.0)),
        st.tuples(st.just("pass"), _KEYS, st.floats(0.0, 3.0)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(steps=_STEPS, workers=st.integers(1, 4), takes=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=5))
def test_every_add_is_followed_by_a_look_and_no_key_is_with_two_workers(
    steps: list[tuple[str, str, float]], workers: int, takes: list[float]
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(backoff=Backoff(base=0.5, ceiling=4.0))
        busy: set[str] = set()
        looks: dict[str, list[float]] = defaultdict(list)
        due: dict[str, float] = {}  # the latest moment for which a look was asked

        async def worker() -> None:
            try:
                while True:
                    key = await queue.get()
                    assert key not in busy
                    busy.add(key)
                    looks[key].append(loop.time())
                    await asyncio.sleep(takes[len(looks[key]) % len(takes)])
                    busy.remove(key)
                    queue.done(key)
            except ShutDown:
                return

        tasks = [asyncio.create_task(worker()) for _ in range(workers)]
        asked: dict[str, float] = {}
        for verb, key, amount in steps:
            if verb == "pass":
                await asyncio.sleep(amount)
                continue
            if verb == "add":
                queue.add(key)
                when = loop.time()
            elif verb == "after":
                queue.add_after(key, amount)
                when = loop.time() + amount
            else:
                when = loop.time() + queue.retry(key)
            asked[key] = loop.time()
            due[key] = max(due.get(key, 0.0), when)
        # every look takes 2 s at most, so all that was asked for has come by then
        await asyncio.sleep(100.0)
        queue.shut_down()
        await asyncio.gather(*tasks)
        for key, moment in asked.items():
            assert looks[key], key
            assert looks[key][-1] >= moment, "the last wish was followed by a look"
            assert looks[key][-1] <= due[key] + 2.0 * 40, "and in time"

    run(work())
