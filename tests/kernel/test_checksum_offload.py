"""Checksum offload of real interfaces, and the self-test's datagrams between two hosts with a VXLAN tunnel."""

from __future__ import annotations

import errno
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest

from tabinet.agent.checksum import Verdict, refused, suspect
from tabinet.errors import KernelError
from tabinet.kernel import netns
from tabinet.kernel.ethtool import EthtoolSocket, FakeOffloads, Offloads
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddRoute,
    AddVeth,
    AddVxlan,
    Forwarding,
    InterfaceAddress,
    Neighbour,
    SetForwarding,
    SetLink,
    SetNeighbour,
    Vxlan,
    device_route,
    execute_all,
)
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import Prefix, parse_prefix

pytestmark = pytest.mark.kernel

RUNNING_WITHIN_S = 20.0
MACS = ("66:00:00:00:00:01", "66:00:00:00:00:02")


def p(text: str) -> Prefix:
    return parse_prefix(text)


UNDERLAY, ENDS = (p("172.16.0.1"), p("172.16.0.2")), (p("10.65.0.1"), p("10.65.1.1"))


def eventually_running(name: str) -> None:
    """A veth drops what it is given until a kernel worker has seen its carrier; refusals that get lost so count against those allowed."""
    rt = netns.run_in(name, open_rtnetlink)
    deadline = time.monotonic() + RUNNING_WITHIN_S
    while not all(link.running for link in rt.links() if link.kind == "veth"):
        assert time.monotonic() < deadline, name
        time.sleep(0.01)
    rt.close()


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two hosts with each other's end of a tunnel."""
    names = (f"tbt-{uuid.uuid4().hex[:10]}", f"tbt-{uuid.uuid4().hex[:10]}")
    for name in names:
        netns.create(name)
    first = netns.run_in(names[0], open_rtnetlink)
    descriptor = netns.open_namespace(names[1])
    execute_all(first, [AddVeth("u0", "u1", descriptor, index=10, peer_index=11)])
    for me, name in enumerate(names):
        other, rt = 1 - me, netns.run_in(name, open_rtnetlink)
        execute_all(rt, [AddVxlan("vx", Vxlan(4096, 4789, UNDERLAY[me]), MACS[me], 1450), SetLink(10 + me, up=True)])
        index = next(link.index for link in rt.links() if link.name == "vx")
        execute_all(rt, [AddAddress(InterfaceAddress(10 + me, UNDERLAY[me], 24)), AddAddress(InterfaceAddress(index, ENDS[me], 32))])
        execute_all(rt, [SetLink(1, up=True), SetLink(index, up=True), AddRoute(device_route(ENDS[other], index))])
        execute_all(
            rt, [SetNeighbour(Neighbour(index, ENDS[other], MACS[other])), SetForwarding(Forwarding(index, MACS[other], UNDERLAY[other]))]
        )
        rt.close()
    first.close()
    for name in names:
        eventually_running(name)
    yield names
    for name in names:
        netns.delete(name)


@pytest.fixture(params=["fake", "real"])
def offloads(request: pytest.FixtureRequest, hosts: tuple[str, str]) -> Iterator[Offloads]:
    made: Offloads = FakeOffloads("vx") if request.param == "fake" else netns.run_in(hosts[0], EthtoolSocket)
    yield made
    made.close()


def test_offload_is_turned_off_and_on(offloads: Offloads) -> None:
    assert offloads.tx_checksum("vx")
    for on in (False, False, True):
        offloads.set_tx_checksum("vx", on)
        assert offloads.tx_checksum("vx") is on
    with pytest.raises(KernelError) as raised:
        offloads.tx_checksum("nobody")
    assert raised.value.errno == errno.ENODEV


def concluded(host: str, other: Prefix) -> tuple[Verdict, Prefix | None]:
    """What the self-test comes to; as the agent does, it is asked again when it comes to nothing, as in a busy moment."""
    verdicts = (netns.run_in(host, lambda: suspect(ENDS[0], [other], refused)) for _ in range(5))
    return next((found for found in verdicts if found[0] is not Verdict.UNKNOWN), (Verdict.UNKNOWN, None))


def test_datagrams_are_refused_and_what_loses_those_with_checksums_is_found(hosts: tuple[str, str]) -> None:
    assert concluded(hosts[0], ENDS[1]) == (Verdict.GOOD, ENDS[1])
    rules = "table ip lossy { chain c { type filter hook input priority 0; iifname vx udp checksum != 0 drop; }; }"
    subprocess.run(["ip", "netns", "exec", hosts[1], "nft", rules], check=True, timeout=20)
    assert concluded(hosts[0], ENDS[1]) == (Verdict.BROKEN, ENDS[1])
    assert netns.run_in(hosts[0], lambda: suspect(ENDS[0], [p("10.65.9.9")], refused)) == (Verdict.UNKNOWN, None)
