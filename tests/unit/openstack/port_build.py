"""Ports as Neutron shows them, for tests."""

from __future__ import annotations

from typing import Any

from tabinet.attach.openstack.neutron import Network, Port, PortView, Subnet, parse_fact

PORT_ID = "145be8b3-67e3-45b9-8d4d-4b97c80fbfd5"
DEVICE_ID = "035626d3-710c-42e6-9045-66a9161c80b1"


def port(**fields: Any) -> Port:
    document = {
        "id": PORT_ID,
        "network_id": "net",
        "project_id": "p" * 32,
        "mac_address": "fa:16:3e:f9:de:15",
        "device_owner": "compute:nova",
        "device_id": DEVICE_ID,
        "fixed_ips": [{"ip_address": "10.65.0.65", "subnet_id": "s4"}, {"ip_address": "fd00:65::78", "subnet_id": "s6"}],
        "security_groups": ["g"],
        "revision_number": 3,
        "binding:host_id": "hostA",
        "binding:vif_type": "tap",
    }
    return parse_fact(Port, document | {name.replace("binding_", "binding:"): value for name, value in fields.items()})


def view(given: Port | None = None, **fields: Any) -> PortView:
    more: dict[str, Any] = {
        "network": Network(id="net", name="net one", mtu=1450),
        "subnets": (
            Subnet(id="s4", network_id="net", cidr="10.65.0.0/24", gateway_ip="10.65.0.1"),
            Subnet(id="s6", network_id="net", cidr="fd00:65::/64", ip_version=6, gateway_ip=None),
        ),
        "groups": {"g": "web"},
    }
    return PortView(port=given or port(), **(more | fields))
