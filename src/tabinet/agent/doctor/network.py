"""What the host reaches: the store, its BGP peers, and packets of which size.

In: links and addresses, a store, sessions. Out: checks. Peers that are not up are tried with one TCP connection each, all at once, which
BIRD on the other side takes for a stranger's and closes.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterable, Sequence

from tabinet.agent.checksystem import Check
from tabinet.dataplane.tunnels.plan import TunnelOptions, uplink_mtu
from tabinet.errors import DataError, StoreDenied, StoreUnavailable
from tabinet.kernel.rtnetlink import InterfaceAddress, Link
from tabinet.lib.ip import Prefix
from tabinet.model.report import SessionReport
from tabinet.store.api import Datastore

SLOW_S = 0.1
"""An answer of the store that takes longer is told of."""
TRY_S = 2.0
BGP_PORT = 179
_WHY = {
    errno.ECONNREFUSED: "nothing listens there: is BIRD running on it?",
    errno.ENETUNREACH: "there is no route to it",
    errno.EHOSTUNREACH: "a router, or the link to it, says that it is not there",
    errno.EACCES: "this host's own rules or routes forbid it",
}


def check_mtu(links: Iterable[Link], addresses: Iterable[InterfaceAddress], underlay: Prefix | None, options: TunnelOptions) -> Check:
    """Interfaces of workloads are not larger than what the uplinks carry."""
    links = list(links)
    carried = uplink_mtu(underlay, links, addresses, options, frozenset())
    large = sorted(link.name for link in links if link.name.startswith(options.interface_prefixes) and 0 < carried < link.mtu)
    shown = ", ".join(large[:5]) + (f" and {len(large) - 5} more" if len(large) > 5 else "")
    advice = (
        f"the uplinks carry {carried} bytes, and larger interfaces have {shown}: their largest packets are answered with 'too big', or lost"
    )
    return Check(name="MTU", well=not large, advice=advice, remark=True)


async def check_store(store: Datastore, name: str, key: str) -> Check:
    """The store answers, and soon; ``key`` is what is read."""
    began = time.monotonic()
    try:
        await store.get(key)
    except (StoreUnavailable, StoreDenied, DataError) as error:
        return Check(name=f"store {name}", well=False, advice=f"{error}: the host goes on with what it has, and learns nothing new")
    took = time.monotonic() - began
    advice = f"one read took {took * 1000:.0f} ms: every change waits for that; look at the path to it, and its disks"
    return Check(name=f"store {name}", well=took < SLOW_S, advice=advice, remark=True)


async def check_peers(sessions: Sequence[SessionReport], port: int = BGP_PORT, patience_s: float = TRY_S) -> list[Check]:
    """Each session is up, or it is said what a connection to the peer meets."""
    down = [session for session in sessions if session.state != "up"]
    met = await asyncio.gather(*[_try(session.address, port, patience_s) for session in down])
    checks = [Check(name=f"BGP: {len(sessions)} sessions are up", well=True)] if sessions and not down else []
    for session, meets in zip(down, met, strict=True):
        asked_by = f" ({session.resource})" if session.resource else ""
        said = session.reason or "BIRD gives no reason"
        advice = f"{said}; a connection to port {port} of {session.address or 'it'}: {meets}"
        checks.append(Check(name=f"BGP to {session.peer}{asked_by}", well=False, advice=advice))
    return checks


async def _try(address: str, port: int, patience_s: float) -> str:
    if not address:
        return "not tried, as its address is not known"
    try:
        async with asyncio.timeout(patience_s):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"no answer in {patience_s:g} s: a filter on the way, a password, or the peer is away"
    except OSError as error:
        return _WHY.get(error.errno or 0, error.strerror or str(error))
    writer.close()
    return "taken: the way is free, so look at AS numbers, passwords and addresses on both sides"
