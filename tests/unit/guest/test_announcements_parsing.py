"""What guests announce by ARP and neighbour discovery, as frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tabinet.guest.announcements import BROADCAST, Announcement, parse_announcement, render_announcements, render_question
from tabinet.lib.ip import parse_address

MAC, HOST = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ADDRESSES = tuple(map(parse_address, ("10.0.0.9", "fd00::9")))


def test_what_a_host_announces_reads_as_an_announcement() -> None:
    for address, frame in zip(ADDRESSES, render_announcements(ADDRESSES, BROADCAST, MAC), strict=True):
        assert parse_announcement(frame) == Announcement("02:00:00:00:00:01", address, asked=False)


def test_an_answer_is_told_from_an_announcement() -> None:
    arp = bytes.fromhex("0001080006040002") + MAC + ADDRESSES[0].packed + HOST + parse_address("169.254.1.1").packed
    assert parse_announcement(HOST + MAC + b"\x08\x06" + arp) == Announcement("02:00:00:00:00:01", ADDRESSES[0], asked=True)
    [frame] = render_announcements(ADDRESSES[1:], BROADCAST, MAC)
    solicited = frame[:58] + b"\x60" + frame[59:]
    assert parse_announcement(solicited) == Announcement("02:00:00:00:00:01", ADDRESSES[1], asked=True)


def test_a_question_announces_nothing() -> None:
    for address in ADDRESSES:
        assert parse_announcement(render_question(address, HOST)) is None
        assert parse_announcement(render_question(address, HOST)[:40]) is None


@given(st.binary(max_size=100), st.sampled_from((b"\x08\x06", b"\x86\xdd", b"")))
def test_any_bytes_are_read_or_not(data: bytes, kind: bytes) -> None:
    parse_announcement(data[:12] + kind + data[12:])
