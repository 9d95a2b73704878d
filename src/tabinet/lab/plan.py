"""From a topology to everything that a lab is made of: namespaces, cables, addresses, router configurations and resources.

In: a ``Topology``. Out: a ``Plan``. Pure and deterministic: the same topology gives the same plan, so that a running lab's plan is computed
again instead of being stored. O(n) in the topology.

Numbering: loopbacks 10.254.0.N and fd00:254::N, cables 10.255.0.0/16 in /31s (RFC 3021) and fd00:255::/64 in /127s (RFC 6164), management
172.31.0.0/24 with etcd at .1. They are private to the lab's namespaces, so labs do not disturb each other or the machine.
"""

from __future__ import annotations

import enum
import itertools
import uuid

import msgspec

from tabinet.calc.bgp_options import LONG_LIVED
from tabinet.calc.messages import Tunnel
from tabinet.lab.kinds.facts import FACTS, TAP, Maker
from tabinet.lab.routerspec import NeighbourSpec, RouterSpec, Software
from tabinet.lab.topology import LINKS, LOOPBACKS, MANAGEMENT4, NEUTRON_SUBNETS, Topology
from tabinet.lib.ip import IPV4, Prefix
from tabinet.model.annotations import EXTERNAL, INTERFACES, REMOTE_AS
from tabinet.model.resources import API_VERSION

MANAGEMENT = "mgmt"
"""Name of the management segment, and of the hosts' interface to it."""
BRIDGE = "br0"
REFLECTOR = "reflector"
"""Label of the hosts that reflect routes."""
ETCD_PORT = 2379
_FIRST_HOST = 11
"""Where addresses of members begin on shared segments; those below are for the segment's own use."""
_CLUSTER = uuid.UUID("6f0d6a0e-7a55-4d0e-9b6b-0c6a1a3c2b11")
"""Namespace of the clusters' UUIDs (RFC 4122 section 4.3)."""


class NodeKind(enum.Enum):
    """What a namespace of a lab is."""

    ROUTER = "router"
    HOST = "host"
    SEGMENT = "segment"
    WORKLOAD = "workload"
    CONTAINER = "container"
    """A workload whose runtime makes its namespace."""


class InterfaceAddress(msgspec.Struct, frozen=True, gc=False):
    """An address of an interface, with the length of the subnet it is in."""

    address: Prefix
    length: int

    def __str__(self) -> str:
        return f"{self.address.address}/{self.length}"


class NodePlan(msgspec.Struct, frozen=True, gc=False):
    """One namespace."""

    name: str
    kind: NodeKind
    namespace: str
    loopbacks: tuple[Prefix, ...] = ()
    ways: tuple[tuple[Prefix, Prefix], ...] = ()
    """Subnets that a host reaches through a router that speaks no BGP, and that router's address."""


class End(msgspec.Struct, frozen=True, gc=False):
    """One end of a cable."""

    node: str
    interface: str
    addresses: tuple[InterfaceAddress, ...] = ()


class Cable(msgspec.Struct, frozen=True, gc=False):
    """A pair of veth interfaces. One end may be a port of a segment's bridge; it has no addresses then."""

    a: End
    b: End

    @property
    def name(self) -> str:
        """As ``lab cut`` takes it: ``spine1:tor1``, or ``segment:member``."""
        return f"{self.a.node}:{self.b.node}"


