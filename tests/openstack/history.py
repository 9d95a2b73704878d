"""Everything that etcd went through in some time, from its own history, and what must never be found in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from openstack_world import RESOURCES, World

from tabinet.model.openstack import REVISION_ANNOTATION
from tabinet.store.api import Datastore, PutEvent, PutOp

END = "/end-of-history"


@dataclass
class History:
    """The values of each path in their order; None: it was deleted."""

    values: dict[str, list[bytes | None]] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        return sum(map(len, self.values.values()))

    def written_twice(self) -> list[str]:
        """Paths to which a value was written that they had."""
        return [path for path, values in self.values.items() if any(old == new and old for old, new in pairwise(values))]

    def written_late(self) -> list[tuple[str, list[int]]]:
        """Paths whose values came from a revision of Neutron's after a later one, with all revisions."""
        revisions = {path: [_revision(value) for value in values if value] for path, values in self.values.items()}
        return [(path, found) for path, found in revisions.items() if found != sorted(found)]


@contextmanager
def recorded(world: World) -> Iterator[History]:
    """Afterwards: what was written below the resources meanwhile."""
    history = History()
    begin = world.run(lambda store: store.txn((), (PutOp(END, b""),))).revision
    yield history
    end = world.run(lambda store: store.txn((), (PutOp(END, b""),))).revision

    async def read(store: Datastore) -> None:
        async with asyncio.timeout(60), aclosing(store.watch("/", begin)) as batches:
            async for batch in batches:
                for event in batch.events:
                    key, value = (event.item.key, event.item.value) if isinstance(event, PutEvent) else (event.key, None)
                    if key.startswith(RESOURCES):
                        history.values.setdefault(key, []).append(value)
                if batch.revision >= end:
                    return

    world.run(read)


def _revision(value: bytes) -> int:
    return int(json.loads(value)["metadata"].get("annotations", {}).get(REVISION_ANNOTATION, 0))
