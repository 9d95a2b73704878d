"""A change of policies, calculated only for the endpoints whose flows it can open or close.

In: resources, and changes of policies. Out: ``Comparison``, two relations of one universe that differ in the same flows as those of the
whole fabric would. Endpoints that a changed policy selects are calculated, then those at the other end of what changed for them, because
these have a say in it. Everybody else is in the universe, and in sets, as always, but with no policy of its own, before and after alike:
so what is between two of them does not differ, which is all that is asked.

Only for fabrics in which an endpoint's policy is its only part in policy: without host endpoints, floating addresses, prefixes instead of
addresses, and live migrations. ``compare_narrowly`` says None where it is not, and the whole fabric has to be calculated.

Pure; O(endpoints) with small factors, then the policy of those concerned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.analysis.boxes import Expired, OutOfTime, TooMany, never
from tabinet.analysis.coverage import hosts_changed
from tabinet.analysis.delta import peers_concerned
from tabinet.analysis.fabric import OptionsOf, Resources
from tabinet.analysis.labels import marks_of
from tabinet.analysis.masks import numbers_of
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Calculation, Changes, Situation, calculate, facts_of, relate
from tabinet.analysis.tables import HOSTS_COUNTED
from tabinet.analysis.universe import Marks, Universe
from tabinet.calc.endpoints import nets_of
from tabinet.calc.messages import Endpoint
from tabinet.calc.replica import State, policies_of
from tabinet.calc.scopes import NAMESPACE, side_scope
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    GlobalNetworkPolicy,
    HostEndpoint,
    LiveMigration,
    NetworkPolicy,
    WorkloadEndpoint,
)
from tabinet.selector import Eq, Selector, SelectorError, from_tree

Interface = tuple[str, str]
"""A host and the name of an interface on it."""
LIKELY = 4
"""Peers that rules name are calculated together with those selected, if they are no more than this part of all: most are needed."""
TOLD_APART = 1_000
"""So many combinations of labels are told apart for the sake of words."""
_ALONE = (HostEndpoint, LiveMigration)
"""Where one of these is, more than an endpoint's own policy matters."""


class Comparison(msgspec.Struct, frozen=True):
    """A fabric before and after a change."""

    before: Situation
    """Of those who were calculated, on ``hosts_changed`` everybody."""
    after: Situation
    universe: Universe
    was: Relation
    now: Relation


def compare_widely(calculation: Calculation, changes: Changes, expired: Expired = never, options_of: OptionsOf | None = None) -> Comparison:
    """The whole fabric, with its hosts if ``options_of`` hosts are known; the calculation has the changes from now on."""
    before = calculation.prepare(changes)
    after = calculation.change(changes)
    universe, (was, now) = relate([before, after], expired=expired, options_of=options_of)
    return Comparison(before, after, universe, was, now)


