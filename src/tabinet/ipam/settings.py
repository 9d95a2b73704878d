"""Reading what the operator has said about addresses: pools, reservations, configuration, the labels of a host.

In: a store. Out: ``Settings``. A pool that cannot be understood serves nobody and is named in ``broken``; a reservation that
cannot be understood is an error, because assigning a reserved address is worse than assigning none. Four reads at the same
time; O(pools + reservations).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.ipam.pools import Pool, parse_pool
from tabinet.ipam.view import MAX_BLOCKS_PER_HOST, Config, Settings
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import IPAM_CONFIG, RESOURCES, ResourceKey, kind_prefix, path_of
from tabinet.model.resources import Node
from tabinet.store.api import Datastore, KeyValue

T = TypeVar("T")

CONFIG_KEY = IPAM_CONFIG
RESERVATIONS = f"{RESOURCES}ipreservations/"


class _ConfigRecord(msgspec.Struct, frozen=True, gc=False):
    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks: int | None = msgspec.field(default=None, name="maxBlocksPerHost")
    cooldown_s: int | None = msgspec.field(default=None, name="ipCooldownSeconds")


class _ReservationSpec(msgspec.Struct, frozen=True, gc=False):
    cidrs: tuple[str, ...] = msgspec.field(default=(), name="reservedCIDRs")


class _Reservation(msgspec.Struct, frozen=True, gc=False):
    spec: _ReservationSpec = _ReservationSpec()


async def load_settings(store: Datastore, host: str) -> Settings:
    """The settings for ``host``; without a host no labels are read.

    Raises:
        DataError: the configuration, a reservation or the host's node cannot be understood.
        StoreUnavailable, StoreDenied: the store could not be read.
    """
    node_key = path_of(ResourceKey("Node", host)) if host else ""
    with first_error():
        async with asyncio.TaskGroup() as group:
            pools = group.create_task(_collect(store, kind_prefix("IPPool")))
            reservations = group.create_task(_collect(store, RESERVATIONS))
            config = group.create_task(store.get(CONFIG_KEY))
            node = group.create_task(store.get(node_key)) if node_key else None
    usable: list[Pool] = []
    broken: list[str] = []
    for item in pools.result():
        try:
            usable.append(parse_pool(item.key, item.revision, item.value))
        except DataError as error:
            name = item.key.rpartition("/")[2]
            broken.append(f"{name}: {'; '.join(f'{p.path}: {p.allowed}' for p in error.problems)}")
    stored_node = node.result() if node else None
    return Settings(
        pools=tuple(usable),
        broken=tuple(broken),
        node_key=node_key,
        node_revision=stored_node.revision if stored_node else 0,
        node_labels=_labels(stored_node) if stored_node else {},
        config_key=CONFIG_KEY,
        config=parse_config(config.result()),
        reserved=tuple(prefix for item in reservations.result() for prefix in _reserved(item)),
    )


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Around a task group: of several errors the first is raised, by itself, as if there had been one task."""
    try:
        yield
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _labels(item: KeyValue) -> dict[str, str]:
    decoded = decode_stored(item.key, item.value)
    return decoded[1].metadata.labels if decoded and isinstance(decoded[1], Node) else {}


def parse_config(item: KeyValue | None) -> Config:
    """The configuration that is stored; the defaults when there is none.

    Raises:
        DataError: it cannot be understood.
    """
    if item is None:
        return Config()
    record = _decode(item, _ConfigRecord)
    return Config(
        revision=item.revision,
        strict_affinity=record.strict_affinity,
        auto_allocate_blocks=record.auto_allocate_blocks,
        # Calico writes 0, and leaves it out, where nobody has chosen.
        max_blocks_per_host=record.max_blocks or MAX_BLOCKS_PER_HOST,
        cooldown_s=max(0, record.cooldown_s or 0),
    )


def _reserved(item: KeyValue) -> list[Prefix]:
    cidrs = _decode(item, _Reservation).spec.cidrs
    try:
        return [parse_prefix(cidr) for cidr in cidrs]
    except ValueError as error:
        allowed = f"prefixes: {error}"
        raise DataError(item.key, [Problem(path="spec.reservedCIDRs", value=", ".join(cidrs), allowed=allowed)]) from error


def _decode(item: KeyValue, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(item.value, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(item.key, [Problem(path="", value=str(error), allowed=f"a sound {kind.__name__.strip('_')}")]) from error


async def _collect(store: Datastore, prefix: str) -> list[KeyValue]:
    return [item async for page in store.list(prefix) for item in page.items]
