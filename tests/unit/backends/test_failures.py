"""Messages about replicas that don't run."""

from __future__ import annotations

import doctest

import pytest

from llmos_hub import placeholders, workload
from llmos_hub.backends import failures
from llmos_hub.backends.failures import Shortage, exit_words
from llmos_hub.backends.local import probes
from llmos_hub.processes import restarts
from llmos_hub.processes.running import Exit

GI = 2**30


@pytest.mark.parametrize("module", [placeholders, probes, restarts, workload])
def test_examples_in_the_text(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("ending", "number", "words"),
    [
        (Exit.from_return_code(3), 3, "exit code 3"),
        (Exit.from_return_code(-9), 137, "killed by SIGKILL (9)"),
        (Exit.from_return_code(-45), 173, "killed by a signal (45)"),
        (Exit.from_shell(143), 143, "killed by SIGTERM (15)"),
        (Exit.from_shell(0), 0, "exit code 0"),
        (Exit(), None, "it ended while the controllers were away, so its exit code is not known"),
    ],
)
def test_exits(ending, number, words):
    assert (ending.number, exit_words(ending)) == (number, words)


def test_out_of_memory_says_how_much_and_what_to_type():
    failure = failures.out_of_memory("chat", 4 * GI + 1, 4 * GI)
    assert failure.reason == "OutOfMemory"
    assert failure.message == (
        "chat ran out of memory: used 4.0 GiB of 4.0 GiB. Give it more: llmos set chat --memory 6Gi"
    )
    assert "--memory 768Mi" in failures.out_of_memory("chat", GI, GI // 2).message


def test_what_is_missing():
    shortage = Shortage(needed=4 * GI, free=GI, promised=2 * GI, total=8 * GI)
    assert shortage.short_by == 3 * GI
    message = failures.insufficient_memory("chat", shortage).message
    assert message.startswith(
        "chat needs 4.0 GiB of memory and 1.0 GiB of 8.0 GiB are free, 2.0 GiB are kept for what is still loading."
    )


def test_a_server_that_exits_with_0_is_told_so():
    assert "though it should go on serving" in failures.crashed("chat", Exit(code=0), completes=False).message