class HostPlan(msgspec.Struct, frozen=True, gc=False):
    """What a host's agent and BGP have to do with."""

    name: str
    as_number: int
    labels: dict[str, str]
    addresses: tuple[InterfaceAddress, ...]
    """The host's own addresses in Node.spec.bgp: its loopbacks, or what it has on its first segment."""
    peers: tuple[tuple[str, int, Prefix], ...]
    """Explicit sessions: node, AS number and address of the peer; one for each family."""
    uplinks: tuple[str, ...] = ()
    """Interfaces with an unnumbered session each."""
    reflector: str = ""
    """Cluster id of a route reflector."""
    sessions: int = 0
    """All that it should have, with the mesh and with reflectors."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """A whole lab."""

    topology: Topology
    nodes: tuple[NodePlan, ...]
    cables: tuple[Cable, ...]
    routers: tuple[RouterSpec, ...]
    hosts: tuple[HostPlan, ...]
    resources: tuple[dict[str, object], ...]
    """Documents that make the hosts a cluster; the topology's own resources come after them."""

    @property
    def name(self) -> str:
        return self.topology.name

    def node(self, name: str) -> NodePlan | None:
        """The node of that name, or None."""
        return next((node for node in self.nodes if node.name == name), None)

    def underlay_of(self, host: str) -> str:
        """The first segment of a host that reaches others through routers that speak no BGP; empty where all routers know workloads."""
        node = self.node(host)
        behind = node is not None and node.ways
        return next((cable.a.node for cable in self.cables if cable.b.node == host and cable.a.node != MANAGEMENT), "") if behind else ""

    def towards_others(self) -> dict[str, list[str]]:
        """By host, the interfaces that its packets to others may take: cables of the fabric, and the tunnels that its pools have."""
        tunnels = [Tunnel.VXLAN4.interface, Tunnel.VXLAN6.interface] if self.topology.vxlan != "Never" else []
        found: dict[str, list[str]] = {host.name: [] for host in self.hosts}
        for cable in self.cables:
            for near, far in ((cable.a, cable.b), (cable.b, cable.a)):
                if near.node in found and far.node != MANAGEMENT:
                    found[near.node].append(near.interface)
        return {host: [*names, *tunnels] for host, names in found.items()}

    def cable(self, name: str) -> Cable | None:
        """The cable named ``a:b`` or ``b:a``, or None."""
        a, _, b = name.partition(":")
        return next((cable for cable in self.cables if (cable.a.node, cable.b.node) in ((a, b), (b, a))), None)


def namespace_of(lab: str, node: str) -> str:
    """The network namespace of a node."""
    return f"{namespace_prefix(lab)}{node}"


def namespace_prefix(lab: str) -> str:
    """How the names of all network namespaces of a lab begin, and of no others."""
    return f"tl-{lab}-"


def etcd_address() -> str:
    """etcd's address on the management segment."""
    return MANAGEMENT4.host(1).address


def make_plan(topology: Topology) -> Plan:
    """The plan of a topology."""
    loopbacks = _loopbacks(topology)
    cables = (*_point_to_point(topology), *_shared(topology), *_management(topology))
    ways = _ways(topology, cables)
    nodes = tuple(
        NodePlan(name, kind, namespace_of(topology.name, name), loopbacks.get(name, ()), tuple(ways.get(name, ())))
        for kind, names in (
            (NodeKind.SEGMENT, [MANAGEMENT, *(segment.name for segment in topology.segments)]),
            (NodeKind.ROUTER, [router.name for router in topology.routers]),
            (NodeKind.HOST, [host.name for host in topology.hosts]),
            (NodeKind.WORKLOAD, _workloads_made_by(topology, Maker.LAB)),
            (NodeKind.CONTAINER, _workloads_made_by(topology, Maker.RUNTIME)),
        )
        for name in names
    )
    hosts = _hosts(topology, loopbacks, cables)
    return Plan(topology, nodes, cables, _routers(topology, loopbacks, cables), hosts, _resources(topology, hosts))


def _workloads_made_by(topology: Topology, maker: Maker) -> list[str]:
    """The names of those whose network namespace is this one's to make."""
    return [workload.name for workload in topology.workloads if FACTS[workload.kind].namespace_by is maker]


def _loopbacks(topology: Topology) -> dict[str, tuple[Prefix, ...]]:
    """Routers have loopbacks, and hosts with links of their own; a host that is on a segment only is known by its address there."""
    linked = {end for link in topology.links for end in link}
    names = [router.name for router in topology.routers] + [host.name for host in topology.hosts]
    return {
        name: tuple(pool.host(index) for pool in LOOPBACKS)
        for index, name in enumerate(names, 1)
        if name in linked or any(router.name == name for router in topology.routers)
    }


def _point_to_point(topology: Topology) -> tuple[Cable, ...]:
    def end(index: int, side: int, node: str, peer: str) -> End:
        if topology.unnumbered:
            return End(node, peer)
        addresses = tuple(InterfaceAddress(pool.host(2 * index + side), pool.bits - 1) for pool in LINKS)
        return End(node, peer, addresses)

    return tuple(Cable(end(index, 0, a, b), end(index, 1, b, a)) for index, (a, b) in enumerate(topology.links))


def _shared(topology: Topology) -> tuple[Cable, ...]:
    return tuple(
        Cable(
            End(segment.name, member),
            End(
                member,
                segment.name,
                tuple(InterfaceAddress(net.host(_first(net) + index), net.length) for net in (segment.subnet4, segment.subnet6)),
            ),
        )
        for segment in topology.segments
        for index, member in enumerate(segment.members)
    )


