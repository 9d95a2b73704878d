"""The prober: answers whoever reaches this namespace, and tries to reach others, all at once.

Run as ``python3 -I -S prober.py NAME TCP,TCP,... UDP,UDP,...`` inside the namespace of a workload or host. It listens on all the ports in
both families: a TCP connection is told NAME and closed, a UDP datagram is answered with NAME from the address that it was sent to. Then,
line by line, as JSON:

- out, once: ``{"ready": true}``;
- in: ``{"timeout_ms": t, "probes": [[family, protocol, address, port, source], ...]}`` with protocol ``icmp``, ``tcp`` or ``udp``; where
  the source is empty, the kernel chooses it;
- out: ``{"results": [[outcome, who, ms], ...]}`` in the order of the probes. Outcome is ``answered`` (``who`` is the name that the other
  side gave, for ICMP its address), ``refused`` (TCP reset or port unreachable), ``forbidden`` (dropped by the own host before it left),
  ``unreachable`` (any other error) or ``timeout``.

All probes of a batch run in parallel; a batch takes as long as its slowest probe. Datagrams are sent up to three times within the timeout,
so that one lost to a busy machine is no result. Ends when its standard input ends. O(1) for each packet; a descriptor for each TCP or UDP
probe.
"""

import errno
import json
import os
import select
import socket
import struct
import sys
import time

RESEND_S = (0.0, 0.25, 0.6)
"""When datagrams are sent, from the beginning of the batch."""
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
BACKLOG = 512
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
IP_PKTINFO = 8  # ip(7); in Python only since 3.13

Address = tuple[str, int]


class Probe:
    """One probe that is under way, or its result."""

    __slots__ = ("address", "family", "index", "outcome", "port", "protocol", "sends", "socket", "source", "took_ms", "who")

    def __init__(self, index: int, family: int, protocol: str, address: str, port: int, source: str) -> None:
        self.index = index
        self.family = family
        self.protocol = protocol
        self.address = address
        self.port = port
        self.source = source
        self.socket: socket.socket | None = None
        self.sends = 0
        self.outcome = ""
        self.who = ""
        self.took_ms = 0.0


