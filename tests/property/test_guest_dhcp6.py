"""DHCPv6 and frames: what is rendered is read back, any bytes are a message or an error of ours, and nobody gets another's address."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import PacketError
from tabinet.guest import dhcp6, options6
from tabinet.guest.dhcp6 import Kind, Message, parse_association, parse_message, parse_options, render_message
from tabinet.guest.directory import Port
from tabinet.guest.frames import ICMP6, UDP, Frame, checksum, parse_frame, parse_udp, render_frame, udp_datagram
from tabinet.guest.lease6 import SERVER_DUID, answer6, make_lease6
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import IPV6, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.openstack import DhcpOption, PortFacts

addresses = st.binary(min_size=16, max_size=16)
names = st.tuples(st.sampled_from((dhcp6.CLIENT_ID, dhcp6.SERVER_ID)), st.binary(min_size=3, max_size=130) | st.just(SERVER_DUID))
associations = st.builds(
    lambda code, identifier, found: dhcp6.render_association(
        dhcp6.Association(code=code, identifier=identifier), 0, 0, tuple(dhcp6.render_address(each, 1, 1) for each in found)
    ),
    st.sampled_from(sorted(dhcp6.ASSOCIATIONS)),
    st.binary(min_size=4, max_size=4),
    st.lists(addresses, max_size=3),
)
plain = st.tuples(st.integers(6, 0xFFFF), st.binary(max_size=60))
options = st.lists(names | associations | plain, max_size=6).map(tuple)
messages = st.builds(Message, kind=st.sampled_from(Kind), xid=st.integers(0, 2**24 - 1), options=options)


@given(messages)
def test_read_back(message: Message):
    assert parse_message(render_message(message)) == message


@given(messages, st.integers(4, 300))
def test_never_longer_than_the_limit(message: Message, limit: int):
    data = render_message(message, limit)
    assert len(data) <= limit
    assert set(parse_message(data).options) <= set(message.options)


@given(st.binary(max_size=200) | st.builds(lambda message, tail: render_message(message) + tail, messages, st.binary(max_size=50)))
def test_any_bytes(data: bytes):
    try:
        message = parse_message(data)
    except PacketError:
        return
    assert render_message(message) == data
    for code, value in message.options:
        if code in dhcp6.ASSOCIATIONS:
            with contextlib.suppress(PacketError):
                parse_association(code, value)


texts = st.text(max_size=30)
known = st.sampled_from(("dns-server", "domain-search", "ntp-server", "56", "59", "bootfile-param", "39", "1", "70000", "option6:32"))
values = texts | st.sampled_from(("fd00::1", "[fd00::1],fd00::2", "a.b,c", "01:ab", "3600", "x" * 300))
extras = st.builds(DhcpOption, name=known | texts, value=values, ip_version=st.just(6))


@given(messages, st.lists(extras, max_size=5), st.lists(st.integers(0, 2**128 - 1), max_size=40), texts)
def test_any_request_gets_what_is_the_ports_or_nothing(request: Message, extra: list[DhcpOption], numbers: list[int], name: str):
    own = [Prefix(IPV6, number, 128) for number in numbers]
    facts = PortFacts(hostname=name, dhcp_options=tuple(extra))
    port = Port(key=ResourceKey("WorkloadEndpoint", "x", "default"), interface="tap0", mac=bytes(6), addresses=tuple(own), facts=facts)
    try:
        outcome = answer6(request, make_lease6(port, [], own, GuestOptions()))
    except PacketError:
        return
    if not isinstance(outcome, Message):
        return
    reply = parse_message(render_message(outcome, 1232))
    assert reply.kind in (Kind.ADVERTISE, Kind.REPLY) and reply.xid == request.xid
    assert reply.option(dhcp6.SERVER_ID) == SERVER_DUID and reply.option(dhcp6.CLIENT_ID) == request.option(dhcp6.CLIENT_ID)
    packed = {address.packed for address in own}
    for code, value in reply.options:
        if code == dhcp6.IA_NA:
            for inner, text in parse_options(value[12:]):
                if inner == dhcp6.IA_ADDRESS and text[16:] != bytes(8):
                    assert text[:16] in packed
    assert (
        reply.option(options6.FQDN) is None or request.option(options6.FQDN) is not None or request.option(dhcp6.OPTION_REQUEST) is not None
    )


macs = st.binary(min_size=6, max_size=6)
frames = st.builds(
    Frame,
    to_mac=macs,
    from_mac=macs,
    source=addresses,
    target=addresses,
    protocol=st.sampled_from((UDP, ICMP6)),
    hops=st.integers(0, 255),
    payload=st.binary(min_size=8, max_size=80).map(lambda data: bytes((data[0], data[1], 0, 0, data[4], data[5], 0, 0)) + data[8:]),
)


@given(frames, st.binary(max_size=10))
def test_frames_are_read_back(frame: Frame, padding: bytes):
    data = render_frame(frame)
    assert parse_frame(data + padding) == frame
    pseudo = frame.source + frame.target + len(frame.payload).to_bytes(4, "big") + bytes((0, 0, 0, frame.protocol))
    assert checksum(pseudo + data[54:]) == 0xFFFF, "the sum with its checksum is nothing"


@given(st.binary(max_size=120) | st.builds(lambda frame, cut: render_frame(frame)[:cut], frames, st.integers(0, 140)))
def test_any_frame(data: bytes):
    try:
        frame = parse_frame(data)
    except PacketError:
        return
    if frame.protocol == UDP:
        with contextlib.suppress(PacketError):
            parse_udp(frame.payload)
    assert parse_frame(render_frame(frame)) == frame


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=50))
def test_datagrams(source: int, target: int, data: bytes):
    assert parse_udp(udp_datagram(source, target, data)) == (source, target, data)
