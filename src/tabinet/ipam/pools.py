"""Pools: which of them may serve a request, and in which order a host looks for blocks in one. Pure.

In: IPPool documents, the labels of the host and of the namespace. Out: the pools that may be used, in order, and for every
other pool the reason why not. A pool named by the request is used whatever its selectors and ``assignmentMode`` say (the
operator has spoken), but never when it is disabled or not for this use. O(pools) for a selection; candidates are generated
one by one. Not done here: reading the store (``client``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.ipam.blocks import Document, owner_of, owners
from tabinet.ipam.owners import TUNNEL, WORKLOAD
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.resources import IPPool
from tabinet.selector import Selector, SelectorError, parse

DEFAULT_BLOCK_LENGTH = {4: 26, 6: 122}
"""Prefix length of a block when the pool does not say: 64 addresses."""
SAMPLE = 3
"""So many are named as examples."""
DEFAULT_USES = (WORKLOAD, TUNNEL)


class Pool(msgspec.Struct, frozen=True, gc=False):
    """What an IPPool means for assignment."""

    name: str
    key: str
    """Where it is stored."""
    revision: int
    cidr: Prefix
    block_length: int
    node_selector: Selector
    namespace_selector: Selector
    uses: tuple[str, ...]
    automatic: bool
    """False: only for requests that name the pool."""
    disabled: bool

    @property
    def all_nodes(self) -> bool:
        """True when the pool serves every host, whatever its labels."""
        return str(self.node_selector) == "all()"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why a pool could not serve a request."""

    pool: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pool}: {self.reason}"


class PoolUse(msgspec.Struct, frozen=True, gc=False):
    """Who uses a pool."""

    assigned: int
    """Addresses."""
    hosts: tuple[str, ...]
    """Owners of the blocks with assigned addresses: hosts by their names, in ascending order."""
    sample: tuple[Prefix, ...]
    """The first of the addresses."""
    empty: tuple[Prefix, ...]
    """Blocks without an assigned address."""
    unreadable: tuple[Prefix, ...]
    """Blocks that cannot be understood: their addresses may be in use."""

    @property
    def is_used(self) -> bool:
        """True when somebody has, or may have, an address."""
        return self.assigned > 0 or bool(self.unreadable)

    def __str__(self) -> str:
        shown = ", ".join(address.address for address in self.sample)
        more = ", ..." if self.assigned > len(self.sample) else ""
        hosts = ", ".join(self.hosts[:SAMPLE]) + (", ..." if len(self.hosts) > SAMPLE else "")
        count = "1 address is" if self.assigned == 1 else f"{self.assigned} addresses are"
        parts = [f"{count} assigned ({shown}{more}) from blocks of {hosts}"] if self.assigned else []
        parts += [f"block {block} cannot be understood" for block in self.unreadable]
        return "; ".join(parts) or "no address is assigned"


def in_use(pool: Pool, blocks: Mapping[Prefix, Document | None]) -> PoolUse:
    """Who uses the pool, given all stored blocks (None: it cannot be understood). Addresses that only rest are in use by nobody."""
    inside = [(block, blocks[block]) for block in sorted(blocks) if pool.cidr.contains(block)]
    owned = [(block, document, owners(document, block)) for block, document in inside if document is not None]
    addresses = [address for _, _, found in owned for address in found]
    return PoolUse(
        assigned=len(addresses),
        hosts=tuple(sorted({owner_of(document).removeprefix("host:") or "nobody" for _, document, found in owned if found})),
        sample=tuple(addresses[:SAMPLE]),
        empty=tuple(block for block, _, found in owned if not found),
        unreadable=tuple(block for block, document in inside if document is None),
    )


