"""Address translation: floating addresses, natOutgoing and the metadata address as chains and maps.

``nat_in`` and ``nat_local`` (before routing) turn a floating address into the endpoint's own. ``nat_out`` (after routing) gives what leaves
the fabric a source that the outside can answer: an endpoint's floating address, or for pools with natOutgoing the host's. An endpoint
that speaks to its own floating address meets itself, so that its source becomes the floating address, too.

Outside the fabric is what is in no IP pool; without the announced set of all pools, nothing is. Only a flow's first packet comes
here, so that a change translates new flows only (nat hooks of Linux). Policy judges the translated destination and the untranslated source.

An address of which only ports are forwarded has a rule for each of them, and is no source of anything, but where an endpoint speaks to
itself by it. It may be one of the host itself.

Each pair of addresses is a map element, a chain and a rule; the rest is O(1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import ALL_HOSTS, ALL_POOLS, NAT_POOLS, Forward, Nat
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules import names
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import (
    Accept,
    Address,
    AddressIn,
    Basis,
    Chain,
    DispatchAddress,
    Goto,
    HeaderAddress,
    HookPoint,
    InterfacePrefix,
    Jump,
    Match,
    Port,
    Protocol,
    Rule,
    Side,
    TranslateDestination,
    TranslateSource,
    Via,
)
from tabinet.rules.options import TCP, UDP, TableOptions
from tabinet.rules.policy import SetShape

FLOATING = {IPV4: "floating4", IPV6: "floating6"}
"""Maps from a floating address to the chain that translates it."""
FLOATING_SOURCE = {IPV4: "floating_source4", IPV6: "floating_source6"}
"""Maps from an endpoint's address to the chain that gives its packets a floating source."""
FORWARDED_SOURCE = {IPV4: "forwarded_source4", IPV6: "forwarded_source6"}
"""Maps from the address of an endpoint to which ports are forwarded to the chain for what it says to itself."""
INSIDE = {IPV4: "inside4", IPV6: "inside6"}
"""Chains that accept what stays in the fabric, and return for the rest."""
OUTGOING = {IPV4: "outgoing4", IPV6: "outgoing6"}
METADATA = parse_address("169.254.169.254")
_HTTP = 80
FAMILIES = (IPV4, IPV6)


class NatUse(msgspec.Struct, frozen=True):
    """What translation needs of the fixed part."""

    floating: bool = False
    nat_pools: SetShape | None = None
    all_pools: SetShape | None = None
    all_hosts: SetShape | None = None

    @property
    def outgoing(self) -> bool:
        """natOutgoing is possible."""
        return self.nat_pools is not None and self.all_pools is not None


def nat_use(options: TableOptions, floating: bool, shape_of: Callable[[str], SetShape | None], occupied: Callable[[str], bool]) -> NatUse:
    """What is needed now. ``occupied``: the set has members."""
    pools = shape_of(NAT_POOLS) if occupied(NAT_POOLS) else None
    if not floating and pools is None:
        return NatUse()
    return NatUse(floating, pools, shape_of(ALL_POOLS), shape_of(ALL_HOSTS) if options.nat_spares_hosts else None)


def nat_chains(options: TableOptions, use: NatUse) -> dict[str, Chain]:
    """The chains; none without need."""
    chains: dict[str, Chain] = {}
    before: list[Rule] = []
    if use.floating:
        before += [Rule(DispatchAddress(FLOATING[family], family, Side.DESTINATION)) for family in FAMILIES]
        chains["nat_local"] = Chain(tuple(before), HookPoint.OUTPUT_NAT, Basis.HEADER)
    if options.metadata is not None:
        web = (HeaderAddress(Side.DESTINATION, METADATA), Protocol(TCP), Port(Side.DESTINATION, _HTTP, _HTTP))
        target = TranslateDestination(options.metadata.address, options.metadata.port)
        before += [Rule(target, (InterfacePrefix(Via.IN, prefix), *web), comment="metadata") for prefix in options.interface_prefixes]
    if before:
        chains["nat_in"] = Chain(tuple(before), HookPoint.PREROUTING_NAT, Basis.HEADER)
    if use.floating or use.outgoing:
        chains |= _outgoing_chains(options, use)
    return chains


