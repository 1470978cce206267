"""The queue of starts, messages while a start waits, and the message about a server that dies."""

import asyncio

import pytest
from llmos_spawners.start_phases import died, last_lines, phase_of, server_log_size
from llmos_spawners.start_queue import StartQueue


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_starts_go_in_turn_and_each_knows_its_place():
    queue, began = StartQueue(2), []

    async def start(who):
        await queue.enter(who)
        began.append(who)

    tasks = {who: asyncio.create_task(start(who)) for who in "abcde"}
    await settle()
    assert began == ["a", "b"]
    assert [queue.position(who) for who in "abcde"] == [0, 0, 1, 2, 3]
    queue.leave("a")
    queue.leave("a")  # a stop after a start frees no second place
    await settle()
    assert began == ["a", "b", "c"]
    tasks["d"].cancel()  # the user has closed the page
    await asyncio.gather(tasks["d"], return_exceptions=True)
    assert queue.position("e") == 1
    queue.leave("b")
    queue.leave("c")
    await asyncio.gather(*(tasks[who] for who in "abce"))
    assert began == ["a", "b", "c", "e"]


async def test_who_has_a_place_does_not_wait_for_another():
    queue = StartQueue(1)
    await queue.enter("a")
    await queue.enter("a")
    assert queue.position("a") == 0
    queue.leave("a")
    await queue.enter("b")
    assert queue.position("b") == 0


async def test_without_a_bound_nobody_waits():
    queue = StartQueue(0)
    for who in range(500):
        await asyncio.wait_for(queue.enter(who), 30)
    assert not any(map(queue.position, range(500)))


def test_what_a_server_does_is_told_in_phrases_and_goes_forward(tmp_path):
    log = tmp_path / "ada.log"
    log.write_text("[I 2026-11-28 16:00:00.000 ServerApp] Serving notebooks from an earlier start\n")
    size = server_log_size(log)
    seen = []
    for line in (
        "",
        "[I 2026-11-28 16:01:00.000 ServerApp] jupyter_lsp | extension was successfully linked.",
        "[I 2026-11-28 16:01:01.000 ServerApp] jupyter_lsp | extension was successfully loaded.",
        "[I 2026-11-28 16:01:01.000 ServerApp] Serving notebooks from local directory: /homes/ada",
    ):
        with log.open("a") as file:
            file.write(line + "\n")
        seen.append(phase_of(log, size))
    assert [phase.message for phase in seen] == [
        "Python is starting",
        "Jupyter is starting",
        "Loading its extensions",
        "Jupyter answers",
    ]
    progress = [phase.progress for phase in seen]
    assert progress == sorted(set(progress))


def test_the_last_words_are_of_this_start_and_are_shown_as_they_are(tmp_path):
    log = tmp_path / "ada.log"
    log.write_text("an earlier start\n")
    size = server_log_size(log)
    with log.open("a") as file:
        file.write("Traceback\n\n  File <x>\nImportError: no \x1b[31mjupyter\n")
    lines = last_lines(log, size)
    text, html = died(1, lines)
    assert "an earlier start" not in text
    assert text.endswith("Its last lines: Traceback /   File <x> / ImportError: no [31mjupyter")
    assert "with exit status 1" in text
    assert "File &lt;x&gt;" in html
    log.write_text("cut\n")  # by the rotation
    assert last_lines(log, size) == ["cut"]


@pytest.mark.parametrize("path", [None, "missing"])
def test_a_server_without_a_log_is_told_of_as_well(tmp_path, path):
    log = tmp_path / path if path else None
    assert phase_of(log, server_log_size(log)).message == "Python is starting"
    assert died(-9, last_lines(log, 0))[0] == (
        "The server ended by itself by signal 9 while it was starting. It wrote nothing."
    )
