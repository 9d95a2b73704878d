"""The labs with reflectors and with unnumbered links, with real agents: packets after every failure and repair, drain and filters through
the store, and a router in a workload behind the real policy."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator

import pytest
from lab_world import eventually, read_report, running_lab

from tabinet.lab.kinds.namespace import identity_of
from tabinet.lab.lab import Lab
from tabinet.lab.launches import BIRD
from tabinet.model.keys import ResourceKey
from tabinet.store.client import Document, ResourceClient

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PEERING = "169.254.0.179"
VNF = """router id {own};
protocol device {{}}
protocol static {{ ipv4; route 203.0.113.0/28 blackhole; route 198.51.100.0/24 blackhole; }}
protocol bgp host4 {{ local {own} as 65300; neighbor 169.254.1.1 as 64512; multihop; passive;
  ipv4 {{ import none; export where source = RTS_STATIC; next hop self; }}; }}
protocol bgp again {{ local {own} as 65300; neighbor {peering} as 64512; multihop; passive;
  ipv4 {{ import none; export where source = RTS_STATIC; next hop self; }}; }}
"""


@pytest.fixture(scope="module")
def reflectors() -> Iterator[Lab]:
    with running_lab("reflectors") as made:
        yield made


@pytest.fixture(scope="module")
def unnumbered() -> Iterator[Lab]:
    with running_lab("unnumbered") as made:
        yield made


def on(lab: Lab, node: str, *argv: str) -> str:
    return subprocess.run(lab.exec_argv(node, argv), check=True, capture_output=True, text=True, timeout=20).stdout


def peer(name: str, spec: Document) -> Document:
    return {"apiVersion": "projectcalico.org/v3", "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec}


async def troubles(lab: Lab) -> list[str]:
    """What hosts say of their sessions and resources."""
    found = []
    async with lab.store() as store:
        for host in lab.plan.hosts:
            report = await read_report(store, host.name)
            if report is None:
                found.append(f"{host.name} does not report")
                continue
            found += [f"{host.name}: {each.peer}: {each.reason}" for each in report.sessions if each.state != "up"]
            found += [f"{host.name}: {each}" for each in (*report.problems, report.bird) if each]
    return found


async def assert_packets(lab: Lab) -> None:
    report = await lab.check()
    assert report.probes > 100
    assert report.details == ()


async def test_a_reflector_may_be_away(reflectors: Lab) -> None:
    await eventually(lambda: troubles(reflectors))
    await assert_packets(reflectors)
    await reflectors.stop("rr1", BIRD, kill_it=True)
    await eventually(lambda: expected_trouble(reflectors, "rr1"))
    await assert_packets(reflectors)
    await reflectors.start("rr1", BIRD)
    await eventually(lambda: troubles(reflectors))
    await assert_packets(reflectors)


async def expected_trouble(lab: Lab, word: str) -> list[str]:
    """Empty when there is trouble, and all of it is about ``word``."""
    found = await troubles(lab)
    return [each for each in found if word not in each] if found else [f"no trouble with {word}"]


async def test_hosts_answer_what_is_asked_about_them(reflectors: Lab) -> None:
    async with reflectors.store() as store:
        client = ResourceClient(store)
        for name, node in (("first", "node1"), ("nobody", "node9")):
            spec = {"node": node, "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 1}
            kind = {"apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus"}
            await client.apply({**kind, "metadata": {"name": name}, "spec": spec})

        async def answer() -> Document:
            status: Document = (await client.get(ResourceKey("CalicoNodeStatus", "first"))).get("status", {})
            return status

        async def unanswered() -> list[str]:
            return [] if (await answer()).get("bgp", {}).get("numberEstablishedV4") == 2 else ["no answer"]

        await eventually(unanswered)
        told = await answer()
        assert told["agent"]["birdV4"]["state"] == "Ready"
        learned = [route for route in told["routes"]["routesV4"] if route["learnedFrom"]["sourceType"] == "BGPPeer"]
        assert "FIB" in {route["type"] for route in learned}
        assert "status" not in await client.get(ResourceKey("CalicoNodeStatus", "nobody"))

        async def the_same() -> list[str]:
            return ["no second answer"] if (await answer())["lastUpdated"] == told["lastUpdated"] else []

        await eventually(the_same)
        for name in ("first", "nobody"):
            await client.delete(ResourceKey("CalicoNodeStatus", name))


async def test_a_router_in_a_workload_is_heard_within_its_prefixes(reflectors: Lab) -> None:
    workload = next(each for each in reflectors.plan.topology.workloads if each.name == "web1")
    (target,) = [each for each in await reflectors.targets() if each.name == "web1"]
    own = next(address.address for address in target.addresses if address.family == 4)
    directory = reflectors.directory.path / "vnf"
    directory.mkdir()
    (directory / "bird.conf").write_text(VNF.format(own=own, peering=PEERING))
    argv = reflectors.exec_argv(
        "web1", ["bird", "-f", "-c", f"{directory}/bird.conf", "-s", f"{directory}/b.ctl", "-P", f"{directory}/b.pid"]
    )
    bird = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with reflectors.store() as store:
            client = ResourceClient(store)
            key = identity_of(workload).key
            endpoint = await client.get(key)
            endpoint["spec"]["allowSpoofedSourcePrefixes"] = ["203.0.113.0/24"]
            endpoint["metadata"]["labels"]["role"] = "router"
            await client.apply(endpoint)
            # A label of its own, and one that it has from its profile.
            selector = "role == 'router' && tenant == 'shop'"
            await client.apply(peer("vnf", {"localWorkloadSelector": selector, "asNumber": 65300}))

            async def missing() -> list[str]:
                return (
                    []
                    if "via" in on(reflectors, "node4", "ip", "route", "show", "203.0.113.0/28")
                    else await troubles(reflectors) or ["route"]
                )

            await eventually(missing)
            assert on(reflectors, "node4", "ip", "route", "show", "198.51.100.0/24") == ""

            async def told() -> list[str]:
                report = await read_report(store, "node1")
                sessions = [each for each in report.sessions if each.origin == "workload"] if report else []
                seen = [(each.state, each.address, each.peer_as, each.imported) for each in sessions]
                return [] if seen == [("up", own, 65300, 1)] else [str(seen)]

            await eventually(told)
            await assert_another_address(reflectors, client, told)
            on(reflectors, "web1", "ip", "addr", "add", "203.0.113.1/32", "dev", "lo")

            async def unreachable() -> list[str]:
                # Reports are up to a second old: the session may be about to be made anew from the address before.
                argv = reflectors.exec_argv("db1", ["ping", "-qc1", "-W1", "203.0.113.1"])
                ping = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
                return ["no answer"] if await ping.wait() else []

            await eventually(unreachable)
            await client.delete(ResourceKey("BGPPeer", "vnf"))

            async def left() -> list[str]:
                return [on(reflectors, "node4", "ip", "route", "show", "203.0.113.0/28")] if await still_there() else []

            async def still_there() -> bool:
                return on(reflectors, "node4", "ip", "route", "show", "203.0.113.0/28") != ""

            await eventually(left)
    finally:
        bird.kill()
        await bird.wait()
    await assert_packets(reflectors)


async def assert_another_address(lab: Lab, client: ResourceClient, told: Callable[[], Awaitable[list[str]]]) -> None:
    """The host speaks with the workload from the address that is configured, which it then has; and no longer when it is not."""
    key = ResourceKey("BGPConfiguration", "default")
    before = await client.get(key)
    await client.apply(before | {"spec": before["spec"] | {"localWorkloadPeeringIPV4": PEERING}})

    def addresses() -> str:
        return on(lab, "node1", "ip", "-4", "addr", "show", "dev", "lo")

    async def elsewhere() -> list[str]:
        spoken = on(lab, "node1", "ss", "-Htn", "state", "established", "src", f"{PEERING}")
        return (await told() if PEERING in spoken else ["no session"]) if f"inet {PEERING}/32" in addresses() else ["no address"]

    await eventually(elsewhere)
    await client.apply(before)

    async def as_before() -> list[str]:
        return ["address"] if PEERING in addresses() else await told()

    await eventually(as_before)


async def test_a_cut_uplink_and_a_silent_one_without_addresses(unnumbered: Lab) -> None:
    await eventually(lambda: troubles(unnumbered))
    await assert_packets(unnumbered)
    for silent in (False, True):
        await unnumbered.cut("tor11:host11", silent=silent)
        await eventually(lambda: expected_trouble(unnumbered, "host11"))
        await assert_packets(unnumbered)
        await unnumbered.heal("tor11:host11")
        await eventually(lambda: troubles(unnumbered))
        await assert_packets(unnumbered)


async def test_a_drained_host_and_a_broken_peering(unnumbered: Lab) -> None:
    def communities() -> str:
        where = unnumbered.directory.node("tor21")
        table = json.loads(on(unnumbered, "tor21", "vtysh", "--vty_socket", str(where), "-c", "show bgp ipv4 unicast json"))["routes"]
        paths = [(prefix, path) for prefix, found in table.items() for path in found if path.get("path", "").endswith("4200000021")]
        details = [
            json.loads(on(unnumbered, "tor21", "vtysh", "--vty_socket", str(where), "-c", f"show bgp ipv4 unicast {prefix} json"))
            for prefix, _ in paths
        ]
        return " ".join(path.get("community", {}).get("string", "-") for detail in details for path in detail["paths"])

    async with unnumbered.store() as store:
        client = ResourceClient(store)
        node = await client.get(ResourceKey("Node", "host21"))
        await client.apply(node | {"metadata": node["metadata"] | {"annotations": {"tabinet.io/drain": "true"}}})

        async def not_drained() -> list[str]:
            await asyncio.sleep(0)
            return [] if "graceful" in communities() and "-" not in communities().split() else [communities()]

        await eventually(not_drained)
        await assert_packets(unnumbered)
        await client.apply(peer("broken", {"peerIP": "192.0.2.1", "asNumber": 65000, "filters": ["nowhere"], "sourceAddress": "None"}))
        await eventually(lambda: expected_trouble(unnumbered, "BGPPeer/broken"))
        await client.delete(ResourceKey("BGPPeer", "broken"))
        current = await client.get(ResourceKey("Node", "host21"))
        await client.apply(current | {"metadata": current["metadata"] | {"annotations": {}}})
        await eventually(lambda: troubles(unnumbered))

        async def drained() -> list[str]:
            return [communities()] if "graceful" in communities() else []

        await eventually(drained)
    await assert_packets(unnumbered)
