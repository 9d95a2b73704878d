"""Protocols beyond the fields of rules."""

from __future__ import annotations

import pytest

from tabinet.model.extended import ProtocolMatch, parse_extended, render_protocol


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0", ProtocolMatch(0)),
        ("255", ProtocolMatch(255)),
        ("33:80", ProtocolMatch(33, ports=(80, 80))),
        ("136:80-90", ProtocolMatch(136, ports=(80, 90))),
        ("1:255", ProtocolMatch(1, icmp=(255, None))),
        ("58:255/0", ProtocolMatch(58, icmp=(255, 0))),
    ],
)
def test_text_and_meaning(text: str, match: ProtocolMatch):
    assert parse_extended(text) == match
    assert render_protocol(match) == text


@pytest.mark.parametrize(
    "text", ["", "256", "tcp", "33:", "33:9-2", "33:70000", "47:80", "1:256", "1:8-9", "33:80/1", "1:8/256", "0:1", " 33", "3\u0663", "-1"]
)
def test_what_is_none(text: str):
    with pytest.raises(ValueError, match="is not a protocol"):
        parse_extended(text)
