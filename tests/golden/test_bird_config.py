"""bird.conf for typical intents, as golden files that the real BIRD accepts."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress, LinkPeer, Secret
from tabinet.bgp.render import render_config
from tabinet.calc.intents import (
    AddCommunity,
    Advertisement,
    BgpIntent,
    Drain,
    FilterIntent,
    FilterRule,
    MatchOperator,
    NextHop,
    PeerIntent,
    PoolIntent,
    Prepend,
    SecretRef,
    SetPriority,
)
from tabinet.lab.routers import NeighbourSpec, RouterSpec, Software, render_router
from tabinet.lib.ip import parse_address, parse_prefix

GOLDEN = Path(__file__).parent / "bird"
POOLS = (
    PoolIntent("v4", parse_prefix("10.65.0.0/16"), True, False),
    PoolIntent("v6", parse_prefix("fd00:65::/48"), False, False),
    PoolIntent("quiet", parse_prefix("10.66.0.0/16"), False, True),
)
BLOCKS = (parse_prefix("10.65.0.0/26"), parse_prefix("10.66.0.0/32"), parse_prefix("fd00:65::/122"))


def address(interface: str, text: str) -> InterfaceAddress:
    head, _, length = text.partition("/")
    return InterfaceAddress(interface, parse_address(head), int(length))


def peer(name: str, remote: str, as_number: int, *, node_ip: bool = False, bfd: bool = True, restart: int = 0) -> PeerIntent:
    return PeerIntent(name, parse_address(remote), 179, as_number, False, node_ip, bfd, restart, 0)


def intent(as_number: int, own4: str | None, own6: str | None, peers: tuple[PeerIntent, ...], severity: str = "Info") -> BgpIntent:
    return BgpIntent(
        host="h11",
        as_number=as_number,
        router_id=own4 or "10.254.0.7",
        ipv4=parse_address(own4) if own4 else None,
        ipv6=parse_address(own6) if own6 else None,
        listen_port=179,
        log_severity=severity,
        peers=peers,
        blocks=BLOCKS,
        pools=POOLS,
        ignored_interfaces=("docker0",),
    )


CLOS_FACTS = HostFacts(
    (
        address("lo", "10.254.0.7/32"),
        address("lo", "fd00:254::7/128"),
        address("t11", "10.255.8.1/31"),
        address("t11", "fd00:255:8::1/127"),
        address("t12", "10.255.10.1/31"),
        address("t12", "fd00:255:a::1/127"),
    )
)
CLOS = intent(
    4200000011,
    "10.254.0.7",
    "fd00:254::7",
    (
        peer("t11-v4", "10.255.8.0", 65111),
        peer("t11-v6", "fd00:255:8::", 65111),
        peer("t12-v4", "10.255.10.0", 65112),
        peer("t12-v6", "fd00:255:a::", 65112),
    ),
)
FLAT_FACTS = HostFacts((address("eth0", "10.7.0.1/24"), address("eth0", "fd00:7::1/64"), address("docker0", "172.17.0.1/16")))
MESH = intent(
    64512,
    "10.7.0.1",
    "fd00:7::1",
    (
        *(
            msgspec.structs.replace(each, mesh=True, ours=True)
            for each in (
                peer("Mesh_h2_v4", "10.7.0.2", 64512, node_ip=True, restart=60),
                peer("Mesh_h2_v6", "fd00:7::2", 64512, node_ip=True),
                peer("Mesh_far_v4", "10.8.0.2", 64512, node_ip=True),
            )
        ),
    ),
    "Debug",
)

RULES = FilterIntent(
    name="to-rack",
    export_rules=(
        (4, FilterRule(accept=False, net=parse_prefix("10.65.9.0/24"), operator=MatchOperator.EQUAL)),
        (4, FilterRule(accept=False, net=parse_prefix("10.0.0.0/8"), operator=MatchOperator.NOT_IN)),
        (
            4,
            FilterRule(
                accept=True,
                net=parse_prefix("10.65.0.0/16"),
                lengths=(26, 28),
                external=True,
                operations=(AddCommunity((65000, 7)), AddCommunity((4200000011, 1, 2)), Prepend((65001, 65002)), SetPriority(512)),
            ),
        ),
        (4, FilterRule(accept=True, remote_only=True, interface="eth*", external=False)),
        (6, FilterRule(accept=False, net=parse_prefix("fd00::/16"), operator=MatchOperator.NOT_EQUAL, priority=512)),
    ),
    import_rules=(
        (4, FilterRule(accept=True, community=(65000, 100), operations=(SetPriority(512),))),
        (4, FilterRule(accept=True, community=(4200000011, 1, 2), as_path=(65111, 65000), priority=1024)),
        (4, FilterRule(accept=False)),
    ),
)
EVERYTHING = msgspec.structs.replace(
    intent(
        65000,
        "10.7.0.1",
        "fd00:7::1",
        (
            msgspec.structs.replace(
                peer("rack", "10.7.0.2", 65111),
                local_as=65009,
                allowed_own_as=2,
                next_hop=NextHop.KEEP_EXTERNAL,
                password=SecretRef("bgp", "rack"),
                ttl_hops=1,
                filters=("to-rack", "missing-family"),
                bfd_interval_ms=50,
                route_limit=99,
            ),
            msgspec.structs.replace(
                peer("far", "10.9.0.2", 65222, node_ip=True), ttl_hops=3, reachable_by=parse_address("10.7.0.9"), next_hop=NextHop.SELF
            ),
            msgspec.structs.replace(peer("client", "10.7.0.4", 65000, node_ip=True), reflected=True, client=True),
            msgspec.structs.replace(peer("other-reflector", "fd00:7::5", 65000, node_ip=True), reflected=True, filters=("to-rack",)),
            msgspec.structs.replace(peer("bird", "10.7.0.6", 65112), long_lived=True),
            msgspec.structs.replace(peer("uplink", "fe80::", 0), interface="eth0"),
            msgspec.structs.replace(peer("not-heard", "fe80::", 0), interface="eth1"),
            msgspec.structs.replace(peer("secretive", "10.7.0.8", 65000), password=SecretRef("bgp", "gone")),
            msgspec.structs.replace(
                peer("vnf", "10.65.0.7", 65300, bfd=False),
                workload=(parse_prefix("10.65.0.7"), parse_prefix("203.0.113.0/24"), parse_prefix("fd00:65::7")),
                filters=("to-rack",),
                route_limit=16,
                families=(4, 6),
            ),
            msgspec.structs.replace(peer("vnf6", "fd00:65::7", 65300, bfd=False), workload=(parse_prefix("fd00:65::7"),)),
        ),
    ),
    ignored_interfaces=("docker*", 'bad"'),
    filters=(RULES, FilterIntent(name="missing-family", import_rules=((6, FilterRule(accept=True)),))),
    advertisements=(
        Advertisement(parse_prefix("10.65.0.0/16"), ((65000, 1), (65000, 1, 2))),
        Advertisement(parse_prefix("fd00:65::/48"), ((65000, 6),)),
    ),
    services=(parse_prefix("10.96.0.0/12"), parse_prefix("fd00:96::/112")),
    bind_node_ip=True,
    cluster_id="224.0.0.1",
    metrics=(900, 0),
)
EVERYTHING_FACTS = HostFacts(
    (*FLAT_FACTS.addresses, address("eth0", "fe80::7/64"), address("eth1", "fe80::8/64")),
    neighbours=(LinkPeer("eth0", parse_address("fe80::99")), LinkPeer("eth1", None)),
    secrets=(Secret("bgp", "rack", "s3cret # not a comment", True), Secret("bgp", "gone", problem="no such file")),
)

CASES: dict[str, tuple[BgpIntent | None, HostFacts, BgpOptions]] = {
    "clos": (CLOS, CLOS_FACTS, BgpOptions()),
    "clos-drained": (
        msgspec.structs.replace(CLOS, drain=Drain.GRACEFUL),
        CLOS_FACTS,
        BgpOptions(bfd_interval_ms=300, bfd_multiplier=5),
    ),
    "mesh": (MESH, FLAT_FACTS, BgpOptions()),
    "no-intent": (None, CLOS_FACTS, BgpOptions()),
    "ipv6-only": (intent(65000, None, "fd00:7::1", (peer("rr", "fd00:99::1", 65000, node_ip=True),)), FLAT_FACTS, BgpOptions()),
    "everything": (EVERYTHING, EVERYTHING_FACTS, BgpOptions()),
    "leaving": (msgspec.structs.replace(CLOS, prepends=2), CLOS_FACTS, BgpOptions()),
    "withdrawn": (msgspec.structs.replace(CLOS, drain=Drain.WITHDRAWN), CLOS_FACTS, BgpOptions()),
    "tunnels": (
        msgspec.structs.replace(MESH, pools=tuple(msgspec.structs.replace(pool, tunnel=pool.name != "quiet") for pool in POOLS)),
        FLAT_FACTS,
        BgpOptions(),
    ),
    "hostile-names": (
        intent(
            65000,
            "10.7.0.1",
            None,
            (peer('a"; };\nexp', "10.7.0.2", 65000), peer("a/b", "10.7.0.5", 3), peer("exp", "10.7.0.3", 1), peer("a.b", "10.7.0.4", 2)),
        ),
        HostFacts((address('x" y', "10.7.0.0/30"), address("eth0", "10.7.0.1/24"))),
        BgpOptions(),
    ),
}

ROUTER = RouterSpec(
    name="t11",
    as_number=65111,
    router_id="10.254.0.3",
    loopbacks=(parse_address("10.254.0.3"), parse_address("fd00:254::3")),
    neighbours=(
        NeighbourSpec(
            interface="s1",
            peer_name="s1",
            peer_as=65000,
            local4=parse_address("10.255.0.1"),
            peer4=parse_address("10.255.0.0"),
            local6=parse_address("fd00:255::1"),
            peer6=parse_address("fd00:255::"),
        ),
        NeighbourSpec(
            interface="h11",
            peer_name="h11",
            peer_as=4200000011,
            local4=parse_address("10.255.8.0"),
            peer4=parse_address("10.255.8.1"),
            local6=parse_address("fd00:255:8::"),
            peer6=parse_address("fd00:255:8::1"),
            is_host=True,
        ),
    ),
    host_prefixes=tuple(map(parse_prefix, ("10.65.0.0/16", "fd00:65::/48", "10.254.0.0/24", "fd00:254::/64"))),
)


def compare(path: Path, text: str, update: bool) -> None:
    if update:
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", CASES)
def test_bird_accepts_the_golden_text(name: str, pytestconfig: pytest.Config) -> None:
    path = GOLDEN / f"{name}.conf"
    compare(path, render_config(*CASES[name]), pytestconfig.getoption("--update-golden"))
    run = subprocess.run(["bird", "-p", "-c", path], check=False, capture_output=True, text=True, timeout=10)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_bird_router_is_accepted(pytestconfig: pytest.Config) -> None:
    path = GOLDEN / "router.conf"
    (file,) = render_router(ROUTER)
    compare(path, file.text, pytestconfig.getoption("--update-golden"))
    run = subprocess.run(["bird", "-p", "-c", path], check=False, capture_output=True, text=True, timeout=10)
    assert (run.returncode, run.stderr) == (0, "")


def test_an_frr_router_is_as_the_golden_files_say(pytestconfig: pytest.Config) -> None:
    spec = RouterSpec(**{name: getattr(ROUTER, name) for name in ROUTER.__struct_fields__} | {"software": Software.FRR})
    for file in render_router(spec):
        compare(GOLDEN / f"router-frr-{file.name}", file.text, pytestconfig.getoption("--update-golden"))


def test_an_frr_router_with_unnumbered_links_is_as_the_golden_file_says(pytestconfig: pytest.Config) -> None:
    neighbours = tuple(
        NeighbourSpec(interface=each.interface, peer_name=each.peer_name, peer_as=each.peer_as, is_host=each.is_host, unnumbered=True)
        for each in ROUTER.neighbours
    )
    spec = msgspec.structs.replace(ROUTER, software=Software.FRR, neighbours=neighbours)
    (text,) = [file.text for file in render_router(spec) if file.name == "bgpd.conf"]
    compare(GOLDEN / "router-frr-unnumbered-bgpd.conf", text, pytestconfig.getoption("--update-golden"))
