"""Pauses between restarts."""

import doctest

from llmos_hub.processes import restarts
from llmos_hub.processes.restarts import BackOff


def test_examples_in_the_text():
    result = doctest.testmod(restarts)
    assert result.attempted
    assert not result.failed


def test_they_grow_to_a_limit_and_begin_again_after_a_steady_run():
    pauses = BackOff(first=0.1, limit=30.0, steady=60.0)
    assert [pauses.next() for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]
    pauses.ran(59.9)
    assert pauses.next() == 1.6
    for _ in range(2000):
        assert pauses.next() <= 30.0
    assert pauses.next() == 30.0
    pauses.ran(60.0)
    assert pauses.next() == 0.1
    pauses.forget()
    assert pauses.next() == 0.1
