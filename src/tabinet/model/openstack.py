"""What a Neutron port says beyond what a WorkloadEndpoint can: one annotation, ``openstack.tabinet/port``, and its codec.

Calico's programs ignore it. Whoever answers guests (DHCP, router advertisements, metadata) or makes their interfaces reads it on the
host, so that nobody on a host needs to ask Neutron. ``parse_port_facts(render_port_facts(facts)) == facts``. Pure; linear in the size of
the text.
"""

from __future__ import annotations

import msgspec

from tabinet.errors import DataError, Problem

PORT_ANNOTATION = "openstack.tabinet/port"
NETWORK_ANNOTATION = "openstack.projectcalico.org/network-id"
FQDN_ANNOTATION = "openstack.projectcalico.org/fqdn"
REVISION_ANNOTATION = "openstack.tabinet/revision"
"""Neutron's revision number of the object that a resource was made from."""
MOVING_ANNOTATION = "openstack.tabinet/moving"
"""Of an endpoint whose machine is about to move here: the host that it is on."""
REFUSED_ANNOTATION = "openstack.tabinet/refused"
"""What of the object could not be expressed and is therefore not allowed, in words; one line each."""


class _Facts(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    pass


class FixedAddress(_Facts, frozen=True, kw_only=True):
    """An address of the port, and the subnet that it is from."""

    address: str
    subnet: str
    """Identifier of the subnet; its DHCP options are at ``/calico/dhcp/v2/<region>/subnet/<subnet>``."""


class DhcpOption(_Facts, frozen=True, kw_only=True):
    """An extra DHCP option of the port."""

    name: str
    """Name as dnsmasq has it, or the option's number."""
    value: str
    ip_version: int = 4


class AddressPair(_Facts, frozen=True, kw_only=True):
    """What the port may send from besides its own addresses."""

    net: str
    mac: str = ""
    """Empty: the port's own."""


class PortFacts(_Facts, frozen=True, kw_only=True):
    """A port of Neutron, as far as its host needs to know."""

    mtu: int = 0
    """Of the network, in bytes; 0: not known."""
    fixed: tuple[FixedAddress, ...] = ()
    hostname: str = ""
    fqdn: str = ""
    dhcp_options: tuple[DhcpOption, ...] = ()
    pairs: tuple[AddressPair, ...] = ()
    port_security: bool = True
    """False: the port may send from any address, and everything is allowed."""
    trunk_parent: str = ""
    """Interface of the trunk's parent port, when this is a subport; packets come and go there with the tag ``vlan``."""
    vlan: int = 0
    profile: dict[str, object] = {}
    """``binding:profile`` as Nova gave it."""


def render_port_facts(facts: PortFacts) -> str:
    """The annotation's text; equal facts give equal texts."""
    return msgspec.json.encode(facts, order="deterministic").decode()


def parse_port_facts(text: str, source: str = "") -> PortFacts:
    """The facts.

    Raises:
        DataError: the text is no such annotation; ``source`` is named in it.
    """
    try:
        return msgspec.json.decode(text, type=PortFacts)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        path = f"metadata.annotations.{PORT_ANNOTATION}"
        raise DataError(source, [Problem(path=path, value=repr(text)[:80], allowed=f"facts of a port: {error}")]) from None
