"""Compares what the store holds for a region with what Neutron says, repairs what differs, and reports.

In: Neutron's objects in pages, and the store. Out: a ``Comparison`` with what differed. The store is looked at before the database, and
written only if it is as it was (``Bulk``, ``Publisher``): so what changes while it is compared is never overwritten, and a difference that
was none any more is left.

Costs, for n objects: n documents rendered and n values read, in pages; memory for one page and the n paths. A pause after each page spreads
the work, so that a comparison that never ends is a small load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from tabinet.attach.openstack import names
from tabinet.attach.openstack.bulk import Bulk, read_values
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.planning import differs
from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, KINDS, NETWORK, PORT, ROUTER, SUBNET, Outcome, Publisher, Subject
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import DataError, Problem, StoreError
from tabinet.model.endpoint_names import parse_endpoint_name
from tabinet.model.keys import ResourceKey, kind_prefix, parse_path
from tabinet.store.api import Datastore, PutOp

SHOWN = 50
LIST_WITHIN_S = 120.0
Places = tuple[tuple[str, str], ...]


class Difference(msgspec.Struct, frozen=True, gc=False):
    """Something that the store did not have as Neutron says."""

    kind: str
    id: str
    path: str
    what: str
    """``missing``, ``different`` or ``left over``."""
    repaired: bool = False
    error: str = ""


class Comparison(msgspec.Struct, kw_only=True):
    """How far a comparison is, and what it found."""

    started: str = ""
    finished: str = ""
    total: int = 0
    compared: int = 0
    found: int = 0
    repaired: int = 0
    differences: list[Difference] = []
    """The first ``SHOWN``."""

    def add(self, difference: Difference) -> None:
        self.found += 1
        self.repaired += difference.repaired
        if len(self.differences) < SHOWN:
            self.differences.append(difference)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared; without identifiers everything, left-overs included."""

    ids: dict[str, tuple[str, ...]] = {}
    """Identifiers by kind."""

    @property
    def whole(self) -> bool:
        return not self.ids


@dataclass(slots=True)
class Comparer:
    """Compares; one at a time."""

    publisher: Publisher
    page: int = 500
    dry_run: bool = False
    on_progress: Callable[[Comparison], None] = lambda comparison: None
    pause: Callable[[float], bool] = lambda share: True
    """Called after each page with its share of the whole; False ends the comparison."""
    _seen: set[str] = field(default_factory=set)

    def compare(self, scope: Scope = Scope()) -> Comparison:  # noqa: B008  # frozen
        """Everything of the scope was compared, and unless ``dry_run`` repaired.

        Raises:
            StoreError: the store could not be read.
        """
        result = Comparison(started=_now())
        self._seen.clear()
        ids = {kind: list(scope.ids.get(kind, ())) if scope.ids else self.publisher.source.ids(kind) for kind in KINDS}
        result.total = sum(map(len, ids.values()))
        for kind in KINDS:
            for start in range(0, len(ids[kind]), self.page):
                page = ids[kind][start : start + self.page]
                self._compare_page(kind, page, result)
                self.on_progress(result)
                if not self.pause(len(page) / result.total):
                    return result
        if scope.whole:
            for subject, path, places in self._left_over():
                self._settle(subject, path, "left over", result, places)
        result.finished = _now()
        self.on_progress(result)
        return result

    def _compare_page(self, kind: str, page: Sequence[str], result: Comparison) -> None:
        bulk = Bulk(self.publisher, kind)
        sight = bulk.look(self.publisher.source.places(kind, page))
        desired = {path: document for documents in sight.desired.values() for path, document in documents.items()}
        self._seen.update(desired)
        # What is in another place than expected was not looked at before the database: it will be published by itself.
        stored = {**sight.stored, **read_values(self.publisher.stores, sorted(desired.keys() - sight.stored.keys()))}
        found: dict[str, dict[str, str]] = {}
        for identifier, documents in sight.desired.items():
            for path, document in documents.items():
                if differs(stored[path], document):
                    what = "missing" if stored[path] is None else "left over" if document is None else "different"
                    found.setdefault(identifier, {})[path] = what
        if self.dry_run:
            for identifier, paths in found.items():
                for path, what in paths.items():
                    self._settle(Subject(kind, identifier), path, what, result)
        elif found:
            outcomes = bulk.settle(sight, found)
            for identifier, paths in found.items():
                for path, what in paths.items():
                    add(result, Difference(kind, identifier, path, what), outcomes[identifier])
        result.compared += len(page)

    def _settle(self, subject: Subject, path: str, what: str, result: Comparison, places: Places = ()) -> None:
        """One difference is looked at by itself."""
        difference = Difference(subject.kind, subject.id, path, what)
        if self.dry_run:
            stored = read_values(self.publisher.stores, [path])[path]
            if differs(stored, self.publisher.source.read(subject).get(path)):
                result.add(difference)
            return
        try:
            add(result, difference, self.publisher.publish(subject, places))
        except StoreError as error:
            add(result, difference, error)

    def _left_over(self) -> Iterator[tuple[Subject, str, Places]]:
        """What the store holds for objects that are not there, or not there any more."""
        for prefix in _prefixes(self.publisher.region):

            async def keys(store: Datastore, prefix: str = prefix) -> list[str]:
                return [item.key async for page in store.list(prefix) for item in page.items]

            for path in self.publisher.stores.call(keys, LIST_WITHIN_S):
                if path not in self._seen:
                    owner = owner_of(self.publisher.region, path)
                    if owner is not None:
                        yield owner[0], path, owner[1]


