"""Routes that Felix and Calico's BIRD left and that have been replaced. Pure.

A route of theirs goes once there is one of ours to the same: of our agent, or of our BIRD, which is known by the metric in its
configuration. Without that it stays: it may be all that leads there. Calico's BIRD writes metric 0, which wins over ours for ever; Felix's
routes of IPv6 have 1024, which ours win over. O(routes).
"""

from __future__ import annotations

from tabinet.agent.takeover.records import Sighting
from tabinet.bgp.leftovers import BIRD_PROTOCOL
from tabinet.dataplane.routes.driver import FELIX_PROTOCOLS
from tabinet.kernel.rtnetlink import TABINET_PROTOCOL, TABINET_REMOTE_PROTOCOL, Route

OURS = (TABINET_PROTOCOL, TABINET_REMOTE_PROTOCOL)


def superseded_routes(sighting: Sighting) -> list[Route]:
    """Those that may go, in the kernel's order."""
    replaced = {route.destination for route in sighting.routes if _is_ours(sighting, route)}
    return [route for route in sighting.routes if route.destination in replaced and _is_theirs(sighting, route)]


def orphaned_routes(sighting: Sighting) -> list[Route]:
    """Those of a BIRD that is not ours, to where ours has no route: nobody will ever change them. None while a BIRD of theirs runs."""
    if not sighting.bird_metrics or any(process.what == "bird" for process in sighting.processes):
        return []
    gone = set(superseded_routes(sighting))
    return [route for route in sighting.routes if route.protocol == BIRD_PROTOCOL and _is_theirs(sighting, route) and route not in gone]


def _is_ours(sighting: Sighting, route: Route) -> bool:
    by_bird = route.protocol == BIRD_PROTOCOL and (route.destination.family, route.metric) in sighting.bird_metrics
    return route.protocol in OURS or by_bird


def _is_theirs(sighting: Sighting, route: Route) -> bool:
    """Only where our BIRD has a metric can another's be told from it."""
    if route.protocol == BIRD_PROTOCOL:
        return bool(sighting.bird_metrics) and not _is_ours(sighting, route)
    if route.protocol == FELIX_PROTOCOLS[0]:
        return True
    names = {link.index: link.name for link in sighting.links}
    return route.protocol in FELIX_PROTOCOLS and any(sighting.is_workload_interface(names.get(hop.index, "")) for hop in route.hops)
