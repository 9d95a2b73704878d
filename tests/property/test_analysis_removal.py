"""What is said of a rule's or a policy's removal, against really removing it, for everybody and every packet."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from test_analysis_relation import TIERS, states
from test_rules_against_naive import EXAMPLES, POLICIES, PROFILES

from tabinet.analysis.boxes import Boxes
from tabinet.analysis.headers import HeaderSpace
from tabinet.analysis.relation import Relation, TierOrder
from tabinet.analysis.removal import Removal, Removed
from tabinet.analysis.universe import divide
from tabinet.calc.messages import Action, Endpoint, Policy
from tabinet.calc.replica import State
from tabinet.model.keys import ResourceKey


def differ(before: Relation, after: Relation, ingress: bool) -> bool:
    was, now = (relation.ingress if ingress else relation.egress for relation in (before, after))
    return bool(before.boxes.minus(was, now) or before.boxes.minus(now, was))


def related(state: State, of: State, boxes: Boxes) -> list[Relation]:
    universe = divide([state, of])
    return [Relation(universe, index, TierOrder(TIERS, POLICIES), boxes) for index in (0, 1)]


def without_rule(state: State, key: ResourceKey, ingress: bool, number: int) -> State:
    def cut(policy: Policy) -> Policy:
        rules = list(policy.ingress if ingress else policy.egress)
        places = [place for place, rule in enumerate(rules) if rule.action is not Action.LOG]
        del rules[places[number]]
        return msgspec.structs.replace(policy, **{"ingress" if ingress else "egress": tuple(rules)})

    if key.kind == "Profile":
        return State(
            sets=state.sets,
            policies=state.policies,
            profiles=state.profiles | {key.name: cut(state.profiles[key.name])},
            endpoints=state.endpoints,
        )
    return State(
        sets=state.sets,
        policies=state.policies | {key: cut(state.policies[key])},
        profiles=state.profiles,
        endpoints=state.endpoints,
    )


def without_policy(state: State, key: ResourceKey, ingress: bool) -> State:
    def cut(endpoint: Endpoint) -> Endpoint:
        name = "ingress" if ingress else "egress"
        tiers = [
            msgspec.structs.replace(tier, policies=tuple([each for each in tier.policies if each != key]))
            for tier in getattr(endpoint, name)
        ]
        return msgspec.structs.replace(endpoint, **{name: tuple([tier for tier in tiers if tier.policies])})

    endpoints = {name: (revision, cut(endpoint)) for name, (revision, endpoint) in state.endpoints.items()}
    return State(sets=state.sets, policies=state.policies, profiles=state.profiles, endpoints=endpoints)


@settings(max_examples=EXAMPLES, deadline=None)
@given(states)
def test_a_rule_changes_something_just_if_taking_it_out_does(state):
    boxes = Boxes(HeaderSpace())
    relation = Relation(divide([state]), 0, TierOrder(TIERS, POLICIES), boxes)
    removal = Removal(relation)
    for ingress in (True, False):
        for key in [*POLICIES, *(ResourceKey("Profile", name) for name in PROFILES)]:
            if relation.policy(key) is None:
                continue
            for number in range(len(relation.regions(key, ingress=ingress))):
                removed = Removed(key, ingress, frozenset((number,)))
                said = removal.changes(removed)
                assert said == differ(*related(state, without_rule(state, key, ingress, number), boxes), ingress), (key, ingress, number)
                if removal.blockers(removed) is not None:
                    assert not said
            if key.kind != "Profile" and relation.local_of(key, ingress=ingress):
                said = removal.changes(Removed(key, ingress, None))
                assert said == differ(*related(state, without_policy(state, key, ingress), boxes), ingress), (key, ingress)
