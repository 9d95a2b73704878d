"""Garbage collection as decisions: what is due, what waits, and what to write. Pure.

In: findings, what was suspected before, the time. Out: the findings that are due, the new list of suspects, and for each finding the
``Draft`` that puts it right. A finding is due when it has been there for the grace period, unchanged (``Finding.identity``): a workload
that is just being attached, or somebody's write in several steps, has that long. What only wastes space needs no grace period.

Every draft compares the revisions of all that it rests on, so that nothing is taken away that somebody has touched since it was read.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.findings import Finding, Level
from tabinet.ipam.handles import PENDING_DELETION
from tabinet.ipam.inventory import Inventory
from tabinet.ipam.release import plan_disclaim, plan_release
from tabinet.ipam.view import ABSENT, Draft, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import HandleKey, path_of

MAX_SUSPECTS = 5000
"""So many are remembered at a time, so that they fit into one stored value; the others come up when these are gone."""


class Suspect(msgspec.Struct, frozen=True, gc=False):
    """A finding that waits for its grace period to end."""

    identity: str
    since_s: float
    """When it was first seen, in seconds since the epoch."""


Suspects = dict[str, Suspect]
"""By code and subject of the finding."""


class Sorted(msgspec.Struct, frozen=True):
    """Findings by what becomes of them now."""

    due: tuple[Finding, ...]
    waiting: tuple[tuple[Finding, float], ...]
    """With the seconds that are left."""
    suspects: Suspects
    """To be remembered."""


def sort_findings(findings: Iterable[Finding], suspects: Suspects, now_s: float, grace_s: float) -> Sorted:
    """What is due and what waits, of the findings that garbage collection puts right."""
    due: list[Finding] = []
    waiting: list[tuple[Finding, float]] = []
    remembered: Suspects = {}
    for finding in findings:
        if not finding.kind.collected:
            continue
        name = f"{finding.code} {finding.subject}"
        before = suspects.get(name)
        suspect = before if before is not None and before.identity == finding.identity else Suspect(finding.identity, now_s)
        left_s = suspect.since_s + grace_s - now_s
        if finding.kind.level is Level.SPARE or left_s <= 0:
            due.append(finding)
            if finding.kind.level is Level.SPARE:
                continue
        else:
            waiting.append((finding, left_s))
        if len(remembered) < MAX_SUSPECTS:
            remembered[name] = suspect
    return Sorted(due=tuple(due), waiting=tuple(waiting), suspects=remembered)


def plan_repair(finding: Finding, inventory: Inventory, now_ns: int) -> Draft:
    """The transaction that puts the finding right; without writes when there is nothing to do any more.

    Raises:
        AddressError: too many values are concerned for one transaction (when its operations are asked for).
        ValueError: it is a finding that no program may put right.
    """
    cooldown_s = inventory.settings.config.cooldown_s
    match finding:
        case Finding(code="address-unused" | "address-of-lost-host"):
            return _release(finding, inventory, now_ns)
        case Finding(code="handle-miscounted" | "handle-empty"):
            return _count_anew(finding.handle, inventory)
        case Finding(code="block-without-affinity" | "affinity-unfinished", block=Prefix() as block):
            return _finish_claim(finding, block, inventory, now_ns)
        case Finding(
            code="affinity-without-block" | "affinity-contradicted" | "block-of-lost-host" | "block-spare", block=Prefix() as block
        ):
            affinity = inventory.affinity(finding.owner, block)
            return plan_disclaim(block, inventory.block(block), finding.owner, affinity, now_ns, cooldown_s)
        case Finding(code="block-rested", block=Prefix() as block):
            return _wake(block, inventory, now_ns)
        case _:
            raise ValueError(f"{finding.code} is not put right by a program")


def _release(finding: Finding, inventory: Inventory, now_ns: int) -> Draft:
    touched = [block for block in sorted(inventory.blocks) if any(block.contains(address) for address in finding.addresses)]
    view = View(owner="", settings=inventory.settings, blocks={block: inventory.block(block) for block in touched})
    known = {finding.handle: inventory.handle(finding.handle)} if finding.handle else {}
    plan = plan_release(view, finding.addresses, touched, known, now_ns)
    if isinstance(plan, tuple):
        # Somebody else's handle: the addresses have a new owner since the finding was made.
        return Draft()
    return plan.draft


def _count_anew(handle: str, inventory: Inventory) -> Draft:
    """The handle counts what the blocks say, and is gone when that is nothing."""
    stored = inventory.handle(handle)
    document = stored.document or handles.new_handle()
    draft = Draft()
    counts: dict[str, int] = {}
    named = handles.counted_blocks(document)
    for block in sorted(inventory.blocks.keys() | named.keys()):
        found = inventory.block(block)
        owned = len(algebra.assigned_addresses(found.document, block, handle)) if found.document else 0
        if owned:
            counts[str(block)] = owned
        if owned or block in named:
            draft.expect_unchanged(block, found)
    draft.write_handle(handle, stored, document | {"block": counts})
    if not stored.exists and not counts:
        draft.expect(path_of(HandleKey(handle)), ABSENT.revision)
    return draft


def _finish_claim(finding: Finding, block: Prefix, inventory: Inventory, now_ns: int) -> Draft:
    """The claim is confirmed where the block says so and it was not being given up; else it is gone."""
    stored, affinity = inventory.block(block), inventory.affinity(finding.owner, block)
    document = stored.document
    mine = document is not None and algebra.owner_of(document) == finding.owner
    ending = (affinity.document or {}).get("state") == PENDING_DELETION and document is not None and algebra.is_empty(document)
    if not mine or ending:
        return plan_disclaim(block, stored, finding.owner, affinity, now_ns, inventory.settings.config.cooldown_s)
    draft = Draft()
    draft.expect_unchanged(block, stored)
    draft.confirm_affinity(finding.owner, block, affinity, handles.confirmed(affinity.document))
    return draft


def _wake(block: Prefix, inventory: Inventory, now_ns: int) -> Draft:
    stored = inventory.block(block)
    draft = Draft()
    if stored.document is not None:
        woken = algebra.wake(stored.document, now_ns / 1e9, inventory.settings.config.cooldown_s)
        if woken is not stored.document:
            draft.write_block(block, stored, woken)
    return draft