def _outgoing_chains(options: TableOptions, use: NatUse) -> dict[str, Chain]:
    after: list[Rule] = []
    if use.floating:
        after += [Rule(DispatchAddress(FLOATING_SOURCE[family], family, Side.SOURCE)) for family in FAMILIES]
        after += [
            Rule(DispatchAddress(FORWARDED_SOURCE[family], family, Side.SOURCE), (InterfacePrefix(Via.OUT, prefix),))
            for family in FAMILIES
            for prefix in options.interface_prefixes
        ]
    after += [Rule(Accept(), (InterfacePrefix(Via.OUT, prefix),)) for prefix in options.interface_prefixes]
    chains: dict[str, Chain] = {}
    for family in FAMILIES:
        inside: list[tuple[Match, ...]] = []
        for set_id, shape in ((ALL_POOLS, use.all_pools), (ALL_HOSTS, use.all_hosts)):
            inside += _members(set_id, shape, family, Side.DESTINATION)
        if use.all_pools is None:
            inside = [()]
        chains[INSIDE[family]] = Chain(tuple(Rule(Accept(), matches) for matches in inside))
        if use.outgoing:
            after += [Rule(Goto(OUTGOING[family]), matches) for matches in _members(NAT_POOLS, use.nat_pools, family, Side.SOURCE)]
            chains[OUTGOING[family]] = Chain((Rule(Jump(INSIDE[family])), *_source_rules(options, family)))
    chains["nat_out"] = Chain(tuple(after), HookPoint.POSTROUTING_NAT)
    return chains


def _source_rules(options: TableOptions, family: int) -> tuple[Rule, ...]:
    address = next((item for item in options.nat_addresses if item.family == family), None)
    rules = []
    if options.nat_ports is not None:
        ports = TranslateSource(address, options.nat_ports.first, options.nat_ports.last)
        rules += [Rule(ports, (Protocol(protocol),), comment="natOutgoing") for protocol in (TCP, UDP)]
    return (*rules, Rule(TranslateSource(address), comment="natOutgoing"))


def _members(set_id: str, shape: SetShape | None, family: int, side: Side) -> list[tuple[Match, ...]]:
    """The ways in which an address can be a member."""
    if shape is None:
        return []
    kinds = ("a", "n") if family in shape.net_families else ("a",)
    return [(AddressIn(side, family, names.member_set(set_id, kind, family)),) for kind in kinds]


