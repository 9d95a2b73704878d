"""BGP intent: from the resources about routing to what one host's BGP daemon shall do.

In: ``RoutingFacts`` (nodes, BGP configurations, peers and filters, pools, blocks, local endpoints). Out: ``BgpIntent``, and what is wrong.
Pure; O(nodes + peers + endpoints of the host).

- Mesh: with every other node that has BGP, one session for each address family that both have. Route reflectors (nodes
  with ``routeReflectorClusterID``) are in no mesh.
- BGPPeer: for one node, for nodes by ``nodeSelector``, or for all. ``peerSelector`` stands for the addresses of the nodes that
  it selects, and gives these the session back unless ``reversePeering`` is Manual; ``localWorkloadSelector`` for workloads of the host.
- One session for each address and port: explicit peers before the mesh; those for one node before those by selector before
  those for all; then by name.
- A reflector's peers of its own AS are its clients, except those of its own cluster.
- Annotations of a BGPPeer say what Calico has no field for: see ``calc.bgp_options``.
- A peer that is broken, or names a filter that is not there, is left out and reported; the others stay.
"""

from __future__ import annotations

import msgspec

from tabinet.calc.bgp_filters import advertisements, filter_intent, services
from tabinet.calc.bgp_nodes import DEFAULT_PORT, Cluster, RoutingFacts, router_id
from tabinet.calc.bgp_options import ANY_NEIGHBOUR, read_options
from tabinet.calc.endpoints import endpoint_labels
from tabinet.calc.intents import BgpIntent, FilterIntent, NextHop, PeerIntent, PoolIntent, SecretRef
from tabinet.calc.nodefacts import tunnel_of
from tabinet.errors import Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.annotations import EXTERNAL, INTERFACES, REMOTE_AS
from tabinet.model.formats import parse_peer
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import BGPConfigurationSpec, BgpPassword, BGPPeer, BGPPeerSpec, WorkloadEndpoint
from tabinet.selector import SelectorError, parse

WORKLOAD_ROUTE_LIMIT = 16
"""Routes of a family that a workload may announce, unless its peering says otherwise."""
NO_SERVICES = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of nodes that tell no addresses of services."""
LINK_LOCAL6 = parse_prefix("fe80::/10")
_NOWHERE = Prefix(IPV4, 0, 32)
_NEXT_HOPS = {"": NextHop.AUTO, "Auto": NextHop.AUTO, "Self": NextHop.SELF, "Keep": NextHop.KEEP}


def bgp_intent(host: str, facts: RoutingFacts) -> tuple[BgpIntent | None, list[Problem]]:
    """What the host's BGP daemon shall do (None: run no session), and what is wrong with the resources that say so."""
    node = facts.nodes.get(host)
    if node is None or node.spec.bgp is None:
        return None, []
    planner = _Planner(host, Cluster(facts))
    return planner.intent(), list(dict.fromkeys(planner.cluster.problems))


