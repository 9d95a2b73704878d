"""The relation against the tables of all hosts on a packet's way: whole fabrics, small and large, and flows picked at random in them.

A case is one flow in one fabric: what ``plan`` and ``verify`` calculate with, made from resources, against ``evaluate`` on the tables that
the hosts on the way would have. TABINET_FABRICS says how many small fabrics, one in ten of them large; TABINET_FABRIC_FLOWS how many flows
in each. ``--hypothesis-seed`` and CI decide which: without either, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from random import Random

import pytest
from fabric_maker import GUARDED, GUARDED_LARGE, LARGE, SMALL, FabricMaker, flows
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tabinet.analysis.boxes import Box
from tabinet.analysis.delta import compare as compare_relations
from tabinet.analysis.fabric import Fabric, Place, Resources, survey
from tabinet.analysis.narrow import compare_widely
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Changes, calculate, relate
from tabinet.analysis.way import Question, find_way
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.evaluate import Verdict
from tabinet.rules.options import HostAction, ProtoPort, TableOptions
from tabinet.rules.reach import judge

SERVICES = (ProtoPort(17, 53), ProtoPort(6, 80, parse_prefix("172.16.0.1/32")))
OPTIONS = (
    TableOptions(),
    TableOptions(),
    TableOptions(endpoint_to_host=HostAction.ACCEPT, nat_spares_hosts=True),
    TableOptions(host_services=SERVICES, failsafe_inbound=(ProtoPort(6, 22, parse_prefix("172.16.0.0/24")), ProtoPort(17, 68))),
)
FABRICS = int(os.environ.get("TABINET_FABRICS", "20"))
FLOWS = int(os.environ.get("TABINET_FABRIC_FLOWS", "40"))


def class_of(relation: Relation, place: Place) -> int:
    """The class of the address there."""
    found = relation.universe.classes_at(place.address)
    if place.endpoint is None:
        return found[0]
    return next(number for number in found if any(unit.endpoint == place.endpoint for unit in relation.universe.units[number]))


def calculated(relation: Relation, asked: Question) -> bool:
    """What the relation says of the flow."""
    is_icmp = asked.protocol in (ICMP, ICMPV6)
    first, second = (asked.icmp_type, asked.icmp_code) if is_icmp else (asked.destination_port, asked.source_port)
    return relation.admits(class_of(relation, asked.source), class_of(relation, asked.destination), asked.protocol, first, second)


def among(relation: Relation, boxes: Iterable[Box], asked: Question) -> bool:
    """The flow is one of these."""
    source, destination = class_of(relation, asked.source), class_of(relation, asked.destination)
    is_icmp = asked.protocol in (ICMP, ICMPV6)
    first, second = (asked.icmp_type, asked.icmp_code) if is_icmp else (asked.destination_port, asked.source_port)
    return any(
        senders >> source & 1 and receivers >> destination & 1 and relation.space.has(headers, asked.protocol, first, second)
        for senders, receivers, headers in boxes
    )


def evaluated(fabric: Fabric, asked: Question) -> Verdict:
    """What the hosts' tables make of it."""
    views = fabric.view({*fabric.nodes, asked.source.host, asked.destination.host} - {""})
    return judge({host: view.table for host, view in views.items()}, find_way(fabric, views, asked).passes)


def compare(resources: Resources, choose: Random, count: int) -> tuple[list[bool], int]:
    """The verdicts, on which both agree, and how many of the flows begin or end at a host."""
    options = choose.choice(OPTIONS)
    _, (relation,) = relate([calculate(resources).situation], options_of=lambda _: options)
    fabric = survey(resources, lambda _: options)
    verdicts, of_hosts = [], 0
    for asked in flows(choose, fabric, count):
        verdict = evaluated(fabric, asked)
        assert calculated(relation, asked) == verdict.accepted, f"{asked} {verdict}"
        verdicts.append(verdict.accepted)
        of_hosts += "host" in (asked.source.kind, asked.destination.kind)
    return verdicts, of_hosts


