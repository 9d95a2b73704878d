"""``tabinet explain``: verdict, reason and way of packets between all kinds of ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_world import Tabinet, resource

from tabinet.cli.fabric_reading import read_fabric

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"


def workload(name: str, host: str, *addresses: str, **more: Any) -> dict[str, Any]:
    labels = {"app": name.rstrip("0123456789")}
    return resource(
        "WorkloadEndpoint",
        f"{host}-lab-{name}-eth0",
        "shop",
        labels=labels,
        orchestrator="lab",
        workload=name,
        node=host,
        endpoint="eth0",
        ipNetworks=list(addresses),
        interfaceName=f"cali{name}",
        profiles=["open"],
        **more,
    )


def policy(name: str, selector: str, ingress: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return resource("NetworkPolicy", name, "shop", selector=selector, types=["Ingress"], ingress=ingress, **more)


DOCUMENTS = [
    resource("Node", "h1", bgp={"ipv4Address": "192.168.1.1/24", "ipv6Address": "fd00:1::1/64"}),
    resource("Node", "h2", bgp={"ipv4Address": "192.168.2.2/24", "ipv6Address": "fd00:1::2/64"}),
    resource("IPPool", "main", cidr="10.65.0.0/16", natOutgoing=True, vxlanMode="CrossSubnet"),
    resource("Profile", "open", ingress=[{"action": "Allow"}], egress=[{"action": "Allow"}]),
    resource("GlobalNetworkSet", "partners", labels={"role": "partner"}, nets=["203.0.113.0/24"]),
    workload("web1", "h1", "10.65.0.1/32", "fd00:65::1/128"),
    workload("web2", "h2", "10.65.0.2/32"),
    workload("db1", "h2", "10.65.0.3/32", "fd00:65::3/128", ipNATs=[{"internalIP": "10.65.0.3", "externalIP": "198.51.100.3"}]),
    policy(
        "db",
        "app == 'db'",
        [
            {"action": "Log", "protocol": "TCP"},
            {"action": "Deny", "protocol": "UDP"},
            {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [5432, "6000:6010"]}},
            {"action": "Allow", "protocol": "TCP", "source": {"nets": ["192.168.1.1/32"]}, "destination": {"ports": [443]}},
        ],
    ),
    policy("web", "app == 'web'", [{"action": "Allow", "source": {"selector": "role == 'partner'", "namespaceSelector": "global()"}}]),
]


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    said = tabinet("apply", "-f", "-", given=DOCUMENTS)
    assert said.code == 0, said.err
    return tabinet


@pytest.mark.parametrize(
    ("words", "allowed", "reason"),
    [
        ("web1 db1 --port 5432", True, "NetworkPolicy/shop/db spec.ingress[2]: Allow TCP from [app == 'web'] to ports 5432, 6000:6010"),
        ("web1 db1 --port 6005", True, "spec.ingress[2]"),
        ("web1 db1 --port 80", False, "no policy of tier default matched, and its default action is Deny"),
        ("web1 db1 -p udp --port 5432", False, "NetworkPolicy/shop/db spec.ingress[1]: Deny UDP"),
        ("web1 db1 -6 --port 5432", True, "spec.ingress[2]"),
        ("shop/web1 10.65.0.3 --port 5432", True, "spec.ingress[2]"),
        ("203.0.113.9 web1", True, "NetworkPolicy/shop/web spec.ingress[0]"),
        ("192.0.2.9 web1", False, "its default action is Deny"),
        ("web1 192.0.2.9", True, "Profile/open spec.egress[0]: Allow"),
        ("web1 198.51.100.3 --port 443", True, "NetworkPolicy/shop/db spec.ingress[3]"),
        ("web1 198.51.100.3 --port 5432", False, "its default action is Deny"),
        ("db1 db1 --port 5432", False, "its default action is Deny"),
        ("web1 h1 -p tcp --port 22", False, "defaultEndpointToHostAction is Drop"),
        ("web1 h2 -p tcp --port 22", True, "Profile/open"),
        ("web1 192.0.2.9 -p udp --port 4789", False, "no workload may send tunnel packets"),
        ("203.0.113.9 h1 -p udp --port 4789", False, "203.0.113.9 is no host"),
        ("h2 h1 -p udp --port 4789", True, "packets of tunnels come from hosts"),
        ("h1 web1", True, "no policy has a say in it"),
        ("h2 web1", False, "its default action is Deny"),
    ],
)
def test_verdicts(filled: Tabinet, words: str, allowed: bool, reason: str) -> None:
    said = filled("explain", *words.split(), "--json")
    assert said.code == (0 if allowed else 1), said.err
    assert said.json["allowed"] is allowed
    assert reason in said.json["reason"]


@pytest.mark.parametrize("words", ["web1 db1 --port 5432", "web1 198.51.100.3 --port 5432", "db1 web1"])
def test_text(filled: Tabinet, words: str, request: pytest.FixtureRequest) -> None:
    said = filled("explain", *words.split())
    path = GOLDEN / f"explain-{'-'.join(words.split()).replace('---', '-')}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(said.out)
    assert said.out == path.read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("web1 dbb1", "did you mean db1"),
        ("web1 web2 -6", "web1 and web2 have no IPv6 address"),
        ("192.0.2.1 192.0.2.2", "must be a workload or host of the fabric"),
        ("web1 fd00::9 -4", "no IPv4 address"),
        ("web1 db1 -p icmp --port 3", "--port"),
        ("203.0.113.9 web1 --icmp-type 3", "errors and answers pass with the flow that they belong to"),
        ("web1 db1 -p tcq", "a protocol"),
        ("web1 db1 -p tcp --icmp-type 3", "only with ICMP"),
    ],
)
def test_questions_without_an_answer(filled: Tabinet, words: str, error: str) -> None:
    said = filled("explain", *words.split())
    assert said.code == 2
    assert error in said.err
    assert "nothing was changed" not in said.out


def test_one_name_for_several_workloads(filled: Tabinet) -> None:
    twin = resource("WorkloadEndpoint", "h2-lab-web1-eth1", "other", orchestrator="lab", workload="web1", node="h2", endpoint="eth1")
    twin["spec"] |= {"ipNetworks": ["10.65.0.9/32"], "interfaceName": "calitwin"}
    assert filled("apply", "-f", "-", given=[twin]).code == 0
    said = filled("explain", "web1", "db1")
    assert said.code == 2
    assert "other/h2-lab-web1-eth1, shop/h1-lab-web1-eth0" in said.err
    assert filled("explain", "other/web1", "db1").code == 1


def test_endpoints_that_have_nothing_to_do_with_it_make_no_difference(filled: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading only what concerns the ends gives what reading everything gives; also where endpoints dispute addresses and interfaces."""
    rivals = [
        workload("twin1", "h2", "10.65.0.3/32", ipNATs=[{"internalIP": "10.65.0.3", "externalIP": "198.51.100.3"}]),
        resource("WorkloadEndpoint", "h1-lab-a-eth0", "shop", orchestrator="lab", workload="a", node="h1", endpoint="eth0")
        | {"spec": workload("web1", "h1", "10.65.9.9/32")["spec"] | {"workload": "a"}},
    ]
    assert filled("apply", "-f", "-", given=rivals).code == 0
    questions = [
        ["explain", source, destination, "--json", *more]
        for source in ("web1", "shop/web2", "db1", "10.65.0.2", "203.0.113.9", "h1", "nobody")
        for destination in ("db1", "10.65.0.3", "198.51.100.3", "web2", "h2-lab-db1-eth0", "192.0.2.1")
        for more in (["--port", "5432"], ["-6"])
    ]
    narrow = [(said.code, said.out, said.err) for said in (filled(*words) for words in questions)]
    monkeypatch.setattr("tabinet.cli.fabric_reading.read_fabric_around", lambda place, _: read_fabric(place))
    assert narrow == [(said.code, said.out, said.err) for said in (filled(*words) for words in questions)]
    assert {code for code, _, _ in narrow} == {0, 1, 2}


