"""What ``tabinet import`` says of a host: over values as Calico writes them, and a kernel that is described."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from calico_host import calico_values, felix_rules

from tabinet.agent.takeover.finish import plan_removals
from tabinet.agent.takeover.iptables import find_felix, render_removal
from tabinet.agent.takeover.processes import classify
from tabinet.agent.takeover.progress import Step, refusals
from tabinet.agent.takeover.records import AgentSight, Process, Sighting, Traces, describe_route
from tabinet.agent.takeover.routes import orphaned_routes, superseded_routes
from tabinet.agent.takeover.survey import Finding, Survey, survey
from tabinet.ipam.inventory import read_fabric, read_inventory
from tabinet.kernel.rtnetlink import Link, Route, blackhole_route, device_route, gateway_route
from tabinet.lib.ip import parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix
from tabinet.model.report import EndpointTrouble, HostReport
from tabinet.model.resources import WorkloadEndpoint
from tabinet.store.api import PutOp
from tabinet.store.memory import MemoryStore

LINKS = (
    Link(1, "lo", up=True),
    Link(2, "eth0", up=True),
    Link(3, "caliw1", up=True, kind="veth"),
    Link(4, "caliw2", up=True, kind="veth"),
)
NETS = {3: ("10.65.0.1", "fd00:65::1"), 4: ("10.65.0.2", "fd00:65::2")}
FELIX_ROUTES = tuple(
    device_route(parse_prefix(net), index, protocol=80, metric=1024 if ":" in net else 0) for index, nets in NETS.items() for net in nets
)
READY = HostReport(host="h1", version="1", started="", revision=1, in_sync=True, endpoints_ready=2, endpoints_waiting=0)
AWAY = AgentSight(error="the agent does not answer")


async def see(values: dict[str, Any] | None = None, **changes: Any) -> Sighting:
    """A host of Calico's that is in order, but for the changes."""
    store = MemoryStore()
    for key, value in (calico_values() | (values or {})).items():
        if value is not None:
            await store.txn((), [PutOp(key, json.dumps(value).encode())])
    endpoints = {}
    async for page in store.list(kind_prefix("WorkloadEndpoint")):
        for item in page.items:
            key, record = decode_stored(item.key, item.value) or (None, None)
            assert isinstance(key, ResourceKey) and isinstance(record, WorkloadEndpoint)
            endpoints[key] = record
    sighting = Sighting(
        host="h1",
        prefixes=("cali", "tap"),
        endpoints=endpoints,
        inventory=await read_inventory(store),
        fabric=await read_fabric(store),
        links=LINKS,
        routes=FELIX_ROUTES,
        traces=Traces(),
        processes=(),
        agent=AWAY,
    )
    return msgspec.structs.replace(sighting, **changes)


def about(answer: Survey, subject: str) -> Finding:
    (found,) = [finding for finding in answer.findings if finding.subject.startswith(subject)]
    return found


def endpoint_values(name: str, **spec: Any) -> dict[str, Any]:
    key = f"/calico/resources/v3/projectcalico.org/workloadendpoints/default/h1-k8s-{name}-eth0"
    values = calico_values()
    made = json.loads(json.dumps(values.get(key) or values[key.replace(name, "w1")]).replace("w1", name))
    made["spec"] |= spec
    return {key: made}


# --- what fits, and what does not ---


async def test_a_host_in_order() -> None:
    answer = survey(await see())
    assert [(line.endpoint, line.interface, line.state) for line in answer.endpoints] == [
        ("default/h1-k8s-w1-eth0", "caliw1", "up"),
        ("default/h1-k8s-w2-eth0", "caliw2", "up"),
    ]
    assert not answer.blocked
    assert about(answer, "address 10.65.0.7").command == "tabinet ipam release --handle k8s-pod-network.c0ffeew7"
    assert len(answer.findings) == 1


async def test_an_endpoint_whose_interface_is_gone() -> None:
    answer = survey(await see(links=LINKS[:3], routes=FELIX_ROUTES[:2]))
    assert answer.endpoints[1].state == "missing"
    assert [address.route for address in answer.endpoints[1].addresses] == ["-", "-"]
    found = about(answer, "endpoint default/h1-k8s-w2")
    assert (found.blocks, found.command) == (False, "tabinet delete wep h1-k8s-w2-eth0 -n default")


async def test_an_address_that_is_routed_elsewhere_blocks() -> None:
    wrong = device_route(parse_prefix("10.65.0.1"), 4, protocol=80)
    answer = survey(await see(routes=(wrong, *FELIX_ROUTES[1:])))
    assert answer.endpoints[0].addresses[0].route == "felix to caliw2"
    found = about(answer, "address 10.65.0.1")
    assert (found.blocks, found.command) == (True, "ip route del 10.65.0.1 dev caliw2 proto 80")
    assert answer.step is Step.PUT_RIGHT


