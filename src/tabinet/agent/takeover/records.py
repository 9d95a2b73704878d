"""What there is on a host that Calico ran, as it was read: the input of ``survey`` and ``finish``."""

from __future__ import annotations

import msgspec

from tabinet.agent.takeover.iptables import FelixTable
from tabinet.ipam.inventory import Fabric, Inventory
from tabinet.kernel.routingrules import RoutingRule
from tabinet.kernel.rtnetlink import Link, Route
from tabinet.lib.ip import IPV4
from tabinet.model.keys import ResourceKey
from tabinet.model.report import HostReport
from tabinet.model.resources import WorkloadEndpoint

WIREGUARD, BPF_INTERFACES = ("wireguard.cali", "wg-v6.cali"), ("bpfin.cali", "bpfout.cali")


class Process(msgspec.Struct, frozen=True, order=True):
    """A program of Calico's that runs in the host's network namespace."""

    what: str
    """``felix``, ``bird`` or ``confd``."""
    pid: int
    command: str


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """What Felix and Calico's BIRD have in the kernel, beside interfaces and routes to workloads."""

    tables: tuple[FelixTable, ...] = ()
    nft_tables: tuple[str, ...] = ()
    """Families in which Felix has an nftables table of its own, as in ``ip``."""
    ipsets: tuple[str, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    unread: tuple[str, ...] = ()
    """Why something could not be looked at."""


class AgentSight(msgspec.Struct, frozen=True):
    """Our agent on this host: what it reports, or why it cannot be asked."""

    report: HostReport | None = None
    error: str = ""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Read from the store first, then from the kernel."""

    host: str
    prefixes: tuple[str, ...]
    """How interfaces of workloads begin."""
    endpoints: dict[ResourceKey, WorkloadEndpoint]
    """Of this host."""
    inventory: Inventory
    fabric: Fabric
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    """Of the main table."""
    bird_metrics: frozenset[tuple[int, int]] = frozenset()
    """Family and metric of the routes of our BIRD; none where we have none."""
    traces: Traces
    processes: tuple[Process, ...]
    agent: AgentSight

    def link(self, name: str) -> Link | None:
        """The interface of this name."""
        return next((link for link in self.links if link.name == name), None)

    def is_workload_interface(self, name: str) -> bool:
        """The name says that a workload is behind it."""
        return name.startswith(self.prefixes) and name not in (*WIREGUARD, *BPF_INTERFACES)


def describe_route(route: Route, names: dict[int, str]) -> str:
    """As ip-route(8) takes it after ``ip route del``."""
    kind = "" if route.hops else f"{route.kind.name.lower()} "
    ways = [
        (f" via {hop.gateway.address}" if hop.gateway is not None else "") + f" dev {names.get(hop.index, str(hop.index))}"
        for hop in route.hops[:1]
    ]
    family = "" if route.destination.family == IPV4 else "-6 "
    destination = route.destination.address if route.destination.is_host else str(route.destination)
    metric = f" metric {route.metric}" if route.metric else ""
    return f"ip {family}route del {kind}{destination}{''.join(ways)} proto {route.protocol}{metric}"
