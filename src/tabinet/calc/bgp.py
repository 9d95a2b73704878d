"""BGP intent: from the resources about routing to what one host's BGP daemon shall do.

In: ``RoutingFacts`` (nodes, BGP configurations and peers, pools, blocks). Out: ``BgpIntent``, and what is wrong. Pure; O(nodes + peers).

- AS number: of the node, else of ``BGPConfiguration/node.<host>``, else of ``default``, else 64512. Other parameters: ``node.<host>`` over
  ``default``; but whether there is a mesh says ``default`` only, because both ends of a session must agree.
- Mesh: with every other node that has BGP, one session for each address family that both have. Route reflectors (nodes
  with ``routeReflectorClusterID``) are in no mesh.
- BGPPeer: for one node, for nodes by ``nodeSelector``, or for all. ``peerSelector`` stands for the addresses of the nodes that
  it selects, and gives these the session back unless ``reversePeering`` is Manual.
- One session for each address and port: explicit peers before the mesh; those for one node before those by selector before
  those for all; then by name.
- A peer that is broken, or demands what is not supported here, is left out and reported; the others stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tabinet.calc.messages import BgpIntent, PeerIntent, PoolIntent
from tabinet.errors import Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.asn import parse_as_number
from tabinet.model.formats import parse_duration_s, parse_peer
from tabinet.model.resources import BGPConfigurationSpec, BGPPeerSpec, IPPoolSpec, Node
from tabinet.selector import SelectorError, parse

DEFAULT_AS = 64512
DEFAULT_PORT = 179
DEFAULT_RESTART_S = 120
"""Graceful restart time of BIRD."""
DEFAULT_KEEPALIVE_S = 80
"""A third of BIRD's hold time."""

_UNSUPPORTED = (
    ("filters", "spec.filters", ((),)),
    ("password", "spec.password", (None,)),
    ("ttl_security", "spec.ttlSecurity", (None,)),
    ("reachable_by", "spec.reachableBy", ("",)),
    ("next_hop_mode", "spec.nextHopMode", ("", "Auto")),
    ("keep_original_next_hop", "spec.keepOriginalNextHop", (False,)),
    ("local_as_number", "spec.localASNumber", (None,)),
    ("num_allowed_local_as_numbers", "spec.numAllowedLocalASNumbers", (0,)),
    ("local_workload_selector", "spec.localWorkloadSelector", ("",)),
)
"""Attribute, path and the values that ask for nothing: a session that ignored such a demand would be another one than was asked for."""


@dataclass(slots=True)
class RoutingFacts:
    """The resources that routing depends on, by name."""

    nodes: dict[str, Node] = field(default_factory=dict)
    configurations: dict[str, BGPConfigurationSpec] = field(default_factory=dict)
    peers: dict[str, BGPPeerSpec] = field(default_factory=dict)
    pools: dict[str, IPPoolSpec] = field(default_factory=dict)
    blocks: dict[str, set[Prefix]] = field(default_factory=dict)
    """By host: its confirmed blocks."""


def bgp_intent(host: str, facts: RoutingFacts) -> tuple[BgpIntent | None, list[Problem]]:
    """What the host's BGP daemon shall do (None: run no session), and what is wrong with the resources that say so."""
    node = facts.nodes.get(host)
    if node is None or node.spec.bgp is None:
        return None, []
    planner = _Planner(host, facts)
    return planner.intent(), list(dict.fromkeys(planner.problems))


