"""Nobody can take all, there is room for new callers, and amounts given back are available again."""

from __future__ import annotations

import random

import pytest

from llmos_hub.gateway.shares import Shares


def take_all(shares: Shares, owner: str) -> int:
    taken = 0
    while shares.take(owner):
        taken += 1
    return taken


def test_one_alone_gets_half_and_who_comes_later_half_of_the_rest() -> None:
    shares = Shares(1024)
    assert [take_all(shares, owner) for owner in "abc"] == [512, 256, 128]


@pytest.mark.parametrize("callers", [2, 5, 30])
def test_those_who_take_in_turn_get_the_same_and_leave_as_much(callers: int) -> None:
    shares = Shares(1024)
    going = True
    while going:
        going = sum(shares.take(str(number)) for number in range(callers)) > 0
    held = {shares.held(str(number)) for number in range(callers)}
    assert max(held) - min(held) <= 1
    assert shares.left >= max(held) - 1
    assert shares.take("new")


def test_the_last_one_is_anybodys_who_has_none() -> None:
    shares = Shares(1)
    assert shares.take("a")
    assert not shares.take("b")
    shares.give("a")
    assert shares.take("b")


def test_nothing_is_lost_or_remembered() -> None:
    shares, held = Shares(1000), []
    chance = random.Random(1)
    for _ in range(10_000):
        if held and chance.random() < 0.5:
            shares.give(*held.pop(chance.randrange(len(held))))
        else:
            owner, amount = chance.choice("abcd"), chance.randrange(0, 400)
            if shares.take(owner, amount):
                held.append((owner, amount))
        assert shares.left == 1000 - sum(amount for _, amount in held)
    for each in held:
        shares.give(*each)
    assert shares.left == 1000
    assert shares._held == {}
