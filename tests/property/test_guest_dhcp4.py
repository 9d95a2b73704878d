"""DHCPv4: what is rendered is read back, and any bytes are a message or an error of ours."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import PacketError
from tabinet.guest import options4 as opt
from tabinet.guest.dhcp4 import MESSAGE_TYPE, Kind, Message, parse_message, render_message
from tabinet.guest.directory import Port
from tabinet.guest.lease4 import Reply4, answer4, make_lease4
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import IPV4, Prefix, parse_address
from tabinet.model.keys import ResourceKey
from tabinet.model.openstack import DhcpOption, PortFacts

four = st.binary(min_size=4, max_size=4)
codes = st.integers(1, 254).filter(lambda code: code != MESSAGE_TYPE)
options = st.dictionaries(codes, st.binary(max_size=600), max_size=6).map(lambda found: tuple(found.items()))


def without_zeros(limit: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=limit).map(lambda text: text.rstrip(b"\0"))


messages = st.builds(
    Message,
    op=st.sampled_from((1, 2)),
    kind=st.sampled_from(Kind),
    xid=st.integers(0, 2**32 - 1),
    mac=st.binary(min_size=6, max_size=6),
    secs=st.integers(0, 2**16 - 1),
    flags=st.integers(0, 2**16 - 1),
    ciaddr=four,
    yiaddr=four,
    siaddr=four,
    giaddr=four,
    sname=without_zeros(64),
    file=without_zeros(128),
    options=options,
)


@given(messages)
def test_read_back(message: Message):
    assert parse_message(render_message(message)) == message


@given(messages, st.integers(300, 1500))
def test_never_longer_than_the_limit(message: Message, limit: int):
    data = render_message(message, limit)
    assert len(data) <= limit
    assert set(parse_message(data).options) <= set(message.options)


@given(st.binary(max_size=400) | st.builds(lambda message, tail: render_message(message)[:240] + tail, messages, st.binary(max_size=200)))
def test_any_bytes(data: bytes):
    try:
        message = parse_message(data)
    except PacketError:
        return
    assert parse_message(render_message(message)) == message


MAC = bytes.fromhex("fa163e000001")
texts = st.text(max_size=30)
names = st.sampled_from(("mtu", "router", "67", "150", "domain-search", "121", "server-ip-address", "249", "dns-server")) | texts
extras = st.builds(DhcpOption, name=names, value=texts | st.sampled_from(("1.2.3.4", "10.0.0.0/8,1.2.3.4", "1400", "01:ab", "a.b,c")))


@given(messages, st.lists(extras, max_size=5), st.integers(0, 2**32 - 1))
def test_any_request_gets_what_is_the_ports_or_nothing(request: Message, extra: list[DhcpOption], value: int):
    address = Prefix(IPV4, value, 32)
    port = Port(
        key=ResourceKey("WorkloadEndpoint", "x", "default"),
        interface="tap0",
        mac=MAC,
        addresses=(address,),
        facts=PortFacts(hostname="vm", mtu=70000, dhcp_options=tuple(extra)),
    )
    outcome = answer4(request, make_lease4(port, None, address, GuestOptions()))
    if not isinstance(outcome, Reply4):
        return
    assert request.mac == MAC and request.op == 1
    reply = parse_message(render_message(outcome.message, outcome.limit_bytes))
    assert (reply.op, reply.xid, reply.mac) == (2, request.xid, MAC)
    assert reply.yiaddr in (bytes(4), address.packed)
    assert outcome.target in (bytes(4), address.packed)
    assert reply.option(opt.SERVER_IDENTIFIER) == parse_address("169.254.1.1").packed


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/17", "10.1.2.3"])
def test_routes_have_as_many_bytes_as_they_need(text: str):
    _, value = opt.encode_option("121", f"{text},192.0.2.1")
    length = value[0]
    assert len(value) == 1 + (length + 7) // 8 + 4
    assert value[-4:] == struct.pack(">BBBB", 192, 0, 2, 1)