async def test_an_interface_that_two_endpoints_claim_blocks() -> None:
    answer = survey(await see(endpoint_values("w3", interfaceName="caliw1", ipNetworks=["10.65.0.3/32"])))
    found = about(answer, "endpoint default/h1-k8s-w3")
    assert (found.blocks, found.command) == (True, "tabinet delete wep h1-k8s-w3-eth0 -n default")
    assert about(answer, "address 10.65.0.3").command == "tabinet ipam assign h1-k8s-w3-eth0 -n default"


async def test_an_interface_that_no_policy_would_guard_blocks() -> None:
    answer = survey(await see(endpoint_values("w2", interfaceName="veth2")))
    found = about(answer, "endpoint default/h1-k8s-w2")
    assert found.blocks
    assert found.command == """tabinet patch felixconfig default -p '{"spec": {"interfacePrefix": "cali,tap,vet"}}'"""


async def test_strangers() -> None:
    links = (*LINKS, Link(5, "cali9", kind="veth"), Link(6, "tap9", kind="tun"), Link(7, "veth9", kind="veth"))
    routes = (
        *FELIX_ROUTES,
        device_route(parse_prefix("10.65.0.9"), 5, protocol=80),
        device_route(parse_prefix("10.65.0.10"), 7, protocol=3),
    )
    answer = survey(await see(links=links, routes=routes))
    assert about(answer, "interface cali9").command.startswith(
        "ip link delete cali9   (or, if it is in use: tabinet workload add --tap cali9"
    )
    assert about(answer, "interface tap9").command == "tabinet workload add --tap tap9"
    assert about(answer, "route 10.65.0.9").command == "ip route del 10.65.0.9 dev cali9 proto 80"
    assert not answer.blocked
    assert len(answer.findings) == 4, "of others' interfaces and routes nothing is said"


async def test_blocks_and_affinities_that_nobody_uses() -> None:
    block = calico_values()["/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-26"]
    spare = block | {"cidr": "10.65.0.64/26", "allocations": [None] * 64, "unallocated": list(range(64)), "attributes": []}
    values = {
        "/calico/ipam/v2/assignment/ipv4/block/10.65.0.64-26": spare,
        "/calico/ipam/v2/host/h1/ipv4/block/10.65.0.64-26": {"state": "confirmed", "deleted": False},
    }
    assert about(survey(await see(values)), "block 10.65.0.64/26").command == "tabinet ipam gc"


@pytest.mark.parametrize(("name", "subject"), [("wireguard.cali", "WireGuard"), ("bpfin.cali", "eBPF")])
async def test_what_we_cannot_take_over_blocks(name: str, subject: str) -> None:
    answer = survey(await see(links=(*LINKS, Link(9, name))))
    assert about(answer, subject).blocks
    assert "felixconfig" in about(answer, subject).command


# --- the order of the steps ---


async def test_the_steps_in_their_order() -> None:
    felix = Process("felix", 77, "calico-felix")
    tables = tuple(find_felix(felix_rules(4), "iptables-nft", ("cali",)))
    traces = Traces(tables=tables, ipsets=("cali40s:x",))
    waiting = msgspec.structs.replace(
        READY, endpoints_ready=1, endpoints_waiting=1, troubles=(EndpointTrouble("w2", "its policy is not in the kernel"),)
    )
    sighting = await see(traces=traces, processes=(felix,))
    replace = msgspec.structs.replace
    assert (survey(sighting).step, survey(sighting).advice.endswith("felix (77)")) == (Step.STOP_CALICO, True)
    sighting = replace(sighting, processes=())
    assert survey(sighting).step is Step.START_AGENT
    assert refusals(sighting) == ["our agent cannot be asked: the agent does not answer"]
    sighting = replace(sighting, agent=AgentSight(waiting))
    assert survey(sighting).step is Step.WAIT
    assert refusals(sighting) == ["1 of 2 endpoints wait (w2: its policy is not in the kernel)"]
    assert survey(replace(sighting, links=LINKS[:3], routes=())).step is Step.FINISH, "nobody waits for what has no interface"
    sighting = replace(sighting, agent=AgentSight(READY))
    assert (survey(sighting).step, refusals(sighting)) == (Step.FINISH, [])
    assert len(plan_removals(sighting)) == len(tables) + 1
    assert survey(replace(sighting, traces=Traces())).step is Step.DONE


async def test_another_hosts_agent_and_one_without_store_are_not_ready() -> None:
    for change, word in (
        ({"host": "h2"}, "that of h2"),
        ({"in_sync": False}, "not read the store"),
        ({"kernel": "refused"}, "kernel: refused"),
    ):
        sighting = await see(agent=AgentSight(msgspec.structs.replace(READY, **change)))
        assert word in refusals(sighting)[0]


