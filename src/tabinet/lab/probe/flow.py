"""Numbered UDP packets at a steady rate, and what became of them.

Run inside a workload's namespace as ``python3 -I -S flow.py send|receive JSON``; JSON is a list of flows:

- ``send``: ``[{"id": n, "family": 4|6, "address": a, "port": p, "source_port": s, "rate": r}, ...]``, all with the same rate (packets/s);
- ``receive``: ``[{"family": 4|6, "port": p}, ...]``: where to listen.

Both print ``{"ready": true}`` and work until a line comes in. The sender then prints ``{"sent": {id: count}}``. The line to the receiver is
``{"sent": {id: count}, "interval_ns": n}``; it waits until everything has arrived or nothing has for 300 ms, and prints for each id:
``received``, ``lost``, ``longest_lost`` (the longest run of missing numbers), ``longest_gap_ms`` (how long, by the sender's clock, the
longest time was in which nothing that was sent arrived), and ``first_ns`` and ``last_ns`` (when the first and the last packet that
arrived were sent, by the monotonic clock, which all namespaces share; 0 when none arrived).

Everything is counted by sequence number and the sender's clock, so a receiver that is not scheduled for a while changes nothing: its socket
buffer holds many seconds. A sender that was not scheduled leaves slots out instead of catching up in a burst. 8 bytes for each packet.
"""

import array
import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

HEADER = struct.Struct("!IQQ")
"""Flow id, sequence number, the sender's monotonic clock in ns."""
PADDING = b"\0" * 44
BUFFER_BYTES = 32 << 20
QUIET_S = 0.3
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
SO_RCVBUFFORCE = 33  # socket(7); not in Python's socket module


def send(flows: list[dict[str, object]]) -> None:
    """Sends one packet of each flow in every interval until a line comes in."""
    out = []
    for flow in flows:
        family = int(str(flow["family"]))
        sender = socket.socket(FAMILY[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sender.bind(("::" if family == 6 else "0.0.0.0", int(str(flow["source_port"]))))
        sender.connect((str(flow["address"]), int(str(flow["port"]))))
        out.append((sender, int(str(flow["id"]))))
    interval_ns = int(1e9 / float(str(flows[0]["rate"])))
    counts = dict.fromkeys((number for _, number in out), 0)
    write({"ready": True})
    due = time.monotonic_ns()
    while True:
        now = time.monotonic_ns()
        if now < due:
            # select(2) waits for microseconds; poll and epoll would round up to the next millisecond.
            if select.select([0], [], [], (due - now) / 1e9)[0]:
                break
            continue
        for sender, number in out:
            # An ICMP error about an earlier packet, or no route: this packet counts as lost.
            with contextlib.suppress(OSError):
                sender.send(HEADER.pack(number, counts[number], now) + PADDING)
            counts[number] += 1
        due += interval_ns * (1 + (now - due) // interval_ns)
    write({"sent": counts})


class Arrivals:
    """Send times by sequence number; 0 for a packet that has not come."""

    __slots__ = ("count", "times")

    def __init__(self) -> None:
        self.times = array.array("Q")
        self.count = 0

    def add(self, sequence: int, sent_ns: int) -> None:
        """A packet came; a duplicate changes nothing."""
        if sequence >= len(self.times):
            self.times.frombytes(bytes(8 * (sequence + 1 - len(self.times))))
        if not self.times[sequence]:
            self.times[sequence] = sent_ns
            self.count += 1

    def report(self, sent: int, interval_ns: int) -> dict[str, float]:
        """What became of packets 0 to ``sent - 1``. A gap at either end is as long as the number of its packets says."""
        longest = gap_ns = run = before = 0
        for sequence in range(sent):
            moment = self.times[sequence] if sequence < len(self.times) else 0
            if not moment:
                run += 1
                longest = max(longest, run)
                continue
            if run:
                gap_ns = max(gap_ns, moment - before - interval_ns if before else run * interval_ns)
            before, run = moment, 0
        gap_ns = max(gap_ns, run * interval_ns)
        first = next((moment for moment in self.times if moment), 0)
        return {
            "received": self.count,
            "lost": sent - self.count,
            "longest_lost": longest,
            "longest_gap_ms": round(gap_ns / 1e6, 1),
            "first_ns": first,
            "last_ns": before,
        }


def receive(listeners: list[dict[str, object]]) -> None:
    """Counts arrivals until a line tells how many were sent."""
    poller = select.poll()
    sockets = {}
    for listener in listeners:
        family = int(str(listener["family"]))
        server = socket.socket(FAMILY[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        if family == 6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::" if family == 6 else "0.0.0.0", int(str(listener["port"]))))
        sockets[server.fileno()] = server
        poller.register(server.fileno(), select.POLLIN)
    poller.register(0, select.POLLIN)
    write({"ready": True})
    flows: dict[int, Arrivals] = {}
    sent: dict[int, int] | None = None
    interval_ns = 0
    while True:
        ready = [descriptor for descriptor, _ in poller.poll(None if sent is None else QUIET_S * 1000)]
        for descriptor in ready:
            if descriptor in sockets:
                drain(sockets[descriptor], flows)
        if 0 in ready:
            line = sys.stdin.readline()
            poller.unregister(0)
            if not line:
                return
            request = json.loads(line)
            sent = {int(number): count for number, count in request["sent"].items()}
            interval_ns = request["interval_ns"]
        if sent is not None and (not ready or all(number in flows and flows[number].count >= count for number, count in sent.items())):
            break
    write({str(number): flows.get(number, Arrivals()).report(count, interval_ns) for number, count in sent.items()})


def drain(server: socket.socket, flows: dict[int, Arrivals]) -> None:
    """Takes what is in the socket's buffer, at most some thousand packets."""
    for _ in range(4096):
        try:
            data = server.recv(2048)
        except BlockingIOError:
            return
        if len(data) == HEADER.size + len(PADDING):
            number, sequence, sent_ns = HEADER.unpack_from(data)
            flows.setdefault(number, Arrivals()).add(sequence, sent_ns)


def write(message: object) -> None:
    """One line of JSON on standard output."""
    os.write(1, json.dumps(message).encode() + b"\n")


def main(arguments: list[str]) -> None:
    """Sends or receives, as the first argument says."""
    mode, flows = arguments
    {"send": send, "receive": receive}[mode](json.loads(flows))


if __name__ == "__main__":
    main(sys.argv[1:])
