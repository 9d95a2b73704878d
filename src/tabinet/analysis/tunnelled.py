"""Packets of tunnels, which no workload may send whatever policy says (FelixConfiguration ``allowVXLANPacketsFromWorkloads`` and so on).

In: a state, for its hosts' FelixConfiguration. Out: a header set. Where hosts differ it is what all of them forbid, so that nothing is
called impossible that some workload may do; what a host's own configuration file says of it is not known here. Pure; O(hosts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tabinet.analysis.headers import EMPTY, FULL, HeaderSet, HeaderSpace
from tabinet.calc.replica import State
from tabinet.model.protocols import UDP
from tabinet.rules.options import IPIP, TableOptions

_DEFAULTS = TableOptions()


def unsendable(state: State, space: HeaderSpace) -> HeaderSet:
    """What no workload of any host may send."""
    found = FULL
    for felix in {tuple(_forbidden(felix)): None for felix in state.config.values() or ({},)}:
        some = EMPTY
        for protocol, port in felix:
            some = space.join(some, space.protocol(protocol) if port is None else space.box(protocol, [(port, port)]))
        found = space.meet(found, some)
    return found


def _forbidden(felix: Mapping[str, object]) -> Iterator[tuple[int, int | None]]:
    """Protocols, or ports of them. A value that is none of its kind is ignored, as the host does (``agent.parameters``)."""
    if felix.get("allowVXLANPacketsFromWorkloads", _DEFAULTS.workloads_send_vxlan) is not True:
        port = felix.get("vxlanPort", _DEFAULTS.vxlan_port)
        yield UDP, port if isinstance(port, int) and 0 < port < 65536 else _DEFAULTS.vxlan_port
    if felix.get("allowIPIPPacketsFromWorkloads", _DEFAULTS.workloads_send_ipip) is not True:
        yield IPIP, None