class _Planner:
    """Collects the sessions and problems of one host."""

    def __init__(self, host: str, facts: RoutingFacts) -> None:
        self.host = host
        self.facts = facts
        self.problems: list[Problem] = []
        self.sessions: dict[tuple[Prefix, int], PeerIntent] = {}
        self.addresses = self.addresses_of(host)

    def intent(self) -> BgpIntent:
        configuration = self.configuration(self.host)
        if not self.addresses:
            self.report(f"Node/{self.host}", "spec.bgp", "no address", "ipv4Address or ipv6Address, as in 172.18.0.2/24")
        for name, peer in sorted(self.facts.peers.items(), key=lambda item: (_scope(item[1]), item[0])):
            self.add_peer(name, peer)
        self.add_mesh()
        ipv4 = self.addresses.get(IPV4)
        return BgpIntent(
            host=self.host,
            as_number=self.as_number(self.host),
            router_id=ipv4.address if ipv4 else _router_id(self.host),
            ipv4=ipv4,
            ipv6=self.addresses.get(IPV6),
            listen_port=configuration.listen_port or DEFAULT_PORT,
            log_severity=configuration.log_severity_screen or "Info",
            peers=tuple(sorted(self.sessions.values(), key=lambda peer: peer.name)),
            blocks=tuple(sorted(self.facts.blocks.get(self.host, ()))),
            pools=tuple(self.pools()),
            ignored_interfaces=configuration.ignored_interfaces,
        )

    # --- facts about nodes ------------------------------------------------------------------------------------------

    def configuration(self, host: str) -> BGPConfigurationSpec:
        """``default`` overlaid by ``node.<host>``."""
        default = self.facts.configurations.get("default", BGPConfigurationSpec())
        own = self.facts.configurations.get(f"node.{host}")
        if own is None:
            return default
        unset = BGPConfigurationSpec()
        return BGPConfigurationSpec(
            **{
                name: getattr(default if getattr(own, name) == getattr(unset, name) else own, name)
                for name in BGPConfigurationSpec.__struct_fields__
            }
        )

    def as_number(self, host: str) -> int:
        node = self.facts.nodes[host]
        places = (
            (f"Node/{host}", "spec.bgp.asNumber", node.spec.bgp.as_number if node.spec.bgp else None),
            (f"BGPConfiguration/node.{host}", "spec.asNumber", self.configured_as(f"node.{host}")),
            ("BGPConfiguration/default", "spec.asNumber", self.configured_as("default")),
        )
        for source, path, value in places:
            if value is not None:
                number = self.readable_as(source, path, value)
                if number:
                    return number
        return DEFAULT_AS

    def configured_as(self, name: str) -> int | str | None:
        configuration = self.facts.configurations.get(name)
        return configuration.as_number if configuration else None

    def readable_as(self, source: str, path: str, value: int | str) -> int:
        """The number, or 0 when it is none."""
        try:
            return parse_as_number(value)
        except ValueError as error:
            self.report(source, path, value, str(error))
            return 0

    def addresses_of(self, host: str) -> dict[int, Prefix]:
        """The addresses that a node speaks BGP from, by family."""
        node = self.facts.nodes.get(host)
        found: dict[int, Prefix] = {}
        if node is None or node.spec.bgp is None:
            return found
        for family, text in ((IPV4, node.spec.bgp.ipv4_address), (IPV6, node.spec.bgp.ipv6_address)):
            if not text:
                continue
            try:
                address = parse_address(text.partition("/")[0])
            except ValueError:
                address = None
            if address is None or address.family != family:
                self.report(f"Node/{host}", f"spec.bgp.ipv{family}Address", text, f"an IPv{family} address with the length of its subnet")
            else:
                found[family] = address
        return found

    # --- sessions ---------------------------------------------------------------------------------------------------

    def add_mesh(self) -> None:
        default = self.facts.configurations.get("default", BGPConfigurationSpec())
        if default.node_to_node_mesh_enabled is False or self.reflector(self.host):
            return
        if default.node_mesh_password is not None:
            self.report("BGPConfiguration/default", "spec.nodeMeshPassword", "a password", "none: not supported; the mesh is left out")
            return
        restart_s = self.seconds(
            "BGPConfiguration/default", "spec.nodeMeshMaxRestartTime", default.node_mesh_max_restart_time, DEFAULT_RESTART_S
        )
        for name in sorted(self.facts.nodes):
            if not self.reflector(name):
                self.add_node("mesh", name, BGPPeerSpec(), restart_s, DEFAULT_KEEPALIVE_S, mesh=True)

    def reflector(self, host: str) -> bool:
        bgp = self.facts.nodes[host].spec.bgp
        return bgp is not None and bool(bgp.route_reflector_cluster_id)

    def add_peer(self, name: str, peer: BGPPeerSpec) -> None:
        source = f"BGPPeer/{name}"
        try:
            chosen = self.chosen(peer)
            remote = bool(peer.peer_selector) and parse(peer.peer_selector).evaluate(self.facts.nodes[self.host].metadata.labels)
            remote = remote and peer.reverse_peering != "Manual"
            if not (self.host in chosen or remote) or not self.acceptable(source, peer):
                return
            others: set[str] = set()
            if self.host in chosen and peer.peer_selector:
                others |= self.selected(peer.peer_selector)
            if remote:
                others |= chosen
        except SelectorError as error:
            self.report(source, "spec selectors", error.text, str(error))
            return
        restart_s = self.seconds(source, "spec.maxRestartTime", peer.max_restart_time, DEFAULT_RESTART_S)
        keepalive_s = self.seconds(source, "spec.keepaliveTime", peer.keepalive_time, DEFAULT_KEEPALIVE_S)
        if not peer.peer_selector:
            self.add_address(source, name, peer, restart_s, keepalive_s)
        for other in sorted(others):
            self.add_node(f"peer_{name}", other, peer, restart_s, keepalive_s, mesh=False)

    def chosen(self, peer: BGPPeerSpec) -> set[str]:
        """The nodes that a peering is for."""
        if peer.node:
            return {peer.node} if peer.node in self.facts.nodes else set()
        return self.selected(peer.node_selector) if peer.node_selector else set(self.facts.nodes)

    def selected(self, selector: str) -> set[str]:
        evaluate = parse(selector).evaluate
        return {name for name, node in self.facts.nodes.items() if evaluate(node.metadata.labels)}

    def acceptable(self, source: str, peer: BGPPeerSpec) -> bool:
        before = len(self.problems)
        if peer.node and peer.node_selector:
            self.report(source, "spec.nodeSelector", peer.node_selector, "node or nodeSelector, not both")
        for attribute, path, neutral in _UNSUPPORTED:
            value = getattr(peer, attribute)
            if value not in neutral:
                self.report(source, path, value, "nothing: not supported, so this peering is left out")
        if peer.peer_selector and (peer.peer_ip or peer.as_number is not None):
            self.report(source, "spec.peerSelector", peer.peer_selector, "peerSelector, or peerIP with asNumber, not both")
        elif not peer.peer_selector and not peer.local_workload_selector and not (peer.peer_ip and peer.as_number is not None):
            self.report(source, "spec", "no peer", "peerIP and asNumber, or peerSelector")
        return len(self.problems) == before

    def add_address(self, source: str, name: str, peer: BGPPeerSpec, restart_s: int, keepalive_s: int) -> None:
        try:
            text, port = parse_peer(peer.peer_ip)
        except ValueError:
            self.report(source, "spec.peerIP", peer.peer_ip, "an address, 10.0.0.1:1179 or [fd00::1]:1179")
            return
        number = self.readable_as(source, "spec.asNumber", peer.as_number or 0)
        address = parse_address(text)
        if not number or address == self.addresses.get(address.family):
            # A peering for all nodes does not make one of them its own peer.
            return
        if peer.source_address != "None" and address.family not in self.addresses:
            self.report(source, "spec.peerIP", peer.peer_ip, f"an address of a family that node {self.host} has")
            return
        self.add(_session(f"peer_{name}", address, port or DEFAULT_PORT, number, peer, restart_s, keepalive_s, mesh=False))

    def add_node(self, prefix: str, other: str, peer: BGPPeerSpec, restart_s: int, keepalive_s: int, *, mesh: bool) -> None:
        if other == self.host:
            return
        addresses = self.addresses_of(other)
        shared = [family for family in (IPV4, IPV6) if family in addresses and family in self.addresses]
        if not shared:
            return
        port = self.configuration(other).listen_port or DEFAULT_PORT
        number = self.as_number(other)
        for family in shared:
            name = f"{prefix}_{other}_ipv{family}"
            self.add(_session(name, addresses[family], port, number, peer, restart_s, keepalive_s, mesh=mesh))

    def add(self, session: PeerIntent) -> None:
        self.sessions.setdefault((session.address, session.port), session)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def pools(self) -> Iterator[PoolIntent]:
        for name, pool in sorted(self.facts.pools.items()):
            try:
                yield PoolIntent(name, parse_prefix(pool.cidr), pool.nat_outgoing, pool.disable_bgp_export)
            except ValueError:
                self.report(f"IPPool/{name}", "spec.cidr", pool.cidr, "a prefix, as in 10.65.0.0/16")

    def seconds(self, source: str, path: str, text: str, default: int) -> int:
        if not text:
            return default
        try:
            return max(1, round(parse_duration_s(text)))
        except ValueError:
            self.report(source, path, text, "a duration, as in 90s or 1m30s")
            return default

    def report(self, source: str, path: str, value: object, allowed: str) -> None:
        self.problems.append(Problem(path=path, value=repr(value)[:80], allowed=allowed, source=source))


def _session(
    name: str, address: Prefix, port: int, number: int, peer: BGPPeerSpec, restart_s: int, keepalive_s: int, *, mesh: bool
) -> PeerIntent:
    return PeerIntent(
        name=name,
        address=address,
        port=port,
        as_number=number,
        mesh=mesh,
        use_node_ip=peer.source_address != "None",
        bfd=not mesh and peer.failure_detection_mode != "None",
        max_restart_time_s=restart_s,
        keepalive_time_s=keepalive_s,
    )


def _scope(peer: BGPPeerSpec) -> int:
    if peer.node:
        return 0
    return 1 if peer.node_selector else 2


def _router_id(host: str) -> str:
    """A router id for a host without an IPv4 address: the same always, and not in 0.0.0.0/8."""
    digest = hashlib.blake2b(host.encode(), digest_size=4).digest()
    return ".".join(str(octet) for octet in (digest[0] or 1, *digest[1:]))
