"""A workload as one of Neutron's ports: its names, addresses and documents. Pure.

In: a topology and a workload of ``kind: tap``. Out: what networking's API would show of the port, and from that, by the very code of the
Neutron driver, what the store holds. A port has no labels but those that Neutron's objects give it: what the topology calls a label
``app: db`` is membership in a security group ``app-db``, and so the label ``sg-name.projectcalico.org/openstack-app-db``.
"""

from __future__ import annotations

import hashlib
import uuid

from tabinet.attach.openstack.names import Region, endpoint_key, interface_of
from tabinet.attach.openstack.neutron import FixedIp, Network, Port, PortView, Subnet
from tabinet.attach.openstack.translate import Document, translate_port, translate_subnet
from tabinet.lab.kinds.facts import TAP
from tabinet.lab.topology import NEUTRON_SUBNETS, Topology, Workload
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.keys import ResourceKey, path_of

REGION = Region()
_CLOUD = uuid.UUID("0c3a3a37-6c1a-4d84-8f0b-6a5a3f6f52ea")
"""Namespace of the identifiers of everything in the cloud (RFC 4122 section 4.3)."""
_FIRST_ADDRESS = 10
_PROJECT = "lab"


def interface(topology: Topology, workload: Workload) -> str:
    """The TAP's name on the host, as Nova makes it."""
    return interface_of(_id(topology, f"port {workload.name}"))


def mac(topology: Topology, workload: Workload) -> str:
    """The guest's hardware address, as Neutron makes them."""
    tail = hashlib.sha256(f"{topology.name}/{workload.name}".encode()).digest()[:3]
    return "fa:16:3e:" + ":".join(f"{octet:02x}" for octet in tail)


def addresses(topology: Topology, workload: Workload) -> tuple[str, str]:
    """The fixed addresses: IPv4 as they come, IPv6 as the guest makes it itself from its hardware address (SLAAC; RFC 4291 appendix A)."""
    subnet4, subnet6 = NEUTRON_SUBNETS
    index = topology.of_kind(TAP).index(workload)
    octets = bytearray.fromhex(mac(topology, workload).replace(":", ""))
    octets[0] ^= 2
    host = int.from_bytes(octets[:3] + b"\xff\xfe" + octets[3:], "big")
    return subnet4.host(_FIRST_ADDRESS + index).address, subnet6.host(host).address


def key(topology: Topology, workload: Workload) -> ResourceKey:
    """Of the endpoint."""
    port = _port(topology, workload)
    return endpoint_key(REGION, workload.host, port.device_id, port.id)


def endpoint(topology: Topology, workload: Workload) -> Document:
    """The endpoint as the Neutron driver writes it."""
    groups = {group: name for name in _groups(workload) for group in [_id(topology, f"group {name}")]}
    view = PortView(port=_port(topology, workload), network=_network(topology), subnets=_subnets(topology), groups=groups)
    return translate_port(view, REGION)[path_of(key(topology, workload))]


def subnet_documents(topology: Topology) -> dict[str, Document | None]:
    """What hosts need to answer DHCP in the ports' subnets, by path."""
    found: dict[str, Document | None] = {}
    for subnet in _subnets(topology):
        found |= translate_subnet(subnet, REGION)
    return found


def _id(topology: Topology, what: str) -> str:
    return str(uuid.uuid5(_CLOUD, f"{topology.name}/{what}"))


def _groups(workload: Workload) -> list[str]:
    return sorted(f"{name}-{value}" for name, value in workload.labels.items())


def _network(topology: Topology) -> Network:
    return Network(id=_id(topology, "network"), name="lab")


def _subnets(topology: Topology) -> tuple[Subnet, ...]:
    return tuple(
        Subnet(
            id=_id(topology, f"subnet {subnet.family}"),
            network_id=_id(topology, "network"),
            cidr=str(subnet),
            ip_version=subnet.family,
            gateway_ip=subnet.host(1).address,
            ipv6_ra_mode="slaac" if subnet.family == IPV6 else None,
            ipv6_address_mode="slaac" if subnet.family == IPV6 else None,
        )
        for subnet in NEUTRON_SUBNETS
    )


def _port(topology: Topology, workload: Workload) -> Port:
    fixed = zip(addresses(topology, workload), (IPV4, IPV6), strict=True)
    return Port(
        id=_id(topology, f"port {workload.name}"),
        network_id=_id(topology, "network"),
        name=workload.name,
        project_id=_PROJECT,
        mac_address=mac(topology, workload),
        device_owner="compute:nova",
        device_id=_id(topology, f"server {workload.name}"),
        fixed_ips=tuple(FixedIp(ip_address=address, subnet_id=_id(topology, f"subnet {family}")) for address, family in fixed),
        security_groups=tuple(_id(topology, f"group {name}") for name in _groups(workload)),
        host=workload.host,
        vif_type="tap",
    )
