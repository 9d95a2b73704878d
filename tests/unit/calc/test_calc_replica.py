"""The replica refuses what messages never are, so that the tests which use it can fail."""

from __future__ import annotations

import pytest

from tabinet.calc.messages import (
    Action,
    Endpoint,
    EndpointUpdate,
    Policy,
    PolicyRemove,
    PolicyUpdate,
    Rule,
    SetDelta,
    SetKind,
    SetRemove,
    SetUpdate,
    Side,
    TierPolicies,
    Update,
)
from tabinet.calc.replica import BrokenPromise, Replica
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey

ADDRESS = parse_prefix("10.0.0.1")
POLICY_KEY = ResourceKey("GlobalNetworkPolicy", "p")
SET = SetUpdate("s-1", SetKind.NETS, frozenset({ADDRESS}))
POLICY = PolicyUpdate(POLICY_KEY, Policy((Rule(Action.ALLOW, source=Side(sets=("s-1",))),), ()))
TIERS = (TierPolicies("default", Action.DENY, (POLICY_KEY,)),)
ENDPOINT = EndpointUpdate(ResourceKey("WorkloadEndpoint", "w", "n"), 1, Endpoint("h", "cali1", "", (ADDRESS,), (), TIERS, (), ()))


@pytest.mark.parametrize(
    ("told", "broken"),
    [
        ([], POLICY),
        ([SET], ENDPOINT),
        ([SET, POLICY], SetRemove("s-1")),
        ([SET, POLICY, ENDPOINT], PolicyRemove(POLICY_KEY)),
        ([SetUpdate("s-1", SetKind.PORTS, frozenset())], POLICY),
        ([], SetDelta("s-1", frozenset(), frozenset())),
        ([SET], SetDelta("s-1", frozenset({ADDRESS}), frozenset())),
        ([SetUpdate("s-1", SetKind.NETS, frozenset())], SetDelta("s-1", frozenset(), frozenset({ADDRESS}))),
        ([SET], SetDelta("s-1", frozenset(), frozenset())),
        ([], SetRemove("s-1")),
        ([], PolicyRemove(POLICY_KEY)),
    ],
)
def test_broken_promises(told: list[Update], broken: Update) -> None:
    replica = Replica()
    for update in told:
        replica.apply(update)
    with pytest.raises(BrokenPromise):
        replica.apply(broken)