def parse_pool(key: str, revision: int, value: bytes) -> Pool:
    """The pool stored under ``key``.

    Raises:
        DataError: it is no sound IPPool.
    """
    decoded = decode_stored(key, value)
    if decoded is None or not isinstance(decoded[1], IPPool):
        raise DataError(key, [Problem(path="", value=key, allowed="the key of an IPPool")])
    spec = decoded[1].spec
    try:
        cidr = parse_prefix(spec.cidr)
    except ValueError as error:
        raise DataError(key, [Problem(path="spec.cidr", value=spec.cidr, allowed="an IPv4 or IPv6 prefix")]) from error
    block_length = spec.block_size or DEFAULT_BLOCK_LENGTH[cidr.family]
    shortest = max(cidr.length, cidr.bits - 12)
    if not shortest <= block_length <= cidr.bits:
        allowed = f"a prefix length from {shortest} to {cidr.bits}"
        raise DataError(key, [Problem(path="spec.blockSize", value=str(block_length), allowed=allowed)])
    return Pool(
        name=key.rpartition("/")[2],
        key=key,
        revision=revision,
        cidr=cidr,
        block_length=block_length,
        node_selector=_selector(key, "spec.nodeSelector", spec.node_selector),
        namespace_selector=_selector(key, "spec.namespaceSelector", spec.namespace_selector),
        uses=spec.allowed_uses or DEFAULT_USES,
        automatic=spec.assignment_mode in ("", "Automatic"),
        disabled=spec.disabled,
    )


def select_pools(
    pools: Sequence[Pool],
    family: int,
    named: Sequence[Prefix],
    node_labels: Mapping[str, str],
    namespace_labels: Mapping[str, str],
    use: str = WORKLOAD,
) -> tuple[list[Pool], list[Refusal]]:
    """The pools of ``family`` that may serve the use, in order of preference, and the refusals of all others.

    With ``named`` only these pools, in that order; without, all pools in order of name.
    """
    refusals: list[Refusal] = []
    usable: list[Pool] = []
    if named:
        by_cidr = {pool.cidr: pool for pool in pools}
        for cidr in named:
            pool = by_cidr.get(cidr)
            reason = "there is no such pool" if pool is None else refusal(pool, use)
            if cidr.family != family:
                reason = f"not an IPv{family} pool"
            if pool is None or reason:
                refusals.append(Refusal(pool=pool.name if pool else str(cidr), reason=reason))
            else:
                usable.append(pool)
        return usable, refusals
    for pool in sorted(pools, key=lambda pool: pool.name):
        if pool.cidr.family != family:
            continue
        reason = refusal(pool, use)
        if not reason and not pool.automatic:
            reason = "assignmentMode is Manual, and the request does not name the pool"
        elif not reason and not pool.node_selector.evaluate(node_labels):
            reason = f"nodeSelector {pool.node_selector} does not select the host"
        elif not reason and not pool.namespace_selector.evaluate(namespace_labels):
            reason = f"namespaceSelector {pool.namespace_selector} does not select the namespace"
        if reason:
            refusals.append(Refusal(pool=pool.name, reason=reason))
        else:
            usable.append(pool)
    return usable, refusals


def refusal(pool: Pool, use: str = WORKLOAD) -> str:
    """Why nobody may have an address of this pool for the use; empty when one may."""
    if pool.disabled:
        return "disabled"
    if use not in pool.uses:
        return f"allowedUses is {', '.join(pool.uses)}, and the address is for {use}"
    return ""


def containing_pool(pools: Sequence[Pool], address: Prefix) -> Pool | None:
    """The pool that ``address`` belongs to: the longest, should pools overlap."""
    found = [pool for pool in pools if pool.cidr.contains(address)]
    return max(found, key=lambda pool: pool.cidr.length) if found else None


def containing_block(pool: Pool, address: Prefix) -> Prefix:
    """The block of ``pool`` that ``address`` is in."""
    shift = address.bits - pool.block_length
    return Prefix(address.family, address.value >> shift << shift, pool.block_length)


def candidate_blocks(pool: Pool, host: str) -> Iterator[Prefix]:
    """Every block of the pool once, in a circle that begins at a place which the host's name determines.

    Hosts that look for a block at the same time therefore seldom want the same one.
    """
    count = 1 << (pool.block_length - pool.cidr.length)
    size = 1 << (pool.cidr.bits - pool.block_length)
    start = int.from_bytes(hashlib.sha256(f"{host} {pool.cidr}".encode()).digest()[:16], "big") % count
    for step in range(count):
        yield Prefix(pool.cidr.family, pool.cidr.value + (start + step) % count * size, pool.block_length)


def _selector(key: str, path: str, text: str) -> Selector:
    try:
        return parse(text)
    except SelectorError as error:
        raise DataError(key, [Problem(path=path, value=text, allowed=f"a selector: {error}")]) from error