@pytest.fixture
def forwarding(filled: Tabinet) -> Tabinet:
    """198.51.100.9 is announced by h1: port 8080 leads to web1 there, port 8081 to db1 on h2."""
    common = {"externalIP": "198.51.100.9", "protocol": 6}
    home = [
        common | {"externalPort": 8080, "internalIP": "10.65.0.1", "internalPort": 80},
        common | {"externalPort": 8081, "internalIP": "10.65.0.3", "internalPort": 5432, "node": "h2"},
    ]
    away = [common | {"externalPort": 8081, "internalIP": "10.65.0.3", "internalPort": 5432, "home": "h1"}]
    changed = []
    for document, forwards in ((DOCUMENTS[5], home), (DOCUMENTS[7], away)):
        annotations = {"tabinet.io/port-forwards": json.dumps(forwards)}
        changed.append(document | {"metadata": document["metadata"] | {"annotations": annotations}})
    said = filled("apply", "-f", "-", given=changed)
    assert said.code == 0, said.err
    return filled


@pytest.mark.parametrize(
    ("words", "allowed", "reason", "translation", "hops"),
    [
        (
            "203.0.113.9 198.51.100.9 --port 8080",
            True,
            "NetworkPolicy/shop/web",
            "h1: destination 198.51.100.9 port 8080 becomes 10.65.0.1 port 80",
            ["h1"],
        ),
        (
            "web1 198.51.100.9 --port 8081",  # the address is in no pool, so natOutgoing makes it come from h1
            False,
            "its default action is Deny",
            "h2: destination 198.51.100.9 port 8081 becomes 10.65.0.3 port 5432",
            ["h1", "h2"],
        ),
        (
            "web2 198.51.100.9 --port 8081",
            True,
            "NetworkPolicy/shop/db spec.ingress[2]",
            "h2: destination 198.51.100.9 port 8081 becomes 10.65.0.3 port 5432",
            ["h2"],
        ),
        (
            "203.0.113.9 198.51.100.9 --port 8081",
            False,
            "its default action is Deny",
            "h2: destination 198.51.100.9 port 8081 becomes 10.65.0.3 port 5432",
            ["h1", "h2"],
        ),
    ],
)
def test_forwarded_ports(forwarding: Tabinet, words: str, allowed: bool, reason: str, translation: str, hops: list[str]) -> None:
    said = forwarding("explain", *words.split(), "--json")
    assert said.code == (0 if allowed else 1), said.err
    assert reason in said.json["reason"]
    assert translation in said.json["translations"]
    assert [hop["host"] for hop in said.json["route"]] == hops


@pytest.mark.parametrize("words", ["203.0.113.9 198.51.100.9 --port 8082", "203.0.113.9 198.51.100.9 -p udp --port 8080"])
def test_ports_that_nobody_forwards_lead_nowhere(forwarding: Tabinet, words: str) -> None:
    assert "must be a workload or host of the fabric" in forwarding("explain", *words.split()).err
