"""Routes, neighbours, addresses, interfaces, sysctls and bandwidth as lines in the words of ip(8), sysctl(8) and tc(8).

In: what drivers want, or what the kernel holds. Out: ``Fact`` records that compare by content, so that both sides can be set against each
other by whoever shows them. Of what is there only ours is read: routes of our protocol, permanent neighbours on workloads' interfaces,
and what is wanted at all. Linear in the objects. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from tabinet.dataplane.links.items import DOWN, UP, Address, Admin, Item, Parameter, PermanentNeighbour
from tabinet.dataplane.tc.driver import Key, Part, Value
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import TABINET_PROTOCOL, InterfaceAddress, Link, Neighbour, Route, Rtnetlink
from tabinet.kernel.sysctl import Sysctl, dotted
from tabinet.kernel.tc import BucketState, TokenBucket, TrafficControl

ROUTE, NEIGHBOUR, ADDRESS, LINK, SYSCTL, BANDWIDTH = "route", "neighbour", "address", "link", "sysctl", "bandwidth"


class Fact(msgspec.Struct, frozen=True, order=True):
    """One object, or one property of one."""

    kind: str
    name: str
    """What it is about: a destination, an interface, a sysctl."""
    text: str
    """What it is like."""


def wanted_facts(
    names: Mapping[int, str], routes: Iterable[Route], items: Mapping[Item, str], bandwidth: Mapping[Key, Value]
) -> Iterator[Fact]:
    """What the drivers want. ``names``: of interfaces by index."""
    for route in routes:
        yield route_fact(route, names)
    for item, value in items.items():
        name = names.get(item.index, f"interface {item.index}")
        match item:
            case Admin():
                yield Fact(LINK, name, value)
            case Address(_, address):
                yield _address_fact(address, names)
            case PermanentNeighbour(index, address):
                yield _neighbour_fact(Neighbour(index, address, value), names)
            case Parameter(_, key):
                yield Fact(SYSCTL, dotted(key), value)
    for part, limit in bandwidth.items():
        yield _bandwidth_fact(part, limit)


def read_facts(rtnetlink: Rtnetlink, sysctl: Sysctl, control: TrafficControl, wanted: Iterable[Fact]) -> Iterator[Fact]:
    """What the kernel holds of ours, and of what is wanted.

    Raises:
        KernelError: it did not answer.
    """
    wanted = frozenset(wanted)
    asked = {(fact.kind, fact.name) for fact in wanted}
    links = rtnetlink.links()
    names = {link.index: link.name for link in links}
    yield from (route_fact(route, names) for route in rtnetlink.routes(protocol=TABINET_PROTOCOL))
    yield from (_link_fact(link) for link in links if (LINK, link.name) in asked)
    addresses = (_address_fact(address, names) for address in rtnetlink.addresses())
    yield from (fact for fact in addresses if fact in wanted)
    workloads = {name for kind, name in asked if kind == LINK and name != "lo"}
    for neighbour in rtnetlink.neighbours():
        if neighbour.permanent and names.get(neighbour.index) in workloads:
            yield _neighbour_fact(neighbour, names)
    for kind, name in sorted(asked):
        if kind == SYSCTL:
            try:
                yield Fact(SYSCTL, name, sysctl.read(dotted(name)))
            except KernelError:
                continue  # it is not there: its interface is gone
    yield from _read_bandwidth(control)


def route_fact(route: Route, names: Mapping[int, str]) -> Fact:
    """As ip-route(8) has it."""
    parts = []
    for hop in route.hops:
        if hop.gateway is not None:
            parts.append(f"via {hop.gateway.address}")
        parts.append(f"dev {names.get(hop.index, f'interface {hop.index}')}")
    parts.append(f"proto {route.protocol} metric {route.metric}")
    return Fact(ROUTE, str(route.destination), " ".join(parts))


def _link_fact(link: Link) -> Fact:
    return Fact(LINK, link.name, UP if link.up else DOWN)


def _address_fact(address: InterfaceAddress, names: Mapping[int, str]) -> Fact:
    return Fact(ADDRESS, f"{address.address.address}/{address.length}", f"dev {names.get(address.index, '?')}")


def _neighbour_fact(neighbour: Neighbour, names: Mapping[int, str]) -> Fact:
    return Fact(NEIGHBOUR, neighbour.address.address, f"dev {names.get(neighbour.index, '?')} lladdr {neighbour.mac} permanent")


def _bandwidth_fact(key: Key, limit: Value) -> Fact:
    match key.part:
        case Part.DEVICE:
            return Fact(BANDWIDTH, f"device {key.name}", "up")
        case Part.REDIRECT:
            return Fact(BANDWIDTH, f"ingress of {key.name}", f"redirected to {limit}")
        case Part.BUCKET:
            return Fact(BANDWIDTH, f"root of {key.name}", bucket_text(limit) if isinstance(limit, TokenBucket | BucketState) else "")


def bucket_text(bucket: TokenBucket | BucketState) -> str:
    """The token bucket in the words of tc-tbf(8); rates in bits a second. Bursts, which the kernel keeps as times, are left out."""
    peak = f" peakrate {bucket.peak_rate * 8}bit" if bucket.peak_rate else ""
    return f"tbf rate {bucket.rate * 8}bit{peak} limit {bucket.limit}b"


def _read_bandwidth(control: TrafficControl) -> Iterator[Fact]:
    state = control.read()
    for device in state.devices:
        yield _bandwidth_fact(Key(Part.DEVICE, device), "")
    for interface, device in state.redirects.items():
        yield _bandwidth_fact(Key(Part.REDIRECT, interface), device)
    for interface, bucket in state.buckets.items():
        yield _bandwidth_fact(Key(Part.BUCKET, interface), bucket)