def _first(subnet: Prefix) -> int:
    """Index of the first member's address: 11 where the subnet is large enough to keep some for others, else 1."""
    return _FIRST_HOST if subnet.size >= 256 else 1


def _management(topology: Topology) -> tuple[Cable, ...]:
    return tuple(
        Cable(
            End(MANAGEMENT, host.name),
            End(host.name, MANAGEMENT, (InterfaceAddress(MANAGEMENT4.host(_FIRST_HOST + index), MANAGEMENT4.length),)),
        )
        for index, host in enumerate(topology.hosts)
    )


class _Meeting(msgspec.Struct, frozen=True, gc=False):
    """Two nodes that share a subnet: the interface and addresses of the first, the name and addresses of the second."""

    interface: str
    local: tuple[InterfaceAddress, ...]
    peer: str
    remote: tuple[InterfaceAddress, ...]


def _meetings(topology: Topology, cables: tuple[Cable, ...], node: str) -> list[_Meeting]:
    """Everyone whom ``node`` meets over a cable or a segment of the fabric, in the order of the cables."""
    segments = {segment.name for segment in topology.segments}
    found = []
    for cable in cables:
        for near, far in ((cable.a, cable.b), (cable.b, cable.a)):
            if near.node != node or far.node == MANAGEMENT:
                continue
            others = [cable.b for cable in cables if cable.a.node == far.node and cable.b.node != node] if far.node in segments else [far]
            found += [_Meeting(near.interface, near.addresses, other.node, other.addresses) for other in others]
    return found


def _routers(topology: Topology, loopbacks: dict[str, tuple[Prefix, ...]], cables: tuple[Cable, ...]) -> tuple[RouterSpec, ...]:
    speakers = _as_numbers(topology)
    hosts = {host.name for host in topology.hosts}
    return tuple(
        RouterSpec(
            name=router.name,
            as_number=router.as_number,
            router_id=loopbacks[router.name][0].address,
            loopbacks=loopbacks[router.name],
            neighbours=tuple(
                _neighbour(meeting, speakers[meeting.peer], is_host=meeting.peer in hosts)
                for meeting in _meetings(topology, cables, router.name)
            ),
            software=Software(router.software),
            host_prefixes=(*topology.prefixes, *LOOPBACKS),
            bfd_interval_ms=topology.bfd.interval_ms,
            bfd_multiplier=topology.bfd.multiplier,
        )
        for router in topology.routers
        if router.name not in _silent(topology)
    )


def _neighbour(meeting: _Meeting, peer_as: int, *, is_host: bool) -> NeighbourSpec:
    if not meeting.local:
        return NeighbourSpec(interface=meeting.interface, peer_name=meeting.peer, peer_as=peer_as, is_host=is_host, unnumbered=True)
    return NeighbourSpec(
        interface=meeting.interface,
        peer_name=meeting.peer,
        peer_as=peer_as,
        local4=meeting.local[0].address,
        peer4=meeting.remote[0].address,
        local6=meeting.local[1].address,
        peer6=meeting.remote[1].address,
        is_host=is_host,
    )


def _ways(topology: Topology, cables: tuple[Cable, ...]) -> dict[str, list[tuple[Prefix, Prefix]]]:
    """By host: the segments beyond its own, and the address of the silent router that is on both."""
    found: dict[str, list[tuple[Prefix, Prefix]]] = {}
    ends = {(cable.a.node, cable.b.node): cable.b.addresses for cable in cables}
    hosts = {host.name for host in topology.hosts}
    for router in _silent(topology):
        mine = [segment for segment in topology.segments if router in segment.members]
        for near, far in itertools.permutations(mine, 2):
            gateways = ends[near.name, router]
            for host in hosts.intersection(near.members).difference(far.members):
                found.setdefault(host, []).extend(zip((far.subnet4, far.subnet6), (item.address for item in gateways), strict=True))
    return found


def _silent(topology: Topology) -> set[str]:
    """Routers that speak no BGP."""
    return {router.name for router in topology.routers if Software(router.software) is Software.NONE}


def _as_numbers(topology: Topology) -> dict[str, int]:
    routers = {router.name: router.as_number for router in topology.routers}
    return routers | {host.name: host.as_number for host in topology.hosts}


