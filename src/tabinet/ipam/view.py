"""What is known of the stored IPAM values, and a transaction that is being put together over them. Pure data.

A ``View`` holds decoded values with the revision that each was read at; a ``Draft`` collects compares and writes against
these revisions, so that the store accepts the whole only when everything that was looked at is still as it was. A value that
cannot be decoded keeps its revision and has no document: nothing is assigned from it, and nothing is put in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.errors import AddressError
from tabinet.ipam.blocks import Document, owner_of
from tabinet.ipam.handles import CONFIRMED
from tabinet.ipam.owners import affinity_key
from tabinet.ipam.pools import Pool
from tabinet.lib.ip import Prefix
from tabinet.model.keys import BlockKey, HandleKey, path_of
from tabinet.store.api import Compare, DeleteOp, GetOp, Op, PutOp

MAX_COMPARES = 120
"""etcd's default limit is 128 operations in one branch of a transaction."""
MAX_BLOCKS_PER_HOST = 20


class Stored(msgspec.Struct, frozen=True):
    """A value as it was read: revision 0 when there is none; no document when it could not be understood."""

    document: Document | None = None
    revision: int = 0

    @property
    def exists(self) -> bool:
        return self.revision != 0


ABSENT = Stored()


class Config(msgspec.Struct, frozen=True, gc=False):
    """Cluster-wide settings of address assignment (``/calico/ipam/v2/config``)."""

    revision: int = 0
    strict_affinity: bool = False
    """True: a host takes addresses from its own blocks only."""
    auto_allocate_blocks: bool = True
    """False: no host claims a block by itself."""
    max_blocks_per_host: int = MAX_BLOCKS_PER_HOST
    """For each family; 0 means no limit."""
    cooldown_s: int = 0
    """How long a released address rests before it is assigned again."""


class Settings(msgspec.Struct, frozen=True):
    """What the operator has said, as it was read for one host."""

    pools: tuple[Pool, ...]
    broken: tuple[str, ...] = ()
    """Pools that could not be understood, with the reason: they serve nobody."""
    node_key: str = ""
    node_revision: int = 0
    node_labels: dict[str, str] = {}
    config_key: str = ""
    config: Config = Config()
    reserved: tuple[Prefix, ...] = ()


@dataclass(slots=True)
class View:
    """What is known for assignments to one owner of blocks."""

    owner: str
    """As in ``host:web1``; empty in a view that nothing is assigned from."""
    settings: Settings
    blocks: dict[Prefix, Stored] = field(default_factory=dict)
    affinities: dict[Prefix, Stored] = field(default_factory=dict)
    """Of this owner."""
    listed: bool = False
    """True when ``blocks`` and ``affinities`` hold all that exist; else only some blocks, and a missing one is unknown."""

    def block(self, block: Prefix) -> Stored | None:
        """The stored block; None when it is not known whether there is one."""
        return self.blocks.get(block, ABSENT if self.listed else None)

    def affinity(self, block: Prefix) -> Stored:
        """The stored claim of the owner on ``block``."""
        return self.affinities.get(block, ABSENT)

    def own_blocks(self) -> list[Prefix]:
        """The blocks claimed by the owner, in ascending order."""
        return sorted(block for block, stored in self.blocks.items() if stored.document and owner_of(stored.document) == self.owner)

    def forget_foreign(self) -> None:
        """Keeps the owner's own blocks and what it has an affinity for."""
        own = set(self.own_blocks())
        self.blocks = {block: stored for block, stored in self.blocks.items() if block in own or block in self.affinities}
        self.listed = False


@dataclass(slots=True)
class Draft:
    """Compares and writes of one transaction. A block written twice is written once, with the later document."""

    compares: dict[str, int] = field(default_factory=dict)
    writes: dict[str, Document | None] = field(default_factory=dict)
    """None deletes the key."""
    blocks: dict[Prefix, Document] = field(default_factory=dict)
    """The blocks as they will be."""

    def expect(self, key: str, revision: int) -> None:
        """The transaction holds only while ``key`` is at ``revision`` (0: absent)."""
        self.compares[key] = revision

    def write_block(self, block: Prefix, stored: Stored, document: Document | None) -> None:
        """Writes the block, or deletes it, if it is still as ``stored`` says."""
        key = path_of(BlockKey(block))
        self.expect(key, stored.revision)
        self.writes[key] = document
        if document is not None:
            self.blocks[block] = document

    def confirm_affinity(self, owner: str, block: Prefix, stored: Stored, document: Document) -> None:
        """The owner's claim is confirmed afterwards; nothing is written when it is already."""
        key = path_of(affinity_key(owner, block))
        self.expect(key, stored.revision)
        if (stored.document or {}).get("state") != CONFIRMED:
            self.writes[key] = document

    def drop_affinity(self, owner: str, block: Prefix, stored: Stored) -> None:
        """The owner has no claim on the block, if the claim is still as ``stored`` says."""
        key = path_of(affinity_key(owner, block))
        self.expect(key, stored.revision)
        if stored.exists:
            self.writes[key] = None

    def expect_unchanged(self, block: Prefix, stored: Stored) -> None:
        """The transaction holds only while the block is as ``stored`` says."""
        self.expect(path_of(BlockKey(block)), stored.revision)

    def write_handle(self, handle: str, stored: Stored, document: Document) -> None:
        """Writes the handle, or deletes it when it has no addresses left."""
        key = path_of(HandleKey(handle))
        self.expect(key, stored.revision)
        if document["block"]:
            self.writes[key] = document
        elif stored.exists:
            self.writes[key] = None

    def copy(self) -> Draft:
        """The same so far; what is added to one is not in the other."""
        return Draft(dict(self.compares), dict(self.writes), dict(self.blocks))

    @property
    def size(self) -> int:
        """How many operations the transaction has: at most ``MAX_COMPARES``."""
        return max(len(self.compares), len(self.writes))

    def operations(self) -> tuple[list[Compare], list[Op], list[Op]]:
        """Compares, what to do when all hold, and what to read otherwise (in the order of the compares).

        Raises:
            AddressError: too much for one transaction.
        """
        if self.size > MAX_COMPARES:
            raise AddressError(
                f"{self.size} stored values are concerned, and one transaction takes {MAX_COMPARES}: ask for fewer addresses"
            )
        compares = [Compare(key, revision) for key, revision in self.compares.items()]
        then: list[Op] = [
            DeleteOp(key) if document is None else PutOp(key, msgspec.json.encode(document)) for key, document in self.writes.items()
        ]
        return compares, then, [GetOp(key) for key in self.compares]
