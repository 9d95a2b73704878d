"""How large the packets of workloads may be: what the host's agent says, who asks it or the store.

In: an agent in this process, or the report of one in the store. Out: bytes; 0 when no tunnel limits them.
"""

from __future__ import annotations

import msgspec

from tabinet.attach.ready import LocalAgent
from tabinet.model.report import HostReport, report_path
from tabinet.store.api import Datastore


async def workload_mtu(agent: LocalAgent | None, store: Datastore, host: str) -> int:
    """The largest packet that workloads of the host can send wherever it goes, in bytes; 0 when no tunnel limits it, or nobody knows.

    Raises:
        StoreError: the store, which is asked when there is no agent here that knows, does not answer.
    """
    known = agent.workload_mtu() if agent is not None else None
    return await reported_mtu(store, host) if known is None else known


async def reported_mtu(store: Datastore, host: str) -> int:
    """The same as the host's agent last reported it to the store.

    Raises:
        StoreError: the store does not answer.
    """
    item = await store.get(report_path(host))
    if item is None:
        return 0
    try:
        return msgspec.json.decode(item.value, type=HostReport).workload_mtu
    except msgspec.DecodeError:  # of an agent of another version
        return 0
