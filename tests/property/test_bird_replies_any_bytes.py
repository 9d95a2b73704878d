"""Any bytes on the control socket give a value or BirdError."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from tabinet.bgp.replies import ReplyLine, parse_reply, parse_route_count, parse_sessions, parse_status
from tabinet.errors import BirdError

CODES = st.sampled_from([0, 1000, 1002, 1006, 1007, 1011, 1020, 9001])
WORDS = st.sampled_from(
    [
        "tb_x BGP --- up 2026-01-01 00:00:00.0 Established",
        "  BGP state: ",
        "Channel ipv4",
        "Channel ",
        "Routes: 1 imported",
        "Neighbor AS: ٣",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60), WORDS, st.text(max_size=8).map("Neighbor AS: ".__add__), st.text(max_size=9).map("Import updates:".__add__)
)
REPLIES = st.lists(st.builds(ReplyLine, CODES, TEXTS), max_size=20)


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from([b"1002-", b"0000 ", b" ", b"\n", b"x", b"\xff"])).map(b"".join)))
def test_any_bytes_are_a_reply_or_not(data: bytes) -> None:
    with contextlib.suppress(BirdError):
        found = parse_reply(data)
        if found is not None:
            lines, rest = found
            assert lines
            assert data.endswith(rest)


@given(REPLIES, REPLIES)
def test_any_lines_are_parsed(first: list[ReplyLine], second: list[ReplyLine]) -> None:
    parse_status(first)
    parse_route_count(first)
    for session in parse_sessions(first, second):
        assert session.name
        assert session.peer