def _hosts(topology: Topology, loopbacks: dict[str, tuple[Prefix, ...]], cables: tuple[Cable, ...]) -> tuple[HostPlan, ...]:
    speakers = _as_numbers(topology)
    hosts = {host.name for host in topology.hosts}
    reflectors = {host.name for host in topology.hosts if host.reflector}
    silent = _silent(topology)
    plans = []
    for host in topology.hosts:
        meetings = _meetings(topology, cables, host.name)
        own = tuple(InterfaceAddress(address, address.bits) for address in loopbacks.get(host.name, ()))
        peers = tuple(
            (meeting.peer, speakers[meeting.peer], remote.address)
            for meeting in meetings
            if meeting.peer not in silent
            if not ((topology.mesh or reflectors) and meeting.peer in hosts)  # the mesh or a reflector stands for that session
            for remote in meeting.remote
        )
        addresses = own or (meetings[0].local if meetings else ())
        uplinks = tuple(meeting.interface for meeting in meetings if not meeting.local)
        others = hosts - {host.name}
        meshed = others - reflectors if topology.mesh and host.name not in reflectors else set()
        reflecting = others if host.name in reflectors else reflectors
        plans.append(
            HostPlan(
                name=host.name,
                as_number=host.as_number,
                labels=host.labels | ({REFLECTOR: host.reflector} if host.reflector else {}),
                addresses=addresses,
                peers=peers,
                uplinks=uplinks,
                reflector=host.reflector,
                sessions=len(peers) + len(uplinks) + (len(meshed) + len(reflecting)) * len(addresses),
            )
        )
    return tuple(plans)


def _pool(topology: Topology, pool: Prefix) -> dict[str, object]:
    """The specification of a pool."""
    return {
        "cidr": str(pool),
        "blockSize": max(26 if pool.family == IPV4 else 122, pool.length),
        "ipipMode": topology.ipip if pool.family == IPV4 else "Never",
        "vxlanMode": topology.vxlan,
        "natOutgoing": False,
        "nodeSelector": "all()",
    }


def _resources(topology: Topology, hosts: tuple[HostPlan, ...]) -> tuple[dict[str, object], ...]:
    def resource(kind: str, name: str, spec: dict[str, object], **metadata: dict[str, str]) -> dict[str, object]:
        """``metadata``: labels and annotations."""
        given = {key: value for key, value in metadata.items() if value}
        return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, **given}, "spec": spec}

    guid = uuid.uuid5(_CLUSTER, topology.name).hex
    birds = {router.name for router in topology.routers if Software(router.software) is Software.BIRD}
    documents = [
        resource("ClusterInformation", "default", {"clusterGUID": guid, "clusterType": "tabinet-lab", "datastoreReady": True}),
        resource("FelixConfiguration", "default", {"endpointReportingEnabled": True}),
        resource("BGPConfiguration", "default", {"nodeToNodeMeshEnabled": topology.mesh, "asNumber": topology.as_number}),
        resource("Tier", "default", {"order": 1_000_000, "defaultAction": "Deny"}),
    ]
    documents += [resource("IPPool", f"lab-ipv{pool.family}-{index}", _pool(topology, pool)) for index, pool in enumerate(topology.pools)]
    if topology.of_kind(TAP):
        # Disabled: their addresses are announced as those of other pools, but nobody else gets one.
        documents += [resource("IPPool", f"neutron-ipv{net.family}", _pool(topology, net) | {"disabled": True}) for net in NEUTRON_SUBNETS]
    for host in hosts:
        bgp: dict[str, object] = {f"ipv{item.address.family}Address": str(item) for item in host.addresses}
        bgp["asNumber"] = host.as_number
        if host.reflector:
            bgp["routeReflectorClusterID"] = host.reflector
        documents.append(resource("Node", host.name, {"bgp": bgp}, labels=host.labels))
    if any(host.reflector for host in hosts):
        documents.append(resource("BGPPeer", "reflectors", {"nodeSelector": "all()", "peerSelector": f"has({REFLECTOR})"}))
    for host in hosts:
        for peer, as_number, address in host.peers:
            spec: dict[str, object] = {"node": host.name, "peerIP": address.address, "asNumber": as_number, "sourceAddress": "None"}
            annotations = {LONG_LIVED: "true"} if peer in birds else {}
            documents.append(resource("BGPPeer", f"{host.name}-{peer}-ipv{address.family}", spec, annotations=annotations))
        if host.uplinks:
            annotations = {INTERFACES: ", ".join(host.uplinks), REMOTE_AS: EXTERNAL}
            spec = {"node": host.name}
            documents.append(resource("BGPPeer", f"{host.name}-uplinks", spec, annotations=annotations))
    return tuple(documents)
