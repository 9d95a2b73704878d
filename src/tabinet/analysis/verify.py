"""``verify``: invariants proven for every endpoint and every packet, or refuted with packets.

In: a situation and invariants. Out: a ``Verdict`` for each. Parties are told apart in the universe, so that a proof is about all endpoints
and addresses, not about samples. Limits as those of ``relation``.
Pure; O(resources) once, then a search in the boxes for each invariant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from tabinet.analysis.boxes import Box, Boxes, Expired, OutOfTime, TooMany, never
from tabinet.analysis.describe import Describer, FlowGroup
from tabinet.analysis.fabric import OptionsOf
from tabinet.analysis.headers import EMPTY, FULL, WITH_PORTS, HeaderSet, HeaderSpace
from tabinet.analysis.labels import marks_of
from tabinet.analysis.masks import Mask, mask_of
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Situation, hosting_of
from tabinet.analysis.universe import Universe, divide
from tabinet.calc.messages import Action, Policy
from tabinet.calc.replica import State
from tabinet.model.invariants import Invariant, Isolation, Packets, Party, Passage
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import GlobalNetworkPolicy, NetworkPolicy
from tabinet.selector import Selector


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an invariant holds."""

    name: str
    description: str
    holds: bool
    breaches: tuple[FlowGroup, ...]
    """Flows that are allowed and must not be, or that must be and are not."""
    vacuous: tuple[str, ...]
    """Parties that nobody belongs to, so that the statement says nothing."""
    unknown: str = ""
    """Why neither was proven."""
    has_more: bool = False
    """There may be more breaches than these."""


ENOUGH = 300
"""So many groups of flows of a broken invariant are looked for; nobody reads more."""


OVER = "the time given was over before it was proven"


def verify(
    situation: Situation, invariants: Sequence[Invariant], expired: Expired = never, options_of: OptionsOf | None = None
) -> list[Verdict]:
    """A verdict for each invariant, in order; those that are not proven when the time has ``expired`` are unknown.

    With ``options_of``, of hosts, hosts and host endpoints are in it (``situation.hosting_of``).
    """
    if expired():
        return [_unknown(invariant) for invariant in invariants]
    parties = [party for invariant in invariants for party in _parties(invariant)]
    selectors = list(dict.fromkeys(party.selector for party in parties if party.selector is not None))
    keys = list(dict.fromkeys(invariant.isolated.label for invariant in invariants if invariant.isolated is not None))
    marks = marks_of(situation.resources, selectors, keys)
    nets = tuple(net for party in parties for net in (*party.nets, *party.not_nets))
    universe = divide([situation.state], nets, marks, situation.twins.groups, hosting_of([situation], options_of))
    relation = Relation(universe, 0, situation.order, Boxes(HeaderSpace(), expired=expired))
    describer = Describer(universe, situation.resources)
    describer.prepare()
    verifier = _Verifier(situation, universe, relation, describer, selectors, keys)
    return [_unknown(invariant) if expired() else verifier.judge(invariant) for invariant in invariants]


def _unknown(invariant: Invariant) -> Verdict:
    return Verdict(name=invariant.name, description=invariant.description, holds=False, breaches=(), vacuous=(), unknown=OVER)


def _parties(invariant: Invariant) -> Iterator[Party]:
    for passage in (invariant.never, invariant.always):
        if passage is not None:
            yield passage.source
            yield passage.destination


