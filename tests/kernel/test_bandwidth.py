"""Bandwidth in a real kernel, by what arrives of a burst."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from one_host import ready
from two_hosts import ADDRESSES, TwoHosts, two_hosts

from tabinet.calc.messages import NO_QOS, Limits, Qos
from tabinet.dataplane.tc.driver import SMALLEST_BURST_BYTES, BandwidthDriver
from tabinet.kernel import netns
from tabinet.kernel.tcsocket import TcSocket, open_traffic_control

pytestmark = pytest.mark.kernel

DATAGRAM_BYTES = 1400
SENT = 60
"""Fewer than a receive buffer holds."""
SLOW = Limits(bandwidth_bit_s=8000, burst_bits=8)
"""So slow that next to nothing arrives after the burst."""
QUIET_S = 0.25
"""How long nothing comes before it counts as all: what is shaped waits for a timer."""


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def tc(fabric: TwoHosts) -> Iterator[TcSocket]:
    made = netns.run_in(fabric.namespace("h1"), open_traffic_control)
    yield made
    BandwidthDriver(made).apply()  # which wants nothing
    assert made.read().devices == frozenset()
    made.close()


def received(fabric: TwoHosts, source: str, target: str, family: int) -> int:
    """How many of a burst of datagrams arrive soon."""
    kind = socket.AF_INET6 if family else socket.AF_INET
    with (
        contextlib.closing(fabric.socket(target, kind, socket.SOCK_DGRAM)) as receiver,
        contextlib.closing(fabric.socket(source, kind, socket.SOCK_DGRAM)) as sender,
    ):
        receiver.bind((ADDRESSES[target][family], 7000))
        for _ in range(SENT):
            sender.sendto(b"x" * DATAGRAM_BYTES, (ADDRESSES[target][family], 7000))
        found = 0
        while found < SENT and ready(receiver, QUIET_S):
            receiver.recv(2000)
            found += 1
        return found


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize(
    ("qos", "limited", "free"), [(Qos(ingress=SLOW), ("c", "a"), ("a", "c")), (Qos(egress=SLOW), ("a", "c"), ("c", "a"))]
)
def test_one_direction_is_limited(fabric: TwoHosts, tc: TcSocket, qos: Qos, limited: tuple[str, str], free: tuple[str, str], family: int):
    driver = BandwidthDriver(tc)
    driver.want("calia", qos)
    assert driver.apply().errors == {}
    again = BandwidthDriver(tc)
    again.want("calia", qos)
    assert again.apply().operations == ()
    most = SMALLEST_BURST_BYTES // DATAGRAM_BYTES
    assert most - 3 <= received(fabric, *limited, family) <= most + 1
    assert received(fabric, *free, family) == SENT and received(fabric, "c", "b", family) == SENT
    driver.want("calia", NO_QOS)
    driver.apply()
    assert received(fabric, *limited, family) == SENT


@pytest.mark.parametrize("family", [0, 1])
def test_tcp_goes_on_at_the_rate(fabric: TwoHosts, tc: TcSocket, family: int):
    fast = Limits(bandwidth_bit_s=80_000_000, burst_bits=8 * 20_000, peak_bit_s=160_000_000)
    driver = BandwidthDriver(tc)
    driver.want("calia", Qos(fast, fast))
    assert driver.apply().errors == {}
    with contextlib.closing(fabric.tcp("c", "a", ADDRESSES["a"][family], 80)) as connection:
        for sender, receiver in ((connection.client, connection.server), (connection.server, connection.client)):
            sender.setblocking(False)
            left, found = 1_000_000, 0
            while found < 1_000_000:
                with contextlib.suppress(BlockingIOError):
                    left -= sender.send(b"y" * min(left, 65536)) if left else 0
                if not ready(receiver, QUIET_S):
                    break
                found += len(receiver.recv(65536))
            assert found == 1_000_000
