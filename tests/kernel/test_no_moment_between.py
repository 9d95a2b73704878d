"""Packets without pause while the table changes without pause: none of a denied flow passes, none of an allowed one is lost.

A packet is judged on one processor while a change is committed on another. TABINET_BETWEEN_S says for how many seconds (for a proof: 60).
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fence import settle
from one_host import ADDRESSES, OneHost, one_host
from test_nft_packets import ALLOW_ALL, OUT, Agent, endpoint, members

from tabinet.calc import messages as m
from tabinet.kernel.nftables import DeleteTable
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

SECONDS = float(os.environ.get("TABINET_BETWEEN_S", "1.5"))
ALLOWED, DENIED = 5000, 5001
STEADY = ResourceKey("GlobalNetworkPolicy", "steady")
_SO_RCVBUFFORCE = 33
Tiers = tuple[m.TierPolicies, ...]


def udp(*ports: int, action: m.Action = m.Action.ALLOW, **source: tuple) -> m.Rule:
    ranges = tuple(m.PortRange(port, port) for port in ports)
    return m.Rule(action, protocol=17, source=m.Side(**source), destination=m.Side(ports=ranges))


class Changes:
    """Makes up one change after the other; b allows ALLOWED and never DENIED, and may always send."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.number = 0
        self.policies: list[ResourceKey] = []

    def begin(self) -> list[m.Update]:
        # What may be asked with the rules of before and the members of after must deny, too: a set is never all there is between.
        return [
            m.SetUpdate("changing", m.SetKind.NETS, members("c")),
            m.PolicyUpdate(STEADY, m.Policy((udp(ALLOWED),), (m.Rule(m.Action.ALLOW),))),
            m.PolicyUpdate(OUT, ALLOW_ALL),
            *(endpoint(name, (), self._tier("default", OUT)) for name in ("a", "c")),
            endpoint("b", self._tier("default", STEADY), self._tier("default", STEADY)),
        ]

    def next(self) -> list[m.Update]:
        """A policy comes, with or without one that goes; b's tiers change; members come and go; others' endpoints come and go."""
        choose = self.choose
        self.number += 1
        key = ResourceKey("GlobalNetworkPolicy", f"p{self.number}")
        found: list[m.Update] = [m.PolicyUpdate(key, self._policy())]
        self.policies.append(key)
        while len(self.policies) > choose.choice((2, 6, 12)):
            found.append(m.PolicyRemove(self.policies.pop(choose.randrange(len(self.policies)))))
        ingress, egress = self._tiers(), self._tiers()
        found.append(endpoint("b", ingress, egress))
        if choose.random() < 0.5:
            found.append(m.SetDelta("changing", *choose.sample([members("a", "c"), frozenset()], 2)))
        if choose.random() < 0.3:
            spare = m.Endpoint("h", "calispare", "", (parse_address("10.65.0.9"),), (), ingress, egress, ())
            spare_key = ResourceKey("WorkloadEndpoint", "spare", "default")
            found.append(choose.choice((m.EndpointUpdate(spare_key, 1, spare), m.EndpointRemove(spare_key))))
        if choose.random() < 0.3:
            found.append(m.PolicyUpdate(choose.choice(self.policies), self._policy()))
        return found

    def _policy(self) -> m.Policy:
        rules = [
            udp(self.choose.randrange(6000, 6010), action=self.choose.choice((m.Action.ALLOW, m.Action.DENY, m.Action.PASS)))
            for _ in range(self.choose.randint(1, 3))
        ]
        if self.choose.random() < 0.5:
            rules.append(udp(self.choose.randrange(6000, 6010), sets=("changing",)))
        return m.Policy(tuple(rules), tuple(rules))

    def _tier(self, name: str, *policies: ResourceKey, default: m.Action = m.Action.DENY) -> Tiers:
        return (m.TierPolicies(name, default, policies),)

    def _tiers(self) -> Tiers:
        first = self.choose.sample(self.policies, self.choose.randint(1, len(self.policies)))
        more = self._tier("first", *first, default=m.Action.PASS) if self.choose.random() < 0.5 else ()
        before = self.choose.sample(self.policies, self.choose.randint(0, len(self.policies)))
        return (*more, *self._tier("default", *before, STEADY))


@pytest.fixture(scope="module")
def fabric() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


class Flood:
    """Datagrams from a and c to b, one after the other."""

    def __init__(self, fabric: OneHost, family: int, ports: tuple[int, ...]) -> None:
        self.kind = (socket.AF_INET, socket.AF_INET6)[family]
        self.target = ADDRESSES["b"][family]
        self.ports = ports
        self.senders = [fabric.socket(name, self.kind, socket.SOCK_DGRAM) for name in ("a", "c")]
        self.sent = dict.fromkeys(ports, 0)
        self.arrived = dict.fromkeys(ports, 0)
        self.receivers = {port: fabric.socket("b", self.kind, socket.SOCK_DGRAM) for port in ports}
        for port, receiver in self.receivers.items():
            receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            receiver.bind((self.target, port))
            receiver.setblocking(False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        settle()
        self.drain()
        for each in (*self.senders, *self.receivers.values()):
            each.close()

    def _run(self) -> None:
        while not self._over.is_set():
            for sender in self.senders:
                for port in self.ports:
                    sender.sendto(b"?", (self.target, port))
                    self.sent[port] += 1

    def drain(self) -> None:
        for port, receiver in self.receivers.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    receiver.recv(10)
                    self.arrived[port] += 1


@pytest.mark.parametrize("family", [0, 1])
def test_every_packet_meets_the_table_of_before_or_of_after(fabric: OneHost, family: int):
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    agent, changes = Agent(fabric), Changes(random.Random(seed))
    try:
        agent.start(*changes.begin())
        deadline = time.monotonic() + SECONDS
        with Flood(fabric, family, (ALLOWED, DENIED)) as flood:
            while time.monotonic() < deadline:
                assert not agent.tell(*changes.next()).resynced
                flood.drain()
        print(f"{changes.number} changes, {flood.sent} sent")
        assert flood.arrived == {ALLOWED: flood.sent[ALLOWED], DENIED: 0}
    finally:
        agent.nft.commit([DeleteTable()])
        agent.nft.close()
