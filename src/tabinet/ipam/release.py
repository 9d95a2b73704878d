"""What to write for a release, of addresses or of whole blocks, decided from what is known: pure.

In: a ``View`` of the blocks concerned, the handles as stored, the time. Out: a ``Draft``, one transaction, or a word about which handles
have to be read first. O(addresses in the blocks concerned). Nothing here knows the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.owners import has_affinities
from tabinet.ipam.plan import Plan, timestamp
from tabinet.ipam.view import ABSENT, Draft, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import HandleKey, path_of


def plan_release(
    view: View, freed: Iterable[Prefix], touched: Iterable[Prefix], known: Mapping[str, Stored], now_ns: int
) -> Plan | tuple[str, ...]:
    """How to free addresses, all of which lie in the ``touched`` blocks; or which more handles have to be read first.

    Where there is a cooldown they rest. Addresses that are not assigned are passed over. A block that nobody claims is deleted with its
    last address.
    """
    wanted = list(freed)
    cooldown_s = view.settings.config.cooldown_s
    rest_since = timestamp(now_ns) if cooldown_s else ""
    draft = Draft()
    lost: dict[str, dict[Prefix, int]] = {}
    changed: list[Prefix] = []
    for block in touched:
        stored = view.blocks.get(block, ABSENT)
        if stored.document is None:
            continue
        assigned = algebra.owners(stored.document, block)
        edited, counts = algebra.release(algebra.wake(stored.document, now_ns / 1e9, cooldown_s), block, wanted, rest_since=rest_since)
        if not counts:
            continue
        changed += [address for address in wanted if address in assigned]
        gone = algebra.is_empty(edited) and not algebra.owner_of(edited)
        draft.write_block(block, stored, None if gone else edited)
        for handle, count in counts.items():
            if handle:
                lost.setdefault(handle, {})[block] = count
    unknown = tuple(handle for handle in lost if handle not in known)
    if unknown:
        return unknown
    for handle, by_block in lost.items():
        document = known[handle].document
        if document is None:
            draft.expect(path_of(HandleKey(handle)), known[handle].revision)
            continue
        for block, count in by_block.items():
            document = handles.remove_from_handle(document, block, count)
        draft.write_handle(handle, known[handle], document)
    return Plan(draft=draft, addresses=(), changed=tuple(dict.fromkeys(changed)))


def plan_disclaim(block: Prefix, stored: Stored, owner: str, affinity: Stored, now_ns: int, cooldown_s: int) -> Draft:
    """How the owner's claim on a block ends: the block goes when it is empty, and belongs to nobody when it is not.

    A block that somebody else claims, or that cannot be understood, stays as it is; only the owner's affinity goes.
    """
    draft = Draft()
    if has_affinities(owner):
        draft.drop_affinity(owner, block, affinity)
    document = stored.document
    if document is None or algebra.owner_of(document) not in ("", owner):
        draft.expect_unchanged(block, stored)
        return draft
    woken = algebra.wake(document, now_ns / 1e9, cooldown_s)
    draft.write_block(block, stored, None if algebra.is_empty(woken) else algebra.unclaim(woken))
    return draft
