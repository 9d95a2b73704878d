"""What the leading process does besides its own writing: tells Neutron what hosts report, and compares the store with Neutron.

In: leadership, from ``leader``. Out: two threads that run as long as it lasts. Neutron is only ever asked in these threads, never in the
loop that owns the store.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from oslo_log import log

from tabinet.attach.openstack.cluster import cluster_paths, complete_cluster
from tabinet.attach.openstack.comparison import Comparer, Comparison, publish_report, wait
from tabinet.attach.openstack.leader import lead
from tabinet.attach.openstack.ml2.reporting import Reporting
from tabinet.attach.openstack.planning import plan_writes
from tabinet.attach.openstack.publisher import Publisher
from tabinet.attach.openstack.statuses import StatusBoard, group_prefix, status_prefix
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import DataError, StoreError
from tabinet.model.codec import decode_document
from tabinet.store.api import Datastore, GetOp, KeyValue, WatchBatch
from tabinet.store.syncer import Syncer, SyncEvent

LOG = log.getLogger(__name__)
TAKE_S = 0.5
RETRY_S = 1.0
FIRST_COMPARISON_S = 1.0
"""A new leader compares soon, because what its predecessor still had to write is lost."""


@dataclass(slots=True)
class Duties:
    """``run`` is the duty of a leader."""

    publisher: Publisher
    interval_s: float
    page: int

    async def run(self, store: Datastore) -> None:
        """Runs until cancelled; its threads have ended when it returns, but for what they are in the middle of."""
        ended = threading.Event()
        board = StatusBoard(self.publisher.region, self.publisher.stores)

        async def deliver(event: SyncEvent) -> None:
            if isinstance(event, WatchBatch):
                board.take_in(event)

        for name, work in (("statuses", lambda: self._tell_statuses(board, ended)), ("comparison", lambda: self._compare(ended))):
            threading.Thread(target=work, name=f"tabinet-{name}", daemon=True).start()
        LOG.info("Tabinet: this process leads")
        try:
            region = self.publisher.region
            await Syncer(store, [status_prefix(region), group_prefix(region)]).run(deliver)
        finally:
            ended.set()
            LOG.info("Tabinet: this process leads no longer")

    def _tell_statuses(self, board: StatusBoard, ended: threading.Event) -> None:
        reporting = Reporting()
        while not ended.is_set():
            changes = board.take_out(TAKE_S)
            if not changes:
                continue
            try:
                reporting.tell(board.judge(changes))
            except Exception as error:  # noqa: BLE001  # Neutron's database has errors of many kinds, and this thread outlives all of them
                LOG.warning("Tabinet: what hosts reported is told later: %s: %s", type(error).__name__, error)
                board.put_back(changes)
                ended.wait(RETRY_S)

    def _compare(self, ended: threading.Event) -> None:
        self._until_done(lambda: ensure_cluster(self.publisher), ended)
        if not self.interval_s:
            return
        pause_s = FIRST_COMPARISON_S
        while wait(pause_s, ended.is_set):
            pause_s = self.interval_s / 2
            self._until_done(lambda: self._compare_once(ended), ended)

    def _compare_once(self, ended: threading.Event) -> None:
        comparer = Comparer(
            self.publisher,
            page=self.page,
            on_progress=lambda comparison: publish_report(self.publisher.stores, self.publisher.region, comparison),
            pause=lambda share: wait(self.interval_s / 2 * share, ended.is_set),
        )
        _log(comparer.compare())

    def _until_done(self, work: Callable[[], None], ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                work()
                return
            except Exception as error:  # noqa: BLE001  # as above
                LOG.warning("Tabinet: again later: %s: %s", type(error).__name__, error)
                ended.wait(RETRY_S)


def ensure_cluster(publisher: Publisher) -> None:
    """The documents about the cluster as a whole are there.

    Raises:
        StoreError: they could not be written.
    """
    paths = cluster_paths(publisher.region)

    async def complete(store: Datastore) -> None:
        stored = dict(zip(paths, (await store.txn((), [GetOp(path) for path in paths])).values, strict=True))
        desired = complete_cluster({path: _document(item) for path, item in stored.items()}, publisher.region, uuid.uuid4().hex)
        plan = plan_writes(stored, desired, publisher.identity)
        if plan.operations and not (await store.txn(plan.compares, plan.operations)).succeeded:
            raise StoreError("the cluster's documents changed meanwhile")

    publisher.stores.call(complete)


def start_leading(stores: StoreThread, path: str, name: str, ttl_s: int, duties: Duties) -> None:
    """The process takes part in the election."""
    stores.spawn(lambda store: lead(store, path, name, ttl_s, lambda: duties.run(store)))


def _document(item: KeyValue | None) -> dict[str, object] | None:
    try:
        return None if item is None else decode_document(item.value, item.key)
    except DataError:
        return None


def _log(comparison: Comparison) -> None:
    level = LOG.warning if comparison.found else LOG.info
    level("Tabinet: compared %d objects: %d differed, %d repaired", comparison.compared, comparison.found, comparison.repaired)
    for difference in comparison.differences:
        LOG.warning("Tabinet: %s %s: %s: %s %s", difference.kind, difference.id, difference.path, difference.what, difference.error)