class Prober:
    """The event loop: listeners, one batch of probes, and standard input."""

    __slots__ = ("active", "batch", "buffer", "deadline", "echo", "echo_id", "name", "poller", "servers", "started")

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.poller = select.epoll()
        self.servers: dict[int, socket.socket] = {}
        self.echo: dict[int, socket.socket] = {}
        self.active: dict[int, Probe] = {}
        self.batch: list[Probe] = []
        self.buffer = b""
        self.started = 0.0
        self.deadline = 0.0
        self.echo_id = os.getpid() & 0xFFFF

    def listen(self, tcp: list[int], udp: list[int]) -> None:
        """All ports answer, and echo replies are seen."""
        for family in (4, 6):
            for kind, ports in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
                for port in ports:
                    self._serve(family, kind, port)
            protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
            raw = socket.socket(FAMILY[family], socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            self.echo[family] = raw
            self.servers[raw.fileno()] = raw
            self.poller.register(raw.fileno(), select.EPOLLIN)

    def _serve(self, family: int, kind: int, port: int) -> None:
        server = socket.socket(FAMILY[family], kind | socket.SOCK_NONBLOCK)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == 6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::" if family == 6 else "0.0.0.0", port))
        if kind == socket.SOCK_DGRAM:  # a host has many addresses, and a connected socket hears one only
            server.setsockopt(*((socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) if family == 6 else (socket.IPPROTO_IP, IP_PKTINFO)), 1)
        if kind == socket.SOCK_STREAM:
            server.listen(BACKLOG)
        self.servers[server.fileno()] = server
        self.poller.register(server.fileno(), select.EPOLLIN)

    def loop(self) -> None:
        """Serves until standard input ends."""
        self.poller.register(0, select.EPOLLIN)
        write({"ready": True})
        while True:
            for descriptor, _ in self.poller.poll(self._wait_s()):
                if descriptor == 0:
                    if not self._read_input():
                        return
                elif descriptor in self.servers:
                    self._answer(self.servers[descriptor])
                elif descriptor in self.active:
                    self._progress(self.active[descriptor])
            self._tick()

    def _wait_s(self) -> float:
        """Until the next datagram is due or the batch ends; forever when idle."""
        if not self.batch:
            return -1
        elapsed = time.monotonic() - self.started
        due = [moment for moment in (*RESEND_S, self.deadline) if moment > elapsed]
        return max(0.001, due[0] - elapsed) if due else 0

    def _read_input(self) -> bool:
        data = os.read(0, 1 << 20)
        if not data:
            return False
        self.buffer += data
        while b"\n" in self.buffer and not self.batch:
            line, _, self.buffer = self.buffer.partition(b"\n")
            request = json.loads(line)
            self._begin(request["probes"], request["timeout_ms"] / 1000)
        return True

    def _answer(self, server: socket.socket) -> None:
        if server in self.echo.values():
            self._read_echo(server)
            return
        try:
            while True:
                if server.type == socket.SOCK_STREAM:
                    connection, _ = server.accept()
                    connection.send(self.name)
                    connection.close()
                else:
                    _, told, _, sender = server.recvmsg(2048, 128)
                    server.sendmsg([self.name], [sent_from(local_address(told))], 0, sender)
        except OSError:  # nothing more to answer, or the asker has gone
            return

    def _read_echo(self, raw: socket.socket) -> None:
        family = 4 if raw.family == socket.AF_INET else 6
        while True:
            try:
                packet, sender = raw.recvfrom(2048)
            except OSError:
                return
            if family == 4:  # raw(7): IPv4 comes with its header, IPv6 without
                packet = packet[(packet[0] & 15) * 4 :]
            if len(packet) < 8 or packet[0] != ECHO_REPLY[family]:
                continue
            identifier, sequence = struct.unpack("!HH", packet[4:8])
            if identifier != self.echo_id or sequence >= len(self.batch):
                continue
            probe = self.batch[sequence]
            if probe.protocol == "icmp" and probe.family == family and not probe.outcome:
                self._finish(probe, "answered", sender[0])

    def _begin(self, probes: list[list[object]], timeout_s: float) -> None:
        # A new identifier makes new flows: an answer that is late for the last batch is none for this one.
        self.echo_id = (self.echo_id + 1) & 0xFFFF
        self.batch = [Probe(index, int(str(f)), str(p), str(a), int(str(n)), str(s)) for index, (f, p, a, n, s) in enumerate(probes)]
        self.started = time.monotonic()
        self.deadline = timeout_s
        for probe in self.batch:
            if probe.protocol == "tcp":
                self._connect(probe, socket.SOCK_STREAM)
            elif probe.protocol == "udp":
                self._connect(probe, socket.SOCK_DGRAM)
        self._tick()

    def _connect(self, probe: Probe, kind: int) -> None:
        probe.socket = socket.socket(FAMILY[probe.family], kind | socket.SOCK_NONBLOCK)
        if probe.source:
            probe.socket.bind((probe.source, 0))
        error = probe.socket.connect_ex((probe.address, probe.port))
        if error not in (0, errno.EINPROGRESS):
            self._finish(probe, outcome_of(error))
            return
        self.active[probe.socket.fileno()] = probe
        # A connection is read from at once: it becomes readable with the name, or with the error.
        self.poller.register(probe.socket.fileno(), select.EPOLLIN)

    def _progress(self, probe: Probe) -> None:
        if probe.socket is None or probe.outcome:
            return
        try:
            answer = probe.socket.recv(2048)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(probe, outcome_of(error.errno or 0))
            return
        if answer:
            self._finish(probe, "answered", answer.decode(errors="replace"))
        else:
            self._finish(probe, "refused")

    def _tick(self) -> None:
        """Sends the datagrams that are due, and ends the batch when all is answered or its time is up."""
        if not self.batch:
            return
        elapsed = time.monotonic() - self.started
        due = sum(moment <= elapsed for moment in RESEND_S)
        for probe in self.batch:
            if not probe.outcome and probe.protocol != "tcp" and probe.sends < due:
                probe.sends = due
                self._send(probe)
        if elapsed < self.deadline and not all(probe.outcome for probe in self.batch):
            return
        for probe in self.batch:
            if not probe.outcome:
                self._finish(probe, "timeout")
        results = [[probe.outcome, probe.who, round(probe.took_ms, 1)] for probe in self.batch]
        self.batch = []
        write({"results": results})

    def _send(self, probe: Probe) -> None:
        try:
            if probe.socket is not None:
                probe.socket.send(b"?")
            else:
                packet = echo_request(probe.family, self.echo_id, probe.index)
                source = [sent_from(socket.inet_pton(FAMILY[probe.family], probe.source))] if probe.source else []
                self.echo[probe.family].sendmsg([packet], source, 0, (probe.address, 0))
        except BlockingIOError:
            return  # the queue is full; there will be another try
        except OSError as error:
            self._finish(probe, outcome_of(error.errno or 0))

    def _finish(self, probe: Probe, outcome: str, who: str = "") -> None:
        probe.outcome = outcome
        probe.who = who
        probe.took_ms = (time.monotonic() - self.started) * 1000
        if probe.socket is not None:
            self.active.pop(probe.socket.fileno(), None)
            probe.socket.close()  # epoll forgets a closed descriptor
            probe.socket = None


def outcome_of(error: int) -> str:
    """The word for an errno."""
    words = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "refused", errno.ETIMEDOUT: "timeout", errno.EPERM: "forbidden"}
    return words.get(error, "unreachable")


def local_address(told: list[tuple[int, int, bytes]]) -> bytes:
    """The address that a datagram was sent to: ip(7) IP_PKTINFO, ipv6(7) IPV6_PKTINFO."""
    for level, kind, data in told:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return data[8:12]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return data[:16]
    return b""


def sent_from(address: bytes) -> tuple[int, int, bytes]:
    """The control message that makes the kernel send from this address, through whichever interface."""
    if len(address) == 4:
        return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, address)
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16si", address, 0)


def echo_request(family: int, identifier: int, sequence: int) -> bytes:
    """An ICMP (RFC 792) or ICMPv6 (RFC 4443) echo request; the kernel fills in the checksum of ICMPv6."""
    body = struct.pack("!HH", identifier, sequence) + b"tabinet."
    kind = ECHO_REQUEST[family]
    total = checksum(struct.pack("!BBH", kind, 0, 0) + body) if family == 4 else 0
    return struct.pack("!BBH", kind, 0, total) + body


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def write(message: object) -> None:
    """One line of JSON on standard output."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main(arguments: list[str]) -> None:
    """Runs the prober until standard input ends."""
    name, tcp, udp = arguments
    prober = Prober(name)
    prober.listen([int(port) for port in tcp.split(",") if port], [int(port) for port in udp.split(",") if port])
    prober.loop()


if __name__ == "__main__":
    main(sys.argv[1:])
