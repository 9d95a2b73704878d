"""HTTP heads of guests: read back, any bytes, and nothing of what a guest says of itself is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import PacketError
from tabinet.guest.directory import Port
from tabinet.guest.metadata import METHODS, RequestHead, forwarded_head, parse_head, render_head, sign
from tabinet.model.keys import ResourceKey

names = st.sampled_from(
    (b"host", b"x-instance-id", b"x-tenant-id", b"x-forwarded-for", b"connection", b"metadata-flavor", b"content-length")
)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
targets = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(lambda text: b"/" + text.encode())
heads = st.builds(
    RequestHead, method=st.sampled_from(METHODS), target=targets, fields=st.lists(st.tuples(names, values), max_size=6).map(tuple)
)
PORT = Port(key=ResourceKey("WorkloadEndpoint", "x", "y"), interface="tap0", mac=b"", addresses=(), instance="own", project="tenant")


@given(heads)
def test_read_back(head: RequestHead):
    assert parse_head(render_head(head)) == head


@given(st.binary(max_size=200) | st.builds(lambda head, tail: render_head(head)[:-4] + tail + b"\r\n\r\n", heads, st.binary(max_size=40)))
def test_any_bytes(data: bytes):
    try:
        head = parse_head(data)
        _ = head.body_bytes
    except PacketError:
        return
    assert parse_head(render_head(head)) == head


@given(heads)
def test_who_asks_is_the_hosts_word(head: RequestHead):
    try:
        found = parse_head(render_head(forwarded_head(head, PORT, "10.0.0.1", "nova:8775", b"secret")))
    except PacketError:
        return  # a body that is not passed on
    said = [(name, value) for name, value in found.fields if name.startswith(b"x-") or name in (b"host", b"connection")]
    assert sorted(said) == [
        (b"connection", b"close"),
        (b"host", b"nova:8775"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"x-instance-id", b"own"),
        (b"x-instance-id-signature", sign("own", b"secret").encode()),
        (b"x-tenant-id", b"tenant"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://other/ HTTP/1.1\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Instance-ID : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nX-Instance-ID: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes):
    with pytest.raises(PacketError):
        parse_head(data).body_bytes  # noqa: B018
