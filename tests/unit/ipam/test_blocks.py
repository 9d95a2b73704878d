"""Block algebra, ordinal by ordinal."""

from __future__ import annotations

import msgspec
import pytest

from tabinet.errors import AddressError, DataError
from tabinet.ipam import blocks
from tabinet.lib.ip import parse_address, parse_prefix

BLOCK = parse_prefix("10.0.0.0/30")
SIX = parse_prefix("fd00::40/126")


def fresh(host: str = "h") -> blocks.Document:
    return blocks.new_block(BLOCK, f"host:{host}", 100, "2026-01-02T03:04:05Z")


def take(document: blocks.Document, count: int, handle: str = "w", host: str = "h", **options: object) -> tuple[blocks.Document, list[str]]:
    edited, addresses = blocks.assign(document, BLOCK, count, handle, {"node": host}, f"host:{host}", strict=True, **options)  # type: ignore[arg-type]
    return edited, [address.address for address in addresses]


def test_a_new_block_is_the_document_that_calico_writes() -> None:
    assert fresh() == {
        "cidr": "10.0.0.0/30",
        "affinity": "host:h",
        "affinity_claim_time": "2026-01-02T03:04:05Z",
        "allocations": [None, None, None, None],
        "unallocated": [0, 1, 2, 3],
        "attributes": [],
        "sequenceNumber": 100,
        "sequenceNumberForAllocation": {},
        "deleted": False,
    }


def test_assignment_takes_the_first_free_and_notes_the_sequence_number_before_the_write() -> None:
    document, addresses = take(fresh(), 2)
    assert addresses == ["10.0.0.0", "10.0.0.1"]
    assert document["allocations"] == [0, 0, None, None]
    assert document["unallocated"] == [2, 3]
    assert document["attributes"] == [{"handle_id": "w", "secondary": {"node": "h"}}]
    assert document["sequenceNumber"] == 101
    assert document["sequenceNumberForAllocation"] == {"0": 100, "1": 100}


def test_the_given_document_is_not_changed() -> None:
    before = fresh()
    take(before, 2)
    blocks.release(take(before, 2)[0], BLOCK, [BLOCK.host(0)])
    assert before == fresh()


def test_released_addresses_are_given_out_last() -> None:
    document, _ = take(fresh(), 2)
    document, lost = blocks.release(document, BLOCK, [BLOCK.host(0)])
    assert lost == {"w": 1}
    assert document["unallocated"] == [2, 3, 0]
    assert take(document, 3, "v")[1] == ["10.0.0.2", "10.0.0.3", "10.0.0.0"]
    assert document["sequenceNumberForAllocation"] == {"1": 100}


def test_a_full_block_gives_what_it_has() -> None:
    document, addresses = take(fresh(), 9)
    assert len(addresses) == 4
    assert take(document, 1, "v") == (document, [])
    assert blocks.free_addresses(document, BLOCK) == 0


def test_reserved_addresses_are_passed_over_and_stay_free() -> None:
    reserved = [parse_prefix("10.0.0.0/31"), parse_prefix("fd00::/64")]
    document, addresses = take(fresh(), 4, reserved=reserved)
    assert addresses == ["10.0.0.2", "10.0.0.3"]
    assert document["unallocated"] == [0, 1]
    assert blocks.free_addresses(fresh(), BLOCK, reserved) == 2


def test_attributes_nobody_uses_any_more_go_and_the_others_move_up() -> None:
    document, _ = take(fresh(), 1, "a")
    document, _ = take(document, 1, "b")
    document, lost = blocks.release(document, BLOCK, [BLOCK.host(0), BLOCK.host(0), BLOCK.host(3), parse_address("10.9.9.9")])
    assert lost == {"a": 1}
    assert document["attributes"] == [{"handle_id": "b", "secondary": {"node": "h"}}]
    assert document["allocations"] == [None, 0, None, None]
    assert blocks.assigned_addresses(document, BLOCK, "b") == (BLOCK.host(1),)


def test_equal_attributes_are_shared() -> None:
    document, _ = take(fresh(), 1, "a")
    document, _ = take(document, 1, "a")
    assert len(document["attributes"]) == 1


@pytest.mark.parametrize("affinity", ["host:other", None, "virtual:load-balancer"])
def test_strict_affinity_refuses_a_block_of_somebody_else(affinity: str | None) -> None:
    document = fresh() | {"affinity": affinity}
    with pytest.raises(AddressError, match="strict affinity"):
        take(document, 1)
    assert blocks.assign(document, BLOCK, 1, "w", {}, "host:h", strict=False)[1] == (BLOCK.host(0),)


def test_a_given_address() -> None:
    document = blocks.assign_address(fresh(), BLOCK, BLOCK.host(2), "w", {}, "host:h", strict=True)
    assert document["unallocated"] == [0, 1, 3]
    assert blocks.assign_address(document, BLOCK, BLOCK.host(2), "w", {}, "host:h", strict=True) is document
    with pytest.raises(AddressError, match=r"10\.0\.0\.2 is in use by w"):
        blocks.assign_address(document, BLOCK, BLOCK.host(2), "v", {}, "host:h", strict=True)
    with pytest.raises(ValueError, match="no address of block"):
        blocks.assign_address(document, BLOCK, parse_address("10.0.0.4"), "v", {}, "host:h", strict=True)


def test_ipv6_blocks() -> None:
    document = blocks.new_block(SIX, "host:h", 1, "2026-01-02T03:04:05Z")
    _, addresses = blocks.assign(document, SIX, 2, "w", {}, "host:h", strict=True)
    assert [str(address) for address in addresses] == ["fd00::40/128", "fd00::41/128"]


