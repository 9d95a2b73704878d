"""The fabric as the resources in the store want it: who has which address, and what each host was told.

In: all resources, at one revision. Hosts are calculated when they are asked for, with the same graph and rules as the agents', each once.
Pure. Cost: one pass over the resources for the directory, one calculation for each group of hosts that is asked for together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from tabinet.calc import messages
from tabinet.calc.autohosts import host_addresses
from tabinet.calc.endpoints import own_forwards, readable, readable_addresses, readable_nats
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.calc.messages import (
    ConfigUpdate,
    EndpointRemove,
    EndpointUpdate,
    HostEndpointRemove,
    HostEndpointUpdate,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.calc.ports import port_needs
from tabinet.lib.ip import Prefix
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import HostEndpoint, IPPool, Node, WorkloadEndpoint
from tabinet.rules.builder import TableBuilder
from tabinet.rules.ir import Table
from tabinet.rules.naive import World
from tabinet.rules.options import TableOptions
from tabinet.rules.reach import UPLINK

Resources = Mapping[Key, tuple[object, int]]
OptionsOf = Callable[[Mapping[str, object]], TableOptions]
"""The options of a host with this FelixConfiguration."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an address is."""

    address: Prefix
    """The address behind a translation, else as asked."""
    kind: str
    """``workload``, ``host`` or ``outside``."""
    host: str = ""
    interface: str = ""
    """A workload's, on its host."""
    endpoint: ResourceKey | None = None
    external: Prefix | None = None
    """The floating address that was asked for."""
    port: int = 0
    """Behind the port of that, where only ports of it are forwarded."""
    home: str = ""
    """The host that announces that, where it is another one."""


@dataclass(slots=True)
class HostView:
    """What one host knows and does."""

    world: World
    table: Table
    felix: Mapping[str, object]


@dataclass(slots=True)
class Fabric:
    """Answers who is where; ``view`` calculates hosts."""

    resources: Resources
    options_of: OptionsOf
    workloads: dict[ResourceKey, WorkloadEndpoint] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    host_endpoints: list[HostEndpoint] = field(default_factory=list)
    """Those that are resources."""
    places: dict[Prefix, list[Place]] = field(default_factory=dict)
    forwards: dict[tuple[Prefix, int, int], Place] = field(default_factory=dict)
    """By floating address, protocol and port: where it leads. Of several endpoints that claim one the smallest key's."""
    _views: dict[str, HostView] = field(default_factory=dict)

    def places_of(self, address: Prefix) -> list[Place]:
        """Every place that has the address; one outside when nobody has it."""
        return self.places.get(address) or [Place(address, "outside")]

    def view(self, hosts: Iterable[str]) -> dict[str, HostView]:
        """What these hosts know and do."""
        wanted = sorted(set(hosts))
        missing = frozenset(host for host in wanted if host not in self._views)
        if missing:
            self._views |= _calculate(self.resources, missing, self.options_of)
        return {host: self._views[host] for host in wanted}

    def of_kind(self, kind: type[IPPool]) -> Iterator[tuple[str, IPPool]]:
        """The resources of a kind, by name."""
        for key, (value, _) in self.resources.items():
            if isinstance(value, kind) and isinstance(key, ResourceKey):
                yield key.name, value

    def uplink(self, host: str) -> str:
        """The interface towards others: what a host endpoint names for the host's address, or the only one that is named."""
        node = self.nodes.get(host)
        own = set(host_addresses(node)) if node is not None else set()
        named: list[str] = []
        for value in self.host_endpoints:
            if value.spec.node == host and value.spec.interface_name not in ("", "*"):
                if own & set(readable_addresses(value.spec.expected_ips)):
                    return value.spec.interface_name
                named.append(value.spec.interface_name)
        return named[0] if len(named) == 1 else UPLINK


def survey(resources: Resources, options_of: OptionsOf) -> Fabric:
    """The fabric of these resources."""
    fabric = Fabric(resources, options_of)
    for key, (value, _) in resources.items():
        if not isinstance(key, ResourceKey):
            continue
        match value:
            case WorkloadEndpoint():
                fabric.workloads[key] = value
                spec = value.spec
                for address in readable(spec.ip_networks):
                    place = Place(address, "workload", spec.node, spec.interface_name, key)
                    fabric.places.setdefault(address, []).append(place)
                for external, nat in readable_nats(spec).items():
                    place = Place(nat.internal, "workload", spec.node, spec.interface_name, key, external)
                    fabric.places.setdefault(external, []).append(place)
                for forward in own_forwards(spec, port_needs(value.metadata.annotations, str(key)).forwards):
                    found = (forward.external, forward.protocol, forward.external_port)
                    other = fabric.forwards.get(found)
                    if other is None or other.endpoint is None or key < other.endpoint:
                        here = (spec.node, spec.interface_name, key, forward.external)
                        fabric.forwards[found] = Place(forward.internal, "workload", *here, forward.internal_port, forward.home)
            case Node():
                fabric.nodes[key.name] = value
                for address in host_addresses(value):
                    fabric.places.setdefault(address, []).append(Place(address, "host", key.name))
            case HostEndpoint():
                fabric.host_endpoints.append(value)
                for address in readable_addresses(value.spec.expected_ips):
                    if not any(place.kind == "host" for place in fabric.places.get(address, ())):
                        fabric.places.setdefault(address, []).append(Place(address, "host", value.spec.node))
    return fabric


def _calculate(resources: Resources, hosts: frozenset[str], options_of: OptionsOf) -> dict[str, HostView]:
    graph = Graph(hosts)
    for key, (value, revision) in resources.items():
        graph.on_input(Put(key, value, revision))
    graph.on_input(InSync())
    updates = list(graph.flush())
    felix = {update.host: update.parameters for update in updates if isinstance(update, ConfigUpdate)}
    views = {}
    for host in hosts:
        options = options_of(felix.get(host, {}))
        world, builder = World(options=options), TableBuilder(options)
        own = [update.endpoint for update in updates if isinstance(update, HostEndpointUpdate) and update.endpoint.host == host]
        interfaces = interfaces_of(own)
        world.interfaces = interfaces
        builder.on_interfaces(interfaces)
        for update in updates:
            if _concerns(update, host):
                world.on_update(update)
                builder.on_update(update)
        builder.flush()
        views[host] = HostView(world, builder.table, felix.get(host, {}))
    return views


def interfaces_of(endpoints: Iterable[messages.HostEndpoint]) -> dict[str, frozenset[Prefix]]:
    """Of a host with these host endpoints. Those that name no interface are found by address there; here the uplink stands for it."""
    for endpoint in endpoints:
        if not endpoint.interface:
            return {UPLINK: frozenset(endpoint.addresses)}
    return {}


def _concerns(update: Update, host: str) -> bool:
    match update:
        case EndpointUpdate(endpoint=endpoint):
            return endpoint.host == host
        case HostEndpointUpdate(endpoint=host_endpoint):
            return host_endpoint.host == host
        case TunnelUpdate(host=name) | TunnelRemove(host=name):
            return name == host
        case EndpointRemove() | HostEndpointRemove():
            return False  # a fresh calculation removes nothing
        case _:
            return True
