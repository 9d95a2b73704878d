"""``tabinet workload``: a namespace and a tap attached by hand, on a host with a real agent."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from cni_host import NOTHING, CniHost, datagram_arrives

from tabinet.kernel import netns

pytestmark = pytest.mark.kernel

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CniHost]:
    made = CniHost(tmp_path_factory.mktemp("hand"))
    try:
        made.open()
        yield made
    finally:
        made.close()


def open_tap(host: CniHost, name: str) -> int:
    """A tap of the host's namespace, which goes with this file descriptor (tun(4))."""

    def make() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        return descriptor

    return netns.run_in(host.namespace, make)


def test_namespaces_with_labels_reach_each_other_as_policy_says(host: CniHost) -> None:
    policy = host.directory / "policy.yaml"
    policy.write_text(
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: web}, spec: "
        "{selector: app == 'web', ingress: [{action: Allow}], egress: [{action: Allow}]}}"
    )
    host.tabinet("apply", "-f", str(policy))
    one, other = host.container("a1"), host.container("a2")
    host.tabinet("workload", "add", "--netns", one, "--name", "one", "-l", "app=web", "--ipv6")
    added = json.loads(host.tabinet("workload", "add", "--netns", other, "--pool", "four", "--pool", "six", "-l", "app=web", "--json"))
    assert (added["ready"], added["gateways"]) == (True, ["169.254.1.1", "fe80::1"])
    assert all(datagram_arrives(one, other, address) for address in added["addresses"])
    again = json.loads(host.tabinet("workload", "add", "--netns", other, "--ipv6", "-l", "app=web", "--json"))
    assert again == added, "repeated"
    listed = json.loads(host.tabinet("workload", "list", "--json"))
    assert sorted(each["name"] for each in listed) == sorted(["one", other])
    assert [(each["state"], each["labels"]) for each in listed] == [("ready", {"app": "web"})] * 2
    for _ in range(2):
        host.tabinet("workload", "delete", "one", other)
    assert host.leftovers() == NOTHING


def test_a_tap_is_guarded_and_left_to_its_owner(host: CniHost) -> None:
    descriptor = open_tap(host, "tapvm1")
    try:
        words = ("workload", "add", "--tap", "tapvm1", "--address", "10.65.9.9", "--mac", "02:00:00:00:00:01", "-l", "app=db")
        words += ("--floating", "192.0.2.9", "--limit", "egressMaxConnections=9")
        assert "10.65.9.9 at tapvm1, ready" in host.tabinet(*words)
        (found,) = host.endpoints()
        assert found["metadata"]["name"] == "h1-tabinet-tapvm1-eth0"
        assert found["spec"]["qosControls"] == {"egressMaxConnections": 9}
        assert found["spec"]["ipNATs"] == [{"internalIP": "10.65.9.9/32", "externalIP": "192.0.2.9/32"}]
        assert (found["spec"]["interfaceName"], found["spec"]["mac"]) == ("tapvm1", "02:00:00:00:00:01")
        host.tabinet("workload", "delete", "tapvm1")
        assert netns.run_in(host.namespace, lambda: socket.if_nametoindex("tapvm1")) > 0
    finally:
        os.close(descriptor)
    assert host.leftovers() == NOTHING


def test_what_makes_no_sense_leaves_nothing_behind(host: CniHost) -> None:
    for words in (("--tap", "eth7"), ("--tap", "tapnone"), ("--netns", "no-such-namespace"), ()):
        assert host.tabinet("workload", "add", *words, check=False) == ""
    assert host.leftovers() == NOTHING
