"""The self-test of checksums in VXLAN: some network cards are told to fill in the checksum of the packet inside, and get it wrong.

Every packet of a workload then reaches the other host and is dropped there without a word. The test sends datagrams from our end of the
tunnel to a port of another end where nobody listens, and waits for the refusal (ICMP, whose checksum no card computes): once with a
checksum that is left to the card, once without any, which UDP over IPv4 allows (RFC 768). Refused only without: the card is to blame, if
it is refused with a checksum of the kernel's own, too. Then offload stays off on the tunnels' interfaces.

It needs nothing of the other host, be it ours or Calico's. Where nobody answers at all, nothing is concluded, and it is tried again later.
"""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tabinet.agent.kernelthread import call_aside
from tabinet.agent.log import Logger
from tabinet.calc.messages import Tunnel, TunnelPeerRemove, TunnelPeerUpdate, TunnelRemove, TunnelUpdate, Update
from tabinet.lib.ip import Prefix

ATTEMPTS = 3
ANSWER_S = 0.3
PAUSE_S = 1.0
"""A host refuses six datagrams of another one at once, and then one a second (icmp(7), icmp_ratelimit)."""
PEERS = 3
"""So many other hosts are asked before nothing is concluded."""
AGAIN_S = 60.0
_PORTS = (33434, 33523)
"""Where traceroute(8) expects that nobody listens."""
_SO_NO_CHECK = 11
CONFIRMED = "checksums of VXLAN packets are wrong when the network card computes them: offload is off on the tunnels' interfaces"


class Verdict(enum.Enum):
    """What the test came to."""

    GOOD = "good"
    BROKEN = "broken"
    UNKNOWN = "unknown"


Probe = Callable[[Prefix, Prefix, bool], bool]
"""From one end to another, with a checksum or without: True when it was refused."""


def refused(source: Prefix, destination: Prefix, checksum: bool) -> bool:
    """True when the other end refused a datagram; blocks for ``ANSWER_S`` at most."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            if not checksum:
                probe.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
            probe.settimeout(ANSWER_S)
            probe.bind((source.address, 0))
            probe.connect((destination.address, random.randint(*_PORTS)))
            probe.send(b"tabinet")
            probe.recv(1)
        except ConnectionRefusedError:
            return True
        except OSError:  # no answer, no route, no such address yet
            return False
    return False


def suspect(source: Prefix, others: list[Prefix], probe: Probe, pause_s: float = PAUSE_S) -> tuple[Verdict, Prefix | None]:
    """Whether packets with checksums arrive; BROKEN names the end that only those without reach. Blocks."""
    for other in others:
        if any(probe(source, other, True) for _ in range(ATTEMPTS)):
            return Verdict.GOOD, other
        if sum(probe(source, other, False) for _ in range(ATTEMPTS)) > ATTEMPTS // 2:
            # The other host may have heard of us only just now: then those with checksums arrive as well.
            # It may also have refused so many that it refuses no more for now.
            again = any(_later(probe, source, other, pause_s) for _ in range(ATTEMPTS))
            return (Verdict.GOOD if again else Verdict.BROKEN), other
    return Verdict.UNKNOWN, None


def _later(probe: Probe, source: Prefix, other: Prefix, pause_s: float) -> bool:
    time.sleep(pause_s)
    return probe(source, other, True)


@dataclass(slots=True)
class ChecksumTest:
    """Tests once whoever there is to test with; the result counts until the agent ends."""

    set_offload: Callable[[bool], Awaitable[None]]
    """Leaves checksums to the card, or not."""
    log: Logger
    enabled: bool = True
    probe: Probe = refused
    again_s: float = AGAIN_S
    pause_s: float = PAUSE_S
    verdict: Verdict = Verdict.UNKNOWN
    _own: Prefix | None = None
    _others: dict[str, Prefix] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_update(self, update: Update) -> None:
        """Only the ends of VXLAN tunnels for IPv4 matter: the card is the same for IPv6."""
        match update:
            case TunnelUpdate(_, Tunnel.VXLAN4, local):
                self._own = local.address if local.wanted else None
            case TunnelRemove(_, Tunnel.VXLAN4):
                self._own = None
            case TunnelPeerUpdate(_, Tunnel.VXLAN4, peer, end):
                self._others[peer] = end.address
            case TunnelPeerRemove(_, Tunnel.VXLAN4, peer):
                self._others.pop(peer, None)
            case _:
                return
        self._changed.set()

    def problems(self) -> Iterator[str]:
        """What operators should know."""
        if self.verdict is Verdict.BROKEN:
            yield CONFIRMED

    async def run(self, publish: Callable[[], None]) -> None:
        """Ends with a verdict. ``publish`` is called when there is something to tell."""
        if not self.enabled:
            return
        while self.verdict is Verdict.UNKNOWN:
            await self._changed.wait()
            self._changed.clear()
            if self._own is None or not self._others:
                continue
            await self._test(self._own, random.sample(sorted(self._others.values()), min(PEERS, len(self._others))))
            if self.verdict is Verdict.UNKNOWN:
                await asyncio.sleep(self.again_s)
                self._changed.set()
        if self.verdict is Verdict.BROKEN:
            self.log.warning("checksum offload", result=CONFIRMED)
            publish()

    async def _test(self, own: Prefix, others: list[Prefix]) -> None:
        found, other = await call_aside(suspect, own, others, self.probe, self.pause_s)
        if found is Verdict.BROKEN and other is not None:
            # Only if it is better without, worse with, and better without again is it the card, and not a busy moment.
            for on, expected in ((False, Verdict.GOOD), (True, Verdict.BROKEN), (False, Verdict.GOOD)):
                await self.set_offload(on)
                found, _ = await call_aside(suspect, own, [other], self.probe, self.pause_s)
                if found is not expected:
                    await self.set_offload(True)
                    return
            self.verdict = Verdict.BROKEN
        else:
            self.verdict = found
