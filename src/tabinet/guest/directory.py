"""``Directory``: the ports of this host's guests by interface, and the subnets that they are in, as the store has them.

In: changes of WorkloadEndpoints and of ``/calico/dhcp/v2/<region>/subnet/<id>``. Out: ``Port`` by interface, ``Subnet`` of an address.
The state depends only on the current values. A value that does not decode is as if it were not there, and named in ``problems``. Of two
endpoints that claim one interface the one with the smallest key has it, as in the kernel.

Keeps the endpoints of this host and all subnets with DHCP of the cluster: which of them a host needs changes with every port. O(1) for a
change of an endpoint, O(ports of the host) for one of a subnet; an endpoint of another host costs a comparison of its name. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.errors import DataError
from tabinet.guest.instance import HOSTNAME, Instance, make_instance
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix
from tabinet.model.openstack import FQDN_ANNOTATION, NETWORK_ANNOTATION, PORT_ANNOTATION, PortFacts, parse_port_facts
from tabinet.model.resources import WorkloadEndpoint
from tabinet.store.api import DeleteEvent, PutEvent

ENDPOINTS = kind_prefix("WorkloadEndpoint")
SUBNETS = "/calico/dhcp/v2/"
PREFIXES = (ENDPOINTS, SUBNETS)
SLAAC, STATELESS, STATEFUL = "slaac", "dhcpv6-stateless", "dhcpv6-stateful"
PROJECT_LABEL = "projectcalico.org/openstack-project-id"


class HostRoute(msgspec.Struct, frozen=True, gc=False):
    """A route that guests of a subnet get."""

    destination: str
    nexthop: str


_DOCKER = "libnetwork"
"""The orchestrator of Docker's endpoints, which name no container: Docker tells its driver of none before it starts it."""


