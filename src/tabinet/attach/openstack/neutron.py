"""Records of what Neutron's API shows, as far as it is translated. Decoded from Neutron's own dictionaries, unknown members ignored.

In: dictionaries of plain values, as Neutron's plugins return them. Out: frozen records, or ``InputError`` with the path. Nothing here
imports Neutron. The names are those of the Networking API v2.0.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import field

from tabinet.errors import InputError, Problem


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records: names as in the API."""


class FixedIp(Fact, frozen=True, kw_only=True):
    ip_address: str
    subnet_id: str


class AllowedPair(Fact, frozen=True, kw_only=True):
    ip_address: str
    """An address or a prefix."""
    mac_address: str = ""


class DnsAssignment(Fact, frozen=True, kw_only=True):
    hostname: str = ""
    ip_address: str = ""
    fqdn: str = ""


class ExtraDhcpOption(Fact, frozen=True, kw_only=True):
    opt_name: str
    opt_value: str
    ip_version: int = 4


class Port(Fact, frozen=True, kw_only=True):
    id: str
    network_id: str
    name: str = ""
    project_id: str | None = None
    mac_address: str = ""
    admin_state_up: bool = True
    status: str = ""
    device_owner: str = ""
    device_id: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    security_groups: tuple[str, ...] = ()
    port_security_enabled: bool = True
    allowed_address_pairs: tuple[AllowedPair, ...] = ()
    extra_dhcp_opts: tuple[ExtraDhcpOption, ...] = ()
    dns_name: str | None = None
    dns_assignment: tuple[DnsAssignment, ...] = ()
    qos_policy_id: str | None = None
    qos_network_policy_id: str | None = None
    revision_number: int = 0
    host: str = field(default="", name="binding:host_id")
    vif_type: str = field(default="", name="binding:vif_type")
    profile: dict[str, object] = field(default_factory=dict, name="binding:profile")


class Network(Fact, frozen=True, kw_only=True):
    id: str
    name: str = ""
    admin_state_up: bool = True
    mtu: int | None = None
    qos_policy_id: str | None = None


class HostRoute(Fact, frozen=True, kw_only=True):
    destination: str
    nexthop: str


class Subnet(Fact, frozen=True, kw_only=True):
    id: str
    network_id: str
    cidr: str
    ip_version: int = 4
    gateway_ip: str | None = None
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None
    revision_number: int = 0


class FloatingIp(Fact, frozen=True, kw_only=True):
    id: str
    floating_ip_address: str
    fixed_ip_address: str | None = None
    port_id: str | None = None


class Forwarding(Fact, frozen=True, kw_only=True):
    """A port forwarding of a floating IP; ranges have the same length."""

    id: str
    floatingip_id: str = ""
    floating_ip_address: str
    protocol: str
    external_port_start: int
    external_port_end: int
    internal_ip_address: str
    internal_port_start: int
    port_id: str
    host: str = ""
    """Of the port."""
    home: str = ""
    """The host to which all of the floating IP goes: that of the first of the ports that it is forwarded to."""


class QosRule(Fact, frozen=True, kw_only=True):
    """A rule of any type; members that its type does not have are None."""

    type: str
    direction: str = "egress"
    max_kbps: int | None = None
    max_burst_kbps: int | None = None
    max_kpps: int | None = None
    max_burst_kpps: int | None = None
    dscp_mark: int | None = None


class Trunk(Fact, frozen=True, kw_only=True):
    """Of a subport: where its packets come and go."""

    parent_port_id: str
    segmentation_id: int
    admin_state_up: bool = True


class ExtraRoute(Fact, frozen=True, kw_only=True):
    """A route of a router; its next hop is known from where it is."""

    destination: str
    router: str


class Project(Fact, frozen=True, kw_only=True):
    """Of Keystone."""

    id: str
    name: str = ""
    parent_id: str | None = None
    """The project that it is part of, or its domain."""


class Target(Fact, frozen=True, kw_only=True):
    """A host that a port's machine is about to move to: an inactive binding, or what the active one's profile says."""

    host: str
    profile: dict[str, object] = {}


class PortView(Fact, frozen=True, kw_only=True):
    """A port with everything that its endpoint depends on, read in one transaction."""

    port: Port
    network: Network
    subnets: tuple[Subnet, ...] = ()
    groups: dict[str, str] = {}
    """Names of the port's security groups, by identifier."""
    stateless: frozenset[str] = frozenset()
    """Those of the groups that are stateless."""
    floating_ips: tuple[FloatingIp, ...] = ()
    qos_rules: tuple[QosRule, ...] = ()
    """Rules of the port's policy, or else of its network's."""
    address_rules: dict[str, tuple[QosRule, ...]] = {}
    """By floating address: rules of its own policy, or else of its network's; only of those that lead to the port."""
    trunk: Trunk | None = None
    forwardings: tuple[Forwarding, ...] = ()
    """Those that lead to the port."""
    forwardings_elsewhere: tuple[Forwarding, ...] = ()
    """Where floating IPs are at home with this port: those of them that lead to ports on other hosts."""
    extra_routes: tuple[ExtraRoute, ...] = ()
    """Of routers on the port's network, by way of an address of the port's."""
    subnet_prefixes: tuple[str, ...] = ()
    """Of all subnets that there are; read only where there are such routes."""
    targets: tuple[Target, ...] = ()
    """From inactive bindings of ours."""
    project: Project | None = None
    """None: not known."""
    routers: tuple[str, ...] = ()
    """Routers that the network is attached to; read only where networks are isolated and the port has address pairs."""


class SecurityGroupRule(Fact, frozen=True, kw_only=True):
    id: str
    direction: str
    ethertype: str | None = None
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None
    remote_address_group_id: str | None = None


class SecurityGroup(Fact, frozen=True, kw_only=True):
    id: str
    name: str = ""
    stateful: bool = True
    revision_number: int = 0
    security_group_rules: tuple[SecurityGroupRule, ...] = ()


class AddressGroup(Fact, frozen=True, kw_only=True):
    id: str
    name: str = ""
    addresses: tuple[str, ...] = ()
    revision_number: int = 0


_F = TypeVar("_F", bound=Fact)


def parse_fact(kind: type[_F], document: dict[str, Any]) -> _F:
    """The record of one of Neutron's dictionaries; a member that is None is as good as absent.

    Raises:
        InputError: a member is missing or of another type.
    """
    try:
        return msgspec.convert({name: value for name, value in document.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        path = place.rstrip("`").removeprefix("$").removeprefix(".")
        raise InputError([Problem(path=path, value=str(document.get("id", document))[:80], allowed=f"{kind.__name__}: {reason}")]) from None