def add(result: Comparison, difference: Difference, outcome: Outcome | StoreError) -> None:
    """The difference is part of the result, unless it was none any more."""
    if isinstance(outcome, StoreError):
        result.add(msgspec.structs.replace(difference, error=str(outcome)))
    elif outcome.wrote:
        result.add(msgspec.structs.replace(difference, repaired=True))


def owner_of(region: Region, path: str) -> tuple[Subject, Places] | None:
    """The object that a path is for, and where it was if it is a port; None for what is none of ours."""
    if path.startswith(names.subnets_prefix(region)):
        return Subject(SUBNET, path.rpartition("/")[2]), ()
    key = parse_path(path)
    if not isinstance(key, ResourceKey) or key.namespace != region.namespace:
        return None
    match key.kind:
        case "WorkloadEndpoint" | "LiveMigration":
            try:
                name = parse_endpoint_name(key.name)
            except ValueError:
                return None
            return (Subject(PORT, name.endpoint), ((name.node, name.workload),)) if name.orchestrator == names.ORCHESTRATOR else None
        case "NetworkPolicy" if key.name.startswith(names.NETWORK_POLICY_PREFIX):
            return Subject(NETWORK, key.name.removeprefix(names.NETWORK_POLICY_PREFIX)), ()
        case "NetworkPolicy" if key.name.startswith(names.ROUTER_POLICY_PREFIX):
            return Subject(ROUTER, key.name.removeprefix(names.ROUTER_POLICY_PREFIX)), ()
        case "NetworkPolicy" if key.name.startswith(names.POLICY_PREFIX):
            return Subject(GROUP, key.name.removeprefix(names.POLICY_PREFIX)), ()
        case "NetworkSet" if key.name.startswith(names.ADDRESS_GROUP_PREFIX):
            return Subject(ADDRESS_GROUP, key.name.removeprefix(names.ADDRESS_GROUP_PREFIX)), ()
        case "NetworkSet" if key.name.startswith(names.PAIRS_PREFIX):
            return Subject(PORT, key.name.removeprefix(names.PAIRS_PREFIX)), ()
        case "NetworkSet" if key.name.startswith(names.ROUTES_PREFIX):
            return Subject(PORT, key.name.removeprefix(names.ROUTES_PREFIX)), ()
        case _:
            return None


def _prefixes(region: Region) -> list[str]:
    kinds = ("LiveMigration", "NetworkPolicy", "NetworkSet", "WorkloadEndpoint")
    return [names.subnets_prefix(region), *(kind_prefix(kind, region.namespace) for kind in kinds)]


def parse_comparison(path: str, value: bytes) -> Comparison:
    """The comparison that was stored.

    Raises:
        DataError: it is none.
    """
    try:
        return msgspec.json.decode(value, type=Comparison)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(path, [Problem(path="", value=str(error), allowed="a comparison")]) from error


def publish_report(stores: StoreThread, region: Region, comparison: Comparison) -> None:
    """Whoever looks into the store sees how far the comparison is.

    Raises:
        StoreError: it could not be written.
    """
    value = msgspec.json.encode(comparison)

    async def write(store: Datastore) -> None:
        await store.txn((), [PutOp(names.comparison_path(region), value)])

    stores.call(write)


def wait(seconds: float, ended: Callable[[], bool], step_s: float = 0.2, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Waits so long; False when it was ended before."""
    deadline = time.monotonic() + seconds
    while not ended():
        left = deadline - time.monotonic()
        if left <= 0:
            return True
        sleep(min(step_s, left))
    return False


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