class Subnet(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What Neutron says of a subnet with DHCP."""

    cidr: str
    network_id: str = ""
    gateway_ip: str | None = None
    host_routes: tuple[HostRoute, ...] = ()
    dns_servers: tuple[str, ...] = ()
    ipv6_ra_mode: str = ""
    """``slaac``, ``dhcpv6-stateless``, ``dhcpv6-stateful``; empty: no router advertisements from us."""
    ipv6_address_mode: str = ""

    @property
    def net(self) -> Prefix:
        return parse_prefix(self.cidr)

    @property
    def dhcp6_mode(self) -> str:
        """How guests get addresses: ``SLAAC``, ``STATELESS`` or ``STATEFUL``. As Neutron's own server has it, a subnet with neither mode is
        stateful; one with an ``ipv6_ra_mode`` alone would be another server's, and there is none on a guest's link but the host."""
        return self.ipv6_address_mode or self.ipv6_ra_mode or STATEFUL


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's interface."""

    key: ResourceKey
    interface: str
    mac: bytes
    """Six bytes; none when the endpoint has no hardware address, and then it is answered nothing that depends on it."""
    addresses: tuple[Prefix, ...]
    instance: str = ""
    """The workload, as its orchestrator calls it: in OpenStack the server's identifier."""
    project: str = ""
    network: str = ""
    """Of Neutron; empty for workloads of others."""
    facts: PortFacts = PortFacts()
    gateway4: Prefix | None = None
    local: Instance | None = None
    """What a guest that is not Nova's learns of itself; of ports of Neutron None."""
    in_container: bool = False
    """A runtime gives it its addresses, and it needs no router told."""

    @property
    def is_neutrons(self) -> bool:
        """True: Neutron says by its subnets which addresses have DHCP."""
        return bool(self.network or self.facts.fixed)


_subnet_decoder = msgspec.json.Decoder(Subnet)


def parse_subnet(path: str, value: bytes) -> Subnet:
    """The subnet.

    Raises:
        ValueError: it is none, or an address or prefix in it is none.
    """
    try:
        subnet = _subnet_decoder.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    for text in (subnet.gateway_ip or "", *subnet.dns_servers, *(route.nexthop for route in subnet.host_routes)):
        if text:
            parse_address(text)
    for text in (subnet.cidr, *(route.destination for route in subnet.host_routes)):
        parse_prefix(text)
    return subnet


def parse_mac(text: str) -> bytes:
    """The six bytes of a hardware address; no bytes when it is none."""
    try:
        found = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        return b""
    return found if len(found) == 6 else b""


def make_port(key: ResourceKey, endpoint: WorkloadEndpoint) -> Port:
    """The port that an endpoint describes.

    Raises:
        DataError: its annotation cannot be read.
        ValueError: an address in it is none.
    """
    spec, annotations = endpoint.spec, endpoint.metadata.annotations
    facts = parse_port_facts(annotations[PORT_ANNOTATION], str(key)) if PORT_ANNOTATION in annotations else PortFacts()
    for fixed in facts.fixed:
        parse_address(fixed.address)
    if not facts.fqdn and annotations.get(FQDN_ANNOTATION):
        facts = msgspec.structs.replace(facts, fqdn=annotations[FQDN_ANNOTATION])
    addresses = tuple(parse_prefix(text) for text in spec.ip_networks)
    network = annotations.get(NETWORK_ANNOTATION, "")
    local = None if network or facts.fixed else make_instance(endpoint, addresses)
    if local is not None and HOSTNAME in local.told and not facts.hostname:
        first, dot, _ = local.hostname.partition(".")
        facts = msgspec.structs.replace(facts, hostname=first, fqdn=local.hostname if dot else facts.fqdn)
    return Port(
        key=key,
        interface=spec.interface_name,
        mac=parse_mac(spec.mac),
        addresses=addresses,
        instance=spec.workload,
        project=endpoint.metadata.labels.get(PROJECT_LABEL, ""),
        network=network,
        facts=facts,
        gateway4=parse_address(spec.ipv4_gateway) if spec.ipv4_gateway else None,
        local=local,
        in_container=bool(spec.pod or spec.container_id) or spec.orchestrator == _DOCKER,
    )


@dataclass(slots=True)
class Directory:
    """Of one host."""

    host: str
    problems: dict[str, str] = field(default_factory=dict)
    """By path: why a value is not heeded."""
    _ports: dict[str, Port] = field(default_factory=dict)
    _claims: dict[str, dict[str, Port]] = field(default_factory=dict)
    """By interface, then by path."""
    _subnets: dict[str, Subnet] = field(default_factory=dict)
    """By identifier."""
    _networks: dict[str, set[str]] = field(default_factory=dict)
    """Identifiers of the subnets of a network."""

    def on_events(self, events: Iterable[PutEvent | DeleteEvent]) -> set[str]:
        """The changes are known; gives the interfaces whose guests they concern."""
        touched: set[str] = set()
        for event in events:
            path, value = (event.item.key, event.item.value) if isinstance(event, PutEvent) else (event.key, None)
            if path.startswith(SUBNETS):
                touched |= self._on_subnet(path, value)
            elif self._is_ours(path):
                touched |= self._on_endpoint(path, value)
        return touched

    def port(self, interface: str) -> Port | None:
        """Whose interface this is."""
        claims = self._claims.get(interface)
        return claims[min(claims)] if claims else None

    def machine(self, port: Port) -> Port:
        """The port by which the machine behind a port is known: of a trunk's subport the trunk's parent, as Neutron gives a subport no
        device of its own; of any other, and of a subport whose parent is not here, the port itself."""
        parent = port.facts.trunk_parent
        return (self.port(parent) if parent else None) or port

    def count(self) -> int:
        """How many interfaces have a port."""
        return len(self._claims)

    def concerns(self, path: str) -> bool:
        """True for what this host needs of the store."""
        return path.startswith(SUBNETS) or self._is_ours(path)

    def interfaces(self) -> list[str]:
        """All that have a port."""
        return list(self._claims)

    def subnet(self, port: Port, address: Prefix) -> Subnet | None:
        """The subnet with DHCP that an address of a port of Neutron's is from."""
        for fixed in port.facts.fixed:
            if parse_prefix(fixed.address) == address:
                return self._subnets.get(fixed.subnet)
        known = (self._subnets[identifier] for identifier in sorted(self._networks.get(port.network, ())))
        return next((subnet for subnet in known if subnet.net.contains(address)), None)

    def _is_ours(self, path: str) -> bool:
        """True for the name of an endpoint of this host: the host, a dash, and no other dash."""
        name = path.rpartition("/")[2]
        start = self.host.replace("-", "--") + "-"
        return name.startswith(start) and name[len(start) : len(start) + 1] != "-"

    def _on_endpoint(self, path: str, value: bytes | None) -> set[str]:
        port = self._read_port(path, value) if value is not None else None
        if value is None:
            self.problems.pop(path, None)
        before = self._ports.pop(path, None)
        if before is not None:
            claims = self._claims[before.interface]
            del claims[path]
            if not claims:
                del self._claims[before.interface]
        if port is not None:
            self._ports[path] = port
            self._claims.setdefault(port.interface, {})[path] = port
        return {each.interface for each in (before, port) if each is not None}

    def _read_port(self, path: str, value: bytes) -> Port | None:
        self.problems.pop(path, None)
        try:
            decoded = decode_stored(path, value)
            match decoded:
                case (ResourceKey() as key, WorkloadEndpoint(spec=spec) as endpoint) if spec.node == self.host and spec.interface_name:
                    return make_port(key, endpoint)
                case _:
                    return None
        except (DataError, ValueError) as error:
            self.problems[path] = str(error)
            return None

    def _on_subnet(self, path: str, value: bytes | None) -> set[str]:
        kind, _, identifier = path.removeprefix(SUBNETS).partition("/")[2].partition("/")
        if kind != "subnet" or not identifier:
            return set()
        before = self._subnets.pop(identifier, None)
        if before is not None:
            self._networks[before.network_id].discard(identifier)
            if not self._networks[before.network_id]:
                del self._networks[before.network_id]
        self.problems.pop(path, None)
        after = self._read_subnet(path, value) if value is not None else None
        if after is not None:
            self._subnets[identifier] = after
            self._networks.setdefault(after.network_id, set()).add(identifier)
        if before == after:
            return set()
        networks = {subnet.network_id for subnet in (before, after) if subnet is not None}
        return {
            port.interface
            for port in self._ports.values()
            if port.network in networks or any(fixed.subnet == identifier for fixed in port.facts.fixed)
        }

    def _read_subnet(self, path: str, value: bytes) -> Subnet | None:
        try:
            return parse_subnet(path, value)
        except ValueError as error:
            self.problems[path] = str(error)
            return None
