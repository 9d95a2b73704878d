"""The steps from carrying traffic to being drained, by the clock."""

from __future__ import annotations

import msgspec
import pytest

from tabinet.bgp.drain import STEPS, DrainWalk
from tabinet.calc.intents import BgpIntent, Drain, PeerIntent
from tabinet.lib.ip import parse_address

OWN = parse_address("192.0.2.9")
TOR = PeerIntent("tor", parse_address("192.0.2.1"), 179, 65000, False, False, True, 120, 0)
CARRIES = BgpIntent("h1", 65001, OWN.address, OWN, None, 179, "Info", (TOR,), (), (), ())


def drained(drain: Drain, intent: BgpIntent = CARRIES) -> BgpIntent:
    return msgspec.structs.replace(intent, drain=drain)


def seen(walk: DrainWalk, wanted: BgpIntent | None, now_s: float) -> tuple[Drain, int]:
    intent = walk.intent_at(wanted, now_s)
    assert intent is not None
    return intent.drain, intent.prepends


def test_paths_get_longer_before_the_host_says_that_it_leaves() -> None:
    walk = DrainWalk(step_s=1.0)
    assert seen(walk, CARRIES, 0.0) == (Drain.NONE, 0)
    wanted = drained(Drain.GRACEFUL)
    assert [seen(walk, wanted, 10.0 + n) for n in range(STEPS)] == [(Drain.NONE, n) for n in range(1, STEPS + 1)]
    assert walk.under_way
    assert seen(walk, wanted, 10.0 + STEPS) == (Drain.GRACEFUL, 0)
    assert not walk.under_way
    assert seen(walk, wanted, 10.0) == (Drain.GRACEFUL, 0)
    assert seen(walk, drained(Drain.WITHDRAWN), 99.0) == (Drain.WITHDRAWN, 0)
    assert seen(walk, CARRIES, 100.0) == (Drain.NONE, 0)


def test_a_host_that_is_withdrawn_at_once_says_before_that_it_leaves() -> None:
    walk = DrainWalk(step_s=1.0)
    walk.intent_at(CARRIES, 0.0)
    wanted = drained(Drain.WITHDRAWN)
    steps = [seen(walk, wanted, float(n)) for n in range(STEPS + 2)]
    assert steps == [*((Drain.NONE, n) for n in range(1, STEPS + 1)), (Drain.GRACEFUL, 0), (Drain.WITHDRAWN, 0)]


def test_a_way_that_is_given_up_begins_anew() -> None:
    walk = DrainWalk(step_s=1.0)
    walk.intent_at(CARRIES, 0.0)
    assert seen(walk, drained(Drain.GRACEFUL), 1.0) == (Drain.NONE, 1)
    assert seen(walk, CARRIES, 2.5) == (Drain.NONE, 0)
    assert not walk.under_way
    assert seen(walk, drained(Drain.GRACEFUL), 3.0) == (Drain.NONE, 1)


@pytest.mark.parametrize("before", [None, drained(Drain.WITHDRAWN)])
def test_an_agent_that_starts_on_a_drained_host_is_there_at_once(before: BgpIntent | None) -> None:
    walk = DrainWalk()
    walk.intent_at(before, 0.0)
    assert seen(walk, drained(Drain.GRACEFUL), 1.0) == (Drain.GRACEFUL, 0)
    assert not walk.under_way


def test_within_one_as_there_are_no_steps() -> None:
    peer = msgspec.structs.replace(TOR, as_number=65001)
    vnf = msgspec.structs.replace(TOR, workload=())
    inside = msgspec.structs.replace(CARRIES, peers=(peer, vnf))
    walk = DrainWalk()
    walk.intent_at(inside, 0.0)
    assert seen(walk, drained(Drain.GRACEFUL, inside), 1.0) == (Drain.GRACEFUL, 0)
    assert walk.intent_at(None, 2.0) is None
