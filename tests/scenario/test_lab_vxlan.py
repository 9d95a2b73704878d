"""Two racks with VXLAN between them: large packets, what the underlay sees, strangers, failures, modes and addresses that change."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from lab_world import assert_well, eventually, read_report, running_lab

from tabinet.lab.lab import Lab
from tabinet.lab.launches import AGENT
from tabinet.lab.measure import cost_of
from tabinet.model.keys import ResourceKey
from tabinet.store.client import Document, ResourceClient

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = ("node11", "node12", "node21", "node22")
POOL4, POOL6 = ResourceKey("IPPool", "lab-ipv4-0"), ResourceKey("IPPool", "lab-ipv6-1")
WATCH = """table inet watch {
  counter workloads {}
  counter tunnel4 {}
  counter tunnel6 {}
  chain forward { type filter hook forward priority 0; policy accept;
    ip saddr 10.65.0.0/16 counter name workloads drop
    ip6 saddr fd00:65::/48 counter name workloads drop
    meta nfproto ipv4 udp dport 4789 counter name tunnel4
    meta nfproto ipv6 udp dport 4789 counter name tunnel6
  }
}
"""
"""What the router between the racks sees; it lets no workload's address pass, as an underlay that checks sources would not."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab("vxlan") as made:
        on(made, "core", "nft", "-f", "-", text=WATCH)
        yield made


def on(lab: Lab, node: str, *argv: str, text: str = "") -> str:
    return subprocess.run(lab.exec_argv(node, argv), input=text, check=True, capture_output=True, text=True, timeout=20).stdout


def seen(lab: Lab) -> dict[str, int]:
    """Packets by counter of the router's."""
    found = json.loads(on(lab, "core", "nft", "-j", "list", "counters"))["nftables"]
    return {item["counter"]["name"]: item["counter"]["packets"] for item in found if "counter" in item}


def dropped(lab: Lab, node: str, chain: str) -> int:
    """Packets that a chain of a host's has counted and dropped."""
    text = on(lab, node, "nft", "list", "chain", "inet", "tabinet", chain)
    return sum(int(count) for count in re.findall(r"counter packets (\d+) bytes \d+ goto dropped", text))


def until(condition: Callable[[], Any], what: str, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def routes(lab: Lab, node: str, family: int) -> dict[str, str]:
    """Interface by destination of the routes to other hosts."""
    return {route["dst"]: route["dev"] for route in json.loads(on(lab, node, "ip", f"-{family}", "-j", "route", "show", "proto", "85"))}


def tunnelled(lab: Lab, node: str, family: int) -> int:
    return sum(device.startswith("vxlan") for device in routes(lab, node, family).values())


async def change(lab: Lab, key: ResourceKey, **spec: Any) -> None:
    def edit(document: Document) -> Document:
        return document | {"spec": {**document["spec"], **spec}}

    async with lab.store() as store:
        await ResourceClient(store).change(key, edit)


async def problems(lab: Lab) -> list[str]:
    async with lab.store() as store:
        reports = [await read_report(store, host) for host in HOSTS]
    return [text for report in reports for text in (report.problems if report is not None else ("no report",))]


async def address(lab: Lab, workload: str, family: int) -> str:
    return (await lab.flow(workload, workload, family)).address


async def test_between_the_racks_everything_travels_in_vxlan_and_within_them_nothing(lab: Lab) -> None:
    await assert_well(lab, probes=400)
    await eventually(lambda: problems(lab))
    found = seen(lab)
    assert found["workloads"] == 0
    assert found["tunnel4"] > 0
    assert found["tunnel6"] > 0
    for node in HOSTS:
        assert (tunnelled(lab, node, 4), tunnelled(lab, node, 6)) == (2, 2)
        assert (len(routes(lab, node, 4)), len(routes(lab, node, 6))) == (3, 3)
    for family in (4, 6):
        assert "dev rack1" in on(lab, "node11", "ip", "route", "get", await address(lab, "app1", family))
    # A host speaks to workloads of the other rack from its end of the tunnel, also where it would use its own address.
    for family, own in ((4, "172.20.1.12"), (6, "fd00:20:1::c")):
        on(lab, "node11", "ping", "-c1", "-W2", await address(lab, "web2", family))
        on(lab, "node11", "ping", "-c1", "-W2", "-I", own, await address(lab, "web2", family))
    assert seen(lab)["workloads"] == 0


async def test_packets_of_the_size_that_is_promised_pass_in_one_piece(lab: Lab) -> None:
    async with lab.store() as store:
        report = await read_report(store, "node11")
    assert report is not None
    assert report.workload_mtu == 1430
    for family, headers in ((4, 28), (6, 48)):
        for other in ("web2", "app1"):
            size = str(report.workload_mtu - headers)
            on(lab, "web1", "ping", "-c2", "-i0.05", "-W2", "-M", "do", "-s", size, await address(lab, other, family))


async def test_strangers_send_nothing_into_the_fabric(lab: Lab) -> None:
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(60), ({!r}, 4789))"
    on(lab, "core", "python3", "-c", send.format("172.20.1.12"))
    until(lambda: dropped(lab, "node11", "tunnel_in") == 1, "a stranger's packet is not dropped")
    on(lab, "web1", "python3", "-c", send.format("172.20.1.13"))
    on(lab, "web1", "python3", "-c", send.format(await address(lab, "app1", 4)))
    until(lambda: dropped(lab, "node11", "tunnelled") == 2, "a workload's packets are not dropped")


