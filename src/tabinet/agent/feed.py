"""From store events to inputs of the calculation; broken values are dropped, remembered, and fail closed.

In: batches of the Syncer. Out: calls of ``Graph.on_input``. A value that does not decode is replaced by what
``model.codec.fail_closed`` makes of it (a policy that denies what it would have decided), or treated as deleted.
Cost: O(events).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.calc.inputs import Delete, Input, InSync, Put
from tabinet.errors import DataError, Problem
from tabinet.model.codec import decode_stored, fail_closed
from tabinet.model.keys import ResourceKey, parse_path
from tabinet.model.resources import ClusterInformation
from tabinet.store.api import DeleteEvent, PutEvent, WatchBatch


@dataclass(slots=True)
class Feed:
    """Decodes what the store says and passes it on."""

    deliver: Callable[[Input], None]
    problems: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    """What is wrong with stored values, by store key."""
    revision: int = 0
    """The latest store revision of which something has been passed on."""
    hold: bool = False
    """The store is being changed as a whole (ClusterInformation ``datastoreReady`` is false): do nothing until it is done."""

    def on_batch(self, batch: WatchBatch) -> None:
        """Every event of the batch is known to the calculation."""
        for event in batch.events:
            if isinstance(event, PutEvent):
                self._on_put(event)
            else:
                self._on_delete(event)
        self.revision = max(self.revision, batch.revision)

    def on_in_sync(self) -> None:
        """The snapshot is complete."""
        self.deliver(InSync())

    def _on_put(self, event: PutEvent) -> None:
        item = event.item
        self.problems.pop(item.key, None)
        try:
            decoded = decode_stored(item.key, item.value)
        except DataError as error:
            self.problems[item.key] = tuple(error.problems)
            decoded = fail_closed(item.key, item.value)
            if decoded is None:
                self._delete(item.key)
                return
        if decoded is not None:
            key, value = decoded
            if isinstance(value, ClusterInformation):
                self.hold = value.spec.datastore_ready is False
            self.deliver(Put(key, value, item.revision))

    def _on_delete(self, event: DeleteEvent) -> None:
        self.problems.pop(event.key, None)
        self._delete(event.key)

    def _delete(self, path: str) -> None:
        key = parse_path(path)
        if key is not None:
            if isinstance(key, ResourceKey) and key.kind == "ClusterInformation":
                self.hold = False
            self.deliver(Delete(key))
