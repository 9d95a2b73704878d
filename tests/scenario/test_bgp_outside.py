"""FRR as the outside: two top-of-rack routers in ASes of their own, filters, communities, passwords, TTL security, limits, drain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.bgp.records import SessionState
from tabinet.bgp.tcpcounters import WINDOW_S
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SECRET = r.BgpPassword(secret_key_ref=r.SecretKeySelector(name="bgp", key="tor2"))
ROUTER = (
    " no bgp ebgp-requires-policy",
    " bgp bestpath as-path multipath-relax",
    " no bgp network import-check",
)


def session(address: str, remote: int, *more: str) -> list[str]:
    head = f" neighbor {address}"
    return [f"{head} remote-as {remote}", f"{head} timers 3 9", f"{head} timers connect 1", *(f"{head} {each}" for each in more)]


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        (tmp_path / "secrets" / "bgp").mkdir(parents=True)
        (tmp_path / "secrets" / "bgp" / "tor2").write_text("wrong\n")
        world.add("h1", "10.254.0.1/32", "fd00:254::1/128")
        for n in (1, 2):
            world.add(f"tor{n}")
            world.link(f"tor{n}", "h1", (f"10.255.{n}.0/31", f"fd00:255:{n}::/127"), (f"10.255.{n}.1/31", f"fd00:255:{n}::1/127"))
        world.frr(
            "tor1",
            "router bgp 65111",
            *ROUTER,
            *session("10.255.1.1", 4200000001, "bfd profile fabric"),
            *session("fd00:255:1::1", 4200000001, "bfd profile fabric"),
            " address-family ipv4 unicast",
            "  network 198.51.100.0/24",
            "  network 203.0.113.0/24",
            " exit-address-family",
            " address-family ipv6 unicast",
            "  neighbor fd00:255:1::1 activate",
            "  network 2001:db8:100::/48",
            " exit-address-family",
        )
        world.frr(
            "tor2",
            "router bgp 65112",
            *ROUTER,
            *session("10.255.2.1", 65009, "password right", "ttl-security hops 1"),
            " address-family ipv4 unicast",
            "  network 198.51.100.0/24",
            " exit-address-family",
        )
        world.resources.pools |= {
            "v4": pool("10.65.0.0/16"),
            "v6": pool("fd00:65::/48"),
            "quiet": pool("10.66.0.0/16", disable_bgp_export=True),
        }
        world.resources.blocks["h1"] = blocks("10.65.1.0/26", "10.66.1.0/26", "fd00:65::/122")
        world.workload("h1", "w1", "10.65.1.1", "fd00:65::1", "10.65.77.7")
        world.resources.configurations["default"] = r.BGPConfigurationSpec(
            node_to_node_mesh_enabled=False,
            communities=(r.Community(name="blocks", value="65000:100"),),
            prefix_advertisements=(r.PrefixAdvertisement(cidr="10.65.1.0/26", communities=("blocks", "65000:1:2")),),
            service_cluster_ips=(r.ServiceBlock(cidr="10.96.0.0/16"),),
        )
        world.resources.peers |= {
            "tor1-v4": peer(peer_ip="10.255.1.0", as_number=65111, source_address="None", filters=("outside",)),
            "tor1-v6": peer(peer_ip="fd00:255:1::", as_number=65111, source_address="None"),
            "tor2": peer(
                peer_ip="10.255.2.0",
                as_number=65112,
                source_address="None",
                local_as_number=65009,
                password=SECRET,
                ttl_security=1,
                failure_detection_mode="None",
            ),
        }
        world.resources.filters["outside"] = r.BGPFilterSpec(
            export_v4=(
                r.FilterRuleV4(action="Reject", cidr="10.65.77.0/24", match_operator="In"),
                r.FilterRuleV4(
                    action="Accept",
                    cidr="10.96.0.0/16",
                    match_operator="Equal",
                    peer_type="eBGP",
                    operations=(
                        r.FilterOperation(add_community=r.AddCommunity(value="65000:96")),
                        r.FilterOperation(prepend_as_path=r.PrependASPath(prefix=(65001, 65002))),
                    ),
                ),
                r.FilterRuleV4(action="Reject", cidr="10.65.1.0/26", match_operator="Equal", peer_type="iBGP"),
            ),
            import_v4=(r.FilterRuleV4(action="Reject", cidr="203.0.113.0/24", match_operator="Equal"),),
        )
        world.host("h1", ipv4_address="10.254.0.1/32", ipv6_address="fd00:254::1/128", as_number=4200000001)
        yield world
    finally:
        world.close()


def communities(path: dict[str, Any]) -> str:
    return f"{path.get('community', {}).get('string', '')}|{path.get('largeCommunity', {}).get('string', '')}"


async def test_what_the_neighbour_sees_and_why_the_other_does_not(rack: World) -> None:
    host = rack.hosts["h1"]
    assert host.configure() == []
    until(lambda: host.down() and len(host.down()) == 1, tell=host.down)
    # --- a wrong password: the others work, and this one says why; then it is right
    until(lambda: "another password than is configured here" in host.sessions()["peer_tor2"].reason, tell=host.down)
    print(host.sessions()["peer_tor2"].reason)
    until(lambda: set(rack.frr_routes("tor1")) >= {"10.65.1.0/26", "10.96.0.0/16", "10.254.0.1/32"})
    seen = rack.frr_routes("tor1")
    assert set(seen) == {"10.65.1.0/26", "10.96.0.0/16", "10.254.0.1/32", "198.51.100.0/24", "203.0.113.0/24"}
    assert communities(seen["10.65.1.0/26"][0]) == "65000:100|65000:1:2"
    assert communities(seen["10.96.0.0/16"][0]) == "65000:96|"
    assert seen["10.96.0.0/16"][0]["aspath"]["string"] == "4200000001 65001 65002"
    assert set(rack.frr_routes("tor1", 6)) == {"fd00:65::/122", "fd00:254::1/128", "2001:db8:100::/48"}
    until(lambda: host.hops("198.51.100.0/24") == ["10.255.1.0"])
    assert host.hops("203.0.113.0/24") == []
    assert "10.96.0.0/16" not in rack.ip("h1", "route show")
    (rack.directory / "secrets" / "bgp" / "tor2").write_text("right\n")
    rack.wait_up()
    both = ["10.255.1.0", "10.255.2.0"]
    until(lambda: host.hops("198.51.100.0/24") == both, tell=lambda: host.driver.control.routes(100))
    seen = rack.frr_routes("tor2")
    assert set(seen) == {"10.65.1.0/26", "10.65.77.7/32", "10.96.0.0/16", "10.254.0.1/32", "198.51.100.0/24"}
    assert {paths[0]["aspath"]["string"] for prefix, paths in seen.items() if prefix != "198.51.100.0/24"} == {"65009"}
    # --- drained: everything of ours says so, and in the end nothing but its own address is left
    node = rack.resources.nodes["h1"]
    rack.resources.nodes["h1"] = r.Node(metadata=r.Metadata(annotations={"tabinet.io/drain": "true"}), spec=node.spec)
    rack.configure()
    until(lambda: "graceful" in communities(rack.frr_routes("tor1")["10.65.1.0/26"][0]), tell=lambda: rack.frr_routes("tor1"))
    rack.resources.nodes["h1"] = r.Node(metadata=r.Metadata(annotations={"tabinet.io/drain": "withdrawn"}), spec=node.spec)
    rack.configure()
    until(lambda: set(rack.frr_routes("tor2")) == {"10.254.0.1/32", "198.51.100.0/24"}, tell=lambda: rack.frr_routes("tor2"))
    assert "graceful" in communities(rack.frr_routes("tor2")["10.254.0.1/32"][0])
    assert host.down() == []
    rack.resources.nodes["h1"] = node
    rack.configure()
    until(lambda: "10.65.1.0/26" in rack.frr_routes("tor2"))
    # --- too many routes, and TTL security on one side only
    rack.resources.peers["tor1-v4"] = peer(
        {"tabinet.io/route-limit": "1"}, peer_ip="10.255.1.0", as_number=65111, source_address="None", failure_detection_mode="None"
    )
    rack.resources.peers["tor2"] = peer(
        peer_ip="10.255.2.0", as_number=65112, source_address="None", local_as_number=65009, password=SECRET, failure_detection_mode="None"
    )
    rack.configure()
    until(lambda: "more routes than are accepted" in host.sessions()["peer_tor1-v4"].reason, tell=host.down)
    rack.frr_do("tor2", "router bgp 65112", "no neighbor 10.255.2.1 ttl-security hops 1")
    rack.resources.peers["tor2"] = peer(
        peer_ip="10.255.2.0", as_number=65112, source_address="None", local_as_number=65009, password=SECRET, ttl_security=1
    )
    rack.configure()
    rack.skipped_s += WINDOW_S  # the segments with a wrong password are long ago
    until(lambda: "does not use TTL security" in host.sessions()["peer_tor2"].reason, 40, host.down)
    # --- another AS than configured
    rack.resources.peers["tor1-v6"] = peer(peer_ip="fd00:255:1::", as_number=65999, source_address="None")
    rack.configure()
    until(lambda: "another AS number" in host.sessions()["peer_tor1-v6"].reason, 40, host.down)
    # The session with too many routes comes up again and again, until they arrive.
    until(lambda: all(found.state is not SessionState.ESTABLISHED for found in host.sessions().values()))
    for name, found in host.sessions().items():
        print(f"{name}: {found.state.value}: {found.reason}")