@dataclass(slots=True)
class Floating:
    """The floating addresses of all bound endpoints."""

    options: TableOptions
    _claims: dict[Prefix, dict[ResourceKey, Prefix]] = field(default_factory=dict)
    """By external address: who claims it, for which internal address."""
    _forwards: dict[Prefix, dict[ResourceKey, list[Forward]]] = field(default_factory=dict)
    """By external address: who claims ports of it."""
    _forwarded: dict[Prefix, tuple[Forward, ...]] = field(default_factory=dict)
    """By external address: the ports of it that are in the table."""
    _sources: dict[Prefix, set[Prefix]] = field(default_factory=dict)
    """By internal address: its external ones."""
    _forward_sources: dict[Prefix, set[Prefix]] = field(default_factory=dict)
    """By internal address: the external ones of which ports lead there."""
    _placed: dict[Prefix, Prefix] = field(default_factory=dict)
    """External to internal, as in the table."""
    _dirty: dict[Prefix, None] = field(default_factory=dict)

    @property
    def in_use(self) -> bool:
        """True when there is a floating address. As of the last ``settle``."""
        return bool(self._placed or self._forwarded)

    def change(self, key: ResourceKey, before: tuple[Nat, ...], after: tuple[Nat, ...]) -> None:
        """The endpoint has these pairs instead of those."""
        if not self.options.floating_addresses:
            return
        for nat in before:
            self._claims[nat.external].pop(key, None)
            self._dirty[nat.external] = None
        for nat in after:
            self._claims.setdefault(nat.external, {})[key] = nat.internal
            self._dirty[nat.external] = None

    def change_forwards(self, key: ResourceKey, before: tuple[Forward, ...], after: tuple[Forward, ...]) -> None:
        """The endpoint has these forwards instead of those."""
        if not self.options.floating_addresses:
            before, after = (tuple(each for each in forwards if each.own) for forwards in (before, after))
        if before == after:
            return
        for each in before:
            self._forwards.get(each.external, {}).pop(key, None)
            self._dirty[each.external] = None
        for each in after:
            self._forwards.setdefault(each.external, {}).setdefault(key, []).append(each)
            self._dirty[each.external] = None

    def _wanted_forwards(self, external: Prefix) -> tuple[Forward, ...]:
        """Of several claims of a port that of the smallest key; none of an address that is wholly somebody's."""
        claims = self._forwards.get(external, {})
        if not claims:
            self._forwards.pop(external, None)
        found: dict[tuple[int, int], Forward] = {}
        for key in sorted(claims) if external not in self._claims else ():
            for each in claims[key]:
                found.setdefault((each.protocol, each.external_port), each)
        return tuple(found[place] for place in sorted(found))

    def settle(self, edit: TableEdit) -> None:
        """Maps and chains are those of the pairs; an address that several claim belongs to the smallest key."""
        dirty, self._dirty = self._dirty, {}
        touched: dict[Prefix, None] = {}
        for external in dirty:
            claims = self._claims.get(external, {})
            before, after = self._placed.get(external), claims[min(claims)] if claims else None
            if not claims:
                self._claims.pop(external, None)
            were, forwards = self._forwarded.pop(external, ()), self._wanted_forwards(external)
            if forwards:
                self._forwarded[external] = forwards
            if before == after and were == forwards:
                continue
            self._settle_forward_sources(external, were, forwards, edit)
            chain = f"fd{external.family}-{external.value:x}"
            if before is not None:
                self._sources[before].discard(external)
                touched[before] = None
                del self._placed[external]
            if after is None and not forwards:
                edit.remove_mapping(FLOATING[external.family], external.address)
                edit.remove_chain(chain)
                continue
            edit.set_mapping(FLOATING[external.family], external.address, chain)
            if after is None:
                edit.set_chain(chain, Chain(tuple(map(_forward_rule, forwards)), basis=Basis.HEADER))
                continue
            self._placed[external] = after
            self._sources.setdefault(after, set()).add(external)
            touched[after] = None
            edit.set_chain(chain, Chain((Rule(TranslateDestination(after), comment=f"floating {external.address}"),), basis=Basis.HEADER))
        for internal in touched:
            self._settle_source(internal, edit)

    def _settle_forward_sources(self, external: Prefix, before: tuple[Forward, ...], after: tuple[Forward, ...], edit: TableEdit) -> None:
        """Endpoints reach their own forwarded ports: otherwise they would get packets from themselves, which everybody drops."""
        old, new = ({forward.internal for forward in forwards} for forwards in (before, after))
        for internal in old ^ new:
            externals = self._forward_sources.setdefault(internal, set())
            externals.symmetric_difference_update({external})
            family, chain = internal.family, f"fp{internal.family}-{internal.value:x}"
            if externals:
                itself = Address(Side.DESTINATION, family, internal.value, internal.value)
                edit.set_chain(chain, Chain((Rule(TranslateSource(min(externals)), (itself,), comment="to its own forwarded port"),)))
                edit.set_mapping(FORWARDED_SOURCE[family], internal.address, chain)
            else:
                del self._forward_sources[internal]
                edit.remove_mapping(FORWARDED_SOURCE[family], internal.address)
                edit.remove_chain(chain)

    def _settle_source(self, internal: Prefix, edit: TableEdit) -> None:
        family = internal.family
        chain = f"fs{family}-{internal.value:x}"
        externals = self._sources[internal]
        if not externals:
            del self._sources[internal]
            edit.remove_mapping(FLOATING_SOURCE[family], internal.address)
            edit.remove_chain(chain)
            return
        source = TranslateSource(min(externals))
        itself = Address(Side.DESTINATION, family, internal.value, internal.value)
        rules = [Rule(source, (itself,), comment="to its own floating address")]
        rules += [Rule(Accept(), (InterfacePrefix(Via.OUT, prefix),)) for prefix in self.options.interface_prefixes]
        if self.options.floating_sources:
            rules += [Rule(Jump(INSIDE[family])), Rule(source, comment="floating source")]
        edit.set_chain(chain, Chain(tuple(rules)))
        edit.set_mapping(FLOATING_SOURCE[family], internal.address, chain)


def _forward_rule(forward: Forward) -> Rule:
    matches = (Protocol(forward.protocol), Port(Side.DESTINATION, forward.external_port, forward.external_port))
    comment = f"port {forward.protocol}/{forward.external_port} of {forward.external.address}"
    return Rule(TranslateDestination(forward.internal, forward.internal_port), matches, comment=comment)