async def test_an_agent_that_dies_costs_nothing(lab: Lab) -> None:
    flows = [await lab.flow("web1", "web2", family) for family in (4, 6)]

    async def kill() -> None:
        for node in ("node11", "node21"):
            await lab.restart(node, AGENT, kill_it=True)

    assert (await cost_of(flows, kill, after_s=1.0)).lost == 0


async def test_what_others_take_away_comes_back(lab: Lab) -> None:
    on(lab, "node11", "ip", "link", "del", "vxlan.calico")
    until(lambda: tunnelled(lab, "node11", 4) == 2, "the interface does not come back")
    on(
        lab,
        "node11",
        "bridge",
        "fdb",
        "del",
        *on(lab, "node11", "bridge", "fdb", "show", "dev", "vxlan.calico").split()[:1],
        "dev",
        "vxlan.calico",
    )
    await assert_well(lab)


async def test_a_pool_changes_its_mode_and_others_notice_nothing(lab: Lab) -> None:
    six = [await lab.flow("web1", "web2", 6), await lab.flow("web1", "app1", 6)]
    near = [await lab.flow("web1", "app1", 4)]
    costs = {}

    async def to(mode: str, tunnels: int) -> None:
        await change(lab, POOL4, vxlanMode=mode)
        until(lambda: all(tunnelled(lab, node, 4) == tunnels for node in HOSTS), f"not all hosts are {mode}")

    for mode, tunnels in (("Always", 3), ("CrossSubnet", 2), ("Never", 0), ("CrossSubnet", 2)):
        costs[mode] = await cost_of(near, partial(to, mode, tunnels), after_s=0.5)
        if mode == "Never":
            assert "vxlan.calico" not in on(lab, "node11", "ip", "-br", "link")
            assert "vxlan-v6.calico" in on(lab, "node11", "ip", "-br", "link")
    print({mode: f"{cost.worst_ms:.0f} ms within a rack" for mode, cost in costs.items()})

    async def there_and_back() -> None:
        await to("Never", 0)
        await to("CrossSubnet", 2)

    assert (await cost_of(six, there_and_back, after_s=0.5)).lost == 0
    await assert_well(lab)
    await eventually(lambda: problems(lab))


async def test_a_host_gets_another_address(lab: Lab) -> None:
    six = [await lab.flow("web1", "web2", 6)]

    async def move() -> None:
        on(lab, "node21", "ip", "addr", "add", "172.20.2.77/24", "dev", "rack2")
        async with lab.store() as store:
            node = await ResourceClient(store).get(ResourceKey("Node", "node21"))
        await change(lab, ResourceKey("Node", "node21"), bgp={**node["spec"]["bgp"], "ipv4Address": "172.20.2.77/24"})
        until(
            lambda: "172.20.2.77" in on(lab, "node11", "bridge", "fdb", "show", "dev", "vxlan.calico"), "the others send to the old address"
        )

    assert (await cost_of(six, move, after_s=0.5)).lost == 0
    on(lab, "web1", "ping", "-c2", "-i0.05", "-W2", await address(lab, "web2", 4))


async def test_a_host_that_is_gone_leaves_nothing_behind(lab: Lab) -> None:
    flows = [await lab.flow("web1", "app1", family) for family in (4, 6)] + [await lab.flow("web1", "app2", 4)]
    async with lab.store() as store:
        node = await ResourceClient(store).get(ResourceKey("Node", "node21"))
    gone = node["spec"]["ipv4VXLANTunnelAddr"]

    async def remove() -> None:
        async with lab.store() as store:
            await ResourceClient(store).delete(ResourceKey("Node", "node21"))
        until(lambda: all(gone not in on(lab, other, "ip", "neigh") for other in ("node11", "node12", "node22")), "it is still a neighbour")

    assert (await cost_of(flows, remove, after_s=0.5)).lost == 0
    assert all(len(routes(lab, other, family)) == 2 for other in ("node11", "node12", "node22") for family in (4, 6))
    async with lab.store() as store:
        node["metadata"] = {key: value for key, value in node["metadata"].items() if key in ("name", "labels")}
        node["spec"] = {"bgp": node["spec"]["bgp"]}  # as a newcomer: without addresses of tunnels
        await ResourceClient(store).create(node)
    await assert_well(lab)
    async with lab.store() as store:
        again = await ResourceClient(store).get(ResourceKey("Node", "node21"))
    assert again["spec"]["ipv4VXLANTunnelAddr"] == gone  # its handle kept it
    await asyncio.to_thread(until, lambda: tunnelled(lab, "node21", 6) == 2, "it does not reach the other rack")