# --- Felix's rules ---


def test_a_table_is_taken_apart() -> None:
    tables = {table.table: table for table in find_felix(felix_rules(4), "iptables-nft", ("cali",))}
    assert set(tables) == {"raw", "mangle", "nat", "filter"}
    assert tables["raw"].rules == ('-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING',)
    assert len(tables["filter"].rules) == 2, "the jump, and what accepts by the mark"
    text = render_removal(tables["nat"])
    assert text.splitlines() == [
        "*nat",
        '-D POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING',
        "-F cali-POSTROUTING",
        "-F cali-nat-outgoing",
        "-X cali-POSTROUTING",
        "-X cali-nat-outgoing",
        "COMMIT",
    ]
    assert find_felix("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n", "iptables-nft", ("cali",)) == []


@pytest.mark.parametrize(
    ("rules", "closed"),
    [
        (":FORWARD ACCEPT [0:0]\n", ""),
        (":FORWARD DROP [0:0]\n", "the policy of FORWARD is DROP"),
        (":FORWARD DROP [0:0]\n-A FORWARD -i cali+ -j ACCEPT\n-A FORWARD -o cali+ -j ACCEPT\n", ""),
        (":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n", "its rule "),
        (":FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.0/24 -j DROP\n", ""),
        (":FORWARD ACCEPT [0:0]\n-A INPUT -j DROP\n", ""),
    ],
)
async def test_what_closes_once_felix_is_gone_is_told_in_time(rules: str, closed: str) -> None:
    text = f"*filter\n:cali-FORWARD - [0:0]\n{rules}-A FORWARD -j cali-FORWARD\nCOMMIT\n"
    (table,) = find_felix(text, "iptables-nft", ("cali", "tap"))
    assert table.closed.startswith(closed) and bool(table.closed) is bool(closed)
    sighting = await see(traces=Traces(tables=(table,)), agent=AgentSight(READY))
    answer = survey(sighting)
    assert answer.blocked is bool(closed) is bool(refusals(sighting))
    if closed:
        assert about(answer, "iptables-nft filter").command.startswith("iptables-nft -I FORWARD -i cali+ -j ACCEPT; ")
        early = about(survey(msgspec.structs.replace(sighting, agent=AWAY)), "iptables-nft filter")
        assert (early.blocks, early.command) == (False, ""), "as long as nobody else judges, nothing is opened"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("calico-felix", "felix"),
        ("/usr/bin/calico-node -felix", "felix"),
        ("calico-node -confd", "confd"),
        ("calico-node -monitor-addresses", ""),
        ("bird -R -s /var/run/calico/bird.ctl -d -c /etc/calico/confd/config/bird.cfg", "bird"),
        ("/usr/sbin/bird -f -R -c /etc/bird/tabinet.conf", ""),
        ("", ""),
    ],
)
def test_whose_programs_these_are(command: str, what: str) -> None:
    assert classify(command.split()) == what


# --- routes that were replaced ---


async def test_routes_go_when_ours_are_there_and_not_before() -> None:
    far, other = parse_prefix("10.65.1.0/26"), parse_prefix("10.65.2.0/26")
    via = parse_prefix("10.1.0.2")
    theirs = [gateway_route(net, via, 2, protocol=12) for net in (far, other)] + [
        blackhole_route(parse_prefix("10.65.0.0/26"), protocol=12)
    ]
    ours = gateway_route(far, via, 2, protocol=12, metric=32)
    agents = device_route(parse_prefix("fd00:65::1"), 3, metric=1)
    by_hand = device_route(parse_prefix("fd00:65::1"), 2, protocol=3, metric=50)
    routes: tuple[Route, ...] = (*FELIX_ROUTES, *theirs, ours, agents, by_hand)
    sighting = await see(routes=routes, bird_metrics=frozenset({(4, 32), (6, 32)}))
    assert superseded_routes(sighting) == [FELIX_ROUTES[1], theirs[0]]
    assert orphaned_routes(sighting) == theirs[1:]
    assert about(survey(sighting), "route 10.65.2.0/26").command == "ip route del 10.65.2.0/26 via 10.1.0.2 dev eth0 proto 12"
    assert about(survey(sighting), "route 10.65.0.0/26").command == "ip route del blackhole 10.65.0.0/26 proto 12"
    without = msgspec.structs.replace(sighting, bird_metrics=frozenset())
    assert superseded_routes(without) == [FELIX_ROUTES[1]], "whose a BIRD's route is cannot be told"
    assert orphaned_routes(without) == []


def test_routes_as_the_program_takes_them() -> None:
    route = device_route(parse_prefix("fd00:65::1"), 3, protocol=80, metric=1024)
    assert describe_route(route, {3: "caliw1"}) == "ip -6 route del fd00:65::1 dev caliw1 proto 80 metric 1024"
