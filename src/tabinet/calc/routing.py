"""``RoutingIndex``: keeps each host's BGP intent right as the resources about routing change.

A change that does not matter to routing (a node's other addresses, an affinity of a host that is not ours, an endpoint while no peering is
with workloads) costs nothing; an affinity or endpoint of ours costs one host's intent, any other change that of all our hosts:
O(hosts x (nodes + peers)). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.calc.bgp_options import ANNOTATIONS
from tabinet.calc.outbox import Outbox
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix
from tabinet.model.annotations import DRAIN
from tabinet.model.ipam import Affinity, AffinityState
from tabinet.model.keys import AffinityKey, ResourceKey
from tabinet.model.resources import BGPConfiguration, BGPFilter, BGPPeer, IPPool, Metadata, Node, WorkloadEndpoint

V = TypeVar("V")


def confirmed(value: object) -> bool:
    """True for an affinity that counts: the host owns the block."""
    return isinstance(value, Affinity) and value.state is AffinityState.CONFIRMED and not value.deleted


@dataclass(slots=True)
class RoutingIndex:
    """What routing depends on, and the hosts whose intent has to be worked out again."""

    hosts: frozenset[str]
    outbox: Outbox
    dirty: dict[str, None]
    facts: RoutingFacts = field(default_factory=RoutingFacts)
    _problems: dict[str, list[Problem]] = field(default_factory=dict)
    """By host."""

    def on_node_update(self, name: str, node: Node | None) -> None:
        old = self.facts.nodes.get(name)
        if node is not None and old is not None and _routing_part(old) == _routing_part(node):
            return
        self._set(self.facts.nodes, name, node)

    def on_configuration_update(self, name: str, configuration: BGPConfiguration | None) -> None:
        self._set(self.facts.configurations, name, configuration.spec if configuration else None)

    def on_peer_update(self, name: str, peer: BGPPeer | None) -> None:
        self._set(self.facts.peers, name, _peer_part(peer) if peer else None)

    def on_filter_update(self, name: str, bgp_filter: BGPFilter | None) -> None:
        self._set(self.facts.filters, name, bgp_filter.spec if bgp_filter else None)

    def on_pool_update(self, name: str, pool: IPPool | None) -> None:
        self._set(self.facts.pools, name, pool.spec if pool else None)

    def on_affinity_update(self, key: AffinityKey, value: object) -> None:
        """``value`` is the affinity, or None when it is gone."""
        if key.host not in self.hosts:
            return
        blocks: set[Prefix] = self.facts.blocks.setdefault(key.host, set())
        if confirmed(value) == (key.block in blocks):
            return
        blocks ^= {key.block}
        self.dirty[key.host] = None

    def on_endpoint_update(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        """Endpoints of other hosts are none of ours; one that moves leaves its old host."""
        host = endpoint.spec.node if endpoint is not None else ""
        for other, known in self.facts.endpoints.items():
            if other != host and known.pop(key, None) is not None:
                self._on_local_change(other)
        if endpoint is None or host not in self.hosts:
            return
        local = self.facts.endpoints.setdefault(host, {})
        if local.get(key) != endpoint:
            local[key] = endpoint
            self._on_local_change(host)

    def on_profile_update(self, name: str, labels: dict[str, str]) -> None:
        """``labels``: what endpoints inherit from the profile; empty also when it is gone."""
        if self.facts.profiles.get(name, {}) == labels:
            return
        if labels:
            self.facts.profiles[name] = labels
        else:
            del self.facts.profiles[name]
        for host, local in self.facts.endpoints.items():
            if any(name in endpoint.spec.profiles for endpoint in local.values()):
                self._on_local_change(host)

    def _on_local_change(self, host: str) -> None:
        if any(peer.spec.local_workload_selector for peer in self.facts.peers.values()):
            self.dirty[host] = None

    def _set(self, values: dict[str, V], name: str, value: V | None) -> None:
        if values.get(name) == value:
            return
        if value is None:
            del values[name]
        else:
            values[name] = value
        self.dirty.update(dict.fromkeys(self.hosts))

    def settle(self, limit: int) -> int:
        """Works out the intent of up to ``limit`` dirty hosts; gives how many."""
        if not self.dirty:
            return 0
        chosen = list(self.dirty)[:limit]
        for host in chosen:
            del self.dirty[host]
            intent, self._problems[host] = bgp_intent(host, self.facts)
            self.outbox.bgp.set_desired(host, intent)
        return len(chosen)

    def problems(self) -> list[Problem]:
        """What is wrong with the resources about routing, each once."""
        return list(dict.fromkeys(problem for host in sorted(self._problems) for problem in self._problems[host]))


def _routing_part(node: Node) -> tuple[object, ...]:
    return (node.spec.bgp, node.metadata.labels, node.metadata.annotations.get(DRAIN))


def _peer_part(peer: BGPPeer) -> BGPPeer:
    annotations = {name: text for name, text in peer.metadata.annotations.items() if name in ANNOTATIONS}
    return BGPPeer(metadata=Metadata(annotations=annotations), spec=peer.spec)
