"""The part of the parameters that a host's table depends on. Pure.

Felix's special cases for OpenStack (the metadata address, DNS of the host) hold where somebody says that this is OpenStack: by an
``interfacePrefix`` with ``tap`` in it, as its installations have it, or by a ``metadataAddr``. That our own default prefix has ``tap`` in
it says nothing: containers of other clusters reach their cloud's metadata address through the same rules.
"""

from __future__ import annotations

from tabinet.agent.parameters import Parameters
from tabinet.agent.tunneloptions import disabled_tunnels
from tabinet.agent.values import parse_failsafe, parse_port_range
from tabinet.lib.ip import parse_address
from tabinet.rules.options import UDP, DenyAction, HostAction, Metadata, ProtoPort, TableOptions

_TAP = "tap"
_DNS = 53
NO_METADATA = "none"


def is_openstack(parameters: Parameters) -> bool:
    """Somebody says that workloads here are OpenStack's."""
    origins = parameters.origins
    taps = _TAP in parameters.items("felix", "interface_prefix") and origins["felix", "interface_prefix"] != "default"
    return taps or (origins["felix", "metadata_addr"] != "default" and parameters.text("felix", "metadata_addr") != NO_METADATA)


def metadata_of(parameters: Parameters) -> Metadata | None:
    """Where requests to the metadata address go; None: nowhere."""
    text, port = parameters.text("felix", "metadata_addr"), parameters.integer("felix", "metadata_port")
    return None if text == NO_METADATA or not port else Metadata(parse_address(text), port)


def table_options(parameters: Parameters) -> TableOptions:
    """The part of the parameters that the table depends on."""
    text = parameters.text
    address = text("felix", "nat_outgoing_address")
    openstack = is_openstack(parameters)
    return TableOptions(
        interface_prefixes=parameters.items("felix", "interface_prefix"),
        endpoint_to_host=HostAction(text("felix", "default_endpoint_to_host_action")),
        allow_source_prefixes=text("felix", "workload_source_spoofing") == "Any",
        deny=DenyAction(text("felix", "deny_action")),
        host_services=(ProtoPort(UDP, _DNS),) if openstack else (),
        metadata=metadata_of(parameters) if openstack else None,
        deny_guest_servers=openstack,
        failsafe_inbound=tuple(map(parse_failsafe, parameters.items("felix", "failsafe_inbound_host_ports"))),
        failsafe_outbound=tuple(map(parse_failsafe, parameters.items("felix", "failsafe_outbound_host_ports"))),
        nat_ports=parse_port_range(text("felix", "nat_port_range")),
        nat_addresses=(parse_address(address),) if address else (),
        nat_spares_hosts=text("felix", "nat_outgoing_exclusions") == "IPPoolsAndHostIPs",
        floating_addresses=text("felix", "floating_ips") == "Enabled",
        vxlan_port=parameters.integer("felix", "vxlan_port"),
        tunnels_off=disabled_tunnels(parameters),
        workloads_send_vxlan=parameters.switch("felix", "allow_vxlan_packets_from_workloads"),
        workloads_send_ipip=parameters.switch("felix", "allow_ipip_packets_from_workloads"),
    )
