"""Short ways to write resources, and a fabric that holds graph, replica and resources together."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import Update
from tabinet.calc.naive import recompute
from tabinet.calc.replica import RESERVED_SETS, Replica, State
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import (
    EndpointPort,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    Profile,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)

Item = tuple[Key, object]


def nets(*texts: str) -> frozenset[Prefix]:
    return frozenset(parse_prefix(text) for text in texts)


def endpoint(
    name: str,
    address: str = "",
    *,
    host: str = "h1",
    namespace: str = "shop",
    labels: dict[str, str] | None = None,
    profiles: tuple[str, ...] = (),
    interface: str | None = None,
    ports: tuple[EndpointPort, ...] = (),
    account: str = "",
) -> Item:
    spec = WorkloadEndpointSpec(
        node=host,
        orchestrator="k8s",
        ip_networks=tuple(address.split()),
        profiles=profiles,
        interface_name=f"cali{name}" if interface is None else interface,
        ports=ports,
        service_account_name=account,
    )
    return ResourceKey("WorkloadEndpoint", name, namespace), WorkloadEndpoint(metadata=Metadata(labels=labels or {}), spec=spec)


def policy(name: str, *, namespace: str = "shop", **spec: object) -> Item:
    return ResourceKey("NetworkPolicy", name, namespace), NetworkPolicy(spec=NetworkPolicySpec(**spec))


def global_policy(name: str, **spec: object) -> Item:
    return ResourceKey("GlobalNetworkPolicy", name), GlobalNetworkPolicy(spec=GlobalNetworkPolicySpec(**spec))


def profile(name: str, *rules: Rule, labels: dict[str, str] | None = None) -> Item:
    return ResourceKey("Profile", name), Profile(spec=ProfileSpec(ingress=rules, egress=rules, labels_to_apply=labels or {}))


def allow(**source: object) -> Rule:
    return Rule(action="Allow", source=EntityRule(**source))


@dataclass
class Fabric:
    """A graph, who listens to it, and what it was told."""

    hosts: frozenset[str] = frozenset({"h1"})
    resources: dict[Key, tuple[object, int]] = field(default_factory=dict)
    revision: int = 0

    def __post_init__(self) -> None:
        self.graph = Graph(self.hosts)
        self.replica = Replica()
        self.graph.on_input(InSync())
        self.flush()

    @property
    def state(self) -> State:
        return self.replica.state

    def put(self, *items: Item) -> list[Update]:
        """Tells the graph, flushes, and gives the messages."""
        self.tell(*items)
        return self.flush()

    def tell(self, *items: Item) -> None:
        for key, value in items:
            self.revision += 1
            self.resources[key] = (value, self.revision)
            self.graph.on_input(Put(key, value, self.revision))

    def delete(self, *items: Item) -> list[Update]:
        for key, _ in items:
            del self.resources[key]
            self.graph.on_input(Delete(key))
        return self.flush()

    def flush(self, limit: int = sys.maxsize) -> list[Update]:
        """The next messages, applied; after a whole flush the state is what the specification says."""
        told = self.graph.flush(limit)
        for update in told:
            self.replica.apply(update)
        if limit == sys.maxsize:
            assert self.state == recompute(self.resources, self.hosts)
        return told

    def members(self) -> list[frozenset[object]]:
        """The members of all sets that rules ask for, smallest first."""
        return sorted((members for name, (_, members) in self.state.sets.items() if name not in RESERVED_SETS), key=len)

    def sets(self) -> list[str]:
        """The ids of the sets that rules ask for."""
        return [name for name in self.state.sets if name not in RESERVED_SETS]

    def problems(self) -> list[str]:
        return [str(problem) for problem in self.graph.problems()]