# What is made up from a number does not get smaller with the number, so that there is nothing to shrink.
@pytest.mark.parametrize(
    ("size", "fabrics", "count"),
    [
        (SMALL, FABRICS, FLOWS),
        (LARGE, max(1, FABRICS // 10), FLOWS * 5),
        (GUARDED, FABRICS, FLOWS),
        (GUARDED_LARGE, max(1, FABRICS // 10), FLOWS * 5),
    ],
    ids=["small", "large", "guarded", "guarded-large"],
)
def test_the_relation_is_what_the_tables_of_the_hosts_do(size, fabrics, count) -> None:
    tally = {"flows": 0, "allowed": 0, "of hosts": 0}
    seeds = set()

    @settings(max_examples=fabrics, deadline=None, phases=(Phase.generate,))
    @given(st.integers(0, 2**48))
    def check(seed: int) -> None:
        choose = Random(seed)
        verdicts, of_hosts = compare(FabricMaker(choose, size).make(), choose, count)
        seeds.add(seed)
        tally["flows"] += len(verdicts)
        tally["allowed"] += sum(verdicts)
        tally["of hosts"] += of_hosts

    check()
    print(f"\n{len(seeds)} different fabrics, {tally}")  # pytest shows it with -s
    assert 0 < tally["allowed"] < tally["flows"]


def altered(resources: Resources, other: Resources, choose: Random) -> Changes:
    """Some things gone, and some policies, sets and host endpoints as in another fabric."""
    gone = {key: None for key in resources if choose.random() < 0.04}
    kinds = ("GlobalNetworkPolicy", "NetworkPolicy", "HostEndpoint", "GlobalNetworkSet", "Profile", "IPPool")
    new = {key: value for key, (value, _) in other.items() if isinstance(key, ResourceKey) and key.kind in kinds and choose.random() < 0.15}
    tiers = {key for key in resources if isinstance(key, ResourceKey) and key.kind == "Tier"}
    return {key: value for key, value in (gone | new).items() if key not in tiers}


@pytest.mark.parametrize("size", [SMALL, GUARDED], ids=["small", "guarded"])
def test_a_plan_has_the_flows_that_the_tables_judge_otherwise_after_the_change(size) -> None:
    @settings(max_examples=max(1, FABRICS // 2), deadline=None, phases=(Phase.generate,))
    @given(st.integers(0, 2**48))
    def check(seed: int) -> None:
        choose = Random(seed)
        resources = FabricMaker(choose, size).make()
        changes = altered(resources, FabricMaker(choose, size).make(), choose)
        later = {key: value for key, value in resources.items() if key not in changes}
        later |= {key: (value, 0) for key, value in changes.items() if value is not None}
        options = choose.choice(OPTIONS)
        found = compare_widely(calculate(resources, changes), changes, options_of=lambda _: options)
        delta = compare_relations(found.was, found.now)
        fabrics = [survey(each, lambda _: options) for each in (resources, later)]
        for asked in flows(choose, fabrics[0], FLOWS):
            if any(
                fabrics[1].places_of(place.address) != fabrics[0].places_of(place.address) for place in (asked.source, asked.destination)
            ):
                continue
            before, after = (evaluated(fabric, asked).accepted for fabric in fabrics)
            assert among(found.was, delta.opened, asked) == (after and not before), f"{asked} {before} {after}"
            assert among(found.was, delta.closed, asked) == (before and not after), f"{asked} {before} {after}"

    check()


def test_a_host_is_seen_by_its_address_in_the_tunnel() -> None:
    maker = FabricMaker(Random(0), GUARDED)
    maker.add("IPPool", "pool", {"cidr": "10.65.0.0/16", "vxlanMode": "Always"})
    for number in (0, 1):
        bgp = {"ipv4Address": f"172.16.0.{number + 1}/24"}
        maker.add("Node", f"h{number}", {"bgp": bgp, "ipv4VXLANTunnelAddr": f"10.65.200.{number + 1}"})
        maker.add("HostEndpoint", f"he{number}", {"node": f"h{number}", "interfaceName": "eth0", "profiles": ["open"]})
    maker.add("Profile", "open", {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]})
    spec = {
        "orchestrator": "lab",
        "node": "h1",
        "workload": "w",
        "endpoint": "eth0",
        "interfaceName": "cali1",
        "ipNetworks": ["10.65.0.1/32"],
    }
    maker.add("WorkloadEndpoint", "h1-lab-w-eth0", spec, "n1", {"app": "db"})
    rules = [{"action": "Allow", "source": {"nets": ["10.65.200.1/32"]}}]
    maker.add("GlobalNetworkPolicy", "db", {"selector": "app == 'db'", "ingress": rules})
    resources = dict(maker.stored())
    _, (relation,) = relate([calculate(resources).situation], options_of=lambda _: TableOptions())
    fabric = survey(resources, lambda _: TableOptions())
    (target,) = fabric.places_of(parse_prefix("10.65.0.1/32"))
    for source, allowed in (("172.16.0.1", True), ("10.65.200.1", True), ("172.16.0.2", True), ("172.16.0.9", False)):
        (place,) = fabric.places_of(parse_prefix(source))
        asked = Question(source=place, destination=target, protocol=6, destination_port=80)
        assert (evaluated(fabric, asked).accepted, calculated(relation, asked)) == (allowed, allowed), source
