"""Who may send what to whom: the policy of all hosts as two lists of boxes, one for each end of a flow.

In: a universe and which of its states. Out: ``Relation``: what sources' egress and destinations' ingress policy allow; a flow between two
endpoints needs both, one with the outside only that of its end in the fabric. Replies are not flows: they pass with theirs.
Policy is taken as the rules say it (see ``rules.naive``); rates and numbers of connections are not, nor translation of addresses, nor what
hosts say of themselves (host endpoints): ``explain`` looks at those.

Pure. Cost: O(rules x classes / 64) for rules that do not overlap; where they do, see ``boxes``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tabinet.analysis.boxes import Box, Boxes, Taken, swapped
from tabinet.analysis.gates import Gates
from tabinet.analysis.headers import EVERY, FULL, WITH_PORTS, HeaderSet, HeaderSpace, Interval, minus_intervals
from tabinet.analysis.masks import Mask, mask_of
from tabinet.analysis.tunnelled import unsendable
from tabinet.analysis.universe import Universe
from tabinet.calc.messages import Action, Policy, Rule, Side, TierPolicies
from tabinet.calc.replica import State, set_kinds
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.extended import DCCP
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.policy import asks_dccp

Regions = tuple[Action, tuple[Box, ...]]
"""A rule: what it does, and to which flows, as (local, peer, headers)."""
_OWN_ICMP = {IPV4: ICMP, IPV6: ICMPV6}


class TierOrder:
    """The order in which tiers and policies are asked, the same for every endpoint."""

    def __init__(self, tiers: Iterable[str], policies: Iterable[ResourceKey]) -> None:
        self.tiers = tuple(tiers)
        self.rank = {key: number for number, key in enumerate(policies)}


@dataclass
class Relation:
    """One state of a universe, as flows."""

    universe: Universe
    state: int
    order: TierOrder
    boxes: Boxes
    earlier: Relation | None = None
    """Another state of the same universe: what is the same there is not read again."""
    _regions: dict[tuple[ResourceKey, bool], tuple[Regions, ...]] = field(default_factory=dict)

    def of(self, state: State) -> Relation:
        """The same classes with other rules in the policies; everything else of the state must be as it is here."""
        return Relation(dataclasses.replace(self.universe, states=(state,)), 0, self.order, self.boxes)

    @property
    def space(self) -> HeaderSpace:
        """What header sets mean."""
        return self.boxes.space

    @property
    def workloads(self) -> Mask:
        """The classes that workload endpoints have in this state."""
        return self.universe.endpoints[self.state]

    @cached_property
    def endpoints(self) -> Mask:
        """The classes whose end of a flow is judged: workloads', and hosts' where they are told apart."""
        mask = self.workloads
        for here in self.universe.residents[self.state].values() if self.universe.hosting else ():
            mask |= here.own
        return mask

    @cached_property
    def gates(self) -> Gates | None:
        """What hosts have to say; None where they are not told apart."""
        universe = self.universe
        return Gates(self, universe.hosting[self.state], universe.residents[self.state]) if universe.hosting else None

    @cached_property
    def ingress(self) -> list[Box]:
        """What destinations let in: (source, destination, headers).

        Raises:
            TooMany: it cannot be written down.
        """
        allowed = swapped(self._compose(ingress=True))
        return allowed if self.gates is None else self.gates.ingress(allowed)

    @cached_property
    def egress(self) -> list[Box]:
        """What sources let out: (source, destination, headers). Raises as ``ingress``."""
        allowed = self._compose(ingress=False)
        return allowed if self.gates is None else self.gates.egress(allowed)

    @cached_property
    def present(self) -> Mask:
        """All classes but those of endpoints that only other states have: nobody is there to send or receive."""
        elsewhere = 0
        for mask in self.universe.endpoints:
            elsewhere |= mask
        return self.universe.everything & ~(elsewhere & ~self.workloads)

    def allowed_of(self, boxes: Iterable[Box], *, by_ingress: bool) -> list[Box]:
        """Of flows that one end allows, those that the other end, if it is an endpoint, allows as well."""
        inside = self.endpoints
        found: list[Box] = []
        cut: list[Box] = []
        for source, destination, headers in boxes:
            far = source if by_ingress else destination
            outside = far & ~inside
            if outside:
                found.append((outside, destination, headers) if by_ingress else (source, outside, headers))
            far &= inside
            if far:
                cut.append((far, destination, headers) if by_ingress else (source, far, headers))
        if cut:
            found += self.boxes.meet(cut, self.egress if by_ingress else self.ingress)
        return self.boxes.merge(found)

    def within(self, sources: Mask, destinations: Mask, headers: HeaderSet) -> list[Box]:
        """The flows that are allowed from these to those with such packets."""
        return self.boxes.merge(self.each_within(sources, destinations, headers))

    def each_within(self, sources: Mask, destinations: Mask, headers: HeaderSet) -> Iterator[Box]:
        """The same, not merged, as they are found."""
        window = [(sources, destinations, headers)]
        inside = self.endpoints
        sent = self.boxes.meet(window, self.egress)
        for box in self.boxes.meet(window, self.ingress):
            source, destination, of = box
            if source & ~inside:
                yield (source & ~inside, destination, of)
            if source & inside:
                yield from self.boxes.merge(self.boxes.meet([(source & inside, destination, of)], sent))
        for source, destination, of in sent:
            if source & inside and destination & ~inside:
                yield (source & inside, destination & ~inside, of)

    def admits(self, source: int, destination: int, protocol: int, first: int, second: int) -> bool:
        """Whether such a packet (destination port or type, source port or code) may begin a flow between two classes."""
        inside = self.endpoints
        if not self.present >> source & self.present >> destination & 1:
            return False
        for number, boxes in ((destination, self.ingress), (source, self.egress)):
            if inside >> number & 1 and not any(
                senders >> source & 1 and receivers >> destination & 1 and self.space.has(headers, protocol, first, second)
                for senders, receivers, headers in boxes
            ):
                return False
        return True

    @cached_property
    def unsendable(self) -> HeaderSet:
        """What no endpoint may send, whatever policy says."""
        return unsendable(self.universe.states[self.state], self.space)

    def judged(self, *, ingress: bool) -> HeaderSet:
        """What policy has a say in."""
        return FULL if ingress else self.space.minus(FULL, self.unsendable)

    # --- policies ---

    def regions(self, key: ResourceKey, *, ingress: bool) -> tuple[Regions, ...]:
        """The rules of a policy or profile in one direction, without Log, for all whom it applies to."""
        found = self._regions.get((key, ingress))
        if found is None:
            if self.earlier is not None and self.agrees(self.earlier, key, ingress=ingress):
                found = self.earlier.regions(key, ingress=ingress)
            else:
                local = self.local_of(key, ingress=ingress)
                found = self._read(self.policy(key), local, ingress) if local else ()
            self._regions[key, ingress] = found
        return found

    def regions_for(self, key: ResourceKey, local: Mask, *, ingress: bool) -> tuple[Regions, ...]:
        """The same, as if the policy applied to these classes."""
        return self._read(self.policy(key), local, ingress)

    def agrees(self, other: Relation, key: ResourceKey, *, ingress: bool) -> bool:
        """The policy or profile has the same rules about the same sets for the same endpoints in both; cheap, False where unsure."""
        policy = self.policy(key)
        if policy is not other.policy(key) or self.local_of(key, ingress=ingress) != other.local_of(key, ingress=ingress):
            return False
        if policy is None:
            return True
        shared = self.universe.shared
        return all(shared(self.state, name) == shared(other.state, name) for name in set_kinds(policy))

    def local_of(self, key: ResourceKey, *, ingress: bool) -> Mask:
        """Whom a policy or profile applies to."""
        if key.kind == "Profile":
            lists = self.universe.profiles[self.state]
            mask = 0
            for names, having in lists.items():
                if key.name in names:
                    mask |= having
            return mask
        return self.universe.policed[self.state].get((key, ingress), 0)

    def policy(self, key: ResourceKey) -> Policy | None:
        """What the calculation made of a policy or profile."""
        state = self.universe.states[self.state]
        return state.profiles.get(key.name) if key.kind == "Profile" else state.policies.get(key)

    def _read(self, policy: Policy | None, local: Mask, ingress: bool) -> tuple[Regions, ...]:
        if policy is None:
            return ((Action.DENY, ((local, self.universe.everything, FULL),)),)
        rules = policy.ingress if ingress else policy.egress
        return tuple([(rule.action, tuple(self._rule(rule, local, ingress))) for rule in rules if rule.action is not Action.LOG])

    def _rule(self, rule: Rule, local: Mask, ingress: bool) -> Iterator[Box]:
        source, destination = self._side(rule.source), self._side(rule.destination)
        if ingress:
            destination &= local
        else:
            source &= local
        for family, own in self.universe.families.items():
            if rule.ip_version not in (None, family) or rule.protocol == _OWN_ICMP[IPV4 if family == IPV6 else IPV6]:
                continue
            headers = self._headers(rule, family)
            if not headers or not source & own or not destination & own:
                continue
            for senders, sending in self._by_port(rule.source, source & own):
                for receivers, receiving in self._by_port(rule.destination, destination & own):
                    some = self.space.meet(headers, self._ports(rule, sending, receiving))
                    if some:
                        yield (receivers, senders, some) if ingress else (senders, receivers, some)

    def _headers(self, rule: Rule, family: int) -> HeaderSet:
        """What the rule says of protocol and ICMP."""
        space = self.space
        headers = FULL if rule.protocol is None else space.protocol(rule.protocol)
        if rule.not_protocol is not None:
            headers = space.minus(headers, space.protocol(rule.not_protocol))
        if rule.icmp is not None or rule.not_icmp is not None:
            headers = space.meet(headers, space.protocol(_OWN_ICMP[family]))
        for icmp, wanted in ((rule.icmp, True), (rule.not_icmp, False)):
            if icmp is not None:
                codes = None if icmp.code is None else [(icmp.code, icmp.code)]
                box = space.box(_OWN_ICMP[family], [(icmp.type, icmp.type)], codes)
                headers = space.meet(headers, box) if wanted else space.minus(headers, box)
        return headers

    def _side(self, side: Side) -> Mask:
        universe = self.universe
        mask = universe.everything
        if side.nets:
            some = 0
            for net in side.nets:
                some |= universe.within(net)
            mask &= some
        for net in side.not_nets:
            mask &= ~universe.within(net)
        for set_id in side.sets:
            mask &= universe.holds(self.state, set_id)
        for set_id in side.not_sets:
            mask &= ~universe.holds(self.state, set_id)
        return mask

    def _by_port(self, side: Side, mask: Mask) -> Iterator[tuple[Mask, dict[int, tuple[Interval, ...]] | None]]:
        """The classes divided by which ports the side means there: by protocol, intervals; None: it says nothing of ports."""
        if not (side.ports or side.port_sets or side.not_ports or side.not_port_sets):
            yield mask, None
            return
        wanted: list[tuple[Mask, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]] = [(mask, (), ())]
        for set_id in side.port_sets:
            divided = self.universe.variants(self.state, set_id)
            wanted = [(here & where, yes + pairs, no) for here, yes, no in wanted for pairs, where in divided.items() if here & where]
        for set_id in side.not_port_sets:
            divided = self.universe.variants(self.state, set_id)
            wanted = [(here & where, yes, no + pairs) for here, yes, no in wanted for pairs, where in divided.items() if here & where]
        for here, yes, no in wanted:
            yield here, {protocol: _port_intervals(side, protocol, yes, no) for protocol in WITH_PORTS}

    def _ports(
        self, rule: Rule, sending: dict[int, tuple[Interval, ...]] | None, receiving: dict[int, tuple[Interval, ...]] | None
    ) -> HeaderSet:
        if sending is None and receiving is None:
            return FULL
        headers = 0
        for protocol in WITH_PORTS if rule.protocol is None else (rule.protocol,):
            if protocol in WITH_PORTS and (protocol != DCCP or asks_dccp(rule)):
                to = EVERY[protocol] if receiving is None else receiving[protocol]
                headers = self.space.join(headers, self.space.box(protocol, to, None if sending is None else sending[protocol]))
        return headers

    # --- composition ---

    def _compose(self, *, ingress: bool) -> list[Box]:
        """All that one end allows, as (local, peer, headers)."""
        allowed: list[Box] = []
        undecided: list[Box] = [(self.workloads, self.present, self.judged(ingress=ingress))]
        for tier in self.order.tiers:
            concerned = self.universe.tiers[self.state].get((tier, ingress), 0)
            if concerned:
                undecided = self._tier(tier, concerned, ingress, undecided, allowed)
        for names, having in self.universe.profiles[self.state].items():
            entering = [(local & having, peer, headers) for local, peer, headers in undecided if local & having]
            if entering:
                rules = [regions for name in names for regions in self.of_profile(name, ingress)]
                allowed += self.boxes.meet(self.first_matches(rules, having, (Action.ALLOW,)), entering)
        return self.boxes.merge(allowed)

    def of_profile(self, name: str, ingress: bool) -> tuple[Regions, ...]:
        """The rules of a profile; none where there is no such profile."""
        key = ResourceKey("Profile", name)
        return () if self.policy(key) is None else self.regions(key, ingress=ingress)

    def _tier(self, tier: str, concerned: Mask, ingress: bool, undecided: list[Box], allowed: list[Box]) -> list[Box]:
        """What is undecided after the tier; what it allows is added to ``allowed``."""
        rules = [regions for key in self.in_tier(tier, ingress) for regions in self.regions(key, ingress=ingress)]
        return self.decide(tier, concerned, rules, ingress, undecided, allowed)

    def decide(
        self, tier: str, concerned: Mask, rules: list[Regions], ingress: bool, undecided: list[Box], allowed: list[Box]
    ) -> list[Box]:
        """The same, as if these were the rules of the tier, in order, and it concerned these classes."""
        boxes = self.boxes
        allowed += boxes.meet(self.first_matches(rules, concerned, (Action.ALLOW,)), undecided)
        others = [(local & ~concerned, peer, headers) for local, peer, headers in undecided if local & ~concerned]
        mine = [(local & concerned, peer, headers) for local, peer, headers in undecided if local & concerned]
        passing = self.passing(tier, ingress) & concerned
        ending = concerned & ~passing
        if passing:
            # Whatever no rule allowed or denied goes on.
            ended = self.first_matches(rules, passing, (Action.ALLOW, Action.DENY))
            others += boxes.minus([(local & passing, peer, headers) for local, peer, headers in mine if local & passing], ended)
        if ending:
            passed = self.first_matches(rules, ending, (Action.PASS,))
            others += boxes.meet(passed, [(local & ending, peer, headers) for local, peer, headers in mine if local & ending])
        boxes.check(others)
        return boxes.merge(others)

    def in_tier(self, tier: str, ingress: bool) -> list[ResourceKey]:
        """The policies of a tier that apply to somebody, in order."""
        return self._in_tiers.get((tier, ingress), [])

    def tier_of(self, key: ResourceKey) -> str:
        """The tier of a policy that applies to somebody."""
        return self._tier_of[key]

    @cached_property
    def _tier_of(self) -> dict[ResourceKey, str]:
        tier_of: dict[ResourceKey, str] = {}
        for _, endpoint in self.universe.states[self.state].endpoints.values():
            tiers: tuple[TierPolicies, ...] = (*endpoint.ingress, *endpoint.egress)
            for tier in tiers:
                tier_of.update(dict.fromkeys(tier.policies, tier.tier))
        return tier_of

    @cached_property
    def _in_tiers(self) -> dict[tuple[str, bool], list[ResourceKey]]:
        tier_of = self._tier_of
        found: dict[tuple[str, bool], list[ResourceKey]] = {}
        for key, ingress in sorted(self.universe.policed[self.state], key=lambda item: self.order.rank[item[0]]):
            found.setdefault((tier_of[key], ingress), []).append(key)
        return found

    def passing(self, tier: str, ingress: bool) -> Mask:
        """Who has the tier with the default action Pass."""
        return self._pass_by_default.get((tier, ingress), 0)

    @cached_property
    def _pass_by_default(self) -> dict[tuple[str, bool], Mask]:
        numbers: dict[tuple[str, bool], list[int]] = {}
        for number, kind in enumerate(self.universe.kinds):
            policing = kind.policing[self.state]
            if policing is not None:
                for is_ingress, tiers in ((True, policing[0]), (False, policing[1])):
                    for tier in tiers:
                        if tier.default_action is Action.PASS:
                            numbers.setdefault((tier.tier, is_ingress), []).append(number)
        return {key: mask_of(having, self.universe.size) for key, having in numbers.items()}

    def first_matches(self, rules: list[Regions], local: Mask, actions: tuple[Action, ...]) -> list[Box]:
        """The flows of these classes whose first matching rule has one of the actions."""
        found: list[Box] = []
        taken = Taken(self.boxes)
        for action, boxes in rules:
            mine = [(here & local, peer, headers) for here, peer, headers in boxes if here & local]
            if action in actions:
                for box in mine:
                    found += taken.left_of(box)
                self.boxes.check(found)
            else:
                for box in mine:
                    taken.add(box)
        return found


def _port_intervals(side: Side, protocol: int, yes: tuple[tuple[int, int], ...], no: tuple[tuple[int, int], ...]) -> tuple[Interval, ...]:
    wanted: list[Interval] = [(item.first, item.last) for item in side.ports]
    wanted += [(port, port) for of, port in yes if of == protocol]
    intervals = tuple(wanted) if side.ports or side.port_sets else EVERY[protocol]
    excluded = [(item.first, item.last) for item in side.not_ports] + [(port, port) for of, port in no if of == protocol]
    return minus_intervals(tuple(sorted(intervals)), tuple(sorted(excluded)))
