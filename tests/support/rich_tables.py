"""Tables with nothing in them, and with everything that a table can have."""

from __future__ import annotations

import msgspec

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.options import DenyAction, Metadata, ProtoPort, TableOptions


def nothing() -> TableBuilder:
    return TableBuilder()


def everything() -> TableBuilder:
    """Every kind of rule and set at least once."""
    builder = TableBuilder(TableOptions(dispatch_from=2))
    key = ResourceKey("NetworkPolicy", "web", "shop")
    clients = m.Side(sets=("clients",))
    ports = (m.PortRange(80, 80), m.PortRange(443, 445))
    nets = tuple(parse_prefix(text) for text in ("10.0.0.0/8", "192.168.0.0/16", "::/0"))
    rules = (
        m.Rule(m.Action.LOG),
        m.Rule(m.Action.ALLOW, protocol=6, source=clients, destination=m.Side(ports=ports, port_sets=("named",))),
        m.Rule(m.Action.DENY, protocol=1, icmp=m.Icmp(8), source=m.Side(not_sets=("clients",))),
        m.Rule(m.Action.PASS, protocol=17, source=m.Side(nets=nets, not_nets=(parse_prefix("10.3.0.0/16"),))),
        m.Rule(m.Action.ALLOW, not_icmp=m.Icmp(128, 0)),
        m.Rule(m.Action.ALLOW, not_protocol=6, destination=m.Side(not_ports=ports, not_port_sets=("named",))),
    )
    members = frozenset(parse_prefix(text) for text in ("10.0.0.1", "10.1.0.0/16", "10.1.2.0/24", "fd00::1"))
    by_port = {"db": m.PortRange(5432, 5433), "cache": m.PortRange(6379, 6379), "both": m.PortRange(5433, 6379)}
    keys = tuple(ResourceKey("GlobalNetworkPolicy", name) for name in (*by_port, "unknown"))
    tier = m.TierPolicies("default", m.Action.DENY, (key, *keys))
    nets_own = tuple(parse_address(text) for text in ("10.0.0.2", "fd00::2"))
    body = m.Endpoint("h", "cali1", "", nets_own, (parse_prefix("10.9.0.0/24"),), (tier,), (tier,), ("open",))
    for update in (
        m.SetUpdate("clients", m.SetKind.NETS, members),
        m.SetUpdate("named", m.SetKind.PORTS, frozenset({m.PortMember(parse_address("10.0.0.2"), 6, 8080)})),
        m.PolicyUpdate(key, m.Policy(rules, (m.Rule(m.Action.ALLOW),))),
        m.ProfileUpdate("open", m.Policy((), (m.Rule(m.Action.ALLOW),))),
        m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w", "shop"), 1, body),
    ):
        builder.on_update(update)
    for policy, ports_of_it in zip(keys, by_port.values(), strict=False):
        allow = m.Rule(m.Action.ALLOW, protocol=6, destination=m.Side(ports=(ports_of_it,)))
        ping = m.Rule(m.Action.ALLOW, protocol=1)
        builder.on_update(m.PolicyUpdate(policy, m.Policy((allow, ping), (allow,))))
    builder.flush()
    return builder


def gateway() -> TableBuilder:
    """Host endpoints of every kind of policy, translation and limits."""
    options = TableOptions(
        deny=DenyAction.REJECT,
        metadata=Metadata(parse_address("127.0.0.1"), 8775),
        host_services=(ProtoPort(17, 53),),
        failsafe_inbound=(ProtoPort(6, 22, parse_prefix("10.0.0.0/8")), ProtoPort(6, 179)),
        nat_ports=m.PortRange(32768, 65535),
        nat_addresses=(parse_address("192.0.2.1"),),
    )
    builder = TableBuilder(options)
    key = ResourceKey("GlobalNetworkPolicy", "edge")
    web = m.Side(ports=(m.PortRange(80, 80), m.PortRange(443, 443)), nets=(parse_prefix("10.0.0.0/8"), parse_prefix("fd00::/8")))
    clients = m.Side(sets=("clients",), port_sets=("named",))
    rules = (
        m.Rule(m.Action.ALLOW, protocol=6, destination=web),
        m.Rule(m.Action.PASS, protocol=1, icmp=m.Icmp(8)),
        m.Rule(m.Action.DENY, source=clients),
    )
    tier = (m.TierPolicies("default", m.Action.DENY, (key,)),)
    all_of_it = m.HostEndpoint("h", "*", (), tier, tier, tier, tier, tier, tier, tier, ("open",))
    limits = m.Limits(packets_per_s=100, packet_burst=10, connections=50)
    nats = tuple(
        m.Nat(parse_address(external), parse_address(own)) for external, own in (("192.0.2.9", "10.0.0.2"), ("2001:db8::9", "fd00::2"))
    )
    nets_own = tuple(parse_address(text) for text in ("10.0.0.2", "fd00::2"))
    body = m.Endpoint("h", "cali1", "02:00:00:00:00:01", nets_own, (), tier, tier, (), nats, m.Qos(limits, limits, 46))
    virtual = (m.Pair(parse_address("10.0.0.9"), "00:00:5e:00:01:07"), m.Pair(parse_prefix("fd00:9::/64"), "00:00:5e:00:02:07"))
    per_address = tuple(
        m.AddressQos(nat.external, m.Qos(m.Limits(bandwidth_bit_s=8_000_000, packets_per_s=9), m.Limits(bandwidth_bit_s=8_000), 10))
        for nat in nats
    )
    elsewhere = (m.ForwardElsewhere(parse_address("192.0.2.10"), 6, 8080, 8089, "other"),)
    body = msgspec.structs.replace(body, pairs=virtual, address_qos=per_address, elsewhere=elsewhere)
    pools = frozenset(map(parse_prefix, ("10.0.0.0/16", "fd00::/64")))
    for update in (
        m.SetUpdate(m.ALL_POOLS, m.SetKind.NETS, pools),
        m.SetUpdate(m.NAT_POOLS, m.SetKind.NETS, pools),
        m.SetUpdate("clients", m.SetKind.NETS, frozenset()),
        m.SetUpdate("named", m.SetKind.PORTS, frozenset()),
        m.PolicyUpdate(key, m.Policy(rules, rules)),
        m.ProfileUpdate("open", m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))),
        m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w", "shop"), 1, body),
        m.HostEndpointUpdate(ResourceKey("HostEndpoint", "all"), 1, all_of_it),
        m.HostEndpointUpdate(ResourceKey("HostEndpoint", "eth0"), 1, m.HostEndpoint("h", "eth0", (), profiles=("open",))),
    ):
        builder.on_update(update)
    builder.flush()
    return builder
