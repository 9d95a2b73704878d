"""The installed plugins, a real agent, real namespaces and packets: what a container runtime gets."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cni_host import DEADLINE_S, NOTHING, CniHost, datagram_arrives, echoed, network

from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import Rtnetlink
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import parse_prefix

pytestmark = pytest.mark.kernel

ADDRESS = "10.65.7.7"
LIFECYCLES = int(os.environ.get("TABINET_LIFECYCLES", "12"))
"""Containers that begin and end in parallel."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CniHost]:
    made = CniHost(tmp_path_factory.mktemp("cni"))
    try:
        made.open()
        yield made
    finally:
        made.close()


def addresses(output: dict[str, Any]) -> list[str]:
    return [entry["address"].partition("/")[0] for entry in output["ips"]]


def eventually(host: CniHost, expected: object) -> object:
    """What is left on the host, as soon as it is as expected, else after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := host.leftovers()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_two_containers_reach_each_other_at_the_first_packet_and_leave_nothing_behind(host: CniHost) -> None:
    one, other = host.container("a1"), host.container("a2")
    first, second = host.call("ADD", network(), one), host.call("ADD", network(), other)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert [entry["interface"] for entry in second.output["ips"]] == [1, 1]
    assert second.output["interfaces"][1]["sandbox"] == f"/run/netns/{other}"
    assert all(datagram_arrives(one, other, address) for address in addresses(second.output))
    checked = network(prevResult=second.output)
    assert host.call("CHECK", checked, other).code == 0
    assert host.call("ADD", network(), other).output == second.output, "repeated"
    for _ in range(2):
        for container in (one, other):
            assert host.call("DEL", network(), container).code == 0
    gone = host.call("CHECK", checked, other)
    assert (gone.code, gone.output["code"]) == (1, 101)
    assert host.leftovers() == NOTHING


def test_an_address_passes_to_the_next_container_as_soon_as_the_last_one_is_deleted(host: CniHost) -> None:
    sender, *turns = (host.container(f"turn{number}") for number in range(3))
    assert host.call("ADD", network(), sender).code == 0
    config = network(runtimeConfig={"ips": [ADDRESS]})
    with contextlib.closing(netns.run_in(host.namespace, open_rtnetlink)) as rtnetlink:
        for container in turns * 2:
            added = host.call("ADD", config, container)
            assert addresses(added.output)[0] == ADDRESS, added
            link = rtnetlink.link(added.output["interfaces"][0]["name"])
            assert link is not None
            assert ways(rtnetlink) == [link.index]
            assert host.call("CHECK", config | {"prevResult": added.output}, container).code == 0, "whatever the store knows yet"
            assert datagram_arrives(sender, container, ADDRESS)
            assert host.call("DEL", config, container).code == 0
            # The kernel may still be busy with it, but nothing leads there any more.
            assert rtnetlink.link(link.name) is None
            assert ways(rtnetlink) == []
    assert host.call("DEL", network(), sender).code == 0
    assert eventually(host, NOTHING) == NOTHING


def ways(rtnetlink: Rtnetlink) -> list[int]:
    """The interfaces that lead to the address, by index."""
    routes = [route for route in rtnetlink.routes() if route.destination == parse_prefix(f"{ADDRESS}/32")]
    return [hop.index for route in routes for hop in route.hops]


def test_a_pod_with_several_networks_limits_and_a_floating_address(host: CniHost) -> None:
    pod = host.container("b1")
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;LABELS=app=web"
    notes = {"cni.projectcalico.org/floatingIPs": '["192.0.2.7"]', "qos.projectcalico.org/egressMaxConnections": "5"}
    runtime = {"bandwidth": {"ingressRate": 1000000, "ingressBurst": 80000}, "io.kubernetes.cri.pod-annotations": notes}
    config = network(version="0.3.1", runtimeConfig=runtime, feature_control={"floating_ips": True})
    first = host.call("ADD", config, pod, CNI_ARGS=arguments)
    assert first.output["ips"][0]["version"] == "4"
    second = host.call("ADD", network("net2"), pod, CNI_ARGS=arguments, CNI_IFNAME="net1")
    assert second.code == 0, second
    assert host.call("ADD", network("net2"), pod, CNI_ARGS=arguments, CNI_IFNAME="net1").output == second.output, "repeated"
    peer = host.container("b2")
    others = addresses(host.call("ADD", network(), peer).output)
    here = [*addresses(first.output), *addresses(second.output)]
    assert all(echoed(peer, pod, address, source) for address in here for source in others if (":" in address) == (":" in source))
    assert host.call("DEL", network(), peer).code == 0
    found = {item["metadata"]["name"]: item for item in host.endpoints()}
    assert sorted(found) == ["h1-k8s-web--1-eth0", "h1-k8s-web--1-net1"]
    spec, metadata = found["h1-k8s-web--1-eth0"]["spec"], found["h1-k8s-web--1-eth0"]["metadata"]
    assert (spec["containerID"], metadata["namespace"], metadata["labels"]["app"]) == (pod, "shop", "web")
    assert spec["qosControls"] == {"ingressBandwidth": 1000000, "ingressBurst": 80000, "egressMaxConnections": 5}
    assert spec["ipNATs"] == [{"internalIP": spec["ipNetworks"][0], "externalIP": "192.0.2.7/32"}]
    for interface, name in (("eth0", "net1"), ("net1", "net2")):
        assert host.call("DEL", network(name), pod, CNI_ARGS=arguments, CNI_IFNAME=interface).code == 0
    assert host.leftovers() == NOTHING


def test_a_late_deletion_of_a_pods_former_container_spares_the_next(host: CniHost) -> None:
    arguments = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0"
    former, latter = host.container("c1"), host.container("c2")
    was = host.call("ADD", network(), former, CNI_ARGS=arguments)
    now = host.call("ADD", network(), latter, CNI_ARGS=arguments)
    assert addresses(was.output) == addresses(now.output)
    assert host.call("DEL", network(), former, CNI_ARGS=arguments).code == 0
    assert host.call("CHECK", network(prevResult=now.output), latter, CNI_ARGS=arguments).code == 0
    valid = [{"containerID": latter, "ifname": "eth0"}]
    collected = host.call("GC", network(version="1.1.0") | {"cni.dev/valid-attachments": valid})
    assert collected.code == 0, collected
    assert host.call("CHECK", network(prevResult=now.output), latter, CNI_ARGS=arguments).code == 0
    assert host.call("DEL", network(), latter, CNI_ARGS=arguments).code == 0
    assert host.leftovers() == NOTHING


def test_what_the_runtime_has_forgotten_is_collected(host: CniHost) -> None:
    kept, lost, other = host.container("d1"), host.container("d2"), host.container("d3")
    before = host.call("ADD", network(), kept)
    host.call("ADD", network(), lost)
    host.call("ADD", network("net2"), other)
    netns.delete(lost)  # as after a reboot
    config = network(version="1.1.0") | {"cni.dev/valid-attachments": [{"containerID": kept, "ifname": "eth0"}]}
    assert host.call("GC", config).code == 0
    assert sorted(item["spec"]["containerID"] for item in host.endpoints()) == sorted([kept, other])
    assert host.call("CHECK", network(prevResult=before.output), kept).code == 0
    for name, container in (("net1", kept), ("net2", other), ("net1", lost)):
        assert host.call("DEL", network(name), container, CNI_NETNS="").code == 0
    assert host.leftovers() == NOTHING


def test_addresses_for_interfaces_of_other_plugins(host: CniHost) -> None:
    config = network() | {"type": "bridge", "bridge": "br0", "isGateway": True, "mtu": "its own"}
    given = host.call("ADD", config, "e1", program="tabinet-ipam")
    assert len(addresses(given.output)) == 2
    assert host.call("CHECK", config | {"prevResult": given.output}, "e1", program="tabinet-ipam").code == 0
    asked = host.call("ADD", config, "e2", program="tabinet-ipam", CNI_ARGS="IP=10.65.200.1")
    assert addresses(asked.output) == ["10.65.200.1"]
    taken = host.call("ADD", config, "e3", program="tabinet-ipam", CNI_ARGS="IP=10.65.200.1")
    assert taken.output["code"] == 100
    assert "10.65.200.1" in taken.output["msg"]
    for container in ("e1", "e2", "e3"):
        assert host.call("DEL", config, container, program="tabinet-ipam").code == 0
    assert host.leftovers() == NOTHING


def test_addresses_from_another_ipam_plugin(host: CniHost) -> None:
    """A plugin of a few lines stands for ``host-local``; it notes what it was called with."""
    program = host.plugins / "fixed-ipam"
    program.write_text(
        f"#!/bin/sh\ncat > {host.directory}/$CNI_COMMAND\n[ $CNI_COMMAND = ADD ] || exit 0\n"
        'echo \'{"cniVersion": "1.0.0", "ips": [{"address": "198.51.100.7/24", "gateway": "198.51.100.1"}]}\'\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    container = host.container("f1")
    config = network(ipam={"type": "fixed-ipam", "subnet": "198.51.100.0/24"})
    made = host.call("ADD", config, container)
    assert addresses(made.output) == ["198.51.100.7"], made
    assert host.call("DEL", config, container).code == 0
    assert b"198.51.100.0/24" in (host.directory / "DEL").read_bytes()
    missing = host.call("ADD", network(ipam={"type": "no-such"}), container)
    assert missing.output["code"] == 7, missing
    assert "ipam.type: got 'no-such'" in missing.output["msg"]
    assert host.leftovers() == NOTHING


def test_a_call_that_is_killed_leaves_nothing_behind(host: CniHost) -> None:
    """At ten moments; whatever was done is undone, or goes with the deletion that a runtime calls then."""
    for attempt in range(10):
        container = host.container(f"g{attempt}")
        process = host.begin("ADD", network(), container)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(attempt * 0.008)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
        assert host.call("DEL", network(), container).code == 0
    assert eventually(host, NOTHING) == NOTHING


def test_an_agent_that_is_killed_in_a_call_leaves_nothing_that_a_deletion_does_not_remove(host: CniHost) -> None:
    containers = [host.container(f"k{index}") for index in range(3)]
    processes = [host.begin("ADD", network(), container) for container in containers]
    with contextlib.suppress(subprocess.TimeoutExpired):
        processes[0].wait(0.06)
    host.stop(signal.SIGKILL)
    for process in processes:
        answer = host.finish(process)
        assert answer.code == 0 or answer.output["code"] == 11, answer
    host.start()
    for container in containers:
        assert host.call("DEL", network(), container).code == 0
    assert host.leftovers() == NOTHING


def test_many_at_once(host: CniHost) -> None:
    containers = [host.container(f"h{index}") for index in range(12)]
    processes = [host.begin("ADD", network(), container) for container in containers]
    answers = [host.finish(process) for process in processes]
    assert [answer.code for answer in answers] == [0] * len(containers)
    assert len({address for answer in answers for address in addresses(answer.output)}) == 2 * len(containers)
    for process in [host.begin("DEL", network(), container) for container in containers]:
        assert host.finish(process).code == 0
    assert host.leftovers() == NOTHING


def test_without_an_agent_deletions_are_done_later_and_the_rest_is_to_be_tried_again(host: CniHost) -> None:
    container, other = host.container("i1"), host.container("i2")
    assert host.call("ADD", network(), container).code == 0
    host.stop()
    refused = host.call("ADD", network(), other)
    assert (refused.code, refused.output["code"]) == (1, 11)
    assert "agent of this host does not answer" in refused.output["msg"]
    assert host.call("STATUS", network(version="1.1.0")).output["code"] == 50
    assert host.call("VERSION", {"cniVersion": "0.4.0"}).output["cniVersion"] == "0.4.0"
    assert host.call("DEL", network(), container).code == 0
    (host.deletions / "0").write_bytes(b"nonsense")
    host.start()
    again = host.call("ADD", network(), container)
    assert again.code == 0, again
    assert host.call("CHECK", network(prevResult=again.output), container).code == 0
    assert host.call("DEL", network(), container).code == 0
    assert eventually(host, NOTHING) == NOTHING
    deadline = time.monotonic() + DEADLINE_S
    while list(host.deletions.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(host.deletions.iterdir()) == []


def traces(host: CniHost) -> dict[str, Any]:
    """Everything that attachments leave in the host's kernel, but for what is counted in ``leftovers``; and files."""

    def told(*argv: str) -> str:
        return subprocess.run(host.inside(*argv), check=True, capture_output=True, text=True).stdout

    chains = [line.strip() for line in told("nft", "list", "chains", "inet").splitlines() if line.strip().startswith("chain")]
    routes = [line for family in ("-4", "-6") for line in told("ip", family, "route", "show", "table", "all", "proto", "84").splitlines()]
    neighbours = told("ip", "neigh", "show", "nud", "permanent").splitlines()
    files = sorted(entry.name for entry in host.deletions.iterdir()) if host.deletions.exists() else []
    return {"chains": sorted(chains), "routes": [line for line in routes if "cali" in line], "neighbours": neighbours, "files": files}


