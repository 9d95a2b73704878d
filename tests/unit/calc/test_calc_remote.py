"""Tunnels and routes through them, for named states of a cluster of three hosts in two racks."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import LocalTunnel, RemoteRoute, Tunnel, TunnelPeer
from tabinet.calc.nodefacts import derived_mac
from tabinet.calc.replica import Replica, State
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.holders import Holder
from tabinet.model.ipam import Affinity, AffinityState
from tabinet.model.keys import AffinityKey, HolderKey, Key, ResourceKey
from tabinet.model.resources import IPPool, IPPoolSpec, Node, NodeBgp, NodeSpec, WorkloadEndpoint, WorkloadEndpointSpec

NODES = {"h1": "172.16.1.1/24", "h2": "172.16.1.2/24", "h3": "172.16.2.3/24"}
BLOCKS = {"h1": "10.65.0.0/26", "h2": "10.65.0.64/26", "h3": "10.65.0.128/26"}
ENDS = {"h1": "10.65.0.1", "h2": "10.65.0.65", "h3": "10.65.0.129"}


def p(text: str) -> Prefix:
    return parse_prefix(text)


def node(name: str, *, end: str | None = None, address: str = "") -> tuple[Key, Node]:
    spec = NodeSpec(
        bgp=NodeBgp(ipv4_address=address or NODES[name], ipv4_ipip_tunnel_addr=""),
        ipv4_vxlan_tunnel_addr=ENDS[name] if end is None else end,
    )
    return ResourceKey("Node", name), Node(spec=spec)


def pool(vxlan: str = "", ipip: str = "", **more: object) -> tuple[Key, IPPool]:
    return ResourceKey("IPPool", "pool"), IPPool(spec=IPPoolSpec(cidr="10.65.0.0/16", vxlan_mode=vxlan, ipip_mode=ipip, **more))


def workload(name: str, host: str, address: str) -> tuple[Key, WorkloadEndpoint]:
    spec = WorkloadEndpointSpec(node=host, ip_networks=(address,), interface_name=f"cali{name}")
    return ResourceKey("WorkloadEndpoint", name, "ns"), WorkloadEndpoint(spec=spec)


class Cluster:
    """The graph of h1, and what it told."""

    def __init__(self, *more: tuple[Key, object]) -> None:
        self.graph, self.replica = Graph(frozenset({"h1"})), Replica()
        for name in NODES:
            self.put(node(name))
        for name, block in BLOCKS.items():
            self.put((AffinityKey(name, p(block)), Affinity(state=AffinityState.CONFIRMED)))
        for item in more:
            self.put(item)
        self.graph.on_input(InSync())

    def put(self, item: tuple[Key, object]) -> None:
        self.graph.on_input(Put(item[0], item[1], 1))

    def delete(self, key: Key) -> None:
        self.graph.on_input(Delete(key))

    @property
    def state(self) -> State:
        for update in self.graph.flush():
            self.replica.apply(update)
        return self.replica.state

    def routes(self) -> dict[str, tuple[str, bool]]:
        """Gateway by destination, and whether it is reached without the tunnel."""
        found = self.state.remote_routes
        return {str(net): (route.gateway.address if route.gateway else "link", route.direct) for (_, net), route in found.items()}


def test_a_pool_without_a_tunnel_is_no_matter_of_ours() -> None:
    cluster = Cluster(pool(), workload("w", "h3", "10.65.0.5/32"))
    assert (cluster.routes(), cluster.state.tunnel_peers) == ({}, {})
    # The addresses in the nodes are left from a time when there was one.
    assert cluster.state.tunnels == {("h1", Tunnel.VXLAN4): LocalTunnel(None, p("10.65.0.1"), "", (), wanted=False)}


def test_vxlan_always_goes_by_the_ends_of_tunnels() -> None:
    cluster = Cluster(pool("Always"))
    assert cluster.routes() == {"10.65.0.64/26": ("10.65.0.65", False), "10.65.0.128/26": ("10.65.0.129", False)}
    own = LocalTunnel(p("172.16.1.1"), p("10.65.0.1"), derived_mac("h1"), (p("10.65.0.0/16"),))
    assert cluster.state.tunnels == {("h1", Tunnel.VXLAN4): own}
    assert cluster.state.tunnel_peers["h1", Tunnel.VXLAN4, "h3"] == TunnelPeer(p("172.16.2.3"), p("10.65.0.129"), derived_mac("h3"))


def test_cross_subnet_is_direct_within_a_subnet() -> None:
    cluster = Cluster(pool("CrossSubnet"))
    assert cluster.routes() == {"10.65.0.64/26": ("172.16.1.2", True), "10.65.0.128/26": ("10.65.0.129", False)}
    cluster.put(node("h2", address="172.16.9.2/24"))
    assert cluster.routes()["10.65.0.64/26"] == ("10.65.0.65", False)
    cluster.put(node("h1", address="172.16.1.1"))  # without a length nobody is near
    assert not any(direct for _, direct in cluster.routes().values())


def test_ip_in_ip_goes_by_the_hosts_themselves() -> None:
    cluster = Cluster(pool(ipip="CrossSubnet"))
    assert cluster.routes() == {"10.65.0.64/26": ("172.16.1.2", True), "10.65.0.128/26": ("172.16.2.3", False)}
    assert {route.tunnel for route in cluster.state.remote_routes.values()} == {Tunnel.IPIP}
    assert cluster.state.tunnel_peers == {}


def test_borrowed_and_migrated_addresses_have_routes_of_their_own() -> None:
    cluster = Cluster(pool("Always"), workload("own", "h3", "10.65.0.130/32"), workload("borrowed", "h3", "10.65.0.66/32"))
    assert "10.65.0.130/32" not in cluster.routes()
    assert cluster.routes()["10.65.0.66/32"] == ("10.65.0.129", False)
    cluster.put(workload("borrowed", "h1", "10.65.0.66/32"))  # it is here now
    assert "10.65.0.66/32" not in cluster.routes()
    cluster.put(workload("ours", "h2", "10.65.0.5/32"))  # in our own block
    assert cluster.routes()["10.65.0.5/32"] == ("10.65.0.65", False)
    cluster.put((AffinityKey("h2", p("10.65.0.0/29")), Affinity(state=AffinityState.CONFIRMED)))
    assert "10.65.0.5/32" not in cluster.routes()


def test_an_end_in_somebody_elses_block_is_on_the_link() -> None:
    cluster = Cluster(pool("Always"))
    cluster.put(node("h3", end="10.65.0.99"))
    assert cluster.routes() == {
        "10.65.0.64/26": ("10.65.0.65", False),
        "10.65.0.128/26": ("10.65.0.99", False),
        "10.65.0.99/32": ("link", False),
    }


def test_what_is_not_known_yet_has_no_route() -> None:
    cluster = Cluster(pool("Always"))
    cluster.put(node("h3", end=""))
    assert set(cluster.routes()) == {"10.65.0.64/26"}
    cluster.delete(ResourceKey("Node", "h2"))
    assert (cluster.routes(), cluster.state.tunnel_peers) == ({}, {})
    cluster.put(node("h2"))
    cluster.put((AffinityKey("h2", p(BLOCKS["h2"])), Affinity(state=AffinityState.PENDING)))
    assert cluster.routes() == {"10.65.0.65/32": ("link", False)}  # its end of the tunnel is now in no block of its own


def test_a_mode_changes_at_run_time_and_back() -> None:
    cluster = Cluster(pool())
    assert cluster.routes() == {}
    cluster.put(workload("borrowed", "h3", "10.65.0.66/32"))
    for _ in range(2):
        cluster.put(pool("CrossSubnet"))
        assert len(cluster.routes()) == 3
        cluster.put(pool(ipip="Always"))
        assert {route.tunnel for route in cluster.state.remote_routes.values()} == {Tunnel.IPIP}
        cluster.put(pool("Never"))
        assert (cluster.routes(), cluster.state.tunnel_peers) == ({}, {})


def test_only_pools_that_give_are_asked_for_the_address() -> None:
    cluster = Cluster(pool("Always", allowed_uses=("Workload",)))
    assert cluster.state.tunnels["h1", Tunnel.VXLAN4].pools == ()
    cluster.put(
        (ResourceKey("IPPool", "more"), IPPool(spec=IPPoolSpec(cidr="10.66.0.0/24", vxlan_mode="Always", allowed_uses=("Tunnel",))))
    )
    assert cluster.state.tunnels["h1", Tunnel.VXLAN4].pools == (p("10.66.0.0/24"),)


@pytest.mark.parametrize("name", ["node1", "node1-v6"])
def test_the_mac_is_calicos(name: str) -> None:
    digest = hashlib.sha1(name.encode()).hexdigest()
    assert derived_mac(name) == ":".join(("66", *(digest[at : at + 2] for at in range(0, 10, 2))))


def test_ipv6_has_an_interface_and_addresses_of_its_own() -> None:
    cluster = Cluster((ResourceKey("IPPool", "six"), IPPool(spec=IPPoolSpec(cidr="fd65::/48", vxlan_mode="CrossSubnet"))))
    for name, subnet in (("h1", "a"), ("h2", "a"), ("h3", "b")):
        bgp = NodeBgp(ipv6_address=f"fd16:{subnet}::{name[1]}/64")
        cluster.put((ResourceKey("Node", name), Node(spec=NodeSpec(bgp=bgp, ipv6_vxlan_tunnel_addr=f"fd65::{name[1]}"))))
        cluster.put((AffinityKey(name, p(f"fd65::{name[1]}00/122")), Affinity(state=AffinityState.CONFIRMED)))
    found = cluster.state
    assert found.remote_routes["h1", p("fd65::200/122")] == RemoteRoute(Tunnel.VXLAN6, p("fd16:a::2"), direct=True)
    assert found.remote_routes["h1", p("fd65::300/122")] == RemoteRoute(Tunnel.VXLAN6, p("fd65::3"))
    assert found.remote_routes["h1", p("fd65::3/128")] == RemoteRoute(Tunnel.VXLAN6, None)
    assert found.tunnel_peers["h1", Tunnel.VXLAN6, "h3"].mac == derived_mac("h3-v6")


def test_of_several_who_share_an_address_the_one_that_holds_it_has_the_route() -> None:
    def sharing(name: str, host: str) -> tuple[Key, WorkloadEndpoint]:
        key, endpoint = workload(name, host, "10.65.9.9/32")
        return key, WorkloadEndpoint(spec=msgspec.structs.replace(endpoint.spec, allowed_ips=("10.65.9.9/32",)))

    cluster = Cluster(pool(vxlan="Always"), sharing("a", "h2"), sharing("b", "h3"))
    assert cluster.routes()["10.65.9.9/32"] == (ENDS["h2"], False)
    record = HolderKey(parse_address("10.65.9.9"))
    cluster.put((record, Holder(namespace="ns", name="b")))
    assert cluster.routes()["10.65.9.9/32"] == (ENDS["h3"], False)
    cluster.put(sharing("c", "h1"))
    assert cluster.routes()["10.65.9.9/32"] == (ENDS["h3"], False), "of one that is here as well"
    cluster.put(workload("a", "h2", "10.65.9.9/32"))
    assert cluster.routes()["10.65.9.9/32"] == (ENDS["h2"], False), "whose own the address is, yields to nobody"
    cluster.put(sharing("a", "h2"))
    cluster.delete(ResourceKey("WorkloadEndpoint", "b", "ns"))
    assert "10.65.9.9/32" not in cluster.routes(), "here"
    cluster.delete(ResourceKey("WorkloadEndpoint", "c", "ns"))
    assert cluster.routes()["10.65.9.9/32"] == (ENDS["h2"], False)
