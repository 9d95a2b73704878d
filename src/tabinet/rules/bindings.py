"""Which endpoint owns which interface, and the elements that say so: maps to policy, own addresses, local addresses.

An interface that several endpoints name belongs to the one with the smallest key, so that the order of arrival does not matter.
Endpoints whose interface is not ours by name are not bound: the fixed part would not send their packets here; ``unbound`` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import AddressQos, Endpoint, Forward, ForwardElsewhere, Nat
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import layout
from tabinet.rules.addresslimits import LimitedAddresses
from tabinet.rules.classes import Classes, Stage
from tabinet.rules.denied import CountedInterfaces, Owner
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import Element, Hardware, Interface, Paired, Source, SourceRange
from tabinet.rules.limits import NOTHING, Queueing, change, entrance, queueing
from tabinet.rules.nat import Floating
from tabinet.rules.neighbours import ARP_OWN, ARP_SPOOF
from tabinet.rules.options import TableOptions
from tabinet.rules.pairs import other_pairs, own_sources
from tabinet.rules.passed import Passed
from tabinet.rules.policy import merge_ranges
from tabinet.rules.roles import Role
from tabinet.rules.stateless import PACKET_EGRESS, PACKET_INGRESS, STATELESS

INTERFACE_NAME_BYTES = 15
"""IFNAMSIZ without the closing NUL."""
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Binding(msgspec.Struct, frozen=True):
    """What the table holds for one interface."""

    key: ResourceKey
    ingress: Stage
    egress: Stage
    own: frozenset[tuple[str, Element]]
    """(set name, element)."""
    local: frozenset[Prefix]
    nats: tuple[Nat, ...]
    queueing: Queueing
    forwards: tuple[Forward, ...] = ()
    address_qos: tuple[AddressQos, ...] = ()
    elsewhere: tuple[ForwardElsewhere, ...] = ()
    packets: tuple[tuple[str, Stage], ...] = ()
    """Of a stateless endpoint: by map, what is asked about every packet."""


@dataclass(slots=True)
class Bindings:
    """All local endpoints."""

    options: TableOptions
    classes: Classes
    counted: CountedInterfaces
    endpoints: dict[ResourceKey, Endpoint] = field(default_factory=dict)
    unbound: dict[ResourceKey, str] = field(default_factory=dict)
    """Endpoints that are not filtered because of their interface's name, with that name."""
    revokes: bool = False
    """A change since it was last reset may have taken a permission away."""
    _claims: dict[str, set[ResourceKey]] = field(default_factory=dict)
    _bound: dict[str, Binding] = field(default_factory=dict)
    floating: Floating = field(init=False)
    addresses: LimitedAddresses = field(default_factory=LimitedAddresses)
    passed: Passed = field(default_factory=Passed)
    _paired_interfaces: int = 0
    """How many interfaces have an endpoint that sends with other MACs than its own."""
    _stateless: int = 0
    """How many interfaces have a stateless endpoint."""
    _limited: int = 0
    """How many interfaces have limits."""
    _local: dict[Prefix, int] = field(default_factory=dict)
    _dirty: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.floating = Floating(self.options)

    @property
    def has_limits(self) -> bool:
        """True when an interface has limits. As of the last ``settle``."""
        return self._limited > 0

    @property
    def has_pairs(self) -> bool:
        """True when an endpoint sends with other MACs than its own. As of the last ``settle``."""
        return self._paired_interfaces > 0

    @property
    def has_stateless(self) -> bool:
        """True when an endpoint is stateless. As of the last ``settle``."""
        return self._stateless > 0

    def put(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        """The endpoint is this; None: it is gone."""
        before = self.endpoints.pop(key, None)
        if before is not None and not self.unbound.pop(key, ""):
            claims = self._claims[before.interface]
            claims.discard(key)
            if not claims:
                del self._claims[before.interface]
            self._dirty[before.interface] = None
        if endpoint is None:
            return
        self.endpoints[key] = endpoint
        if self._ours(endpoint.interface):
            self._claims.setdefault(endpoint.interface, set()).add(key)
            self._dirty[endpoint.interface] = None
        else:
            self.unbound[key] = endpoint.interface

    def settle(self, edit: TableEdit) -> None:
        """The table's elements are those of the endpoints; ``classes`` knows the stages in use (and still has to settle)."""
        released: list[Stage] = []
        dirty, self._dirty = self._dirty, {}
        for interface in dirty:
            claims = self._claims.get(interface)
            after = self._binding(min(claims)) if claims else None
            before = self._bound.get(interface)
            if before == after:
                continue
            if before is not None and self._loses(before, after):
                self.revokes = True
            if after is not None:
                gates = after.queueing
                for map_name, stage, gate in (
                    (layout.INGRESS, after.ingress, gates.ingress_gate),
                    (layout.EGRESS, after.egress, gates.egress_gate),
                ):
                    edit.set_mapping(map_name, interface, entrance(gate, self.classes.acquire(stage), edit))
                self._bound[interface] = after
            else:
                edit.remove_mapping(layout.INGRESS, interface)
                edit.remove_mapping(layout.EGRESS, interface)
                del self._bound[interface]
            self.counted.put(interface, Owner(after.key, False) if after is not None else None, edit)
            if before is not None:
                released += (before.ingress, before.egress)
            released += self._change_packets(interface, edit, before, after)
            self._change_elements(edit, before, after)
            self._change_services(interface, edit, before, after)
        self.floating.settle(edit)
        self.addresses.settle(edit)
        self.passed.settle(edit)
        for stage in released:
            self.classes.release(stage)

    def _ours(self, interface: str) -> bool:
        return len(interface.encode()) <= INTERFACE_NAME_BYTES and interface.startswith(self.options.interface_prefixes)

    def _binding(self, key: ResourceKey) -> Binding:
        endpoint = self.endpoints[key]
        own: set[tuple[str, Element]] = set(self._hardware(endpoint))
        if endpoint.stateless:
            own.add((STATELESS, Interface(endpoint.interface)))
        ranges: list[Prefix] = []
        for net in own_sources(endpoint, checked=self.options.check_hardware, spoofing=self.options.allow_source_prefixes):
            if net.is_host:
                source = Source(endpoint.interface, net)
                own.add((layout.OWN[net.family], source))
                if net.family == IPV4:
                    own.add((ARP_OWN, source))
            else:
                ranges.append(net)
        for family in (IPV4, IPV6):
            for item in merge_ranges((net.value, net.last) for net in ranges if net.family == family):
                own.add((layout.SPOOF[family], SourceRange(endpoint.interface, item.first, item.last)))
        own |= set(self._paired(endpoint))
        own |= {(ARP_SPOOF, item) for item in self._claimed(endpoint, ranges)}
        return Binding(
            key=key,
            ingress=Stage(Role.TO_WORKLOAD, endpoint.ingress, endpoint.profiles),
            egress=Stage(Role.FROM_WORKLOAD, endpoint.egress, endpoint.profiles),
            own=frozenset(own),
            local=frozenset(net for net in endpoint.nets_here if net.is_host),
            nats=tuple(nat for nat in (() if endpoint.is_away else endpoint.nats) if nat.external.family == nat.internal.family),
            queueing=queueing(endpoint.interface, endpoint.qos),
            packets=_packet_stages(endpoint),
            forwards=tuple(each for each in endpoint.forwards if each.external.family == each.internal.family),
            address_qos=() if endpoint.is_away or not self.options.floating_addresses else endpoint.address_qos,
            elsewhere=() if endpoint.is_away or not self.options.floating_addresses else endpoint.elsewhere,
        )

    def _hardware(self, endpoint: Endpoint) -> Iterator[tuple[str, Element]]:
        """What lets the interface's packets in at all; an address that cannot be read lets none in."""
        if not endpoint.mac or endpoint.any_mac or not self.options.check_hardware:
            yield layout.ANY_HARDWARE, Interface(endpoint.interface)
        elif _MAC.fullmatch(endpoint.mac):
            yield layout.HARDWARE, Hardware(endpoint.interface, endpoint.mac)

    def _paired(self, endpoint: Endpoint) -> Iterator[tuple[str, Element]]:
        """What it sends with other MACs than its own."""
        pairs = [pair for pair in other_pairs(endpoint, checked=self.options.check_hardware) if _MAC.fullmatch(pair.mac)]
        for mac in sorted({pair.mac for pair in pairs}):
            yield layout.PAIR_HARDWARE, Hardware(endpoint.interface, mac)
            for family in (IPV4, IPV6):
                nets = (pair.net for pair in pairs if pair.mac == mac and pair.net.family == family)
                for item in merge_ranges((net.value, net.last) for net in nets):
                    yield layout.PAIR[family], Paired(endpoint.interface, mac, item.first, item.last)

    def _claimed(self, endpoint: Endpoint, ranges: list[Prefix]) -> Iterator[SourceRange]:
        """Prefixes within which it may claim addresses by ARP: those that it may send from, with whatever hardware address."""
        nets = [*ranges, *(pair.net for pair in other_pairs(endpoint, checked=self.options.check_hardware))]
        for item in merge_ranges((net.value, net.last) for net in nets if net.family == IPV4):
            yield SourceRange(endpoint.interface, item.first, item.last)

    def _loses(self, before: Binding, after: Binding | None) -> bool:
        return (
            after is None
            or before.key != after.key
            or not before.own <= after.own
            or not self.classes.widens(before.ingress, after.ingress)
            or not self.classes.widens(before.egress, after.egress)
        )

    def _change_elements(self, edit: TableEdit, before: Binding | None, after: Binding | None) -> None:
        old = before.own if before is not None else frozenset()
        new = after.own if after is not None else frozenset()
        for name, element in old - new:
            edit.remove_element(name, element)
        for name, element in new - old:
            edit.add_element(name, element)
        self._paired_interfaces += _has_pairs(new) - _has_pairs(old)
        old_local = before.local if before is not None else frozenset()
        new_local = after.local if after is not None else frozenset()
        self._count_local(edit, new_local - old_local, 1)
        self._count_local(edit, old_local - new_local, -1)

    def _change_services(self, interface: str, edit: TableEdit, before: Binding | None, after: Binding | None) -> None:
        old, new = before.queueing if before is not None else NOTHING, after.queueing if after is not None else NOTHING
        if old != new:
            change(interface, old, new, edit)
            self._limited += bool(new.chains) - bool(old.chains)
        if before is not None:
            self.floating.change(before.key, before.nats, ())
            self.floating.change_forwards(before.key, before.forwards, ())
            self.addresses.change(before.key, before.address_qos, ())
            self.passed.change(before.key, before.elsewhere, ())
        if after is not None:
            self.floating.change(after.key, (), after.nats)
            self.floating.change_forwards(after.key, (), after.forwards)
            self.addresses.change(after.key, (), after.address_qos)
            self.passed.change(after.key, (), after.elsewhere)

    def _change_packets(self, interface: str, edit: TableEdit, before: Binding | None, after: Binding | None) -> Iterator[Stage]:
        """Gives the stages that are no longer needed."""
        old, new = before.packets if before is not None else (), after.packets if after is not None else ()
        self._stateless += bool(new) - bool(old)
        for map_name, stage in new:
            edit.set_mapping(map_name, interface, self.classes.acquire(stage))
        for map_name, stage in old:
            if not new:
                edit.remove_mapping(map_name, interface)
            yield stage

    def _count_local(self, edit: TableEdit, addresses: Iterable[Prefix], step: int) -> None:
        for address in addresses:
            count = self._local.get(address, 0) + step
            if count:
                self._local[address] = count
            else:
                del self._local[address]
            name = layout.LOCAL[address.family]
            (edit.add_element if count else edit.remove_element)(name, address)


def _packet_stages(endpoint: Endpoint) -> tuple[tuple[str, Stage], ...]:
    if not endpoint.stateless:
        return ()
    return (
        (PACKET_INGRESS, Stage(Role.PACKET_TO_WORKLOAD, endpoint.ingress, endpoint.profiles)),
        (PACKET_EGRESS, Stage(Role.PACKET_FROM_WORKLOAD, endpoint.egress, endpoint.profiles)),
    )


def _has_pairs(own: frozenset[tuple[str, Element]]) -> bool:
    return any(name == layout.PAIR_HARDWARE for name, _ in own)
