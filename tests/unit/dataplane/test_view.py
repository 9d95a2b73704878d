"""Both sides of the datapath as records: equal when nothing was touched, and told apart by name when something was."""

from __future__ import annotations

import msgspec

from tabinet.calc import messages as m
from tabinet.dataplane.facts import Fact, read_facts, wanted_facts
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.view import AnyView, Picture, compare, render_nft, there_views, wanted_views
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel.nftables import AddChain, AddElements, AddRule, AddSet, DeleteElements, Element, FlushChain
from tabinet.kernel.nftexpr import Datatype, set_spec
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddVeth, DeleteRoute, Neighbour, SetNeighbour
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.kernel.tc import DeleteBucket
from tabinet.kernel.tcfake import FakeTrafficControl
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder

MEMBERS = 2500
"""More than one view holds."""


class World:
    """Drivers with a small world, on fakes."""

    def __init__(self) -> None:
        self.nftables, self.rtnetlink, self.sysctl, self.control = FakeNftables(), FakeRtnetlink(), FakeSysctl(), FakeTrafficControl()
        self.rtnetlink.stranger(AddVeth("cali1", "peer1"))
        self.control.add_interface("cali1")
        self.driver = NftDriver(self.nftables)
        self.workloads = WorkloadManager(LinkDriver(self.rtnetlink, self.sysctl), RouteDriver(self.rtnetlink), VlanDriver(self.rtnetlink))
        self.bandwidth = BandwidthDriver(self.control)
        builder = TableBuilder()
        members = {parse_prefix(f"10.1.{number >> 8}.{number & 255}") for number in range(MEMBERS)}
        builder.on_update(m.SetUpdate("s", m.SetKind.NETS, frozenset(members | {parse_prefix("192.0.2.0/24")})))
        policy = ResourceKey("NetworkPolicy", "web", "default")
        allow = m.Rule(m.Action.ALLOW, protocol=6, source=m.Side(sets=("s",)), destination=m.Side(ports=(m.PortRange(80, 80),)))
        builder.on_update(m.PolicyUpdate(policy, m.Policy((allow,), ())))
        qos = m.Qos(ingress=m.Limits(bandwidth_bit_s=8_000_000), egress=m.Limits(bandwidth_bit_s=4_000_000))
        body = m.Endpoint(
            host="h",
            interface="cali1",
            mac="ee:ee:ee:ee:ee:ee",
            nets=(parse_address("10.65.0.1"), parse_address("fd00::1")),
            spoof_nets=(parse_prefix("172.16.0.0/20"),),
            ingress=(m.TierPolicies("default", m.Action.DENY, (policy,)),),
            egress=(),
            profiles=(),
            qos=qos,
        )
        endpoint = m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w1", "default"), 1, body)
        builder.on_update(endpoint)
        builder.flush()
        self.driver.resync(builder.table)
        self.workloads.on_endpoint_update(endpoint)
        self.workloads.begin()
        self.workloads.apply()
        self.bandwidth.want("cali1", qos)
        self.bandwidth.apply()

    def wanted(self) -> Picture:
        """As a running agent tells it, through JSON."""
        names, routes, items = self.workloads.wanted()
        picture = Picture()
        for view in wanted_views(self.driver, wanted_facts(names, routes, items, self.bandwidth.wanted())):
            picture.add(msgspec.json.decode(msgspec.json.encode(view), type=AnyView))
        return picture

    def there(self, wanted: Picture) -> Picture:
        picture = Picture()
        for view in there_views(self.nftables, wanted, lambda rule: f"foreign {rule.chain}"):
            picture.add(view)
        picture.facts |= set(read_facts(self.rtnetlink, self.sysctl, self.control, wanted.facts))
        return picture

    def differences(self) -> dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]:
        wanted = self.wanted()
        return {(item.kind, item.name): (item.missing, item.foreign) for item in compare(wanted, self.there(wanted))}


def test_nothing_differs_where_nothing_was_touched() -> None:
    world = World()
    wanted = world.wanted()
    there = world.there(wanted)
    assert compare(wanted, there) == []
    assert there.facts == wanted.facts
    assert {fact.kind for fact in there.facts} == {"route", "neighbour", "address", "link", "sysctl", "bandwidth"}
    assert list(render_nft(wanted)) == list(render_nft(there))
    assert sum(len(view.elements) for view in there.sets.values()) > MEMBERS


def test_a_foreign_rule_and_a_missing_one() -> None:
    world = World()
    world.nftables.stranger([AddRule("judge", b"", b"")])
    world.nftables.stranger([FlushChain("deny")])
    found = world.differences()
    assert found[("chain", "judge")] == ((), ("foreign judge",))
    missing, foreign = found[("chain", "deny")]
    assert (missing[-1], foreign) == ('counter drop comment "denied"', ())
    assert len(found) == 2


def test_rules_in_another_order() -> None:
    world = World()
    info = world.nftables.read_table()
    assert info is not None
    again = [AddRule("fabric", rule.expressions, rule.userdata) for rule in reversed(info.rules["fabric"])]
    world.nftables.stranger([FlushChain("fabric"), *again])
    ((name, (missing, foreign)),) = world.differences().items()
    assert (name, foreign) == (("chain", "fabric"), ())
    assert all(line.endswith("(in this order)") for line in missing)


def test_elements_and_foreign_objects() -> None:
    world = World()
    (big,) = (name for name in world.wanted().sets if name.startswith("a4-s"))
    world.nftables.stranger([DeleteElements(big, (Element(bytes((10, 1, 0, 7))),))])
    world.nftables.stranger([AddElements(big, (Element(bytes((203, 0, 113, 9))),))])
    world.nftables.stranger([AddChain("foreign"), AddSet("strange", set_spec(Datatype.IPV4_ADDR, size=16))])
    found = world.differences()
    assert found[("set", big)] == (("10.1.0.7",), ("203.0.113.9",))
    assert found[("chain", "foreign")] == ((), ("chain foreign",))
    assert found[("set", "strange")][1] == ("set strange { type of another make (4 bytes); size 16 }",)
    assert len(found) == 3


def test_facts_that_differ() -> None:
    world = World()
    route = next(route for route in world.rtnetlink.routes(protocol=84) if str(route.destination) == "10.65.0.1/32")
    index = route.hops[0].index
    world.rtnetlink.stranger(DeleteRoute(route), SetNeighbour(Neighbour(index, parse_address("10.65.0.9"), "aa:aa:aa:aa:aa:aa")))
    world.sysctl.write("net/ipv4/conf/cali1/proxy_arp", "0")
    world.control.execute([DeleteBucket("cali1")])
    assert world.differences() == {
        ("route", "10.65.0.1/32"): (("dev cali1 proto 84 metric 0",), ()),
        ("neighbour", "10.65.0.9"): ((), ("dev cali1 lladdr aa:aa:aa:aa:aa:aa permanent",)),
        ("sysctl", "net.ipv4.conf.cali1.proxy_arp"): (("1",), ("0",)),
        ("bandwidth", "root of cali1"): (("tbf rate 8000000bit limit 65536b",), ()),
    }


def test_without_a_table_everything_of_it_is_missing() -> None:
    world = World()
    world.nftables.drop_table()
    found = world.differences()
    assert all(missing and not foreign for missing, foreign in found.values())
    assert Fact("link", "cali1", "up") in world.there(world.wanted()).facts
