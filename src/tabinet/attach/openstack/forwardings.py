"""Port forwardings of floating IPs, shared out to the ports that hosts learn them by.

In: forwardings with the hosts of their ports, in order of ports. Out: ``PortForward`` and what is refused. Pure; linear in the forwardings.

A floating IP is announced by one host, its home: that of the first of the ports that it is forwarded to. What leads to ports on other
hosts is passed on by home, as it came, and translated there. The first port's endpoint says so at home.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from tabinet.attach.openstack.groups import PROTOCOL_NUMBERS
from tabinet.attach.openstack.names import is_host
from tabinet.attach.openstack.neutron import Forwarding
from tabinet.model.forwards import PortForward
from tabinet.model.protocols import WITH_PORTS

ByPort = dict[str, list[Forwarding]]


def share_out(forwardings: Iterable[Forwarding], ports: set[str]) -> tuple[ByPort, ByPort]:
    """By port, of these ports: what leads to it; and where it is the first of a floating IP's, what of that leads to other hosts.

    All forwardings of a floating IP have to be there, sorted by port.
    """
    usable = [each for each in forwardings if is_host(each.host)]
    first: dict[str, Forwarding] = {}
    for each in usable:
        if _number(each):
            first.setdefault(each.floatingip_id, each)
    own: ByPort = defaultdict(list)
    elsewhere: ByPort = defaultdict(list)
    for each in usable:
        home = first.get(each.floatingip_id, each)
        placed = msgspec.structs.replace(each, home=home.host)
        if each.port_id in ports:
            own[each.port_id].append(placed)
        if home.port_id in ports and each.host != home.host:
            elsewhere[home.port_id].append(placed)
    return own, elsewhere


def translate_forwardings(own: Iterable[Forwarding], elsewhere: Iterable[Forwarding]) -> tuple[tuple[PortForward, ...], list[str]]:
    """What an endpoint says of them, and those that there cannot be."""
    forwards, refused = [], []
    for each in own:
        if _number(each):
            forwards.append(_forward(each, home="" if each.home == each.host else each.home))
        else:
            refused.append(f"port forwarding {each.id} of floating IP {each.floatingip_id}: ports of {each.protocol} cannot be translated")
    forwards += [_forward(each, node=each.host) for each in elsewhere if _number(each)]
    return tuple(forwards), refused


def _number(each: Forwarding) -> int:
    """Of the protocol; 0 for one whose ports cannot be translated."""
    number = PROTOCOL_NUMBERS.get(each.protocol.lower(), 0)
    return number if number in WITH_PORTS else 0


def _forward(each: Forwarding, home: str = "", node: str = "") -> PortForward:
    return PortForward(
        external_ip=each.floating_ip_address,
        protocol=_number(each),
        external_port=each.external_port_start,
        internal_ip=each.internal_ip_address,
        internal_port=each.internal_port_start,
        count=each.external_port_end - each.external_port_start + 1,
        home=home,
        node=node,
    )
