"""Tables against the naive evaluator, and tables that grew step by step against tables that were built at once."""

from __future__ import annotations

import itertools
import os

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.calc import messages as m
from tabinet.calc.overlays import LocalTunnel
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, answer_to, evaluate
from tabinet.rules.layout import NESTING_LIMIT
from tabinet.rules.naive import World
from tabinet.rules.options import DenyAction, HostAction, ProtoPort, TableOptions

EXAMPLES = int(os.environ.get("TABINET_RULES_EXAMPLES", "40"))
"""Worlds for each property; with 500 of them the first meets 100,000 packets."""
ADDRESSES = [parse_prefix(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.1.3", "192.0.2.9", "fd00::1", "fd00::2", "fd00:1::3")]
NETS = [parse_prefix(text) for text in ("10.0.0.0/24", "10.0.0.0/31", "10.0.1.0/24", "0.0.0.0/0", "fd00::/64", "fd00::/127", "::/0")]
HOST_ADDRESSES = [parse_prefix(text) for text in ("198.51.100.1", "198.51.100.2", "2001:db8::1")]
HOST_INTERFACES = {"eth0": frozenset(HOST_ADDRESSES[::2]), "eth1": frozenset(HOST_ADDRESSES[1:2]), "lo": frozenset(HOST_ADDRESSES)}
INTERFACES = ["cali1", "cali2", "tap3"]
POLICIES = [
    ResourceKey("GlobalNetworkPolicy", "a"),
    ResourceKey("NetworkPolicy", "b", "ns"),
    ResourceKey("NetworkPolicy", "a", "ns"),
    ResourceKey("GlobalNetworkPolicy", "c"),
]
PROFILES = ["p", "q r"]
NET_SETS = ["s-one", "s-two"]
POOL_SETS = [m.ALL_POOLS, m.NAT_POOLS, m.ALL_HOSTS]
PORT_SETS = ["p-one"]
PORTS = [22, 80, 81, 443]

members = st.frozensets(st.sampled_from(ADDRESSES + NETS), max_size=4)
port_members = st.frozensets(
    st.builds(m.PortMember, st.sampled_from(ADDRESSES), st.sampled_from([6, 17, 132]), st.sampled_from(PORTS)), max_size=4
)
port_ranges = st.builds(lambda a, b: m.PortRange(min(a, b), max(a, b)), st.sampled_from(PORTS), st.sampled_from(PORTS))


def few(strategy, most=2):
    """Mostly empty, so that rules match something."""
    return st.one_of(st.just(()), st.lists(strategy, max_size=most).map(tuple))


sides = st.one_of(
    st.just(m.ANY),
    st.builds(
        m.Side,
        nets=few(st.sampled_from(ADDRESSES + NETS)),
        not_nets=few(st.sampled_from(ADDRESSES + NETS), 1),
        sets=few(st.sampled_from(NET_SETS)),
        not_sets=few(st.sampled_from(NET_SETS), 1),
    ),
    st.builds(
        m.Side,
        sets=few(st.sampled_from(NET_SETS), 1),
        ports=few(port_ranges, 3),
        port_sets=few(st.sampled_from(PORT_SETS), 1),
        not_ports=few(port_ranges, 1),
        not_port_sets=few(st.sampled_from(PORT_SETS), 1),
    ),
)


def alike_rule(rule: m.Rule, place: tuple[str, str], value: int) -> m.Rule:
    """The rule with another list of one member at the place; 6 is the empty list."""
    which, field = place
    choices = ADDRESSES + NETS if field == "nets" else [m.PortRange(first, last) for first in PORTS for last in PORTS]
    changed = msgspec.structs.replace(getattr(rule, which), **{field: () if value == 6 else (choices[value * 2],)})
    return msgspec.structs.replace(rule, **{which: changed})


icmps = st.builds(m.Icmp, st.sampled_from([8, 13, 128]), st.sampled_from([None, 0, 1]))
rules = st.builds(
    m.Rule,
    action=st.sampled_from(list(m.Action)),
    ip_version=st.sampled_from([None, None, None, 4, 6]),
    protocol=st.sampled_from([None, None, 6, 6, 17, 33, 132, 136, 1, 58, 47]),
    not_protocol=st.sampled_from([None, None, None, 6, 1, 132]),
    icmp=st.one_of(st.none(), st.none(), icmps),
    not_icmp=st.one_of(st.none(), st.none(), icmps),
    source=sides,
    destination=sides,
)
alike = st.builds(
    lambda rule, place, lists: tuple(alike_rule(rule, place, values) for values in lists),
    rules,
    st.sampled_from([("source", "nets"), ("destination", "nets"), ("source", "ports"), ("destination", "ports")]),
    st.lists(st.integers(0, 6), min_size=3, max_size=7),
)
"""Rules that differ in one list, as people write them who list ports or nets one by one."""
rule_lists = st.one_of(
    st.lists(rules, max_size=3).map(tuple),
    st.lists(rules, max_size=3).map(tuple),
    st.builds(lambda before, same, after: (*before, *same, *after), few(rules, 1), alike, few(rules, 2)),
)
port_rules = st.builds(
    m.Rule,
    action=st.sampled_from(list(m.Action)),
    protocol=st.sampled_from([None, 6, 17, 132]),
    source=sides,
    destination=st.builds(m.Side, ports=st.lists(port_ranges, min_size=1, max_size=2).map(tuple), sets=few(st.sampled_from(NET_SETS), 1)),
)
port_rule_lists = st.lists(
    st.one_of(port_rules, port_rules, st.builds(m.Rule, st.sampled_from(list(m.Action)), protocol=st.just(1))), max_size=3
)
"""Rules that a policy can be found by."""
rule_lists = st.one_of(rule_lists, port_rule_lists.map(tuple))
policies = st.builds(m.Policy, ingress=rule_lists, egress=rule_lists)
tiers = st.builds(
    m.TierPolicies,
    tier=st.sampled_from(["default", "security"]),
    default_action=st.sampled_from([m.Action.DENY, m.Action.PASS]),
    policies=st.lists(st.sampled_from(POLICIES), min_size=1, max_size=3, unique=True).map(tuple),
)
forwards = st.builds(
    m.Forward, st.sampled_from(HOST_ADDRESSES), st.just(6), st.sampled_from(PORTS), st.sampled_from(ADDRESSES), st.just(80)
)
endpoints = st.builds(
    m.Endpoint,
    host=st.just("h"),
    interface=st.sampled_from(INTERFACES),
    mac=st.sampled_from(["", "02:00:00:00:00:01", "02:00:00:00:00:02"]),
    nets=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3, unique=True).map(lambda nets: tuple(sorted(nets))),
    spoof_nets=few(st.sampled_from(NETS), 1),
    nats=few(st.builds(m.Nat, st.sampled_from(HOST_ADDRESSES), st.sampled_from(ADDRESSES))),
    forwards=few(forwards),
    qos=st.sampled_from([m.NO_QOS, m.NO_QOS, m.Qos(dscp=10), m.Qos(m.Limits(packets_per_s=9), m.Limits(connections=3))]),
    elsewhere=few(
        st.builds(m.ForwardElsewhere, st.just(parse_address("203.0.113.99")), st.just(6), st.just(80), st.just(89), st.just("o"))
    ),
    address_qos=few(
        st.builds(
            m.AddressQos,
            st.sampled_from(HOST_ADDRESSES),
            st.sampled_from([m.Qos(dscp=8), m.Qos(m.Limits(bandwidth_bit_s=8000), m.Limits(packets_per_s=9))]),
        )
    ).map(lambda asked: tuple({each.external: each for each in asked}.values())),
    ingress=st.lists(tiers, max_size=2).map(tuple),
    egress=st.lists(tiers, max_size=2).map(tuple),
    profiles=st.lists(st.sampled_from(PROFILES), max_size=2, unique=True).map(tuple),
    stateless=st.sampled_from([False, False, True]),
    pairs=few(st.builds(m.Pair, st.sampled_from(ADDRESSES + NETS), st.sampled_from(["", "02:00:00:00:00:01", "02:00:00:00:00:09"])), 1),
    any_mac=st.sampled_from([False, False, True]),
)
host_tiers = st.lists(tiers, max_size=2).map(tuple)
host_endpoints = st.builds(
    m.HostEndpoint,
    host=st.just("h"),
    interface=st.sampled_from(["eth0", "eth1", "*", "*", "", "lo", "cali1"]),
    addresses=few(st.sampled_from(HOST_ADDRESSES)),
    ingress=host_tiers,
    egress=host_tiers,
    forward_ingress=host_tiers,
    forward_egress=host_tiers,
    pre_dnat=few(tiers, 2),
    untracked_ingress=few(tiers, 2),
    untracked_egress=few(tiers, 2),
    profiles=st.lists(st.sampled_from(PROFILES), max_size=1).map(tuple),
)
HOST_KEYS = [ResourceKey("HostEndpoint", name) for name in ("h1", "h2")]
ENDPOINT_KEYS = [ResourceKey("WorkloadEndpoint", f"w{index}", "ns") for index in range(4)]


class OtherPolicies(msgspec.Struct, frozen=True):
    """An endpoint that is as it was, but with one policy more or less in its tiers, or with other tiers."""

    key: ResourceKey
    policy: ResourceKey
    place: int
    tiers: tuple[m.TierPolicies, ...] | None

    def update(self, world: World) -> m.EndpointUpdate | None:
        body = world.endpoints.get(self.key)
        if body is None:
            return None
        changed = {name: self._changed(getattr(body, name)) for name in ("ingress", "egress")}
        return m.EndpointUpdate(self.key, 1, msgspec.structs.replace(body, **changed))

    def _changed(self, before: tuple[m.TierPolicies, ...]) -> tuple[m.TierPolicies, ...]:
        if self.tiers is not None or not before:
            return self.tiers or before
        policies = [key for key in before[0].policies if key != self.policy]
        if self.policy not in before[0].policies:
            policies.insert(self.place, self.policy)
        return (msgspec.structs.replace(before[0], policies=tuple(policies or before[0].policies)), *before[1:])


net_updates = st.builds(m.SetUpdate, st.sampled_from(NET_SETS), st.just(m.SetKind.NETS), members)
port_updates = st.builds(m.SetUpdate, st.sampled_from(PORT_SETS), st.just(m.SetKind.PORTS), port_members)


def tunnel_update(tunnel: m.Tunnel, *, wanted: bool) -> m.TunnelUpdate:
    return m.TunnelUpdate("h1", tunnel, LocalTunnel(None, None, "", (), wanted))


tunnel_updates = st.builds(
    lambda tunnel, wanted: tunnel_update(tunnel, wanted=wanted), st.sampled_from(m.Tunnel), st.sampled_from((True, True, False))
)
updates = st.one_of(
    net_updates,
    port_updates,
    st.builds(lambda i, a, r: m.SetDelta(i, a, r - a), st.sampled_from(NET_SETS), members, members),
    st.builds(lambda i, a, r: m.SetDelta(i, a, r - a), st.sampled_from(PORT_SETS), port_members, port_members),
    st.builds(m.SetRemove, st.sampled_from(NET_SETS + PORT_SETS + POOL_SETS)),
    st.builds(m.SetUpdate, st.sampled_from(POOL_SETS), st.just(m.SetKind.NETS), members),
    st.builds(m.PolicyUpdate, st.sampled_from(POLICIES), policies),
    st.builds(m.PolicyUpdate, st.sampled_from(POLICIES), policies),
    st.builds(m.PolicyRemove, st.sampled_from(POLICIES)),
    st.builds(m.ProfileUpdate, st.sampled_from(PROFILES), policies),
    st.builds(m.ProfileRemove, st.sampled_from(PROFILES)),
    st.builds(m.EndpointUpdate, st.sampled_from(ENDPOINT_KEYS), st.just(1), endpoints),
    st.builds(m.EndpointUpdate, st.sampled_from(ENDPOINT_KEYS), st.just(1), endpoints),
    st.builds(m.EndpointRemove, st.sampled_from(ENDPOINT_KEYS)),
    *[
        st.builds(
            OtherPolicies,
            st.sampled_from(ENDPOINT_KEYS[:3]),
            st.sampled_from(POLICIES),
            st.integers(0, 2),
            st.one_of(st.none(), st.none(), st.none(), host_tiers),
        )
    ]
    * 3,
    st.builds(m.HostEndpointUpdate, st.sampled_from(HOST_KEYS), st.just(1), host_endpoints),
    st.builds(m.HostEndpointRemove, st.sampled_from(HOST_KEYS)),
    tunnel_updates,
    st.builds(m.TunnelRemove, st.just("h1"), st.sampled_from(m.Tunnel)),
)
whole = st.tuples(
    st.tuples(*(st.builds(m.SetUpdate, st.just(name), st.just(m.SetKind.NETS), members) for name in NET_SETS)),
    st.tuples(*(st.builds(m.SetUpdate, st.just(name), st.just(m.SetKind.PORTS), port_members) for name in PORT_SETS)),
    st.tuples(*(st.builds(m.PolicyUpdate, st.just(key), policies) for key in POLICIES[:3])),
    st.tuples(*(st.builds(m.ProfileUpdate, st.just(name), policies) for name in PROFILES)),
    st.tuples(*(st.builds(m.EndpointUpdate, st.just(key), st.just(1), endpoints) for key in ENDPOINT_KEYS[:3])),
    st.lists(st.builds(m.HostEndpointUpdate, st.sampled_from(HOST_KEYS), st.just(1), host_endpoints), max_size=2).map(tuple),
    st.lists(tunnel_updates, max_size=2).map(tuple),
    st.lists(st.builds(m.SetUpdate, st.just(m.ALL_HOSTS), st.just(m.SetKind.NETS), members), max_size=1).map(tuple),
).map(lambda parts: list(itertools.chain.from_iterable(parts)))


def packets() -> list[tuple[str, Packet]]:
    """Every pair of addresses and interfaces, with every kind of packet that the rules can tell apart, and the hook that it meets."""
    kinds = [
        (6, 1024, 80, 0, 0),
        (6, 22, 443, 0, 0),
        (6, 443, 22, 0, 0),
        (17, 80, 81, 0, 0),
        (17, 81, 4789, 0, 0),
        (4, 0, 0, 0, 0),
        (33, 80, 81, 0, 0),
        (47, 0, 0, 0, 0),
        (132, 80, 443, 0, 0),
        (136, 22, 80, 0, 0),
    ]
    found = []
    ways = [
        *(("forward", into, out) for into, out in (("cali1", "cali2"), ("cali2", "tap3"), ("tap3", "eth0"), ("cali9", "eth0"))),
        *(("forward", into, out) for into, out in (("eth0", "cali1"), ("eth1", "cali2"), ("eth0", "eth1"), ("lo", "eth0"))),
        *(("input", into, "") for into in ("cali1", "eth0", "eth1", "lo")),
        *(("output", "", out) for out in ("cali1", "eth0", "eth1", "lo")),
    ]
    for source, destination in itertools.permutations(ADDRESSES + HOST_ADDRESSES, 2):
        if source.family != destination.family:
            continue
        echo = [(1, 0, 0, 8, 0), (1, 0, 0, 13, 1)] if source.family == 4 else [(58, 0, 0, 128, 0), (58, 0, 0, 128, 1), (58, 0, 0, 139, 0)]
        for protocol, sport, dport, kind, code in kinds + echo:
            for hook, into, out in ways:
                packet = Packet(into, out, source, destination, protocol, sport, dport, kind, code)
                found.append((hook, packet))
                if into == "eth0" and protocol == 6:
                    sent_to = HOST_ADDRESSES[0] if source.family == 4 else HOST_ADDRESSES[2]
                    found.append((hook, msgspec.structs.replace(packet, original_destination=sent_to, original_destination_port=80)))
    return found


PACKETS = packets()
ECHOES = [(hook, packet) for hook, packet in PACKETS if hook == "forward" and packet.icmp_type in (8, 128)]
SERVICES = (ProtoPort(17, 81), ProtoPort(6, 443, HOST_ADDRESSES[0]))


def passes(world: World, hook: str, packet: Packet) -> bool:
    return {"forward": world.forwards, "input": world.receives, "output": world.sends}[hook](packet)


def reaches_connections(world: World, hook: str, packet: Packet) -> bool:
    """What raw chains decide, and what those for tunnels do, they decide for each packet: no flow goes on because it was accepted once."""
    if hook != "output" and not world.is_own_source(packet):
        return False
    if hook != "forward" and world.is_in_tunnel(packet):
        return False
    return world.without_connection(packet, ingress=hook != "output") is None


def check_packets(builder: TableBuilder, world: World, some: list[tuple[str, Packet]]) -> None:
    for hook, packet in some:
        got = evaluate(builder.table, packet, hook)
        assert got.accepted == passes(world, hook, packet), (hook, packet, got)


OPTIONS = TableOptions(nat_spares_hosts=True, nat_ports=m.PortRange(1000, 1999), dispatch_from=1)


def empty(options: TableOptions = OPTIONS) -> tuple[TableBuilder, World]:
    builder = TableBuilder(options)
    builder.on_interfaces(HOST_INTERFACES)
    return builder, World(interfaces=HOST_INTERFACES, options=builder.options)


@settings(max_examples=EXAMPLES, deadline=None)
@given(whole, st.randoms(use_true_random=False))
def test_table_decides_as_the_naive_evaluator(announced, random):
    builder, world = empty(
        random.choice((TableOptions(), TableOptions(endpoint_to_host=HostAction.ACCEPT, host_services=SERVICES), OPTIONS))
    )
    for update in announced:
        builder.on_update(update)
        world.on_update(update)
    builder.flush()
    check_packets(builder, world, random.sample(PACKETS, 200))


@settings(max_examples=EXAMPLES, deadline=None)
@given(whole, st.randoms(use_true_random=False))
def test_answers_that_stand_alone_pass_stateless_endpoints_only(announced, random):
    builder, world = empty(random.choice((TableOptions(), OPTIONS)))
    for update in announced:
        builder.on_update(update)
        world.on_update(update)
    builder.flush()
    for hook, packet in random.sample(ECHOES, 100):
        answer = answer_to(packet)
        if world.without_connection(answer, ingress=True) is None:
            check_packets(builder, world, [(hook, answer)])


def rebuilt(world: World) -> TableBuilder:
    """A builder that was told the world at once, in another order."""
    builder, _ = empty()
    for key, host_endpoint in sorted(world.hosts.items(), reverse=True):
        builder.on_update(m.HostEndpointUpdate(key, 1, host_endpoint))
    for tunnel in world.tunnels:
        builder.on_update(tunnel_update(tunnel, wanted=True))
    for key, endpoint in sorted(world.endpoints.items(), reverse=True):
        builder.on_update(m.EndpointUpdate(key, 1, endpoint))
    for name, policy in sorted(world.profiles.items()):
        builder.on_update(m.ProfileUpdate(name, policy))
    for key, policy in sorted(world.policies.items()):
        builder.on_update(m.PolicyUpdate(key, policy))
    for set_id, (kind, present) in world.sets.items():
        builder.on_update(m.SetUpdate(set_id, kind, frozenset(present)))
    builder.flush()
    return builder


def applied(table: ir.Table, delta: ir.TableDelta) -> ir.Table:
    """A copy of the table with the delta applied, by the words of TableDelta."""
    result = ir.Table(
        dict(table.chains),
        dict(table.sets),
        {name: set(elements) for name, elements in table.elements.items()},
        {name: dict(mapping) for name, mapping in table.maps.items()},
    )
    for name in delta.chains_removed:
        del result.chains[name]
    result.chains.update(delta.chains)
    for name in delta.sets_removed:
        del result.sets[name]
        (result.elements if name in result.elements else result.maps).pop(name)
    for name, definition in delta.sets.items():
        assert name not in result.sets
        result.sets[name] = definition
        if definition.type is ir.SetType.PORT_CHAINS:
            result.maps[name] = {}
        else:
            result.elements[name] = set()
    for name, gone in delta.removed.items():
        assert gone <= result.elements[name]
        result.elements[name] -= gone
    for name, come in delta.added.items():
        assert not come & result.elements[name]
        result.elements[name] |= come
    for name, keys in delta.map_removed.items():
        for key in keys:
            del result.maps[name][key]
    for name, mapping in delta.map_set.items():
        result.maps[name].update(mapping)
    return result


@settings(max_examples=EXAMPLES, deadline=None)
@given(whole, st.lists(st.lists(updates, max_size=4), max_size=8), st.randoms(use_true_random=False))
def test_table_is_state_not_history(announced, batches, random):
    builder, world = empty()
    previous = applied(builder.table, ir.TableDelta())
    some = random.sample(PACKETS, 60)
    allowed: set[tuple[str, Packet]] = set()
    for batch in [announced, *batches]:
        for made in batch:
            update = made.update(world) if isinstance(made, OtherPolicies) else made
            if update is not None:
                builder.on_update(update)
                world.on_update(update)
        delta = builder.flush()
        previous = applied(previous, delta)
        assert previous == builder.table
        now = {(hook, packet) for hook, packet in some if passes(world, hook, packet)}
        lost = {(hook, packet) for hook, packet in allowed - now if reaches_connections(world, hook, packet)}
        assert delta.revokes or not lost, lost
        allowed = now
        check_packets(builder, world, some)
    assert builder.table == rebuilt(world).table
    assert builder.flush().empty


@settings(max_examples=30, deadline=None)
@given(whole)
def test_every_name_in_the_table_leads_somewhere(announced):
    builder, _ = empty()
    for update in announced:
        builder.on_update(update)
    builder.flush()
    table = builder.table
    for chain in table.chains.values():
        for rule in chain.rules:
            if isinstance(rule.verdict, ir.Jump | ir.Goto):
                assert rule.verdict.chain in table.chains
            for match in rule.matches:
                named = msgspec.structs.asdict(match).get("set_name")
                assert named is None or named in table.sets
    for mapping in table.maps.values():
        assert set(mapping.values()) <= table.chains.keys()


def led_to(table: ir.Table, chain: str) -> list[str]:
    """The chains that this one leads to, as often as it does."""
    found: list[str] = []
    for rule in table.chains[chain].rules:
        match rule.verdict:
            case ir.Jump(chain=target) | ir.Goto(chain=target):
                found.append(target)
            case ir.Dispatch(map_name=name) | ir.DispatchAddress(map_name=name) | ir.DispatchPort(map_name=name):
                found += table.maps[name].values()
    return found


def nesting(table: ir.Table, chain: str, known: dict[str, int]) -> int:
    """How many chains are below this one on the longest path; the kernel counts every way, possible or not."""
    if chain not in known:
        known[chain] = max((1 + nesting(table, target, known) for target in led_to(table, chain)), default=0)
    return known[chain]


def deepest_world() -> list[m.Update]:
    """Everything at once: five tiers that pass, host endpoints with every kind of policy, limits, floating addresses."""
    key = ResourceKey("GlobalNetworkPolicy", "passes")
    inlined, plain = m.Rule(m.Action.PASS, protocol=6), m.Rule(m.Action.ALLOW, protocol=6)
    deep = tuple(m.TierPolicies(f"t{index}", m.Action.PASS, (key, *POLICIES[:2])) for index in range(5))
    qos = m.Qos(m.Limits(connections=5, packets_per_s=5), m.Limits(connections=5, packets_per_s=5))
    body = m.Endpoint("h", "cali1", "", (ADDRESSES[0],), (), deep, deep, ("p",), (m.Nat(HOST_ADDRESSES[0], ADDRESSES[0]),), qos)
    return [
        m.SetUpdate(m.ALL_POOLS, m.SetKind.NETS, frozenset(NETS[:1])),
        m.SetUpdate(m.NAT_POOLS, m.SetKind.NETS, frozenset(NETS[:1])),
        m.PolicyUpdate(key, m.Policy((inlined, plain), (inlined, plain))),
        m.PolicyUpdate(POLICIES[0], m.Policy((plain,), (plain,))),
        m.PolicyUpdate(POLICIES[1], m.Policy((plain,), (plain,))),
        m.ProfileUpdate("p", m.Policy((plain,), (plain,))),
        m.EndpointUpdate(ENDPOINT_KEYS[0], 1, body),
        m.HostEndpointUpdate(HOST_KEYS[0], 1, m.HostEndpoint("h", "eth0", (), deep, deep, deep, deep, deep, deep, deep, ("p",))),
        m.HostEndpointUpdate(HOST_KEYS[1], 1, m.HostEndpoint("h", "*", (), deep, deep, deep, deep, deep, deep, deep, ("p",))),
    ]


def test_chains_never_nest_deeper_than_the_kernel_allows():
    builder, _ = empty(TableOptions(deny=DenyAction.REJECT, host_services=SERVICES, dispatch_from=1))
    for update in deepest_world():
        builder.on_update(update)
    builder.flush()
    known: dict[str, int] = {}
    depths = {name: nesting(builder.table, name, known) for name, chain in builder.table.chains.items() if chain.hook is not None}
    assert 8 < max(depths.values()) <= NESTING_LIMIT, depths


def ways(table: ir.Table, chain: str, known: dict[str, int]) -> int:
    """How many rules a kernel looks at that follows each way from here on by itself."""
    if chain not in known:
        known[chain] = len(table.chains[chain].rules) + sum(ways(table, target, known) for target in led_to(table, chain))
    return known[chain]


def test_ways_through_the_chains_grow_as_the_endpoints_do():
    def all_ways(endpoints: int) -> int:
        builder, _ = empty()
        for update in deepest_world():
            builder.on_update(update)
            for number in range(endpoints):
                if isinstance(update, m.EndpointUpdate):
                    body = msgspec.structs.replace(update.endpoint, interface=f"cali{number}")
                    builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", f"e{number}", "ns"), 1, body))
                if isinstance(update, m.HostEndpointUpdate):
                    other = msgspec.structs.replace(update.endpoint, interface=f"eth{number}")
                    builder.on_update(m.HostEndpointUpdate(ResourceKey("HostEndpoint", f"e{number}"), 1, other))
        builder.flush()
        known: dict[str, int] = {}
        return sum(ways(builder.table, name, known) for name, chain in builder.table.chains.items() if chain.hook is not None)

    few, twice = all_ways(10), all_ways(20)
    assert few < 200_000
    assert twice < 2 * few


def test_addresses_cover_both_families():
    assert {address.family for address in ADDRESSES} == {4, 6}
    assert all(isinstance(net, Prefix) for net in NETS)