def test_unknown_fields_survive() -> None:
    document = fresh() | {"later": {"x": 1}}
    document, _ = take(document, 1)
    document, _ = blocks.release(document, BLOCK, [BLOCK.host(0)])
    assert document["later"] == {"x": 1}


def test_the_old_field_for_the_claiming_host_is_understood_and_replaced() -> None:
    document = fresh() | {"affinity": None, "hostAffinity": "old"}
    assert blocks.owner_of(document) == "host:old"
    assert blocks.owner_of(blocks.claim(document, "host:new", "2026-01-02T03:04:05Z")) == "host:new"


def test_what_a_migration_left_in_handles_is_ignored() -> None:
    assert blocks.owner({"handle_id": "w\r\neth0"}) == "w"
    assert blocks.owner({"handle_id": None}) == ""


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cidr": "10.0.0.4/30"}, "cidr"),
        ({"cidr": 7}, "cidr"),
        ({"affinity": 7}, "affinity"),
        ({"attributes": "none"}, "attributes"),
        ({"allocations": [None]}, "allocations"),
        ({"allocations": [0, None, None, None], "unallocated": [1, 2, 3]}, "allocations[0]"),
        ({"unallocated": [0, 1, 2]}, "unallocated"),
        ({"unallocated": [0, 1, 2, 2, 3]}, "unallocated"),
        ({"unallocated": None}, "unallocated"),
        ({"sequenceNumber": "x"}, "sequenceNumber"),
    ],
)
def test_a_block_that_could_give_an_address_twice_is_refused(change: dict[str, object], path: str) -> None:
    with pytest.raises(DataError) as caught:
        blocks.parse_block("/key", msgspec.json.encode(fresh() | change), BLOCK)
    assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize("value", [b"", b"[]", b"nonsense", b'"x"'])
def test_a_value_that_is_no_document_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        blocks.parse_block("/key", value, BLOCK)


def test_a_huge_block_is_refused() -> None:
    with pytest.raises(DataError, match="at most"):
        blocks.parse_block("/key", b"{}", parse_prefix("10.0.0.0/8"))


def test_a_sound_block_is_accepted_as_it_is() -> None:
    document, _ = take(fresh(), 3)
    assert blocks.parse_block("/key", msgspec.json.encode(document), BLOCK) == document


def test_an_address_that_was_released_rests_and_belongs_to_nobody() -> None:
    document, _ = take(fresh(), 3)
    document, lost = blocks.release(document, BLOCK, [BLOCK.host(1)], rest_since="2026-01-02T03:10:00Z")
    assert lost == {"w": 1}
    assert document["unallocated"] == [3]
    assert document["attributes"][-1] == {"handle_id": None, "secondary": None, "releasedAt": "2026-01-02T03:10:00Z"}
    assert blocks.count(document) == blocks.Counts(assigned=2, resting=1, free=1)
    assert blocks.owners(document, BLOCK) == {BLOCK.host(0): "w", BLOCK.host(2): "w"}
    assert blocks.resting(document, BLOCK) == {BLOCK.host(1): "2026-01-02T03:10:00Z"}
    assert blocks.release(document, BLOCK, [BLOCK.host(1)]) == (document, {})
    assert take(document, 2)[1] == ["10.0.0.3"]
    with pytest.raises(AddressError, match="released at 2026-01-02T03:10:00Z and rests"):
        blocks.assign_address(document, BLOCK, BLOCK.host(1), "v", {}, "host:h", strict=True)
    assert blocks.parse_block("k", msgspec.json.encode(document), BLOCK) == document


def test_what_has_rested_long_enough_is_free_in_the_order_of_its_release() -> None:
    document, _ = take(fresh(), 4)
    document, _ = blocks.release(document, BLOCK, [BLOCK.host(2)], rest_since="1970-01-01T00:00:10Z")
    document, _ = blocks.release(document, BLOCK, [BLOCK.host(0)], rest_since="1970-01-01T00:00:20Z")
    document, _ = blocks.release(document, BLOCK, [BLOCK.host(1)], rest_since="1970-01-01T00:00:30Z")
    assert blocks.wake(document, 69.9, 60) is document
    assert blocks.wake(document, 80.0, 60)["unallocated"] == [2, 0]
    woken = blocks.wake(document, 90.0, 60)
    assert woken["unallocated"] == [2, 0, 1]
    assert woken["attributes"] == [{"handle_id": "w", "secondary": {"node": "h"}}]
    assert woken["sequenceNumber"] > document["sequenceNumber"]
    assert set(woken["sequenceNumberForAllocation"]) == {"3"}
    assert blocks.wake(document, 30.0, 0)["unallocated"] == [2, 0, 1]


def test_lists_that_go_writes_as_null_are_empty() -> None:
    written = fresh() | {"attributes": None}
    assert blocks.parse_block("k", msgspec.json.encode(written), BLOCK) == fresh()
    full, _ = take(fresh(), 4)
    assert blocks.parse_block("k", msgspec.json.encode(full | {"unallocated": None}), BLOCK) == full


def test_a_block_that_belongs_to_nobody_any_more_keeps_its_addresses() -> None:
    document, _ = take(fresh(), 1)
    unclaimed = blocks.unclaim(document)
    assert blocks.owner_of(unclaimed) == ""
    assert "affinity_claim_time" not in unclaimed
    assert blocks.owners(unclaimed, BLOCK) == {BLOCK.host(0): "w"}


@pytest.mark.parametrize(("text", "age_s"), [("1970-01-01T00:01:00Z", 40.0), ("1970-01-01T00:01:00", 40.0), ("soon", 100.0), (None, 100.0)])
def test_the_age_of_a_claim(text: str | None, age_s: float) -> None:
    assert blocks.claim_age_s(fresh() | {"affinity_claim_time": text}, 100.0) == age_s
