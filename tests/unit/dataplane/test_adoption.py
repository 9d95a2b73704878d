"""Which packets make a connection known that is older than the table."""

from __future__ import annotations

import struct

import pytest

from tabinet.dataplane.adoption import Adopter, parse_middle
from tabinet.kernel.conntrack import TcpFlow
from tabinet.kernel.ctfake import FakeConntrack
from tabinet.kernel.packetlog import FakePacketLog
from tabinet.lib.ip import parse_address

ACK, SYN, RST, FIN, PSH = 0x10, 0x02, 0x04, 0x01, 0x08
ENDS = {4: (parse_address("10.0.0.80"), parse_address("10.0.0.1")), 6: (parse_address("fd00::80"), parse_address("fd00::1"))}


def packet(family: int, flags: int, *, protocol: int = 6, fragment: int = 0, options: int = 0) -> bytes:
    """From port 80 to 40000."""
    tcp = struct.pack(">HHIIBBHHH", 80, 40000, 1, 1, 5 << 4, flags, 100, 0, 0)
    source, destination = (end.packed for end in ENDS[family])
    if family == 4:
        header = struct.pack(">BBHHHBBH", 4 << 4 | 5 + options, 0, 40 + 4 * options, 1, fragment, 64, protocol, 0)
        return header + source + destination + bytes(4 * options) + tcp
    return struct.pack(">IHBB", 6 << 28, 20, protocol, 64) + source + destination + tcp


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_in_the_middle_tells_its_flow(family: int):
    expected = TcpFlow(*ENDS[family], 80, 40000)
    for flags in (ACK, ACK | PSH, ACK | FIN):
        assert parse_middle(packet(family, flags)) == expected
    for flags in (SYN, SYN | ACK, RST, RST | ACK, 0, FIN):
        assert parse_middle(packet(family, flags)) is None
    assert parse_middle(packet(family, ACK, protocol=17)) is None


def test_options_and_fragments():
    assert parse_middle(packet(4, ACK, options=3)) == TcpFlow(*ENDS[4], 80, 40000)
    assert parse_middle(packet(4, ACK, fragment=0x2000)) == TcpFlow(*ENDS[4], 80, 40000), "the first of several"
    assert parse_middle(packet(4, ACK, fragment=7)) is None


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_cut_off_says_nothing(family: int):
    whole = packet(family, ACK)
    assert [length for length in range(len(whole)) if parse_middle(whole[:length])] == list(range(len(whole) - 6, len(whole)))
    assert parse_middle(b"\x00" * 80) is None and parse_middle(b"\xff" * 80) is None


def test_the_connection_began_at_the_other_end_and_is_known_once():
    adopter = Adopter(FakePacketLog(), FakeConntrack())
    adopter.log.packets = [packet(4, ACK), packet(4, ACK), packet(6, SYN), packet(6, ACK), b""]
    adopter.turn()
    adopter.log.packets = [packet(4, ACK)]
    adopter.turn()
    assert adopter.conntrack.marks == {TcpFlow(*reversed(ENDS[family]), 40000, 80): 0 for family in (4, 6)}
    assert adopter.adopted == 2


def test_a_full_table_of_connections_is_tried_again():
    adopter = Adopter(FakePacketLog([packet(4, ACK)]), FakeConntrack(failing=True))
    adopter.turn()
    adopter.conntrack.failing, adopter.log.packets = False, [packet(4, ACK)]
    adopter.turn()
    assert adopter.adopted == 1