def test_lifecycles_in_parallel_with_kills_leave_no_trace(host: CniHost) -> None:
    """Additions at once, of which some are killed at some moment, and once the agent is; then everything is deleted, some of it twice."""
    before, chance = traces(host), random.Random(5)
    for turn in range(max(LIFECYCLES // 12, 1)):
        containers = [host.container(f"n{turn}x{index}") for index in range(12)]
        config = network(profiles=["p1", "p2"])
        processes = [host.begin("ADD", config, container) for container in containers]
        for process in chance.sample(processes, 4):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
        if turn % 2 == 0:
            host.stop(signal.SIGKILL)
            gone = chance.sample(containers, 4)
            assert [host.call("DEL", config, container).code for container in gone] == [0] * 4
            host.start()
        for process in processes:
            process.communicate(timeout=DEADLINE_S)
        for process in [host.begin("DEL", config, container) for container in containers]:
            assert host.finish(process).code == 0
    assert eventually(host, NOTHING) == NOTHING
    deadline = time.monotonic() + DEADLINE_S
    while (left := traces(host)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == before


def test_the_programs_need_nothing_of_tabinet(host: CniHost) -> None:
    text = Path(host.plugins / "tabinet-cni").read_text()
    assert text.splitlines()[0].endswith("-IS")
    assert "import tabinet" not in text
    assert "from tabinet" not in text


def test_a_pod_that_calicos_plugin_attached_is_detached_as_a_whole(host: CniHost) -> None:
    pod, later = host.container("p1"), host.container("p2")
    subprocess.run(["ip", "-n", host.namespace, "link", "add", "caliold", "type", "veth", "peer", "name", "eth0", "netns", pod], check=True)
    spec = f"orchestrator: k8s, node: h1, pod: old, endpoint: eth0, containerID: {pod}, interfaceName: caliold"
    endpoint = host.directory / "old.yaml"
    endpoint.write_text(
        "{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: h1-k8s-old-eth0, namespace: default}, "
        f"spec: {{{spec}, ipNetworks: [10.65.3.3/32, 'fd00:65::33/128']}}}}"
    )
    host.tabinet("apply", "-f", str(endpoint))
    assert f"10.65.3.3 assigned to k8s-pod-network.{pod}" in host.tabinet("ipam", "assign", "h1-k8s-old-eth0")
    there = {"interfaces": [f"caliold@if{peer_index(pod)}"], "endpoints": ["h1-k8s-old-eth0"], "addresses": 2}
    assert host.leftovers() == there
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=old"
    assert host.call("DEL", network(), later, CNI_ARGS=arguments).code == 0
    assert host.leftovers() == there, "the pod has another container by now"
    for _ in range(2):
        assert host.call("DEL", network(), pod, CNI_ARGS=arguments).code == 0
    assert host.leftovers() == NOTHING


def peer_index(container: str) -> int:
    return netns.run_in(container, lambda: socket.if_nametoindex("eth0"))
