"""What endpoints bring besides policy: floating addresses, quality of service; and the sets that are always there."""

from __future__ import annotations

import json

import msgspec
import pytest
from calc_build import Fabric, Item, endpoint, nets

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync
from tabinet.calc.messages import ALL_HOSTS, ALL_POOLS, NAT_POOLS, NO_QOS, Limits, Nat, Qos, SetDelta, SetUpdate
from tabinet.calc.qos import build_qos, parse_code_point, qos_problems
from tabinet.calc.replica import RESERVED_SETS
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import IpNat, IPPool, IPPoolSpec, Node, NodeAddress, NodeBgp, NodeSpec, QosControls, WorkloadEndpoint


def floating(name: str, address: str, *pairs: tuple[str, str], host: str = "h1", **changes: object) -> Item:
    key, value = endpoint(name, address, host=host)
    assert isinstance(value, WorkloadEndpoint)
    nats = tuple(IpNat(external_ip=external, internal_ip=internal) for external, internal in pairs)
    return key, WorkloadEndpoint(metadata=value.metadata, spec=msgspec.structs.replace(value.spec, ip_nats=nats, **changes))


def nats_of(fabric: Fabric) -> dict[str, list[tuple[str, str]]]:
    return {
        key.name: [(nat.external.address, nat.internal.address) for nat in each.nats] for key, (_, each) in fabric.state.endpoints.items()
    }


def test_floating_addresses_that_make_sense_sorted() -> None:
    fabric = Fabric()
    pairs = [
        ("192.0.2.9", "10.0.0.1"),
        ("192.0.2.1/32", "10.0.0.1/32"),
        ("192.0.2.1", "10.0.0.2"),
        ("fd03::1", "fd00::1"),
        ("192.0.2.2", "10.0.0.77"),
        ("fd03::2", "10.0.0.1"),
        ("192.0.2.0/24", "10.0.0.1"),
        ("nonsense", "10.0.0.1"),
    ]
    fabric.put(floating("web", "10.0.0.1/32 10.0.0.2/32 fd00::1/128", *pairs))
    (local,) = (each for _, each in fabric.state.endpoints.values())
    assert local.nats == (
        Nat(parse_prefix("192.0.2.1"), parse_prefix("10.0.0.1")),
        Nat(parse_prefix("192.0.2.9"), parse_prefix("10.0.0.1")),
        Nat(parse_prefix("fd03::1"), parse_prefix("fd00::1")),
    )
    assert [f"ipNATs[{index}]" in problem for index, problem in zip((2, 4, 5, 6, 7), fabric.problems(), strict=True)] == [True] * 5


def test_floating_address_of_two_belongs_to_the_smaller_key_whatever_the_order() -> None:
    first = floating("a", "10.0.0.1/32", ("192.0.2.1", "10.0.0.1"))
    second = floating("b", "10.0.0.2/32", ("192.0.2.1", "10.0.0.2"), ("192.0.2.2", "10.0.0.2"))
    fabric = Fabric()
    fabric.put(second)
    assert nats_of(fabric)["b"] == [("192.0.2.1", "10.0.0.2"), ("192.0.2.2", "10.0.0.2")]
    fabric.put(first)
    assert nats_of(fabric) == {"a": [("192.0.2.1", "10.0.0.1")], "b": [("192.0.2.2", "10.0.0.2")]}
    assert any("WorkloadEndpoint/shop/a has this one" in problem for problem in fabric.problems())
    fabric.put(floating("a", "10.0.0.1/32"))
    assert len(nats_of(fabric)["b"]) == 2
    fabric.put(first)
    fabric.delete(first)
    assert len(nats_of(fabric)["b"]) == 2


def test_one_that_is_not_programmed_claims_no_floating_address() -> None:
    fabric = Fabric()
    fabric.put(floating("b", "10.0.0.2/32", ("192.0.2.1", "10.0.0.2")))
    fabric.put(floating("a", "10.0.0.1/32", ("192.0.2.1", "10.0.0.1"), interface_name=""))
    assert nats_of(fabric)["b"] == [("192.0.2.1", "10.0.0.2")]


def test_hosts_do_not_share_floating_addresses() -> None:
    fabric = Fabric(frozenset({"h1", "h2"}))
    fabric.put(floating("a", "10.0.0.1/32", ("192.0.2.1", "10.0.0.1")), floating("b", "10.0.0.2/32", ("192.0.2.1", "10.0.0.2"), host="h2"))
    assert all(nats_of(fabric).values())


# --- quality of service ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (63, 63), ("46", 46), ("EF", 46), ("ef", 46), ("AF11", 10), ("AF43", 38), ("CS6", 48), ("DF", 0), ("LE", 1)],
)
def test_code_points(value: int | str, number: int) -> None:
    assert parse_code_point(value) == number


@pytest.mark.parametrize("value", [-1, 64, "64", "AF44", "", "x", "-1"])
def test_what_is_no_code_point(value: int | str) -> None:
    with pytest.raises(ValueError, match="code point"):
        parse_code_point(value)