def compare_narrowly(resources: Resources, changes: Changes, expired: Expired = never) -> Comparison | None:
    """As much of the fabric as matters; None: that cannot be told from what there is, or not in time."""
    scopes = _scopes(resources, changes)
    endpoints = None if scopes is None else _plain_endpoints(resources)
    if scopes is None or endpoints is None:
        return None
    spaces = sorted({key.namespace for key in changes if isinstance(key, ResourceKey) and key.namespace})
    peers = list(_peers(resources, changes))
    asked = [*scopes, *peers, *[from_tree(Eq(NAMESPACE, space)) for space in spaces]]
    marks = marks_of(resources, asked, _telling(endpoints))
    selected = [key for key, (which, _) in marks.items() if any(which[: len(scopes)])]
    likely = [key for key, (which, _) in marks.items() if any(which[len(scopes) : len(scopes) + len(peers)])]
    narrow = _Narrow(resources, changes, endpoints, marks, _claims(endpoints))
    narrow.choose([*selected, *likely] if len(likely) <= len(endpoints) // LIKELY else selected)
    hosts = sorted({endpoints[key].spec.node for key in selected})
    try:
        return narrow.compare(set(hosts[:HOSTS_COUNTED]), expired)
    except (TooMany, OutOfTime):
        return None


def _scopes(resources: Resources, changes: Changes) -> list[Selector] | None:
    """Whom the changed policies select, before and after; None: they are no policies, or nobody can read whom."""
    scopes: list[Selector] = []
    for key, value in changes.items():
        if not isinstance(key, ResourceKey) or key.kind not in ("NetworkPolicy", "GlobalNetworkPolicy"):
            return None
        values = {number: each for number, each in enumerate((resources.get(key, (None, 0))[0], value)) if each is not None}
        for each in values.values():
            facts = facts_of({key: each}).get(key)
            if facts is None or facts.scope is None:
                return None
            scopes.append(from_tree(facts.scope))
    return scopes


def _peers(resources: Resources, changes: Changes) -> Iterator[Selector]:
    """Whom the rules of the policies mean by labels, where these can be read."""
    for key, value in changes.items():
        for policy in (resources.get(key, (None, 0))[0], value):
            if isinstance(policy, NetworkPolicy | GlobalNetworkPolicy) and isinstance(key, ResourceKey):
                for side in [*[rule.source for rule in policy.spec.ingress], *[rule.destination for rule in policy.spec.egress]]:
                    try:
                        scope = side_scope(side, key.namespace)
                    except SelectorError:
                        scope = None
                    if scope is not None:
                        yield scope


def _plain_endpoints(resources: Resources) -> dict[ResourceKey, WorkloadEndpoint] | None:
    """All workload endpoints; None where something is more complicated."""
    found: dict[ResourceKey, WorkloadEndpoint] = {}
    for key, (value, _) in resources.items():
        if isinstance(value, WorkloadEndpoint) and isinstance(key, ResourceKey):
            if value.spec.ip_nats:
                return None
            found[key] = value
        elif isinstance(value, _ALONE):
            return None
    return found


def _telling(endpoints: dict[ResourceKey, WorkloadEndpoint]) -> list[str]:
    """Keys of labels with so few values that endpoints can be told apart by them, to be named by them."""
    pairs = {pair for value in endpoints.values() for pair in value.metadata.labels.items()}
    values = Counter(key for key, _ in pairs)
    chosen: list[str] = []
    room = TOLD_APART
    for key, count in sorted(values.items(), key=lambda item: (item[1], item[0])):
        room //= count + 1
        if not room:
            break
        chosen.append(key)
    return chosen


def _claims(endpoints: dict[ResourceKey, WorkloadEndpoint]) -> dict[Interface, list[ResourceKey]]:
    """By interface: the endpoints that could be programmed there."""
    claims: dict[Interface, list[ResourceKey]] = {}
    for key, value in endpoints.items():
        if value.spec.interface_name and nets_of(value.spec):
            claims.setdefault((value.spec.node, value.spec.interface_name), []).append(key)
    return claims


@dataclass(slots=True)
class _Narrow:
    resources: Resources
    changes: Changes
    endpoints: dict[ResourceKey, WorkloadEndpoint]
    marks: dict[ResourceKey, Marks]
    claims: dict[Interface, list[ResourceKey]]
    chosen: set[ResourceKey] = field(default_factory=set)
    """Who is calculated; those who stand for others or for themselves, and all others that one of those stands for."""

    def choose(self, keys: Iterable[ResourceKey]) -> set[ResourceKey]:
        """These are calculated, and who else wants the interface of one of them. Gives those that were not before."""
        wanted = set()
        for key in keys:
            spec = self.endpoints[key].spec
            wanted |= {key, *self.claims.get((spec.node, spec.interface_name), ())}
        new = wanted - self.chosen
        self.chosen |= new
        return new

    def compare(self, counted: set[str], expired: Expired) -> Comparison | None:
        """Both relations, and everybody calculated on the hosts where costs are likely to be ``counted``. Raises as ``delta.compare``."""
        concerned = set(self.chosen)
        self.choose(key for key, value in self.endpoints.items() if value.spec.node in counted)
        calculation = calculate(self.resources, self.changes, self.chosen)
        leader = calculation.situation.twins.leader
        before = self._with(calculation, {leader[key] for key in self.chosen if key in leader})
        bystanders = dict(self._bystanders(key for key in self.endpoints if key not in leader))
        if any(not address.is_host for _, endpoint in bystanders.values() for address in endpoint.nets):
            return None
        if before.state.host_endpoints:  # those that are made of Nodes
            return None
        after = calculation.change(self.changes)
        found = self._relate(before, after, bystanders, concerned, expired)
        peers = {
            leader.get(unit.endpoint, unit.endpoint)
            for number in numbers_of(peers_concerned(found.was, found.now))
            for unit in found.universe.units[number]
        }
        counted = set(hosts_changed(before, after)[:HOSTS_COUNTED])
        neighbours = {leader.get(key, key) for key, value in self.endpoints.items() if value.spec.node in counted}
        if not peers | neighbours <= self.chosen:
            after = self._with(calculation, peers | neighbours)
            before = calculation.change({key: self.resources.get(key, (None, 0))[0] for key in self.changes})
        if peers <= concerned:
            return msgspec.structs.replace(found, before=before, after=after)
        return self._relate(before, after, bystanders, concerned | peers, expired)

    def _with(self, calculation: Calculation, keys: Iterable[ResourceKey]) -> Situation:
        """The calculation's situation, with these calculated as well."""
        more = self.choose(keys)
        if not more:
            return calculation.situation
        for key in more:
            if key not in calculation.situation.twins.leader:
                calculation.tell(key, *self.resources[key])
        return calculation.change({})

    def _bystanders(self, keys: Iterable[ResourceKey]) -> Iterator[tuple[ResourceKey, tuple[int, Endpoint]]]:
        """Those of the endpoints that would be programmed, without any policy."""
        for key in keys:
            spec = self.endpoints[key].spec
            claims = self.claims.get((spec.node, spec.interface_name), ())
            if key in claims and key == min(claims):
                nets = tuple(sorted(nets_of(spec)))
                yield key, (0, Endpoint(spec.node, spec.interface_name, "", nets, (), (), (), ()))

    def _relate(
        self,
        before: Situation,
        after: Situation,
        bystanders: dict[ResourceKey, tuple[int, Endpoint]],
        concerned: set[ResourceKey],
        expired: Expired,
    ) -> Comparison:
        flows = [
            msgspec.structs.replace(situation, state=_limited(situation.state, bystanders, concerned)) for situation in (before, after)
        ]
        universe, (was, now) = relate(flows, marks=self.marks, expired=expired)
        return Comparison(before, after, universe, was, now)


def _limited(state: State, bystanders: dict[ResourceKey, tuple[int, Endpoint]], concerned: set[ResourceKey]) -> State:
    """The state with the policy of those concerned, and no other."""
    endpoints = {key: entry for key, entry in state.endpoints.items() if key in concerned}
    policies = set().union(*[policies_of(endpoint) for _, endpoint in endpoints.values()])
    profiles = {name for _, endpoint in endpoints.values() for name in endpoint.profiles if name in state.profiles}
    return State(
        sets=state.sets,
        policies={key: state.policies[key] for key in sorted(policies)},
        profiles={name: state.profiles[name] for name in sorted(profiles)},
        endpoints=bystanders | endpoints,
        config=state.config,
    )
