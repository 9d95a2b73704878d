"""Tunnel packets: from hosts, from elsewhere, from workloads."""

from __future__ import annotations

import pytest

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.options import TableOptions
from tabinet.rules.tunnels import TUNNEL_IN, TUNNEL_NAT

HOSTS = frozenset(map(parse_address, ("172.16.1.1", "172.16.2.3", "fd16::3")))
OPEN = m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))


def builder(*tunnels: m.Tunnel, **options: object) -> TableBuilder:
    """A host with tunnels, a workload that may do everything, and a host endpoint that lets nothing in."""
    found = TableBuilder(TableOptions(**options))
    body = m.Endpoint("h", "cali1", "", (parse_address("10.65.0.2"),), (), (), (), ("open",))
    for update in (
        m.SetUpdate(m.ALL_HOSTS, m.SetKind.NETS, HOSTS),
        *(m.TunnelUpdate("h", tunnel, m.LocalTunnel(None, None, "", ())) for tunnel in tunnels),
        m.ProfileUpdate("open", OPEN),
        m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w", "ns"), 1, body),
        m.HostEndpointUpdate(ResourceKey("HostEndpoint", "eth0"), 1, m.HostEndpoint("h", "eth0", ())),
    ):
        found.on_update(update)
    found.flush()
    return found


def comes(table: TableBuilder, source: str, protocol: int = 17, port: int = 4789) -> bool:
    destination = parse_address("172.16.1.1" if ":" not in source else "fd16::1")
    packet = Packet("eth0", "", parse_address(source), destination, protocol, 40000, port)
    return evaluate(table.table, packet, "input").accepted


def sends(table: TableBuilder, protocol: int = 17, port: int = 4789) -> bool:
    packet = Packet("cali1", "eth0", parse_address("10.65.0.2"), parse_address("172.16.2.3"), protocol, 40000, port)
    return evaluate(table.table, packet).accepted


def test_hosts_are_heard_past_the_policy_and_nobody_else_is() -> None:
    table = builder(m.Tunnel.VXLAN4, m.Tunnel.IPIP)
    assert comes(table, "172.16.2.3")
    assert comes(table, "172.16.2.3", protocol=4)
    assert not comes(table, "172.16.9.9")
    assert not comes(table, "10.65.0.7", protocol=4)
    assert not comes(table, "172.16.2.3", port=4790)  # the host endpoint's policy decides
    assert not comes(table, "fd16::3")  # no tunnel for IPv6


def test_a_host_that_goes_is_heard_no_more() -> None:
    table = builder(m.Tunnel.VXLAN6)
    assert comes(table, "fd16::3")
    table.on_update(m.SetDelta(m.ALL_HOSTS, frozenset(), frozenset({parse_address("fd16::3")})))
    table.flush()
    assert not comes(table, "fd16::3")


def test_tunnels_come_and_go() -> None:
    table = builder()
    assert TUNNEL_IN not in table.table.chains
    table.on_update(m.TunnelUpdate("h", m.Tunnel.VXLAN4, m.LocalTunnel(None, None, "", ())))
    assert {TUNNEL_IN, TUNNEL_NAT, "input"} <= table.flush().chains.keys()
    table.on_update(m.TunnelUpdate("h", m.Tunnel.VXLAN4, m.LocalTunnel(None, parse_address("10.65.0.1"), "", (), wanted=False)))
    assert TUNNEL_IN in table.flush().chains_removed
    table.on_update(m.TunnelRemove("h", m.Tunnel.VXLAN4))
    assert not table.flush().chains
    assert TUNNEL_IN not in builder(m.Tunnel.VXLAN4, tunnels_off=frozenset({m.Tunnel.VXLAN4})).table.chains


@pytest.mark.parametrize("tunnels", [(), (m.Tunnel.VXLAN4, m.Tunnel.IPIP)])
def test_workloads_send_no_tunnel_packets_unless_they_may(tunnels: tuple[m.Tunnel, ...]) -> None:
    table = builder(*tunnels)
    assert (sends(table), sends(table, protocol=4)) == (False, False)
    assert sends(table, port=4788)
    assert sends(table, protocol=6)
    allowed = builder(*tunnels, workloads_send_vxlan=True, workloads_send_ipip=True)
    assert (sends(allowed), sends(allowed, protocol=4)) == (True, True)
    elsewhere = builder(*tunnels, vxlan_port=8472)
    assert (sends(elsewhere), sends(elsewhere, port=8472)) == (True, False)
