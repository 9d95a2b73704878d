"""Names, documents and plans of attachments."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from tabinet.attach.endpoint import EndpointFacts, endpoint_document
from tabinet.attach.inside import GATEWAYS, HOST_MAC, plan_inside, plan_parameters
from tabinet.attach.names import Workload, interface_name
from tabinet.attach.ready import judge_status
from tabinet.kernel.rtnetlink import (
    MAIN_TABLE,
    AddAddress,
    AddSourceRule,
    DeleteAddress,
    InterfaceAddress,
    Link,
    ReplaceRoute,
    SetLink,
    SetNeighbour,
    gateway_route,
)
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.endpoint_names import endpoint_name_of
from tabinet.model.keys import path_of
from tabinet.model.resources import EndpointPort, WorkloadEndpoint
from tabinet.model.status import status_path_of
from tabinet.store.api import KeyValue

POD = Workload(node="node-1", workload="web-0", orchestrator="k8s", namespace="shop-a")
FOUR, SIX = parse_address("10.0.0.7"), parse_address("fd00::7")


def test_names_of_a_pod() -> None:
    assert POD.key.name == "node--1-k8s-web--0-eth0"
    assert POD.key.namespace == "shop-a"
    assert POD.handle == "shop--a-node--1-k8s-web--0-eth0"
    assert status_path_of(POD.status_key) == "/calico/felix/v2/no-region/host/node-1/workload/k8s/shop-a%2fweb-0/endpoint/eth0"


def test_the_interface_is_called_as_documented() -> None:
    digest = hashlib.sha1(b"shop-a.web-0.eth0").hexdigest()
    assert interface_name(POD) == f"cali{digest[:11]}"
    assert len(interface_name(POD)) == 15
    assert interface_name(POD, "tap").startswith("tap")


def test_handles_differ_where_parts_shift() -> None:
    one = Workload(node="c", workload="w", namespace="a-b")
    other = Workload(node="b--c", workload="w", namespace="a")
    assert one.handle != other.handle


@pytest.mark.parametrize("prefix", ["", "calico", "a/", "a b", "a:"])
def test_prefixes_that_no_interface_can_have(prefix: str) -> None:
    with pytest.raises(ValueError, match="cannot begin"):
        interface_name(POD, prefix)


@pytest.mark.parametrize("orchestrator", ["k8s", "cni", "openstack"])
def test_a_stored_endpoint_decodes_and_has_the_name_that_its_fields_say(orchestrator: str) -> None:
    workload = Workload(node="n", workload="w-1", orchestrator=orchestrator)
    facts = EndpointFacts(
        workload=workload,
        interface="cali1",
        mac="02:00:00:00:00:01",
        addresses=(FOUR, SIX),
        labels={"app": "web", "projectcalico.org/namespace": "a lie"},
        profiles=("p",),
        ports=(EndpointPort(name="http", protocol="TCP", port=80),),
    )
    document = endpoint_document(facts, None, "u", "2026-01-01T00:00:00Z")
    decoded = decode_stored(path_of(workload.key), msgspec.json.encode(document))
    assert decoded is not None
    key, record = decoded
    assert key == workload.key
    assert isinstance(record, WorkloadEndpoint)
    assert endpoint_name_of(record.spec) == workload.endpoint_name
    assert record.spec.ip_networks == ("10.0.0.7/32", "fd00::7/128")
    assert record.spec.ports == facts.ports
    assert record.metadata.labels == {
        "app": "web",
        "projectcalico.org/namespace": "default",
        "projectcalico.org/orchestrator": orchestrator,
    }
    assert (record.metadata.uid, record.metadata.creation_timestamp) == ("u", "2026-01-01T00:00:00Z")


def test_what_an_attachment_does_not_decide_survives() -> None:
    facts = EndpointFacts(workload=POD, interface="cali1", mac="02:00:00:00:00:01", addresses=(FOUR,))
    stored = {
        "metadata": {"name": POD.key.name, "uid": "old", "labels": {"theirs": "x"}, "annotations": {"a": "b"}},
        "spec": {"serviceAccountName": "sa", "ipNetworks": ["10.9.9.9/32"], "ports": [{"name": "x"}]},
        "status": {"later": 1},
    }
    document = endpoint_document(facts, stored, "new", "2026-01-01T00:00:00Z")
    assert document["metadata"]["uid"] == "old"
    assert document["metadata"]["labels"]["theirs"] == "x"
    assert document["metadata"]["annotations"] == {"a": "b"}
    assert document["spec"]["serviceAccountName"] == "sa"
    assert document["spec"]["ipNetworks"] == ["10.0.0.7/32"]
    assert "ports" not in document["spec"]
    assert document["status"] == {"later": 1}
    assert endpoint_document(facts, document, "third", "2027-01-01T00:00:00Z") == document


LINKS = [Link(1, "lo"), Link(5, "eth0", kind="veth")]


def test_the_inside_of_a_new_namespace() -> None:
    operations = plan_inside(LINKS, LINKS[1], [], [FOUR, SIX])
    assert operations[0] == SetLink(index=1, up=True)
    assert [one.address.address for one in operations if isinstance(one, AddAddress)] == [FOUR, SIX]
    assert operations.index(SetLink(index=5, up=True)) < min(i for i, one in enumerate(operations) if isinstance(one, ReplaceRoute))
    assert {(one.neighbour.address, one.neighbour.mac) for one in operations if isinstance(one, SetNeighbour)} == {
        (GATEWAYS[4], HOST_MAC),
        (GATEWAYS[6], HOST_MAC),
    }
    assert [str(one.route.destination) for one in operations if isinstance(one, ReplaceRoute)] == ["169.254.1.1/32", "0.0.0.0/0", "::/0"]


def test_a_second_interface_leaves_the_first_its_default_route() -> None:
    first = gateway_route(parse_prefix("0.0.0.0/0"), GATEWAYS[4], 4)
    operations = plan_inside(LINKS, LINKS[1], [], [FOUR, SIX], [first])
    routes = [(str(one.route.destination), one.route.table) for one in operations if isinstance(one, ReplaceRoute)]
    assert routes == [("169.254.1.1/32", 8405), ("0.0.0.0/0", 8405), ("::/0", MAIN_TABLE)]
    assert [one for one in operations if isinstance(one, AddSourceRule)] == [AddSourceRule(FOUR, 8405, 8400)]
    own = gateway_route(parse_prefix("0.0.0.0/0"), GATEWAYS[4], 5)
    assert plan_inside(LINKS, LINKS[1], [], [FOUR, SIX], [own]) == plan_inside(LINKS, LINKS[1], [], [FOUR, SIX])


def test_one_family_leaves_the_other_alone() -> None:
    operations = plan_inside(LINKS, LINKS[1], [], [FOUR])
    assert [str(one.route.destination) for one in operations if isinstance(one, ReplaceRoute)] == ["169.254.1.1/32", "0.0.0.0/0"]
    assert plan_parameters("eth0", [FOUR]) == []
    assert ("net/ipv6/conf/eth0/accept_ra", "0") in plan_parameters("eth0", [FOUR, SIX])


def test_addresses_of_an_earlier_life_go_and_link_local_ones_stay() -> None:
    stale = InterfaceAddress(5, parse_address("10.0.0.9"), 32)
    present = [stale, InterfaceAddress(5, parse_address("fe80::1234"), 64), InterfaceAddress(6, parse_address("10.0.0.9"), 32)]
    operations = plan_inside(LINKS, LINKS[1], [*present, InterfaceAddress(5, FOUR, 32)], [FOUR])
    assert [one.address for one in operations if isinstance(one, DeleteAddress)] == [stale]


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (b'{"status":"up","revision":10}', ""),
        (b'{"status":"up","revision":11}', ""),
        (b'{"status":"up","revision":9}', "the agent holds revision 9 of the endpoint, and 10 is wanted"),
        (b'{"status":"down","revision":10,"reason":"no such interface"}', "the agent reports it down: no such interface"),
        (b'{"status":"error","revision":12}', "the agent reports it error"),
        (b"nonsense", "its status cannot be understood"),
    ],
)
def test_what_a_status_says(value: bytes, missing: str) -> None:
    found = judge_status(KeyValue("/k", value, 20, 20), 10)
    assert found.startswith(missing)
    assert bool(found) == bool(missing)


def test_the_word_of_an_agent_without_revisions_counts_when_it_is_later() -> None:
    assert judge_status(KeyValue("/k", b'{"status":"up"}', 11, 1), 10) == ""
    assert "holds revision 9" in judge_status(KeyValue("/k", b'{"status":"up"}', 9, 1), 10)
    assert judge_status(None, 10) == "no status has been reported for the endpoint"