@dataclass(slots=True)
class _Verifier:
    situation: Situation
    universe: Universe
    relation: Relation
    describer: Describer
    selectors: list[Selector]
    labels: list[str]
    _strict: dict[Selector, Relation] = field(default_factory=dict)
    """Without what policies that a selector selects allow."""

    def judge(self, invariant: Invariant) -> Verdict:
        vacuous: list[str] = []
        breaches: list[Box] = []
        unknown = ""
        try:
            if invariant.never is not None:
                self._never(invariant.never, vacuous, breaches)
            elif invariant.always is not None:
                breaches = self._always(invariant.always, vacuous)
            elif invariant.isolated is not None:
                self._isolated(invariant.isolated, vacuous, breaches)
        except TooMany:
            unknown = f"more than {self.relation.boxes.budget} groups of flows meet"
        except OutOfTime:
            unknown = OVER
        groups = tuple(self.describer.groups(self.relation.boxes.merge(breaches), self.relation))
        is_cut = bool(groups and unknown)
        if is_cut:
            unknown = ""  # it is known to be broken
        return Verdict(
            name=invariant.name,
            description=invariant.description,
            holds=not groups and not unknown,
            breaches=groups,
            vacuous=tuple(vacuous),
            unknown=unknown,
            has_more=is_cut or len(breaches) >= ENOUGH,
        )

    def _never(self, passage: Passage, vacuous: list[str], breaches: list[Box]) -> None:
        source, destination = self._ends(passage, vacuous)
        # Those found before the time is over are kept: a list that is extended takes them one by one.
        breaches.extend(islice(self.relation.each_within(source, destination, self._but(passage.packets)), ENOUGH))

    def _always(self, passage: Passage, vacuous: list[str]) -> list[Box]:
        source, destination = self._ends(passage, vacuous)
        wanted = self._packets(passage.packets) if passage.packets else FULL
        found: list[Box] = []
        inside, workloads = self.relation.endpoints, self.relation.workloads
        sendable = self.relation.space.minus(wanted, self.relation.unsendable)
        for own in self.universe.families.values():
            # Between two addresses outside nothing is ours to allow; nor is what no workload may send.
            starts = ((source & workloads, destination, sendable), (source & inside & ~workloads, destination, wanted))
            for start, end, packets in (*starts, (source & ~inside, destination & inside, wanted)):
                window = (start & own, end & own, packets)
                if window[0] and window[1] and packets:
                    found += self.relation.boxes.minus([window], self.relation.within(*window))
        return self.relation.boxes.merge(found)[:ENOUGH]

    def _isolated(self, isolation: Isolation, vacuous: list[str], breaches: list[Box]) -> None:
        relation = self._without(isolation.unless_policies) if isolation.unless_policies is not None else self.relation
        index = self.labels.index(isolation.label)
        by_value: dict[object, list[int]] = defaultdict(list)
        for number, kind in enumerate(self.universe.kinds):
            if kind.marks is not None and kind.marks[1][index] is not None:
                by_value[kind.marks[1][index]].append(number)
        if len(by_value) < 2:
            vacuous.append(f"fewer than two values of label {isolation.label}")
        masks = [mask_of(numbers, self.universe.size) for numbers in by_value.values()]
        labelled = 0
        for mask in masks:
            labelled |= mask
        headers = self._but(isolation.packets)
        found = (box for mask in masks for box in relation.each_within(mask, labelled & ~mask, headers))
        breaches.extend(islice(found, ENOUGH))

    def _without(self, selector: Selector) -> Relation:
        """The relation in which policies that the selector selects allow nothing."""
        found = self._strict.get(selector)
        if found is None:
            state = self.situation.state
            policies = dict(state.policies)
            for key, (value, _) in self.situation.resources.items():
                if not isinstance(value, NetworkPolicy | GlobalNetworkPolicy) or not isinstance(key, ResourceKey):
                    continue
                if key in policies and selector.evaluate(value.metadata.labels):
                    policies[key] = _allowing_nothing(policies[key])
            strict = State(sets=state.sets, policies=policies, profiles=state.profiles, endpoints=state.endpoints, config=state.config)
            found = self._strict[selector] = self.relation.of(strict)
        return found

    def _ends(self, passage: Passage, vacuous: list[str]) -> tuple[Mask, Mask]:
        masks = []
        for word, party in (("from", passage.source), ("to", passage.destination)):
            mask = self._party(party)
            if not mask:
                vacuous.append(f"nobody is meant by `{word}`")
            masks.append(mask)
        return masks[0], masks[1]

    def _party(self, party: Party) -> Mask:
        universe, inside = self.universe, self.relation.endpoints
        mask = 0
        if party.selector is not None:
            index = self.selectors.index(party.selector)
            mask = mask_of(
                (number for number, kind in enumerate(universe.kinds) if kind.marks is not None and kind.marks[0][index]), universe.size
            )
        named = 0
        for net in party.nets:
            named |= universe.within(net)
        if party.outside:
            mask |= (named or universe.everything) & ~inside
        else:
            mask |= named
        for net in party.not_nets:
            mask &= ~universe.within(net)
        return mask

    def _but(self, packets: tuple[Packets, ...]) -> HeaderSet:
        return self.relation.space.minus(FULL, self._packets(packets))

    def _packets(self, packets: tuple[Packets, ...]) -> HeaderSet:
        space, found = self.relation.space, EMPTY
        for each in packets:
            some = space.protocol(each.protocol)
            if each.ports and each.protocol in WITH_PORTS:
                some = space.box(each.protocol, [(item.first, item.last) for item in each.ports])
            elif each.icmp_type is not None:
                some = space.box(each.protocol, [(each.icmp_type, each.icmp_type)])
            found = space.join(found, some)
        return found


def _allowing_nothing(policy: Policy) -> Policy:
    return Policy(*(tuple([rule for rule in rules if rule.action is not Action.ALLOW]) for rules in (policy.ingress, policy.egress)))
