"""For which neighbours the host answers."""

import pytest

from tabinet.guest.directory import Directory, Port
from tabinet.guest.neighbours import Unanswered, decide, link_prefixes, render_advertisement
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey

PORT = Port(
    key=ResourceKey("WorkloadEndpoint", "x", "default"),
    interface="tap0",
    mac=bytes(6),
    addresses=(parse_address("10.0.0.7"), parse_address("fd65::7"), parse_address("fd66::7")),
)
LINK_LOCAL = parse_address("fe80::7").packed


def ask(target: str, kind: int = 135) -> bytes:
    return bytes((kind, 0, 0, 0, 0, 0, 0, 0)) + parse_address(target).packed


@pytest.mark.parametrize(
    ("data", "source", "hops", "expected"),
    [
        (ask("fd65::9"), LINK_LOCAL, 255, parse_address("fd65::9")),
        (ask("fd66::1"), parse_address("fd65::7").packed, 255, parse_address("fd66::1")),
        (ask("fd65::7"), LINK_LOCAL, 255, Unanswered.OWN),
        (ask("fd65::9"), bytes(16), 255, Unanswered.DETECTION),
        (ask("fd65::7"), bytes(16), 255, Unanswered.DETECTION),
        (ask("fd67::9"), LINK_LOCAL, 255, Unanswered.ELSEWHERE),
        (ask("fe80::1"), LINK_LOCAL, 255, Unanswered.ELSEWHERE),
        (ask("ff02::1"), LINK_LOCAL, 255, Unanswered.MALFORMED),
        (ask("fd65::9"), LINK_LOCAL, 254, Unanswered.MALFORMED),
        (ask("fd65::9", kind=136), LINK_LOCAL, 255, Unanswered.MALFORMED),
        (ask("fd65::9")[:23], LINK_LOCAL, 255, Unanswered.MALFORMED),
        (b"", LINK_LOCAL, 255, Unanswered.MALFORMED),
    ],
)
def test_decided(data: bytes, source: bytes, hops: int, expected: object):
    assert decide(data, source, hops, PORT, Directory("h1")) == expected


def test_the_link_is_what_addresses_say_where_no_subnet_does():
    assert link_prefixes(PORT, Directory("h1")) == [parse_prefix("fd65::/64"), parse_prefix("fd66::/64")]


def test_advertisement():
    data = render_advertisement(parse_address("fd65::9"), bytes.fromhex("eeeeeeeeeeee"))
    assert data == bytes.fromhex("88000000c0000000") + parse_address("fd65::9").packed + bytes.fromhex("0201eeeeeeeeeeee")
