"""What peerings and configurations can choose, in real routes: ports, addresses, gateways, transit by filter only, priorities, own AS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.bgp.leftovers import SETTLED_S
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[World]:
    """Two hosts on a segment; ``out`` speaks BGP two hops away, behind ``gw``, and the hosts have no route there."""
    world = World(tmp_path)
    try:
        for name in ("h1", "h2", "gw", "out"):
            world.add(name)
        world.segment("lan", {"h1": ("10.7.0.1/24",), "h2": ("10.7.0.2/24",), "gw": ("10.7.0.9/24",)})
        world.link("gw", "out", ("10.8.0.0/31",), ("10.8.0.1/31",))
        world.ip("out", "route add 10.7.0.0/24 via 10.8.0.0")
        world.frr(
            "out",
            "route-map OWN permit 10",
            " set as-path prepend 64512",
            "route-map MARKED permit 10",
            " set community 65200:5",
            "router bgp 65200",
            " no bgp ebgp-requires-policy",
            " no bgp network import-check",
            " neighbor 10.7.0.1 remote-as 64512",
            " neighbor 10.7.0.1 port 1179",
            " neighbor 10.7.0.1 ebgp-multihop 4",
            " neighbor 10.7.0.1 timers connect 1",
            " address-family ipv4 unicast",
            "  network 198.51.100.0/24",
            "  network 192.0.2.0/24 route-map OWN",
            "  network 203.0.113.0/24 route-map MARKED",
            " exit-address-family",
        )
        world.resources.pools["v4"] = pool("10.65.0.0/16")
        world.resources.configurations["default"] = r.BGPConfigurationSpec(
            listen_port=1179, bind_mode="NodeIP", ignored_interfaces=("dum*",)
        )
        world.resources.peers["out"] = peer(node="h1", peer_ip="10.8.0.1", as_number=65200, reachable_by="10.7.0.9", ttl_security=0)
        for n in (1, 2):
            world.host(f"h{n}", ipv4_address=f"10.7.0.{n}/24")
            world.resources.blocks[f"h{n}"] = blocks(f"10.65.{n}.0/26")
        yield world
    finally:
        world.close()


def set_peer(world: World, *names: str, **spec: object) -> None:
    given = {"node": "h1", "peer_ip": "10.8.0.1", "as_number": 65200, "reachable_by": "10.7.0.9", "filters": names} | spec
    world.resources.peers["out"] = peer(**given)
    world.configure()


def birdc(world: World, node: str, *words: str) -> str:
    return world.exec(node, "birdc", "-s", str(world.home(node) / "bird.ctl"), *words)


def metric(world: World, destination: str) -> int:
    routes = json.loads(world.ip("h1", f"-j route show {destination}"))
    return routes[0].get("metric", 0) if routes else -1


def metrics(world: World) -> set[int]:
    return {route["metric"] for route in json.loads(world.ip("h1", "-j route show proto bird"))}


def test_choices(lan: World) -> None:
    until(lambda: set(lan.frr_routes("out")) == {"198.51.100.0/24", "192.0.2.0/24", "203.0.113.0/24"})
    lan.configure()
    took = lan.wait_up()
    print(f"two hosts and a peer behind a gateway: {took:.1f} s")
    one, two = lan.hosts["h1"], lan.hosts["h2"]
    listening = lan.exec("h1", "ss", "-Htln")
    assert "10.7.0.1:1179" in listening
    assert "0.0.0.0:1179" not in listening
    assert ":179 " not in listening
    # The way to the peer is there, and is nobody else's business; what the peer has is found through it.
    until(lambda: one.hops("198.51.100.0/24") == ["10.7.0.9"])
    assert one.hops("10.8.0.1/32") == ["10.7.0.9"]
    assert one.hops("192.0.2.0/24") == []  # our own AS is in its path
    assert (metric(lan, "198.51.100.0/24"), metric(lan, "10.65.1.0/26")) == (32, 32)
    until(lambda: "10.65.1.0/26" in lan.frr_routes("out"))
    # A host is no transit, in neither direction, whatever a filter accepts; but for one that says so.
    assert two.hops("198.51.100.0/24") == []
    everything = r.FilterRuleV4(action="Accept", cidr="10.65.0.0/16", match_operator="In")
    learned = r.FilterRuleV4(action="Accept", source="RemotePeers", cidr="10.65.2.0/24", match_operator="In")
    lan.resources.filters |= {
        "all": r.BGPFilterSpec(export_v4=(everything, r.FilterRuleV4(action="Reject"))),
        "learned": r.BGPFilterSpec(export_v4=(learned,)),
        "marked": r.BGPFilterSpec(
            import_v4=(
                r.FilterRuleV4(
                    action="Accept",
                    communities=r.CommunityMatch(values=("65200:5",)),
                    as_path_prefix=(65200,),
                    operations=(r.FilterOperation(set_priority=r.SetPriority(value=700)),),
                ),
                r.FilterRuleV4(action="Reject", as_path_prefix=(65200,)),
            )
        ),
    }
    lan.ip("h1", "link add dum0 type veth peer name dum1")
    lan.ip("h1", "addr add 10.65.200.1/24 dev dum0")
    lan.ip("h1", "link set dum0 up")
    lan.ip("h1", "link set dum1 up")
    set_peer(lan, "all")
    until(lambda: "10.65.2.0/26" in birdc(lan, "h1", "show", "route"))
    assert set(lan.frr_routes("out")) == {"10.65.1.0/26", "198.51.100.0/24", "192.0.2.0/24", "203.0.113.0/24"}
    set_peer(lan, "learned")
    until(lambda: "10.65.2.0/26" in lan.frr_routes("out"))
    # Routes are judged by community and path as they come in, and get a priority.
    set_peer(lan, "marked")
    until(lambda: one.hops("203.0.113.0/24") == ["10.7.0.9"] and one.hops("198.51.100.0/24") == [])
    assert f"BGP.local_pref: {2147483647 - 700}" in birdc(lan, "h1", "show", "route", "all", "203.0.113.0/24")
    # Our own AS in a path is taken where it is asked for.
    set_peer(lan, num_allowed_local_as_numbers=1)
    until(lambda: one.hops("192.0.2.0/24") == ["10.7.0.9"])
    # Hosts that peer by a selector, without a mesh: what one passes on to the other has itself as next hop, or the one that it was told.
    mesh = lan.resources.configurations["default"]
    lan.resources.configurations["default"] = msgspec.structs.replace(mesh, node_to_node_mesh_enabled=False)
    outside = r.FilterRuleV4(action="Accept", source="RemotePeers", cidr="198.51.100.0/24", match_operator="In")
    lan.resources.filters["outside"] = r.BGPFilterSpec(export_v4=(outside,))
    lan.ip("h2", "route add 10.8.0.0/31 via 10.7.0.9")
    for mode, hop in (("Auto", "10.7.0.1"), ("Keep", "10.7.0.9"), ("Self", "10.7.0.1")):
        lan.resources.peers["hosts"] = peer(node_selector="all()", peer_selector="all()", filters=("outside",), next_hop_mode=mode)
        lan.configure()
        until(
            lambda hop=hop: two.hops("198.51.100.0/24") == [hop], tell=lambda: birdc(lan, "h2", "show", "route", "all", "198.51.100.0/24")
        )
    del lan.resources.peers["hosts"]
    lan.resources.configurations["default"] = mesh
    lan.configure()
    lan.wait_up()
    until(lambda: one.hops("10.65.2.0/26") == ["10.7.0.2"])
    # Another metric in the kernel takes the place of the one before.
    default = lan.resources.configurations["default"]
    lan.resources.configurations["default"] = msgspec.structs.replace(default, ipv4_normal_route_priority=900)
    lan.configure()

    def settled() -> bool:
        one.refresh()
        return metrics(lan) == {900}

    until(lambda: 900 in metrics(lan))
    lan.skipped_s += SETTLED_S
    until(settled, 30, lambda: lan.ip("h1", "route show proto bird"))
    assert one.hops("10.65.2.0/26") == ["10.7.0.2"]
    # Other hosts keep their sessions all the while.
    assert two.down() == []
    assert "1179" in (lan.home("h2") / "bird.conf").read_text()