def test_limits_by_direction() -> None:
    controls = QosControls(
        ingress_bandwidth=1_000_000,
        ingress_burst=2_000_000,
        ingress_peakrate=3_000_000,
        ingress_minburst=1500,
        egress_packet_rate=10,
        egress_packet_burst=20,
        egress_max_connections=30,
        dscp="AF41",
    )
    assert build_qos(controls) == Qos(
        ingress=Limits(bandwidth_bit_s=1_000_000, burst_bits=2_000_000, peak_bit_s=3_000_000, peak_burst_bytes=1500),
        egress=Limits(packets_per_s=10, packet_burst=20, connections=30),
        dscp=34,
    )


def test_no_controls_and_controls_that_cannot_be_followed() -> None:
    assert build_qos(None) == NO_QOS
    broken = QosControls(ingress_bandwidth=-5, dscp="nonsense")
    assert build_qos(broken) == NO_QOS
    assert [problem.path for problem in qos_problems(broken, "x")] == ["spec.qosControls.ingressBandwidth", "spec.qosControls.dscp"]


def test_quality_of_service_and_hardware_address_reach_the_endpoint() -> None:
    fabric = Fabric()
    fabric.put(floating("web", "10.0.0.1/32", qos_controls=QosControls(egress_bandwidth=8000), mac="02-00-5E-10-00-01"))
    (local,) = (each for _, each in fabric.state.endpoints.values())
    assert (local.qos, local.mac) == (Qos(egress=Limits(bandwidth_bit_s=8000)), "02:00:5e:10:00:01")


def annotated(name: str, address: str, floating_pairs: list[tuple[str, str]], **annotations: object) -> Item:
    key, value = floating(name, address, *floating_pairs)
    assert isinstance(value, WorkloadEndpoint)
    written = {f"tabinet.io/{word.replace('_', '-')}": json.dumps(content) for word, content in annotations.items()}
    return key, WorkloadEndpoint(metadata=msgspec.structs.replace(value.metadata, annotations=written), spec=value.spec)


def test_limits_of_floating_addresses_that_the_endpoint_has() -> None:
    fabric = Fabric()
    limits = [{"externalIP": f"192.0.2.{number}", "qosControls": {"ingressBandwidth": 8000}} for number in (1, 2, 3)]
    forward = {"externalIP": "192.0.2.2", "protocol": 6, "externalPort": 8080, "internalIP": "10.0.0.1", "internalPort": 80}
    fabric.put(annotated("web", "10.0.0.1/32", [("192.0.2.1", "10.0.0.1")], address_limits=limits, port_forwards=[forward]))
    ((_, local),) = fabric.state.endpoints.values()
    assert [each.external.address for each in local.address_qos] == ["192.0.2.1", "192.0.2.2"]


def test_ports_that_lead_to_other_hosts_follow_the_addresses_of_those() -> None:
    fabric = Fabric()
    forward = {"externalIP": "192.0.2.2", "protocol": 6, "externalPort": 8080, "internalIP": "10.0.9.1", "internalPort": 80, "node": "h9"}
    web = annotated("web", "10.0.0.1/32", [], port_forwards=[forward])
    fabric.put(web)

    def addresses() -> list[str]:
        ((_, local),) = fabric.state.endpoints.values()
        return [address.address for each in local.elsewhere for address in each.addresses]

    assert addresses() == []
    for number in (1, 2):
        fabric.put((ResourceKey("Node", "h9"), Node(spec=NodeSpec(bgp=NodeBgp(ipv4_address=f"172.16.0.{number}/24")))))
        assert addresses() == [f"172.16.0.{number}"]
    fabric.put(annotated("web", "10.0.0.1/32", []))
    assert addresses() == []
    fabric.put(web)
    fabric.delete((ResourceKey("Node", "h9"), None))
    assert addresses() == []
    fabric.delete(web)


# --- reserved sets --------------------------------------------------------------------------------------------------


def pool(name: str, cidr: str, *, nat: bool) -> Item:
    return ResourceKey("IPPool", name), IPPool(spec=IPPoolSpec(cidr=cidr, nat_outgoing=nat, disabled=True))


def test_reserved_sets_are_told_first_of_all_to_a_host_without_anything() -> None:
    graph = Graph(frozenset({"h1"}))
    graph.on_input(InSync())
    told = graph.flush()
    assert {update.set_id for update in told[:3] if isinstance(update, SetUpdate)} == RESERVED_SETS


def test_pools_by_what_they_are_for() -> None:
    fabric = Fabric()
    first, second, twin = pool("a", "10.0.0.0/16", nat=True), pool("b", "fd00::/48", nat=False), pool("c", "10.0.0.0/16", nat=False)
    fabric.put(first, second, twin)
    assert fabric.state.sets[ALL_POOLS][1] == nets("10.0.0.0/16", "fd00::/48")
    assert fabric.state.sets[NAT_POOLS][1] == nets("10.0.0.0/16")
    told = fabric.delete(first)
    assert [update for update in told if isinstance(update, SetDelta)] == [SetDelta(NAT_POOLS, frozenset(), nets("10.0.0.0/16"))]


def test_addresses_of_hosts() -> None:
    fabric = Fabric()
    bgp = NodeBgp(ipv4_address="172.16.0.1/24", ipv6_address="fd01::1/64")
    addresses = (NodeAddress(address="198.51.100.1/32", type="ExternalIP"), NodeAddress(address="bad"))
    fabric.put((ResourceKey("Node", "h9"), Node(spec=NodeSpec(bgp=bgp, addresses=addresses))))
    assert fabric.state.sets[ALL_HOSTS][1] == nets("172.16.0.1", "fd01::1", "198.51.100.1")
