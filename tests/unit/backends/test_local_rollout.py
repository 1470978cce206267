"""Decisions of the rollout."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_hub.backends.local.rollout import Member, Start, Stop, decide


def old(index: int, **fields) -> Member:
    return Member(f"old-{index}", index, current=False, **{"available": True, **fields})


def new(index: int, **fields) -> Member:
    return Member(f"new-{index}", index, current=True, **{"available": True, **fields})


def test_from_nothing_all_start_at_once():
    assert decide(3, []) == [Start(0), Start(1), Start(2)]


def test_when_all_is_well_nothing_happens():
    assert decide(2, [new(0), new(1)]) == []


def test_one_new_replica_at_a_time_and_the_old_one_stays_until_it_is_available():
    assert decide(2, [old(0), old(1)]) == [Start(0)]
    assert decide(2, [old(0), old(1), new(0, available=False)]) == []
    assert decide(2, [old(0), old(1), new(0)]) == [Stop("old-0")]
    assert decide(2, [old(0, stopping=True), old(1), new(0)]) == [], "memory for one more, not for two"
    assert decide(2, [old(1), new(0)]) == [Start(1)]


def test_one_replica_alone_is_replaced_the_same_way():
    assert decide(1, [old(0)]) == [Start(0)]
    assert decide(1, [old(0), new(0)]) == [Stop("old-0")]


def test_an_old_one_that_does_not_work_goes_at_once():
    assert decide(2, [old(0, available=False), old(1)]) == [Stop("old-0"), Start(0)]
    assert decide(1, [old(0, available=False), new(0, available=False)]) == [Stop("old-0")]


def test_a_new_one_that_fails_halts_the_rollout():
    assert decide(3, [new(0, available=False), old(1), old(2)]) == []


def test_without_memory_for_both_the_old_one_makes_way():
    waiting = new(0, available=False, short_by=10)
    assert decide(1, [old(0, memory=20), waiting]) == [Stop("old-0")]
    assert decide(2, [old(0, memory=20), waiting, old(1)]) == [Stop("old-0")]


def test_it_does_not_make_way_in_vain():
    waiting = new(0, available=False, short_by=30)
    assert decide(1, [old(0, memory=20), waiting]) == []
    short = replace(waiting, short_by=10)
    assert decide(2, [old(0, memory=20), short, old(1, available=False)]) == [Stop("old-1"), Start(1)]


def test_scaling_down_takes_first_what_does_not_work_then_what_is_old_then_the_highest():
    assert decide(1, [new(0, available=False), new(1)]) == [Stop("new-0")]
    assert decide(1, [old(0), new(1)]) == [Stop("old-0")]
    assert decide(2, [new(0), new(1), new(2)]) == [Stop("new-2")]
    assert decide(0, [new(0), old(1)]) == [Stop("new-0"), Stop("old-1")]


def test_scaling_up_takes_free_indexes():
    assert decide(3, [new(1)]) == [Start(0), Start(2)]


def test_a_job_never_runs_twice_at_once():
    assert decide(1, [old(0)], completes=True) == [Stop("old-0")]
    assert decide(1, [old(0, stopping=True)], completes=True) == []
    assert decide(1, [], completes=True) == [Start(0)]
    assert decide(1, [new(0, available=False)], completes=True) == []


def test_one_with_ports_of_its_own_goes_before_its_successor_comes():
    assert decide(2, [], exclusive=True) == [Start(0), Start(1)]
    assert decide(2, [old(0), old(1)], exclusive=True) == [Stop("old-0")]
    assert decide(2, [old(0, stopping=True, available=False), old(1)], exclusive=True) == []
    assert decide(2, [old(1)], exclusive=True) == [Start(0)]
    assert decide(2, [new(0, available=False), old(1)], exclusive=True) == [], "one at a time"
    assert decide(2, [new(0), old(1)], exclusive=True) == [Stop("old-1")]
    assert decide(1, [old(0, available=False)], exclusive=True) == [Stop("old-0")]


@settings(max_examples=100)
@given(st.data())
def test_a_rollout_without_two_of_an_index_takes_one_away_at_a_time(data):
    count = data.draw(st.integers(1, 4))
    states = st.tuples(st.integers(0, 5), st.booleans(), st.booleans())
    members = {
        f"m{index}": Member(f"m{index}", index, current=current, available=available)
        for index, current, available in data.draw(st.lists(states, max_size=6, unique_by=lambda s: s[0]))
    }
    floor = sum(member.available and member.index < count for member in members.values()) - 1
    for serial in range(200):
        for step in decide(count, list(members.values()), exclusive=True):
            if isinstance(step, Start):
                members[f"n{serial}-{step.index}"] = Member(f"n{serial}-{step.index}", step.index, current=True)
            else:
                members[step.id] = replace(members[step.id], stopping=True, available=False)
        assert len({member.index for member in members.values()}) == len(members)
        assert sum(member.available and member.index < count for member in members.values()) >= floor
        pending = [member for member in members.values() if member.stopping or not member.available]
        if not pending:
            break
        chosen = data.draw(st.sampled_from(pending))
        if chosen.stopping:
            del members[chosen.id]
        else:
            members[chosen.id] = replace(chosen, available=True)
    assert sorted((member.index, member.current) for member in members.values()) == [(n, True) for n in range(count)]


@settings(max_examples=200)
@given(st.data())
def test_every_rollout_ends_well_and_is_never_short_of_a_working_replica(data):
    """From any state, with events in any order: in the end all are new, none was lost, and there was one more at most."""
    count = data.draw(st.integers(1, 4))
    states = st.tuples(st.integers(0, 5), st.booleans(), st.booleans())
    members = {
        f"m{n}": Member(f"m{n}", index, current=current, available=available)
        for n, (index, current, available) in enumerate(
            data.draw(st.lists(states, max_size=6, unique_by=lambda s: s[:2]))
        )
    }
    serial = len(members)
    slots = {m.index for m in members.values() if m.available}
    floor = min(count, len(slots))
    for _ in range(200):
        for step in decide(count, list(members.values())):
            if isinstance(step, Start):
                serial += 1
                members[f"m{serial}"] = Member(f"m{serial}", step.index, current=True)
            else:
                assert not members[step.id].stopping
                members[step.id] = replace(members[step.id], stopping=True, available=False)
        assert sum(m.available for m in members.values()) >= floor
        live = [m for m in members.values() if not m.stopping]
        pairs = [m for m in live if not m.current and any(o.current and o.index == m.index for o in live)]
        assert len(pairs) <= max(1, len(slots)), "surges only where they were there before"
        pending = [m for m in members.values() if m.stopping or not m.available]
        if not pending:
            break
        chosen = data.draw(st.sampled_from(pending))
        if chosen.stopping:
            del members[chosen.id]
        else:
            members[chosen.id] = replace(chosen, available=True)
    assert decide(count, list(members.values())) == []
    assert [m.current for m in members.values()] == [True] * count
    assert len({m.index for m in members.values()}) == count
