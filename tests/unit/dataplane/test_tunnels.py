"""Tunnels in a fake kernel: interfaces, where they send to, routes, MTU; adopted, repaired, changed and taken away."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tabinet.calc.messages import (
    LocalTunnel,
    RemoteRoute,
    RemoteRouteRemove,
    RemoteRouteUpdate,
    Tunnel,
    TunnelPeer,
    TunnelPeerRemove,
    TunnelPeerUpdate,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.dataplane.tunnels.manager import build_tunnels
from tabinet.dataplane.tunnels.plan import OWNER, TunnelOptions
from tabinet.kernel.ethtool import FakeOffloads
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddRoute,
    AddVeth,
    AddVxlan,
    DeleteForwarding,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    Forwarding,
    InterfaceAddress,
    Neighbour,
    SetForwarding,
    SetLink,
    Vxlan,
    device_route,
)
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.lib.ip import Prefix, parse_prefix

NAME = "vxlan.calico"


def p(text: str) -> Prefix:
    return parse_prefix(text)


UNDERLAY, END, MAC = p("172.16.1.1"), p("10.65.0.1"), "66:00:00:00:00:01"
LOCAL = LocalTunnel(UNDERLAY, END, MAC, ())
PEER = TunnelPeer(p("172.16.2.3"), p("10.65.0.129"), "66:00:00:00:00:03")
NEAR, FAR = p("10.65.0.64/26"), p("10.65.0.128/26")
UP: tuple[Update, ...] = (
    TunnelUpdate("h1", Tunnel.VXLAN4, LOCAL),
    TunnelPeerUpdate("h1", Tunnel.VXLAN4, "h3", PEER),
    RemoteRouteUpdate("h1", FAR, RemoteRoute(Tunnel.VXLAN4, PEER.address)),
    RemoteRouteUpdate("h1", NEAR, RemoteRoute(Tunnel.VXLAN4, p("172.16.1.2"), direct=True)),
)
DOWN: tuple[Update, ...] = (
    RemoteRouteRemove("h1", FAR),
    RemoteRouteRemove("h1", NEAR),
    TunnelPeerRemove("h1", Tunnel.VXLAN4, "h3"),
    TunnelRemove("h1", Tunnel.VXLAN4),
)


class Host:
    """A host with an uplink of 9000 bytes, and a manager that can be replaced as after a restart."""

    def __init__(self, *, ipip: bool = False) -> None:
        self.rt = FakeRtnetlink(ipip=ipip)
        self.sysctl = FakeSysctl({f"net/ipv6/conf/{NAME}/accept_ra": "1"})
        self.offloads = FakeOffloads(NAME)
        self.rt.stranger(AddVeth("eth0", "switch", mtu=9000))
        self.uplink = self.rt.index_of("eth0")
        up = [SetLink(self.uplink, up=True), SetLink(self.rt.index_of("switch"), up=True)]
        self.rt.stranger(*up, AddAddress(InterfaceAddress(self.uplink, UNDERLAY, 24)))
        self.events = self.rt.events()
        self.restart()

    def restart(self, options: TunnelOptions | None = None) -> None:
        self.manager = build_tunnels(self.rt, self.sysctl, self.offloads, options or TunnelOptions())
        self.events.read()

    def apply(self, *updates: Update) -> tuple[str, tuple[str, ...]]:
        """Error and problems; afterwards nothing is left to do."""
        for update in updates:
            self.manager.on_update(update)
        self.manager.begin()
        for event in self.events.read():
            self.manager.on_event(event)
        done = self.manager.apply()
        self.mtu = done.workload_mtu
        for event in self.events.read():
            self.manager.on_event(event)
        if not done.error:
            assert self.manager.apply().operations == 0
        return done.error, done.problems

    @property
    def names(self) -> set[str]:
        return {link.name for link in self.rt.links()}

    @property
    def index(self) -> int:
        return self.rt.index_of(NAME)

    def routes(self) -> dict[Prefix, tuple[int, Prefix | None, bool]]:
        return {route.destination: (hop.index, hop.gateway, hop.on_link) for route in self.rt.routes(protocol=85) for hop in route.hops}

    def assert_whole(self) -> None:
        link = next(link for link in self.rt.links() if link.name == NAME)
        assert (link.vxlan, link.mac, link.mtu, link.up, link.alias) == (Vxlan(4096, 4789, UNDERLAY), MAC, 8950, True, OWNER)
        assert InterfaceAddress(link.index, END, 32) in self.rt.addresses()
        assert [entry for entry in self.rt.neighbours() if entry.index == link.index] == [Neighbour(link.index, PEER.address, PEER.mac)]
        assert self.rt.forwarding(link.index) == [Forwarding(link.index, PEER.mac, PEER.underlay)]
        assert self.routes() == {FAR: (link.index, PEER.address, True), NEAR: (self.uplink, p("172.16.1.2"), True)}


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.events.close()


def test_nothing_happens_before_the_beginning_and_everything_then(host: Host) -> None:
    for update in UP:
        host.manager.on_update(update)
    assert host.manager.apply().operations == 0
    assert host.apply() == ("", ())
    host.assert_whole()
    assert (host.mtu, host.sysctl.values[f"net/ipv6/conf/{NAME}/accept_ra"]) == (8950, "0")


def test_a_restarted_agent_finds_everything_and_changes_nothing(host: Host) -> None:
    host.apply(*UP)
    host.rt.executed.clear()
    host.restart()
    assert host.apply(*UP) == ("", ())
    assert host.rt.executed == []


def test_calicos_interface_is_taken_over_with_all_that_passes(host: Host) -> None:
    host.rt.stranger(AddVxlan(NAME, Vxlan(4096, 4789, UNDERLAY), MAC, 1450))
    index = host.index
    host.rt.stranger(SetForwarding(Forwarding(index, "66:00:00:00:00:99", p("172.16.9.9"))), SetLink(index, up=True))
    host.rt.stranger(AddAddress(InterfaceAddress(index, p("10.65.9.9"), 32)))
    assert host.apply(*UP) == ("", ())
    assert host.index == index
    host.assert_whole()
    assert p("10.65.9.9") not in {entry.address for entry in host.rt.addresses()}


def test_routes_that_calico_left_are_named_and_not_touched(host: Host) -> None:
    left = device_route(FAR, host.uplink, protocol=80)
    host.rt.stranger(AddRoute(left), AddRoute(device_route(p("192.0.2.0/24"), host.uplink, protocol=80)))
    _, problems = host.apply(*UP)
    assert problems == ("Calico's routes (protocol 80) win over ours to 10.65.0.128/26: remove them (ip route flush proto 80, and -6)",)
    assert len(host.rt.routes(protocol=80)) == 2
    host.rt.stranger(DeleteRoute(left))
    host.manager.verify()
    assert host.apply() == ("", ())


def test_an_interface_that_is_not_ours_is_left_alone_when_nobody_wants_it(host: Host) -> None:
    host.rt.stranger(AddVxlan(NAME, Vxlan(4096, 4789, UNDERLAY), MAC, 1450))
    assert host.apply() == ("", ())
    assert NAME in host.names
    assert host.rt.executed == []


def test_what_no_pool_wants_goes_and_comes_back(host: Host) -> None:
    stranger = device_route(p("192.0.2.0/24"), host.uplink, protocol=80)
    host.rt.stranger(AddRoute(stranger))
    for _ in range(2):
        assert host.apply(*UP) == ("", ())
        host.assert_whole()
        assert host.apply(*DOWN) == ("", ())
        assert (NAME in host.names, host.routes(), host.mtu) == (False, {}, 0)
    assert host.rt.routes(protocol=80) == [stranger]


def test_a_leftover_of_ours_is_swept_after_a_restart(host: Host) -> None:
    host.apply(*UP)
    host.restart()
    assert host.apply() == ("", ())
    assert (NAME in host.names, host.routes()) == (False, {})


def test_what_others_break_is_repaired(host: Host) -> None:
    host.apply(*UP)
    index = host.index
    host.rt.stranger(
        DeleteForwarding(Forwarding(index, PEER.mac, PEER.underlay)),
        DeleteNeighbour(Neighbour(index, PEER.address, "")),
        SetLink(index, mtu=1400),
    )
    assert host.apply() == ("", ())
    host.assert_whole()
    host.rt.stranger(SetLink(index, up=False))
    assert host.apply() == ("", ())
    host.assert_whole()
    host.rt.stranger(DeleteLink(NAME))
    assert host.apply() == ("", ())
    host.assert_whole()
    host.rt.overrun()
    assert host.apply() == ("", ())
    host.assert_whole()


def test_the_hosts_address_changes(host: Host) -> None:
    host.apply(*UP)
    moved = p("172.16.1.7")
    host.rt.stranger(AddAddress(InterfaceAddress(host.uplink, moved, 24)))
    assert host.apply(TunnelUpdate("h1", Tunnel.VXLAN4, LocalTunnel(moved, END, MAC, ()))) == ("", ())
    link = next(link for link in host.rt.links() if link.name == NAME)
    assert link.vxlan == Vxlan(4096, 4789, moved)
    assert host.routes()[FAR] == (link.index, PEER.address, True)
    assert host.rt.forwarding(link.index) == [Forwarding(link.index, PEER.mac, PEER.underlay)]


def test_another_hosts_address_changes_and_the_host_goes(host: Host) -> None:
    host.apply(*UP)
    moved = TunnelPeer(p("172.16.2.4"), PEER.address, PEER.mac)
    assert host.apply(TunnelPeerUpdate("h1", Tunnel.VXLAN4, "h3", moved)) == ("", ())
    assert host.rt.forwarding(host.index) == [Forwarding(host.index, PEER.mac, moved.underlay)]
    assert host.apply(TunnelPeerRemove("h1", Tunnel.VXLAN4, "h3"), RemoteRouteRemove("h1", FAR)) == ("", ())
    assert (host.rt.forwarding(host.index), set(host.routes())) == ([], {NEAR})


def test_a_tunnel_that_is_not_whole_yet_says_what_it_waits_for(host: Host) -> None:
    _, problems = host.apply(TunnelUpdate("h1", Tunnel.VXLAN4, LocalTunnel(UNDERLAY, None, MAC, ())), *UP[1:])
    assert problems == ("vxlan.calico waits for a tunnel address in the host's Node",)
    assert set(host.routes()) == {NEAR}
    assert host.apply(UP[0]) == ("", ())
    host.assert_whole()
    _, problems = host.apply(TunnelUpdate("h1", Tunnel.VXLAN4, LocalTunnel(None, None, MAC, ())))
    assert problems == ("vxlan.calico waits for an address of the host and a tunnel address in the host's Node",)
    host.assert_whole()  # what is there stays


def test_without_ip_in_ip_the_host_says_so_and_does_the_rest(host: Host) -> None:
    ipip = (
        TunnelUpdate("h1", Tunnel.IPIP, LocalTunnel(UNDERLAY, p("10.66.0.1"), "", ())),
        RemoteRouteUpdate("h1", p("10.66.0.64/26"), RemoteRoute(Tunnel.IPIP, p("172.16.2.3"))),
    )
    error, problems = host.apply(*UP, *ipip)
    assert (error, len(problems)) == ("", 1)
    assert "no IP-in-IP" in problems[0]
    host.assert_whole()
    host.events.close()
    other = Host(ipip=True)
    assert other.apply(*UP, *ipip) == ("", ())
    index = other.rt.index_of("tunl0")
    assert other.routes()[p("10.66.0.64/26")] == (index, p("172.16.2.3"), True)
    assert next(link.mtu for link in other.rt.links() if link.index == index) == 8980
    assert other.mtu == 8950
    host.events = other.events


def test_the_kernels_own_ip_in_ip_interface_is_borrowed_and_given_back() -> None:
    host = Host(ipip=True)
    end, far = p("10.66.0.1"), p("10.66.0.64/26")
    wanted = TunnelUpdate("h1", Tunnel.IPIP, LocalTunnel(UNDERLAY, end, "", ()))
    route = RemoteRouteUpdate("h1", far, RemoteRoute(Tunnel.IPIP, p("172.16.2.3")))

    def found() -> tuple[bool, str, list[Prefix], dict[Prefix, tuple[int, Prefix | None, bool]]]:
        link = next(link for link in host.rt.links() if link.name == "tunl0")
        return link.up, link.alias, [entry.address for entry in host.rt.addresses() if entry.index == link.index], host.routes()

    assert host.apply(wanted, route) == ("", ())
    index = host.rt.index_of("tunl0")
    whole = (True, OWNER, [end], {far: (index, p("172.16.2.3"), True)})
    assert found() == whole
    assert host.apply(RemoteRouteRemove("h1", far), TunnelRemove("h1", Tunnel.IPIP)) == ("", ())
    assert found() == (False, "", [], {})
    assert host.apply(wanted, route) == ("", ())
    assert found() == whole
    host.restart()
    assert host.apply(wanted, route) == ("", ())
    assert found() == whole
    host.restart()
    assert host.apply() == ("", ())  # nobody wants it any more
    assert found() == (False, "", [], {})
    host.rt.stranger(SetLink(index, up=True), AddAddress(InterfaceAddress(index, end, 32)))
    host.restart()
    assert host.apply() == ("", ())  # somebody else's
    assert found() == (True, "", [end], {})
    host.events.close()


def test_a_name_that_somebody_else_uses_otherwise(host: Host) -> None:
    host.rt.stranger(AddVeth(NAME, "other"))
    error, problems = host.apply(*UP)
    assert error == ""
    assert problems == ("there is an interface vxlan.calico that is no vxlan interface (veth): rename or remove it",)
    host.rt.stranger(DeleteLink(NAME))
    assert host.apply() == ("", ())
    host.assert_whole()


def test_an_identifier_that_somebody_else_uses_is_an_error_until_it_is_free(host: Host) -> None:
    host.rt.stranger(AddVxlan("flannel.1", Vxlan(4096, 4789, UNDERLAY), MAC, 1450))
    error, _ = host.apply(*UP)
    assert f"errno {errno.EEXIST}" in error
    host.rt.stranger(DeleteLink("flannel.1"))
    assert host.apply() == ("", ())
    host.assert_whole()


def test_checksums_are_left_to_the_card_until_it_is_found_wrong(host: Host) -> None:
    host.apply(*UP)
    assert host.offloads.on == {NAME: True}
    host.manager.want_offload(False)
    host.apply()
    assert host.offloads.on == {NAME: False}
    host.manager.want_offload(True)
    host.apply()
    assert host.offloads.on == {NAME: True}
    host.restart(TunnelOptions(checksum_broken=True))
    host.apply(*UP)
    assert host.offloads.on == {NAME: False}


def test_the_mtu_follows_the_uplink_or_the_operator(host: Host) -> None:
    host.apply(*UP)
    host.rt.stranger(SetLink(host.uplink, mtu=1500))
    host.apply()
    assert host.mtu == next(link.mtu for link in host.rt.links() if link.name == NAME) == 1450
    host.restart(TunnelOptions(mtus={Tunnel.VXLAN4: 1400}))
    host.apply(*UP)
    assert host.mtu == 1400
    host.rt.stranger(AddVeth("ens5", "peer5", mtu=1300))
    host.restart(TunnelOptions(uplink_pattern="^en"))
    host.apply(*UP)
    assert host.mtu == 1250


def test_interfaces_of_workloads_that_are_too_large_are_named(host: Host) -> None:
    host.rt.stranger(AddVeth("cali1", "eth1", mtu=8950), AddVeth("cali2", "eth2", mtu=9000))
    _, problems = host.apply(*UP)
    assert problems == ("tunnels carry packets of up to 8950 bytes; interfaces of workloads are larger: cali2 (9000)",)
    host.rt.stranger(DeleteLink("cali2"))
    assert host.apply() == ("", ())


def test_a_direct_route_needs_an_interface_in_the_subnet(host: Host) -> None:
    far_away = RemoteRouteUpdate("h1", NEAR, RemoteRoute(Tunnel.VXLAN4, p("172.99.0.2"), direct=True))
    _, problems = host.apply(*UP, far_away)
    assert problems == ("no interface of this host is in the subnet of the hosts of 10.65.0.64/26: is spec.bgp of the Node right?",)
    assert set(host.routes()) == {FAR}
    host.rt.stranger(AddAddress(InterfaceAddress(host.uplink, p("172.99.0.1"), 24)))
    assert host.apply() == ("", ())
    assert host.routes()[NEAR] == (host.uplink, p("172.99.0.2"), True)


def test_a_host_that_takes_no_part_has_none(host: Host) -> None:
    host.restart(TunnelOptions(disabled=frozenset({Tunnel.VXLAN4})))
    assert host.apply(*UP) == ("", ())
    assert (NAME in host.names, host.routes(), host.mtu) == (False, {}, 0)
