"""What hosts say of flows that come and go: host endpoints' policy, and what a host and its own workloads may send each other.

In: a relation whose universe tells hosts apart, and what workloads' policy allows. Out: the same with the hosts' word in it, about flows of
hosts themselves too, as boxes for each end. The order is that of the hooks (``rules.hosts``; ``rules.naive`` in plain words): doNotTrack
(spared: failsafe ports and answers to them), preDNAT (spared: failsafe ports), then for the host itself failsafe ports, policy and
profiles, for what it forwards applyOnForward policy, which lets pass what it does not deny. Between a host and its own workloads no host
endpoint is asked: the host may send everything, workloads what endpointToHostAction, DHCP and the host's services let them.

Where a host sees another source than was sent (natOutgoing, floating addresses, tunnels), its policy is asked about that one.
Pure; O(hosts x boxes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabinet.analysis.boxes import Box, swapped
from tabinet.analysis.headers import EMPTY, FULL, HeaderSet
from tabinet.analysis.hosting import Hosting, HostRole
from tabinet.analysis.masks import Mask
from tabinet.analysis.universe import Residents
from tabinet.calc.messages import Action, HostEndpoint, TierPolicies
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import ICMPV6
from tabinet.rules.naive import DISCOVERY
from tabinet.rules.options import CONTROL_PORTS, HostAction, ProtoPort

if TYPE_CHECKING:
    from tabinet.analysis.relation import Regions, Relation

_DHCP = {IPV4: (68, 67), IPV6: (546, 547)}
_UDP = 17
Seen = tuple[Mask, Mask, Mask]
"""From these sources to these destinations a host sees another source: its class."""


@dataclass(slots=True)
class Gates:
    """The hosts of one relation."""

    relation: Relation
    hosting: Hosting
    residents: dict[str, Residents]
    _regions: dict[tuple[ResourceKey, bool], tuple[Regions, ...]] = field(default_factory=dict)

    def ingress(self, allowed: list[Box]) -> list[Box]:
        """What destinations let in, hosts too, as (source, destination, headers), of what workloads' policy lets in."""
        boxes = self.relation.boxes
        gated = 0
        found: list[Box] = []
        at_home: list[Box] = []
        for host, here in self.residents.items():
            role, all_here = self.hosting.roles[host], here.workloads | here.own
            others = self.relation.present & ~all_here
            at_home += self._at_home(role, here)
            if here.own:
                found += swapped(self._inbound(role, here.own, others))
            endpoint = role.endpoint
            if here.workloads and endpoint is not None and (endpoint.pre_dnat or endpoint.forward_ingress):
                gated |= here.workloads
                mine = [(source, end & here.workloads, headers) for source, end, headers in allowed if end & here.workloads]
                at_home += [(source & here.workloads, end, headers) for source, end, headers in mine if source & here.workloads]
                found += boxes.meet(mine, swapped(self._forwarded_in(role, endpoint, here.workloads, others)))
        found += [(source, end & ~gated, headers) for source, end, headers in allowed if end & ~gated]
        return boxes.merge(self._of_one_family([*self._as_sent(found), *at_home]))

    def egress(self, allowed: list[Box]) -> list[Box]:
        """What sources let out, hosts too, as (source, destination, headers), of what workloads' policy lets out."""
        boxes = self.relation.boxes
        gated = 0
        found: list[Box] = []
        for host, here in self.residents.items():
            role, all_here = self.hosting.roles[host], here.workloads | here.own
            others = self.relation.present & ~all_here
            endpoint = role.endpoint
            if here.own:
                found.append((here.own, all_here, FULL))
                found += self._outbound(role, here.own, others)
            found += self._services(role, here)
            if here.workloads and endpoint is not None and endpoint.forward_egress:
                gated |= here.workloads
                mine = [(source & here.workloads, end, headers) for source, end, headers in allowed if source & here.workloads]
                found += [(source, end & all_here, headers) for source, end, headers in mine if end & all_here]
                passed, left = self._through(endpoint.forward_egress, [(here.workloads, others, FULL)], ingress=False)
                found += boxes.meet(mine, [*passed, *left])
        found += [(source & ~gated, end, headers) for source, end, headers in allowed if source & ~gated]
        return boxes.merge(self._of_one_family(found))

    def _of_one_family(self, found: Iterable[Box]) -> Iterator[Box]:
        for source, destination, headers in found:
            for own in self.relation.universe.families.values():
                if source & own and destination & own:
                    yield (source & own, destination & own, headers)

    # --- a host and its own workloads ---

    def _at_home(self, role: HostRole, here: Residents) -> Iterator[Box]:
        """What goes on inside of the host: of what workloads send it, what the host takes."""
        if here.own:
            yield (here.own, here.own | here.workloads, FULL)
            if role.options.endpoint_to_host is HostAction.DROP:
                yield from self._services(role, here)
            elif here.workloads:
                yield (here.workloads, here.own, FULL)

    def _services(self, role: HostRole, here: Residents) -> Iterator[Box]:
        """What workloads may ask of their host whatever policy says."""
        universe, space = self.relation.universe, self.relation.space
        for family, (client, server) in _DHCP.items():
            own = universe.families[family]
            if here.workloads & own and here.own & own:
                yield (here.workloads & own, here.own & own, space.box(_UDP, [(server, server)], [(client, client)]))
        yield from self._discovered(here.workloads, here.own)
        for port in role.options.host_services:
            asked = here.own & (universe.everything if port.net is None else universe.within(port.net))
            if here.workloads and asked:
                yield (here.workloads, asked, space.box(port.protocol, [(port.port, port.port)]))

    def _discovered(self, one: Mask, other: Mask) -> Iterator[Box]:
        """What finds neighbours, of which nobody is asked."""
        own = self.relation.universe.families[IPV6]
        if one & own and other & own:
            yield (one & own, other & own, self.relation.space.box(ICMPV6, [DISCOVERY]))

    # --- host endpoints: boxes as (the host's end, its peer, headers) ---

    def _inbound(self, role: HostRole, own: Mask, others: Mask) -> list[Box]:
        """What the host takes from others for itself."""
        endpoint, boxes = role.endpoint, self.relation.boxes
        left: list[Box] = [(own, others, FULL)]
        if endpoint is None:
            return left
        allowed, left = self._untracked(role, endpoint.untracked_ingress, left, ingress=True)
        discovered = list(self._discovered(own, others))
        allowed += boxes.meet(left, discovered)
        more, left = self._pre_dnat(role, endpoint, boxes.minus(left, discovered))
        safe = list(self._failsafe(role.options.failsafe_inbound, own))
        allowed += [*more, *boxes.meet(left, safe)]
        return allowed + self._decided(endpoint, boxes.minus(left, safe), ingress=True)

    def _outbound(self, role: HostRole, own: Mask, others: Mask) -> list[Box]:
        """What the host itself may send to others."""
        endpoint, boxes = role.endpoint, self.relation.boxes
        left: list[Box] = [(own, others, FULL)]
        if endpoint is None:
            return left
        allowed, left = self._untracked(role, endpoint.untracked_egress, left, ingress=False)
        safe = [*self._failsafe(role.options.failsafe_outbound, own), *self._discovered(own, others)]
        allowed += boxes.meet(left, safe)
        return allowed + self._decided(endpoint, boxes.minus(left, safe), ingress=False)

    def _forwarded_in(self, role: HostRole, endpoint: HostEndpoint, workloads: Mask, others: Mask) -> list[Box]:
        """What the host lets through to its workloads."""
        allowed, left = self._pre_dnat(role, endpoint, [(workloads, others, FULL)])
        more, left = self._through(endpoint.forward_ingress, left, ingress=True)
        return allowed + more + left

    def _untracked(
        self, role: HostRole, tiers: tuple[TierPolicies, ...], asked: list[Box], *, ingress: bool
    ) -> tuple[list[Box], list[Box]]:
        if not tiers:
            return [], asked
        requests, answers = role.options.failsafe_inbound, role.options.failsafe_outbound
        if not ingress:
            requests, answers = answers, requests
        local = _locals(asked)
        spared = [*self._failsafe(requests, local), *self._failsafe(answers, local, answers=True)]
        return self._asked_but(spared, tiers, asked, ingress=ingress)

    def _pre_dnat(self, role: HostRole, endpoint: HostEndpoint, asked: list[Box]) -> tuple[list[Box], list[Box]]:
        if not endpoint.pre_dnat:
            return [], asked
        spared = list(self._failsafe(role.options.failsafe_inbound, _locals(asked)))
        return self._asked_but(spared, endpoint.pre_dnat, asked, ingress=True)

    def _asked_but(
        self, spared: list[Box], tiers: tuple[TierPolicies, ...], asked: list[Box], *, ingress: bool
    ) -> tuple[list[Box], list[Box]]:
        """Tiers without defaults, which have no say in what is spared."""
        boxes = self.relation.boxes
        allowed, left = self._through(tiers, boxes.minus(asked, spared), ingress=ingress, defaults=False)
        return allowed, left + boxes.meet(asked, spared)

    def _failsafe(self, ports: tuple[ProtoPort, ...], local: Mask, *, answers: bool = False) -> Iterator[Box]:
        universe, space = self.relation.universe, self.relation.space
        by_peers: dict[Mask, HeaderSet] = {}
        for port in (*ports, *CONTROL_PORTS):
            peers = universe.everything if port.net is None else universe.within(port.net)
            one = [(port.port, port.port)]
            some = space.box(port.protocol, [(0, 65535)], one) if answers else space.box(port.protocol, one)
            by_peers[peers] = space.join(by_peers.get(peers, EMPTY), some)
        for peers, headers in by_peers.items():
            if peers:
                yield (local, peers, headers)

    def _decided(self, endpoint: HostEndpoint, asked: list[Box], *, ingress: bool) -> list[Box]:
        """What tiers, then profiles, allow."""
        allowed, left = self._through(endpoint.ingress if ingress else endpoint.egress, asked, ingress=ingress)
        relation = self.relation
        known = [key for key in (ResourceKey("Profile", name) for name in endpoint.profiles) if relation.policy(key) is not None]
        rules = [regions for key in known for regions in self._rules(key, ingress)]
        first = relation.first_matches(rules, _locals(asked), (Action.ALLOW,))
        return allowed + relation.boxes.meet(first, left)

    def _through(
        self, tiers: tuple[TierPolicies, ...], left: list[Box], *, ingress: bool, defaults: bool = True
    ) -> tuple[list[Box], list[Box]]:
        """What tiers allow, and what all of them passed on."""
        relation, boxes = self.relation, self.relation.boxes
        allowed: list[Box] = []
        for tier in tiers:
            local = _locals(left)
            rules = [regions for key in tier.policies for regions in self._rules(key, ingress)]
            allowed += boxes.meet(relation.first_matches(rules, local, (Action.ALLOW,)), left)
            if defaults and tier.default_action is Action.DENY:
                left = boxes.meet(relation.first_matches(rules, local, (Action.PASS,)), left)
            else:
                left = boxes.minus(left, relation.first_matches(rules, local, (Action.ALLOW, Action.DENY)))
            left = boxes.merge(left)
        return allowed, left

    def _rules(self, key: ResourceKey, ingress: bool) -> tuple[Regions, ...]:
        found = self._regions.get((key, ingress))
        if found is None:
            found = self._regions[key, ingress] = self.relation.regions_for(key, self.relation.universe.everything, ingress=ingress)
        return found

    # --- other sources than were sent ---

    def _as_sent(self, seen: list[Box]) -> Iterator[Box]:
        """The flows that are let in where a host sees these."""
        changes = list(self._changes())
        for source, destination, headers in seen:
            left = [(source, destination)]
            for senders, receivers, instead in changes:
                if not destination & receivers:
                    continue
                if source & instead:
                    yield (senders, destination & receivers, headers)
                if source & senders:
                    left = [part for rest in left for part in _without(rest, senders, receivers)]
            for first, second in left:
                yield (first, second, headers)

    def _changes(self) -> Iterator[Seen]:
        """Disjoint as pairs of source and destination."""
        universe, hosting = self.relation.universe, self.hosting
        taken = natted = 0
        pools: list[tuple[Mask, frozenset[tuple[str, str]]]] = []
        for pool in hosting.pools:
            mask = universe.within(pool.cidr) & ~taken
            taken |= mask
            natted |= mask if pool.nat_outgoing else 0
            pools.append((mask, pool.tunnelled))
        for host, here in self.residents.items():
            elsewhere = self.relation.present & ~(here.own | here.workloads)
            for family in (IPV4, IPV6):
                own = universe.families[family]
                yield from self._tunnel_changes(host, here.own & own, family, pools)
                yield from self._nat_changes(host, here.workloads & own, elsewhere & own & ~taken, natted, family)

    def _tunnel_changes(
        self, host: str, senders: Mask, family: int, pools: list[tuple[Mask, frozenset[tuple[str, str]]]]
    ) -> Iterator[Seen]:
        tunnel = self.hosting.tunnel_sources.get((host, family))
        if tunnel is None or not senders:
            return
        receivers = 0
        for mask, pairs in pools:
            for other, there in self.residents.items():
                if (host, other) in pairs:
                    receivers |= mask & (there.own | there.workloads)
        if receivers:
            yield (senders, receivers, self.relation.universe.class_of_address(tunnel))

    def _nat_changes(self, host: str, workloads: Mask, receivers: Mask, natted: Mask, family: int) -> Iterator[Seen]:
        universe = self.relation.universe
        floating = 0
        for internal, external in self.hosting.floating_sources.get(host, ()):
            senders = universe.class_of_address(internal) & workloads & ~floating
            if senders and receivers and internal.family == family:
                floating |= senders
                yield (senders, receivers, universe.class_of_address(external))
        own = self.hosting.nat_sources.get((host, family))
        if self.hosting.roles[host].options.nat_spares_hosts:
            for other in self.residents.values():
                receivers &= ~other.own
        senders = workloads & natted & ~floating
        if own is not None and senders and receivers:
            yield (senders, receivers, universe.class_of_address(own))


def _without(part: tuple[Mask, Mask], senders: Mask, receivers: Mask) -> Iterator[tuple[Mask, Mask]]:
    source, destination = part
    if source & ~senders:
        yield (source & ~senders, destination)
    if source & senders and destination & ~receivers:
        yield (source & senders, destination & ~receivers)


def _locals(boxes: Iterable[Box]) -> Mask:
    mask = 0
    for local, _, _ in boxes:
        mask |= local
    return mask
