"""The distinction between a process that hangs and one that is slow."""

import os
import signal
import subprocess
import sys

import pytest

from llmos_hub.processes.hanging import Effort, HangJudge, effort_of


class Told:
    """A clock and a process that the test controls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.effort = Effort(100.0, 3.0, busy=False)

    def judge(self, *, spinning: bool = True) -> HangJudge:
        return HangJudge(1, spinning=spinning, effort=lambda _: self.effort, clock=lambda: self.now)

    def passes(self, seconds: float, *, ran: float = 0.0, waited: float = 0.0, busy: bool = False) -> None:
        self.now += seconds
        self.effort = Effort(self.effort.ran + ran, self.effort.waited + waited, busy=busy)


@pytest.fixture
def told() -> Told:
    return Told()


def test_one_that_does_nothing_hangs(told):
    judge = told.judge()
    assert judge.silent() is None
    told.passes(4)
    assert judge.silent() is None
    told.passes(4, ran=0.01)  # a background thread woke up
    assert judge.silent() == "no answer, and nothing done for 8 s"


@pytest.mark.parametrize("doing", [{"ran": 0.5}, {"waited": 6.0}, {"busy": True}])
def test_one_that_runs_or_waits_for_a_processor_or_a_disk_is_slow(told, doing):
    judge = told.judge()
    for _ in range(10):
        assert judge.silent() is None
        told.passes(6, **doing)


def test_one_that_was_slow_and_then_hangs_is_found_out(told):
    judge = told.judge()
    judge.silent()
    told.passes(60, ran=5)
    assert judge.silent() is None
    told.passes(6)
    assert judge.silent() == "no answer, and nothing done for 6 s"


def test_an_answer_clears_it(told):
    judge = told.judge()
    judge.silent()
    told.passes(30)
    judge.answered()
    assert judge.silent() is None


def test_an_endless_loop_hangs_but_for_a_program_that_computes(told):
    judge, engine = told.judge(), told.judge(spinning=False)
    judge.silent()
    engine.silent()
    told.passes(11, ran=11, busy=True)
    assert judge.silent() == "no answer, though it ran for 11 s"
    assert engine.silent() is None


def test_a_stopped_process_does_nothing_and_a_busy_one_is_busy():
    with subprocess.Popen(
        [sys.executable, "-c", "print('here', flush=True)\nwhile True: pass"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        first = effort_of(process.pid)
        while (later := effort_of(process.pid)).ran + later.waited <= first.ran + first.waited:
            pass
        assert later.busy
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        stopped = effort_of(process.pid)
        assert not stopped.busy
        assert effort_of(process.pid) == stopped
        process.kill()
