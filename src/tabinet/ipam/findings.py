"""Kinds of findings about addresses: what each means, and what is to be done. A finding without an explanation cannot be made."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from tabinet.lib.ip import Prefix


class Level(enum.Enum):
    """How bad it is."""

    ERROR = "error"
    """What is stored contradicts itself."""
    LEAK = "leak"
    """Something is taken that nobody needs."""
    NOTE = "note"
    """May be meant."""
    SPARE = "spare"
    """Nothing is wrong: it could only be given back."""


class Kind(NamedTuple):
    """A kind of finding."""

    level: Level
    collected: bool
    """True when garbage collection puts it right."""
    meaning: str
    advice: str


_GC = "tabinet ipam gc puts it right"

KINDS: dict[str, Kind] = {
    "block-unreadable": Kind(
        Level.ERROR,
        False,
        "The value of the block is damaged; nothing is assigned from it, and its addresses cannot be released.",
        "Look at it with `tabinet get ipamblock NAME -o yaml`; when none of its addresses is in use, delete its key from the store.",
    ),
    "block-overlap": Kind(
        Level.ERROR,
        False,
        "Two blocks hold the same addresses, which may so get two owners. It comes from a pool that was made anew with another block size.",
        "Move the workloads out of one of the two blocks; an empty one goes by itself.",
    ),
    "block-without-affinity": Kind(
        Level.ERROR,
        True,
        "The block says who it belongs to, but the owner's claim is missing, so the host does not announce the block's route.",
        _GC + ": the claim is confirmed.",
    ),
    "affinity-unreadable": Kind(
        Level.ERROR,
        False,
        "The value of the claim is damaged; it does not count.",
        "Delete its key from the store: the claim is written anew with the next assignment.",
    ),
    "affinity-unfinished": Kind(
        Level.ERROR,
        True,
        "Somebody who writes in several steps (Calico's own programs) began or ended a claim and has not finished.",
        _GC + ", unless it is finished meanwhile.",
    ),
    "affinity-without-block": Kind(
        Level.ERROR,
        True,
        "The host announces, and blackholes, a block that does not exist.",
        _GC + ": the claim is deleted.",
    ),
    "affinity-contradicted": Kind(
        Level.ERROR,
        True,
        "Two hosts announce the same block; the block itself says whose it is.",
        _GC + ": the claim that the block does not confirm is deleted.",
    ),
    "handle-unreadable": Kind(
        Level.ERROR,
        False,
        "The value of the handle is damaged; its addresses can only be released one by one.",
        "Release its addresses with `tabinet ipam release --ip`, then delete its key from the store.",
    ),
    "handle-miscounted": Kind(
        Level.ERROR,
        True,
        "A release by this handle would miss addresses, or look for some that are not there. A writer has died in the middle.",
        _GC + ": the handle counts what the blocks say.",
    ),
    "handle-empty": Kind(Level.ERROR, True, "A leftover of a writer that died in the middle.", _GC + ": the handle is deleted."),
    "address-unused": Kind(
        Level.LEAK,
        True,
        "The addresses were assigned for a workload without endpoint: it is gone and did not release them, or it is just being attached.",
        _GC + "; or now: `tabinet ipam release --handle HANDLE`.",
    ),
    "address-of-lost-host": Kind(
        Level.LEAK,
        True,
        "The addresses were assigned on a host that has no Node and no endpoint.",
        _GC + "; or now: `tabinet ipam release --host HOST`.",
    ),
    "block-of-lost-host": Kind(
        Level.LEAK,
        True,
        "The block belongs to a host that has no Node and no endpoint: nobody assigns from it, as long as others have blocks left.",
        _GC + ": an empty block is deleted, one with addresses belongs to nobody until the last is released.",
    ),
    "address-partly-unused": Kind(
        Level.NOTE,
        False,
        "The owner uses some of its addresses and not these; they go when all go.",
        "If they are not to be used any more: `tabinet ipam release --ip ADDRESS`.",
    ),
    "address-unassigned": Kind(
        Level.ERROR,
        False,
        "Another workload can get the same address, because nothing says that it is taken.",
        "For a workload: `tabinet ipam assign ENDPOINT -n NAMESPACE`; else keep the address out of assignment with an IPReservation.",
    ),
    "address-shared": Kind(
        Level.NOTE,
        False,
        "Several endpoints have the address: right for anycast and while a workload moves, wrong otherwise.",
        "Unless that is meant, detach one of them.",
    ),
    "block-without-pool": Kind(
        Level.NOTE,
        False,
        "The pool was deleted with addresses in use: they work, but encapsulation and outgoing translation are those of no pool.",
        "Make the pool again, or move the workloads to other addresses; an empty block goes by itself.",
    ),
    "block-spare": Kind(Level.SPARE, True, "Nobody needs the block now.", _GC + ": it is deleted, and any host can claim it."),
    "block-rested": Kind(
        Level.SPARE,
        True,
        "The cooldown of addresses is over, and nobody has written to the block since.",
        _GC + ": they are free.",
    ),
}


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something that should not be, or need not be."""

    code: str
    """Key of ``KINDS``."""
    subject: str
    """The block, affinity, handle or address."""
    problem: str
    block: Prefix | None = None
    owner: str = ""
    """Whose claim it is about, as in ``host:web1``."""
    handle: str = ""
    addresses: tuple[Prefix, ...] = ()
    identity: str = ""
    """Changes when somebody has touched what was found: then it is another finding."""

    @property
    def kind(self) -> Kind:
        """What it means, and what is to be done."""
        return KINDS[self.code]

    def __lt__(self, other: Finding) -> bool:
        return (self.subject, self.code, self.problem) < (other.subject, other.code, other.problem)

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"
