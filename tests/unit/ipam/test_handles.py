"""Handles and affinities."""

from __future__ import annotations

import pytest

from tabinet.errors import DataError
from tabinet.ipam import handles
from tabinet.lib.ip import parse_prefix

BLOCK = parse_prefix("10.0.0.0/26")


def test_counts_go_up_and_down() -> None:
    document = handles.add_to_handle(handles.new_handle() | {"later": 1}, BLOCK, 2)
    document = handles.add_to_handle(document, BLOCK, 1)
    assert document == {"block": {"10.0.0.0/26": 3}, "deleted": False, "later": 1}
    assert handles.counted_blocks(handles.remove_from_handle(document, BLOCK, 1)) == {BLOCK: 2}
    assert handles.remove_from_handle(document, BLOCK, 3)["block"] == {}
    assert handles.remove_from_handle(document, BLOCK, 9)["block"] == {}


def test_a_handle_without_blocks_is_understood() -> None:
    assert handles.parse_handle("/k", b'{"deleted": false}')["block"] == {}


@pytest.mark.parametrize("value", [b"", b"[]", b'{"block": 1}', b'{"block": {"x": 1}}', b'{"block": {"10.0.0.0/26": -1}}'])
def test_what_is_no_handle_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        handles.parse_handle("/k", value)


def test_confirming_keeps_what_we_do_not_know() -> None:
    assert handles.confirmed({"state": "pending", "x": 1}) == {"state": "confirmed", "x": 1}
    assert handles.confirmed(None) == {"state": "confirmed", "deleted": False}


@pytest.mark.parametrize("value", [b"", b"{}", b'{"state": "other"}'])
def test_what_is_no_affinity_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        handles.parse_affinity("/k", value)
