"""Adopter: TCP connections that are older than the table go on, whichever end speaks next.

Where nothing tracked connections before, the first packet that is seen of one counts as its beginning. If that is the server's, the
connection is judged the wrong way round and mostly denied. For some time after a table was made where none was, denied TCP packets that
begin no flow are read here, as the rules log them, and the connection that they may belong to is made known to connection tracking as one
that the other end began. The next packet, which TCP sends again soon, is then judged as the flow's answer: policy has the last word, here
as always. Connections whose client speaks next need nothing of this.

In: logged packets. Out: entries in connection tracking. Not for UDP, whose packets do not tell whether they begin something, nor for
translated flows. Cost: some 30 us for each packet; the rule that logs bounds their number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tabinet.errors import KernelError
from tabinet.kernel.conntrack import Conntrack, TcpFlow
from tabinet.kernel.packetlog import PacketLog
from tabinet.lib.ip import IPV4, IPV6, Prefix

_TCP = 6
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


@dataclass(slots=True)
class Adopter:
    """Reads a log and adds flows, in one network namespace."""

    log: PacketLog
    conntrack: Conntrack
    adopted: int = 0
    """Connections that were made known."""

    def turn(self) -> None:
        """What was logged so far is seen to.

        Raises:
            KernelError: the log cannot be read.
        """
        for flow in dict.fromkeys(self._middles()):
            try:
                self.adopted += self.conntrack.add_tcp(flow.reversed())
            except KernelError:
                continue  # the table of connections is full, or the like: the next packet tries again

    def close(self) -> None:
        """Nothing is adopted any more."""
        self.log.close()
        self.conntrack.close()

    def _middles(self) -> Iterator[TcpFlow]:
        for packet in self.log.read():
            flow = parse_middle(packet)
            if flow is not None:
                yield flow


def parse_middle(packet: bytes) -> TcpFlow | None:
    """The flow of a TCP packet in its sender's direction; None for one that begins or resets a connection, and for any other packet.

    In: an IPv4 or IPv6 packet from its header on, perhaps cut off. IPv6 extension headers make it any other packet.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start, protocol, fragment = (packet[0] & 15) * 4, packet[9], struct.unpack_from(">H", packet, 6)[0] & 0x1FFF
        ends = [Prefix(IPV4, int.from_bytes(packet[at : at + 4], "big"), 32) for at in (12, 16)]
    elif version == 6 and len(packet) >= 40:
        start, protocol, fragment = 40, packet[6], 0
        ends = [Prefix(IPV6, int.from_bytes(packet[at : at + 16], "big"), 128) for at in (8, 24)]
    else:
        return None
    if protocol != _TCP or fragment or len(packet) < start + 14:
        return None
    if packet[start + 13] & (_SYN | _RST | _ACK) != _ACK:
        return None
    source_port, destination_port = struct.unpack_from(">HH", packet, start)
    return TcpFlow(ends[0], ends[1], source_port, destination_port)