class _Planner:
    """Collects the sessions of one host."""

    def __init__(self, host: str, cluster: Cluster) -> None:
        self.host = host
        self.cluster = cluster
        self.facts = cluster.facts
        self.report = cluster.report
        self.addresses = cluster.addresses_of(host)
        self.as_number = cluster.as_number(host)
        self.cluster_id = cluster.cluster_id(host)
        self.sessions: dict[tuple[Prefix, int, str], PeerIntent] = {}
        self.filters: dict[str, FilterIntent | None] = {}
        """Those that were asked for; None: missing or wrong."""

    def intent(self) -> BgpIntent:
        configuration = self.cluster.configuration(self.host)
        if not self.addresses:
            self.report(f"Node/{self.host}", "spec.bgp", "no address", "ipv4Address or ipv6Address, as in 172.18.0.2/24")
        for name, peer in sorted(self.facts.peers.items(), key=lambda item: (_scope(item[1].spec), item[0])):
            self.add_peer(name, peer)
        self.add_mesh()
        peers = tuple(sorted(self.sessions.values(), key=lambda peer: peer.name))
        used = {name for peer in peers for name in peer.filters}
        ipv4 = self.addresses.get(IPV4)
        return BgpIntent(
            host=self.host,
            as_number=self.as_number,
            router_id=ipv4.address if ipv4 else router_id(self.host),
            ipv4=ipv4,
            ipv6=self.addresses.get(IPV6),
            listen_port=configuration.listen_port or DEFAULT_PORT,
            log_severity=configuration.log_severity_screen or "Info",
            peers=peers,
            blocks=tuple(sorted(self.facts.blocks.get(self.host, ()))),
            pools=self.pools(),
            ignored_interfaces=configuration.ignored_interfaces,
            filters=tuple(found for name, found in sorted(self.filters.items()) if found is not None and name in used),
            advertisements=advertisements(configuration, self._configured),
            services=self.services(configuration),
            bind_node_ip=configuration.bind_mode == "NodeIP",
            cluster_id=self.cluster_id,
            drain=self.cluster.drain(self.host),
            metrics=(configuration.ipv4_normal_route_priority or 0, configuration.ipv6_normal_route_priority or 0),
            peering4=self.peering(configuration.local_workload_peering_ip_v4, IPV4),
            peering6=self.peering(configuration.local_workload_peering_ip_v6, IPV6),
        )

    # --- the mesh ---------------------------------------------------------------------------------------------------

    def add_mesh(self) -> None:
        default = self.cluster.default()
        source = "BGPConfiguration/default"
        if default.node_to_node_mesh_enabled is False or self.cluster_id:
            return
        before = len(self.cluster.problems)
        password = self.secret(source, "spec.nodeMeshPassword", default.node_mesh_password)
        if len(self.cluster.problems) > before:
            return
        path = "spec.nodeMeshMaxRestartTime"
        restart_s = self.cluster.seconds(source, path, default.node_mesh_max_restart_time, 0)
        base = msgspec.structs.replace(_BASE, mesh=True, max_restart_time_s=restart_s, password=password, resource=source)
        for name in sorted(self.facts.nodes):
            if not self.cluster.cluster_id(name):
                self.add_node("mesh", name, base, 0)

    # --- explicit peers ---------------------------------------------------------------------------------------------

    def add_peer(self, name: str, peer: BGPPeer) -> None:
        source, spec = f"BGPPeer/{name}", peer.spec
        try:
            chosen = self.chosen(spec)
            remote = bool(spec.peer_selector) and spec.reverse_peering != "Manual" and self.matches_us(spec.peer_selector)
            if not (self.host in chosen or remote):
                return
            base = self.base(source, peer)
            if base is None:
                return
            if spec.local_workload_selector:
                self.add_workloads(name, spec, base)
                return
            others: set[str] = set()
            if self.host in chosen and spec.peer_selector:
                others |= self.selected(spec.peer_selector)
            if remote:
                others |= chosen
        except SelectorError as error:
            self.report(source, "spec selectors", error.text, str(error))
            return
        if not spec.peer_selector:
            self.add_address(source, name, peer, base)
            return
        own = base if self.host in chosen else msgspec.structs.replace(base, local_as=0)
        for other in sorted(others):
            self.add_node(f"peer_{name}", other, own, base.local_as if other in chosen else 0)

    def chosen(self, peer: BGPPeerSpec) -> set[str]:
        """The nodes that a peering is for."""
        if peer.node:
            return {peer.node} if peer.node in self.facts.nodes else set()
        return self.selected(peer.node_selector) if peer.node_selector else set(self.facts.nodes)

    def selected(self, selector: str) -> set[str]:
        evaluate = parse(selector).evaluate
        return {name for name, node in self.facts.nodes.items() if evaluate(node.metadata.labels)}

    def matches_us(self, selector: str) -> bool:
        return parse(selector).evaluate(self.facts.nodes[self.host].metadata.labels)

    def base(self, source: str, peer: BGPPeer) -> PeerIntent | None:
        """What all sessions of a peering have in common; None when it makes no sense, which is reported."""
        before = len(self.cluster.problems)
        spec = peer.spec
        annotations = peer.metadata.annotations
        self.check(source, spec, INTERFACES in annotations, annotations.get(REMOTE_AS) == EXTERNAL)
        options = read_options(peer, lambda path, value, allowed: self.report(source, path, value, allowed))
        local_as = self.cluster.readable_as(source, "spec.localASNumber", spec.local_as_number) if spec.local_as_number is not None else 0
        for name in spec.filters:
            if self.filter(name) is None:
                self.report(source, "spec.filters", name, "the name of a BGPFilter that exists and makes sense")
        found = PeerIntent(
            name="",
            address=_NOWHERE,
            port=DEFAULT_PORT,
            as_number=0,
            mesh=False,
            use_node_ip=spec.source_address != "None",
            bfd=spec.failure_detection_mode != "None",
            max_restart_time_s=self.cluster.seconds(source, "spec.maxRestartTime", spec.max_restart_time, 0),
            keepalive_time_s=self.cluster.seconds(source, "spec.keepaliveTime", spec.keepalive_time, 0),
            for_node=bool(spec.node),
            local_as=local_as,
            allowed_own_as=spec.num_allowed_local_as_numbers,
            next_hop=self.next_hop(source, spec),
            password=self.secret(source, "spec.password", spec.password),
            ttl_hops=spec.ttl_security or 0,
            reachable_by=self.gateway(source, spec),
            filters=spec.filters,
            bfd_interval_ms=options.bfd_interval_ms,
            bfd_multiplier=options.bfd_multiplier,
            route_limit=options.route_limit,
            resource=source,
            long_lived=options.long_lived,
        )
        return found if len(self.cluster.problems) == before else None

    def check(self, source: str, spec: BGPPeerSpec, unnumbered: bool, external: bool) -> None:
        """What contradicts itself in a peering, or is missing, is reported."""
        if spec.node and spec.node_selector:
            self.report(source, "spec.nodeSelector", spec.node_selector, "node or nodeSelector, not both")
        if spec.peer_selector and (spec.peer_ip or spec.as_number is not None or spec.local_workload_selector):
            self.report(source, "spec.peerSelector", spec.peer_selector, "peerSelector, or peerIP with asNumber, not both")
        elif spec.local_workload_selector and spec.peer_ip:
            self.report(source, "spec.localWorkloadSelector", spec.local_workload_selector, "localWorkloadSelector or peerIP, not both")
        elif spec.local_workload_selector and spec.as_number is None:
            self.report(source, "spec.asNumber", "", "the AS number of the workloads")
        elif not (
            spec.peer_selector or spec.local_workload_selector or unnumbered or (spec.peer_ip and (external or spec.as_number is not None))
        ):
            self.report(source, "spec", "no peer", "peerIP and asNumber, peerSelector, or localWorkloadSelector")
        elif unnumbered and spec.ttl_security not in (None, 0, 1):
            self.report(source, "spec.ttlSecurity", spec.ttl_security, "1, as the peer is on the link")

    def filter(self, name: str) -> FilterIntent | None:
        """The filter of that name; None when there is none that makes sense."""
        if name not in self.filters:
            spec = self.facts.filters.get(name)
            source = f"BGPFilter/{name}"
            self.filters[name] = filter_intent(name, spec, lambda *what: self.report(source, *what)) if spec else None
        return self.filters[name]

    def secret(self, source: str, path: str, password: BgpPassword | None) -> SecretRef | None:
        if password is None:
            return None
        reference = password.secret_key_ref
        if reference is None or not (reference.name and reference.key):
            self.report(source, path, "", "secretKeyRef with name and key")
            return None
        return SecretRef(reference.name, reference.key, bool(reference.optional))

    def next_hop(self, source: str, spec: BGPPeerSpec) -> NextHop:
        if spec.keep_original_next_hop:
            return NextHop.KEEP_EXTERNAL
        found = _NEXT_HOPS.get(spec.next_hop_mode)
        if found is None:
            self.report(source, "spec.nextHopMode", spec.next_hop_mode, "Auto, Self or Keep")
        return found or NextHop.AUTO

    def gateway(self, source: str, spec: BGPPeerSpec) -> Prefix | None:
        if not spec.reachable_by:
            return None
        try:
            gateway = parse_address(spec.reachable_by)
            if spec.peer_ip and parse_address(parse_peer(spec.peer_ip)[0]).family == gateway.family:
                return gateway
        except ValueError:
            pass
        self.report(source, "spec.reachableBy", spec.reachable_by, "an address of the family of peerIP")
        return None

    # --- whom a peering is with -------------------------------------------------------------------------------------

    def add_address(self, source: str, name: str, peer: BGPPeer, base: PeerIntent) -> None:
        spec, options = peer.spec, read_options(peer, lambda *_: None)
        number = 0
        if not options.external:
            number = self.cluster.readable_as(source, "spec.asNumber", spec.as_number or 0)
            if not number:
                return
        for interface in options.interfaces:
            named = msgspec.structs.replace(base, name=f"peer_{name}_{interface}", interface=interface, use_node_ip=False)
            self.add(msgspec.structs.replace(named, address=ANY_NEIGHBOUR, as_number=number))
        if options.interfaces:
            return
        try:
            text, port = parse_peer(spec.peer_ip)
        except ValueError:
            self.report(source, "spec.peerIP", spec.peer_ip, "an address, 10.0.0.1:1179 or [fd00::1]:1179")
            return
        address = parse_address(text)
        if address == self.addresses.get(address.family):
            # A peering for all nodes does not make one of them its own peer.
            return
        if LINK_LOCAL6.contains(address):
            self.report(
                source,
                "spec.peerIP",
                spec.peer_ip,
                "no link-local one: name the links of such peers by the annotation tabinet.io/interfaces",
            )
            return
        if base.use_node_ip and address.family not in self.addresses:
            self.report(source, "spec.peerIP", spec.peer_ip, f"an address of a family that node {self.host} has")
            return
        self.add(msgspec.structs.replace(base, name=f"peer_{name}", address=address, port=port or DEFAULT_PORT, as_number=number))

    def add_node(self, prefix: str, other: str, base: PeerIntent, as_number: int) -> None:
        """``as_number``: what the other node gives as its own; 0: that of the node."""
        if other == self.host:
            return
        addresses = self.cluster.addresses_of(other)
        shared = [family for family in (IPV4, IPV6) if family in addresses and family in self.addresses]
        if not shared:
            return
        port = self.cluster.listen_port(other)
        number = as_number or self.cluster.as_number(other)
        for family in shared:
            name = f"{prefix}_{other}_ipv{family}"
            session = msgspec.structs.replace(base, name=name, address=addresses[family], port=port, as_number=number, ours=True)
            self.add(session, self.cluster.cluster_id(other))

    def add_workloads(self, name: str, spec: BGPPeerSpec, base: PeerIntent) -> None:
        number = self.cluster.readable_as(f"BGPPeer/{name}", "spec.asNumber", spec.as_number or 0)
        evaluate = parse(spec.local_workload_selector).evaluate
        endpoints = sorted(self.facts.endpoints.get(self.host, {}).items(), key=lambda item: item[0])
        for key, endpoint in endpoints:
            if not number or not evaluate(self.labels_of(key, endpoint)):
                continue
            own, allowed = self.announceable(key, endpoint)
            # Workloads know one address of their host, the IPv4 gateway; what they have of IPv6 goes through that session too, unless an
            # address for it is configured.
            apart = IPV4 not in own or bool(self.cluster.configuration(self.host).local_workload_peering_ip_v6)
            for family, address in own.items():
                if family == IPV6 and not apart:
                    continue
                families = (IPV4, IPV6) if family == IPV4 and IPV6 in own and not apart else ()
                self.add(
                    msgspec.structs.replace(
                        base,
                        name=f"peer_{name}_{key.namespace}_{key.name}_ipv{family}",
                        address=address,
                        as_number=number,
                        use_node_ip=False,
                        bfd=False,
                        route_limit=base.route_limit or WORKLOAD_ROUTE_LIMIT,
                        workload=allowed,
                        families=families,
                    )
                )

    def labels_of(self, key: ResourceKey, endpoint: WorkloadEndpoint) -> dict[str, str]:
        """All labels of an endpoint: its own, then those of its profiles in their order."""
        labels = endpoint_labels(key, endpoint)
        for name in endpoint.spec.profiles:
            labels = self.facts.profiles.get(name, {}) | labels
        return labels

    def announceable(self, key: ResourceKey, endpoint: WorkloadEndpoint) -> tuple[dict[int, Prefix], tuple[Prefix, ...]]:
        """A workload's first address of each family, and all that it may send from, and therefore announce."""
        own: dict[int, Prefix] = {}
        allowed = set()
        for text in (*endpoint.spec.ip_networks, *endpoint.spec.allow_spoofed_source_prefixes):
            try:
                allowed.add(parse_prefix(text))
            except ValueError:
                self.report(str(key), "spec", text, "a prefix")
        for text in endpoint.spec.ip_networks:
            try:
                address = parse_prefix(text)
            except ValueError:
                continue
            if address.is_host:
                own.setdefault(address.family, address)
        return own, tuple(sorted(allowed))

    def add(self, session: PeerIntent, peer_cluster: str = "") -> None:
        own = session.local_as or self.as_number
        internal = session.as_number == own and not session.mesh and session.workload is None
        client = internal and bool(self.cluster_id) and peer_cluster != self.cluster_id
        session = msgspec.structs.replace(session, reflected=internal, client=client)
        self.sessions.setdefault((session.address, session.port, session.interface), session)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def pools(self) -> tuple[PoolIntent, ...]:
        found = []
        for name, pool in sorted(self.facts.pools.items()):
            try:
                cidr, tunnel = parse_prefix(pool.cidr), tunnel_of(pool)
                found.append(PoolIntent(name, cidr, pool.nat_outgoing, pool.disable_bgp_export, tunnel is not None))
            except ValueError:
                self.report(f"IPPool/{name}", "spec.cidr", pool.cidr, "a prefix, as in 10.65.0.0/16")
        return tuple(found)

    def services(self, configuration: BGPConfigurationSpec) -> tuple[Prefix, ...]:
        if NO_SERVICES in self.facts.nodes[self.host].metadata.labels:
            return ()
        return services(configuration, self._configured)

    def peering(self, text: str, family: int) -> Prefix | None:
        """The address towards workloads, where one is configured."""
        if not text:
            return None
        try:
            address = parse_address(text)
        except ValueError:
            address = None
        if address is None or address.family != family or LINK_LOCAL6.contains(address):
            # It is an address of the host, not of one of its links.
            self._configured(
                f"spec.localWorkloadPeeringIPV{family}", text, f"an IPv{family} address{', not of fe80::/10' * (family == IPV6)}"
            )
            return None
        return address

    def _configured(self, path: str, value: object, allowed: str) -> None:
        name = f"node.{self.host}" if f"node.{self.host}" in self.facts.configurations else "default"
        self.report(f"BGPConfiguration/{name}", path, value, allowed)


_BASE = PeerIntent("", _NOWHERE, DEFAULT_PORT, 0, False, True, True, 0, 0)


def _scope(peer: BGPPeerSpec) -> int:
    if peer.node:
        return 0
    return 1 if peer.node_selector else 2
