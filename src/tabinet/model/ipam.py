"""Records of the IPAM values in the store: block, affinity, handle; field names as on the wire (calico-v3 layout).

As with resources these are views for reading; ``ipam`` edits plain documents, so that fields which we do not know survive. The
configuration is a resource for people (IPAMConfiguration) with a stored form of its own; both ways here.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from tabinet.model.records.base import API_VERSION


class IpamRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the records: unknown fields ignored."""


class AffinityState(enum.Enum):
    """How far a host's claim on a block has got."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


class Affinity(IpamRecord, frozen=True, kw_only=True):
    """The claim of a host on a block; only a confirmed one counts for routing."""

    state: AffinityState
    deleted: bool = False


class AllocationAttribute(IpamRecord, frozen=True, kw_only=True):
    """Who holds the addresses that point at it."""

    handle_id: str | None = None
    secondary: dict[str, str] = {}
    """For people and garbage collection: ``node``, ``namespace``, ``pod``, ``timestamp`` and others."""
    released_at: str | None = msgspec.field(default=None, name="releasedAt")


class Block(IpamRecord, frozen=True, kw_only=True):
    """A block of addresses: which are taken, by whom, and which are free in what order."""

    cidr: str
    affinity: str | None = None
    """``host:<name>``, or ``None`` when the block belongs to no host."""
    allocations: tuple[int | None, ...] = ()
    """For each ordinal the index in ``attributes``, or ``None`` when free; as long as the block is large."""
    unallocated: tuple[int, ...] = ()
    """Free ordinals; the first is given out next."""
    attributes: tuple[AllocationAttribute, ...] = ()
    sequence_number: int = msgspec.field(default=0, name="sequenceNumber")
    sequence_number_for_allocation: dict[str, int] = msgspec.field(default={}, name="sequenceNumberForAllocation")
    deleted: bool = False

    @property
    def host(self) -> str:
        """The host that the block is affine to; empty when none."""
        prefix, _, host = (self.affinity or "").partition(":")
        return host if prefix == "host" else ""


class Handle(IpamRecord, frozen=True, kw_only=True):
    """How many addresses of which blocks one owner holds."""

    block: dict[str, int] = {}
    """CIDR of the block to number of addresses."""
    deleted: bool = False


# --- the configuration, as stored and as a resource -------------------------------------------------------------------

_CONFIG_NAMES = {"strict_affinity": "strictAffinity", "auto_allocate_blocks": "autoAllocateBlocks"}
"""Members that have another name in the store than in the resource."""
_STORED_NAMES = {name: stored for stored, name in _CONFIG_NAMES.items()}


def config_document(stored: dict[str, Any]) -> dict[str, Any]:
    """The IPAMConfiguration that a stored configuration says; members that we do not know are kept."""
    spec = {_CONFIG_NAMES.get(name, name): member for name, member in stored.items()}
    return {"apiVersion": API_VERSION, "kind": "IPAMConfiguration", "metadata": {"name": "default"}, "spec": spec}


def config_value(document: dict[str, Any]) -> dict[str, Any]:
    """What is stored of an IPAMConfiguration: its ``spec``; there is no place for its metadata."""
    spec: dict[str, Any] = document["spec"] if isinstance(document.get("spec"), dict) else {}
    return {_STORED_NAMES.get(name, name): member for name, member in spec.items()}
