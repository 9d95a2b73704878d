"""Garbage collection: once (``collect``), or again and again by one of several processes (``run_collector``).

In: a store. Out: what was found, taken back, and waits. What is suspected is remembered in the store (``/tabinet/v1/ipam/suspects``), so
that it does not matter which process looks next. Any number may run at the same time: each repair is a transaction that holds only while
everything is as it was read. The lease of ``run_collector`` only saves work.

Nothing is taken back while the datastore is locked (ClusterInformation), nor because of an endpoint that cannot be read. Complexity: reads
everything once; one transaction for each finding that is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import msgspec

from tabinet.errors import AddressError, DataError, NotFound, StoreError
from tabinet.ipam.audit import find_leaks, find_problems, find_spares
from tabinet.ipam.findings import Finding
from tabinet.ipam.garbage import Suspects, plan_repair, sort_findings
from tabinet.ipam.inventory import Fabric, Inventory, read_fabric, read_inventory
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import ClusterInformation
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, Op, PutOp

SUSPECTS_KEY = "/tabinet/v1/ipam/suspects"
LEADER_KEY = "/tabinet/v1/ipam/collector"
DEFAULT_GRACE_S = 900.0
DEFAULT_INTERVAL_S = 300.0
LEASE_MARGIN_S = 30
"""How much longer the leader's lease lasts than two rounds."""


class Collection(msgspec.Struct, frozen=True):
    """What a round of garbage collection did; with ``dry_run`` what it would have done."""

    done: tuple[Finding, ...] = ()
    waiting: tuple[tuple[Finding, float], ...] = ()
    """What waits for the grace period to end, with the seconds left."""
    changed: tuple[Finding, ...] = ()
    """What somebody has touched meanwhile: the next round looks again."""
    blocked: tuple[str, ...] = ()
    """Why some of it, or all, was left alone."""
    dry_run: bool = False


async def collect(
    store: Datastore, *, grace_s: float = DEFAULT_GRACE_S, dry_run: bool = False, now_ns: Callable[[], int] = time.time_ns
) -> Collection:
    """What was due is taken back and put right; what is new is remembered, to be due after ``grace_s`` seconds.

    With ``dry_run`` nothing is written.

    Raises:
        StoreUnavailable, StoreDenied: the store went away; some of it may have been done.
        DataError: the configuration of address management cannot be understood.
    """
    if not await _is_ready(store):
        return Collection(blocked=("the datastore is locked (ClusterInformation default: datastoreReady is false)",), dry_run=dry_run)
    inventory, fabric = await read_inventory(store), await read_fabric(store)
    remembered = await store.get(SUSPECTS_KEY)
    now_s = now_ns() / 1e9
    findings, blocked = _findings(inventory, fabric, now_s, grace_s)
    result = sort_findings(findings, _suspects(remembered), now_s, grace_s)
    if dry_run:
        return Collection(done=result.due, waiting=result.waiting, blocked=blocked, dry_run=True)
    done: list[Finding] = []
    changed: list[Finding] = []
    for finding in result.due:
        try:
            kept = await _repair(store, finding, inventory, now_ns())
        except AddressError as error:
            blocked += (f"{finding.subject}: {error}",)
            continue
        (done if kept else changed).append(finding)
    gone = {f"{finding.code} {finding.subject}" for finding in done}
    await _remember(store, remembered, {name: suspect for name, suspect in result.suspects.items() if name not in gone})
    return Collection(done=tuple(done), waiting=result.waiting, changed=tuple(changed), blocked=blocked)


async def run_collector(
    store: Datastore,
    identity: str,
    *,
    interval_s: float = DEFAULT_INTERVAL_S,
    grace_s: float = DEFAULT_GRACE_S,
    on_round: Callable[[Collection], None] = lambda _: None,
    on_error: Callable[[Exception], None] = lambda _: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Collects every ``interval_s`` seconds as long as no other process does; returns only when it is cancelled.

    ``identity`` is stored while it leads, for people. When a leader dies, another one begins after two intervals and half a minute.
    """
    lease = 0
    try:
        while True:
            try:
                lease = await _lead(store, lease, identity, interval_s)
                if lease:
                    on_round(await collect(store, grace_s=grace_s))
            except (StoreError, DataError) as error:
                on_error(error)
            await sleep(interval_s)
    finally:
        if lease:
            with contextlib.suppress(StoreError):
                await asyncio.shield(store.revoke(lease))


def _findings(inventory: Inventory, fabric: Fabric, now_s: float, grace_s: float) -> tuple[list[Finding], tuple[str, ...]]:
    findings = find_problems(inventory)
    blocked: tuple[str, ...] = ()
    if fabric.broken:
        blocked = tuple(f"no address is taken back while this cannot be understood: {text}" for text in fabric.broken)
    else:
        findings += find_leaks(inventory, fabric)
        findings += find_spares(inventory, fabric, now_s, grace_s)
    return findings, blocked


async def _repair(store: Datastore, finding: Finding, inventory: Inventory, now_ns: int) -> bool:
    """True when it is right now; False when somebody was faster."""
    draft = plan_repair(finding, inventory, now_ns)
    compares, then, _ = draft.operations()
    if not then:
        return True
    result = await store.txn(compares, then)
    if result.succeeded:
        inventory.record(draft, result.revision)
    return result.succeeded


async def _is_ready(store: Datastore) -> bool:
    """False while an operator has locked the datastore, as for a migration."""
    item = await store.get(path_of(ResourceKey("ClusterInformation", "default")))
    if item is None:
        return True
    try:
        decoded = decode_stored(item.key, item.value)
    except DataError:
        return True
    return decoded is None or not isinstance(decoded[1], ClusterInformation) or decoded[1].spec.datastore_ready is not False


def _suspects(item: KeyValue | None) -> Suspects:
    """Those that are stored; none when that cannot be understood: then their time begins anew."""
    if item is None:
        return {}
    try:
        return msgspec.json.decode(item.value, type=Suspects)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}


async def _remember(store: Datastore, before: KeyValue | None, suspects: Suspects) -> None:
    """The suspects are stored, unless another process has stored its own meanwhile, which are as good."""
    if suspects == _suspects(before):
        return
    op: Op = PutOp(SUSPECTS_KEY, msgspec.json.encode(suspects)) if suspects else DeleteOp(SUSPECTS_KEY)
    await store.txn([Compare(SUSPECTS_KEY, before.revision if before else 0)], [op])


async def _lead(store: Datastore, lease: int, identity: str, interval_s: float) -> int:
    """The lease under which this process leads; 0 when another one does."""
    if lease:
        try:
            await store.keep_alive(lease)
        except NotFound:
            lease = 0
        else:
            return lease
    if await store.get(LEADER_KEY) is not None:
        return 0
    lease = await store.grant(int(2 * interval_s) + LEASE_MARGIN_S)
    result = await store.txn([Compare(LEADER_KEY, 0)], [PutOp(LEADER_KEY, identity.encode(), lease)])
    if result.succeeded:
        return lease
    await store.revoke(lease)
    return 0
