"""The part of the parameters that a host's table depends on. Pure."""

from __future__ import annotations

from tabinet.agent.parameters import Parameters
from tabinet.agent.tunneloptions import disabled_tunnels
from tabinet.agent.values import parse_failsafe, parse_port_range
from tabinet.lib.ip import parse_address
from tabinet.rules.options import DenyAction, HostAction, TableOptions


def table_options(parameters: Parameters) -> TableOptions:
    """The part of the parameters that the table depends on."""
    text = parameters.text
    address = text("felix", "nat_outgoing_address")
    return TableOptions(
        interface_prefixes=parameters.items("felix", "interface_prefix"),
        endpoint_to_host=HostAction(text("felix", "default_endpoint_to_host_action")),
        allow_source_prefixes=text("felix", "workload_source_spoofing") == "Any",
        deny=DenyAction(text("felix", "deny_action")),
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
