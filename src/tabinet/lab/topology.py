"""A lab's topology as frozen records: what ``parse_topology`` makes of a file, and what a plan is made from.

Invariants: names are unique over routers, hosts, segments and workloads, and usable as interface names; links, segments and workloads name
nodes that exist; numbers are in range. Addresses are not given out here (see ``tabinet.lab.plan``).
"""

from __future__ import annotations

import msgspec

from tabinet.lab.kinds.facts import NAMESPACE, TAP
from tabinet.lib.ip import Prefix, parse_prefix

MANAGEMENT4 = parse_prefix("172.31.0.0/24")
LOOPBACKS = (parse_prefix("10.254.0.0/16"), parse_prefix("fd00:254::/64"))
LINKS = (parse_prefix("10.255.0.0/16"), parse_prefix("fd00:255::/64"))
NEUTRON_SUBNETS = (parse_prefix("10.64.0.0/24"), parse_prefix("fd00:64::/64"))
"""Where ports of an OpenStack are: Neutron gives out addresses itself, from subnets that are no pools for anybody else."""
MAX_NODES = 200
"""Routers and hosts together; the management network has room for as many hosts."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the records of a topology."""


class Router(Record, frozen=True, kw_only=True):
    """A router of the fabric that is not a host: spine or top of rack."""

    name: str
    as_number: int
    software: str
    """``bird`` or ``frr``; ``none``: it forwards between its subnets, and knows no others."""
    role: str
    """``spine``, ``tor`` or ``router``: for people; it changes nothing."""


class Host(Record, frozen=True, kw_only=True):
    """A machine that runs an agent, a BIRD and workloads."""

    name: str
    as_number: int
    labels: dict[str, str]
    reflector: str = ""
    """Cluster id (RFC 4456) of a route reflector: all hosts have sessions with it. Empty: it is none."""


class Segment(Record, frozen=True, kw_only=True):
    """A multi-access network (a bridge) that nodes share."""

    name: str
    subnet4: Prefix
    subnet6: Prefix
    members: tuple[str, ...]


class Port(Record, frozen=True, kw_only=True):
    """A named port of a workload."""

    name: str
    protocol: str
    port: int


class Workload(Record, frozen=True, kw_only=True):
    """What is attached to a host, with one interface; or the host itself, as a member of the fabric under policy."""

    name: str
    host: str
    namespace: str
    labels: dict[str, str]
    profiles: tuple[str, ...]
    ports: tuple[Port, ...]
    kind: str = NAMESPACE
    """A name of ``tabinet.lab.kinds.facts.FACTS``."""


class CheckPorts(Record, frozen=True, kw_only=True):
    """The ports that the check may choose from; all workloads listen on all of them."""

    tcp: tuple[int, ...] = (80, 5432, 9999)
    udp: tuple[int, ...] = (53, 9998)


class Bfd(Record, frozen=True, kw_only=True):
    """How fast a silent path is found dead: after ``interval_ms`` times ``multiplier`` (RFC 5880 section 6.8.4)."""

    interval_ms: int = 150
    multiplier: int = 5


class Topology(Record, frozen=True, kw_only=True):
    """A whole lab; every name in it is known and unique."""

    name: str
    mesh: bool
    """Hosts have a session with each other (BGPConfiguration.nodeToNodeMeshEnabled)."""
    as_number: int
    """The AS of hosts that do not have one of their own."""
    pools: tuple[Prefix, ...]
    bfd: Bfd
    routers: tuple[Router, ...]
    hosts: tuple[Host, ...]
    links: tuple[tuple[str, str], ...]
    segments: tuple[Segment, ...]
    workloads: tuple[Workload, ...]
    resources: tuple[str | dict[str, object], ...]
    """Documents, and names of files relative to the topology file."""
    check: CheckPorts
    unnumbered: bool = False
    """Links have no addresses but the link-local ones (RFC 8950)."""
    vxlan: str = "Never"
    """``vxlanMode`` of the pools."""
    ipip: str = "Never"
    """``ipipMode`` of the IPv4 pools, where they have no ``vxlan``; the kernel must have IP-in-IP."""

    def of_kind(self, kind: str) -> tuple[Workload, ...]:
        """The workloads of a kind, in order."""
        return tuple(workload for workload in self.workloads if workload.kind == kind)

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """Where addresses of workloads are."""
        return (*self.pools, *(NEUTRON_SUBNETS if self.of_kind(TAP) else ()))

    @property
    def tunnelled(self) -> bool:
        """Pools have a tunnel."""
        return (self.vxlan, self.ipip) != ("Never", "Never")
