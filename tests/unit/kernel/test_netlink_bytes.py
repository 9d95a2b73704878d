"""Netlink's bytes: attributes, messages, errors; and parsers that meet any bytes."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import KernelError
from tabinet.kernel import rtcodec
from tabinet.kernel.netlink import (
    Message,
    attribute,
    nested,
    parse_attributes,
    parse_error,
    parse_messages,
    parse_text,
    read_attributes,
    text,
)
from tabinet.kernel.nftexpr import Datatype, Verdict, comment, counter, key, parse_comment, parse_counter, port, rule, set_spec, verdict


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attribute(1, b"abcde") == struct.pack("=HH", 9, 1) + b"abcde\0\0\0"
    assert nested(2, attribute(1, b""), attribute(3, b"x")) == struct.pack("=HH", 16, 0x8002) + attribute(1, b"") + attribute(3, b"x")


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_round_trip(attributes: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, content) for kind, content in attributes)
    assert list(read_attributes(data)) == attributes


@given(st.binary(max_size=64))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for parser in (parse_attributes, lambda d: list(parse_messages(d)), parse_counter, parse_comment, parse_text):
        try:
            parser(data)
        except KernelError as error:
            assert error.errno == errno.EBADMSG


@given(st.sampled_from([16, 17, 20, 21, 24, 25, 28, 29, 99]), st.integers(0, 0xFFFF), st.binary(max_size=80))
def test_any_notification_parses_or_is_refused(kind: int, flags: int, payload: bytes) -> None:
    message = Message(kind, flags, 1, 0, payload)
    try:
        rtcodec.parse_event(message)
    except KernelError as error:
        assert error.errno == errno.EBADMSG


@pytest.mark.parametrize("family", [2, 10])
@given(data=st.data())
def test_any_attributes_in_a_route_parse_or_are_refused(family: int, data: st.DataObject) -> None:
    kinds = st.sampled_from([1, 4, 5, 6, 7, 9, 15, 18])
    attributes = data.draw(st.lists(st.tuples(kinds, st.binary(max_size=24)), max_size=5))
    length = data.draw(st.integers(0, 255))
    payload = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 84, 0, 1, 0) + b"".join(attribute(k, v) for k, v in attributes)
    try:
        rtcodec.parse_event(Message(24, 0, 1, 0, payload))
    except KernelError as error:
        assert error.errno == errno.EBADMSG


def error_message(flags: int, code: int, tail: bytes) -> Message:
    return Message(2, flags, 1, 0, struct.pack("=i", -code) + struct.pack("=IHHII", 20, 24, 5, 1, 0) + tail)


def test_errors_carry_the_kernels_words() -> None:
    words = attribute(1, text("Nexthop has invalid gateway"))
    assert parse_error(error_message(0x300, errno.ENETUNREACH, words)) == (errno.ENETUNREACH, "Nexthop has invalid gateway")
    assert parse_error(error_message(0x200, errno.EINVAL, b"body" + words)) == (errno.EINVAL, "Nexthop has invalid gateway")
    assert parse_error(error_message(0x100, errno.EPERM, b"")) == (errno.EPERM, "")
    assert parse_error(error_message(0x100, 0, b"")) == (0, "")
    with pytest.raises(KernelError):
        parse_error(Message(2, 0, 1, 0, b"short"))


def test_a_kernel_error_says_what_was_asked_and_why_not() -> None:
    error = KernelError(errno.ENETUNREACH, "add route 10.0.0.0/8", "Nexthop has invalid gateway")
    assert str(error) == "add route 10.0.0.0/8: Network is unreachable (errno 101): Nexthop has invalid gateway"


@given(st.text(max_size=200).filter(lambda words: "\0" not in words))
def test_comments_round_trip_as_far_as_they_fit(words: str) -> None:
    found = parse_comment(comment(words))
    assert found == words or words.encode().startswith(found.rstrip("\ufffd").encode())


def test_counters_are_found_among_other_expressions() -> None:
    assert parse_counter(rule(verdict(Verdict.ACCEPT))) is None
    assert parse_counter(rule(counter(), verdict(Verdict.ACCEPT))) == (0, 0)


def test_keys_of_several_fields_are_padded() -> None:
    assert key(b"\6") == b"\6"
    assert key(bytes((10, 0, 0, 1)), b"\6", port(80)) == b"\x0a\0\0\1\6\0\0\0\0\x50\0\0"
    spec = set_spec(Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE, size=4)
    assert (spec.key_length, spec.fields, spec.key_type) == (12, (4, 1, 2), 7 << 12 | 12 << 6 | 13)


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "020000000000", "zz:00:00:00:00:00", "2:0:0:0:0:0"])
def test_a_wrong_mac_is_refused(mac: str) -> None:
    with pytest.raises(ValueError, match=r"MAC|fromhex"):
        rtcodec.render_mac(mac)
