"""What FelixConfiguration says for one host, read once: the cluster's, and over it the host's own."""

from __future__ import annotations

import contextlib

from tabinet.errors import DataError
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import FelixConfiguration
from tabinet.store.api import Datastore


async def felix_spec(store: Datastore, host: str) -> dict[str, object]:
    """The spec for this host; what cannot be understood says nothing here, and is reported by the agent.

    Raises:
        StoreError: the store does not answer.
    """
    spec: dict[str, object] = {}
    for name in ("default", f"node.{host}"):
        item = await store.get(path_of(ResourceKey("FelixConfiguration", name)))
        with contextlib.suppress(DataError):
            decoded = decode_stored(item.key, item.value) if item is not None else None
            if decoded is not None and isinstance(decoded[1], FelixConfiguration):
                spec |= decoded[1].spec
    return spec
