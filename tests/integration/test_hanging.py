"""Parts and models that hang: they are found and replaced within half a minute."""

import signal
import time

import pytest

from tests.support.platform import command_of, running_platform, wait_until


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    with running_platform(tmp_path_factory.mktemp("hanging") / "data") as platform:
        yield platform


# what doesn't wait for each other hangs at once, as each takes its half minute
@pytest.mark.parametrize("parts", [("valkey",), ("proxy", "controllers"), ("api", "gateway"), ("hub",)], ids="+".join)
def test_a_part_that_hangs_is_replaced_within_half_a_minute(hanging, parts):
    hung = {part: hanging.handle(part) for part in parts}
    for handle in hung.values():
        handle.send(signal.SIGSTOP)
    deadline = time.monotonic() + 30
    for part, handle in hung.items():
        hanging.wait_replaced(part, handle, timeout=deadline - time.monotonic())
        assert f"{part} does not answer (no answer, and nothing done for" in hanging.output


def test_an_engine_that_hangs_is_replaced_within_half_a_minute(hanging):
    with hanging.sdk() as client:
        client.serve("demo://tiny", name="tiny", timeout=60)
        [engine] = [handle for handle in hanging.marked() if "llamacpp_server" in command_of(handle)]
        engine.send(signal.SIGSTOP)
        wait_until(lambda: not engine.alive, 25, "it is ended")
        # the event comes a moment after the end, until which the service may still be reported as ready
        events = lambda: [event.reason for event in client.modelservices.events("tiny")]  # noqa: E731
        wait_until(lambda: "Unhealthy" in events(), 30, "the event")
        for progress in client.modelservices.progress("tiny", timeout=30):
            last = progress
        assert last.ready
