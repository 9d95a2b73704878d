"""What the calculation must come to, said as plainly as possible: everything from scratch, from a dictionary of resources.

This is the executable specification of ``Graph``: whatever happened before, the sum of its messages equals ``recompute`` of the
current resources. No index, no memory, no order of events; every selector is judged against the labels of every endpoint by the
plain interpreter. Shared with the graph are only the pure translations of single resources (rules, labels, BGP intent). O(everything).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.calc.configuration import is_ready, overlay
from tabinet.calc.locals import build_endpoint, endpoint_labels, network_set_labels, network_set_profiles, programmable
from tabinet.calc.messages import Member, PortMember, SetKind
from tabinet.calc.policies import BUILT_IN_TIERS, PolicyFacts, arrange, describe_policy, translate_policy
from tabinet.calc.profiles import BUILT_IN_PROFILES, translate_profile
from tabinet.calc.replica import State
from tabinet.calc.routing import confirmed
from tabinet.calc.specs import SetSpec
from tabinet.calc.translate import Translation
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import AffinityKey, Key, ResourceKey
from tabinet.model.protocols import parse_protocol
from tabinet.model.resources import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    ClusterInformation,
    EndpointPort,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    IPPool,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    ProfileSpec,
    Tier,
    WorkloadEndpoint,
)
from tabinet.selector import matches

Resources = Mapping[Key, tuple[object, int]]
"""The current value of each key, with its revision."""


def recompute(resources: Resources, hosts: frozenset[str]) -> State:
    """All that the dataplanes and BGP daemons of these hosts shall know."""
    state = State()
    policies = _policies(resources)
    tiers = dict(BUILT_IN_TIERS) | {key.name: value.spec for key, value in _of(resources, Tier)}
    translations: dict[ResourceKey, Translation] = {}
    for key, (revision, endpoint) in _endpoints(resources, hosts).items():
        labels = _effective(resources, *_own(key, resources[key][0]))
        selecting = [facts for facts, _ in policies.values() if facts.scope is not None and matches(facts.scope, labels)]
        ingress, egress = arrange(selecting, tiers, "Ingress"), arrange(selecting, tiers, "Egress")
        state.endpoints[key] = (revision, build_endpoint(endpoint.spec, ingress, egress))
        for used in {name for tier in (*ingress, *egress) for name in tier.policies}:
            translations[used] = translate_policy(*policies[used])
            state.policies[used] = translations[used].policy
        for name in endpoint.spec.profiles:
            profile = _profile(resources, name)
            if profile is not None:
                translations[ResourceKey("Profile", name)] = translate_profile(name, profile)
                state.profiles[name] = translations[ResourceKey("Profile", name)].policy
    for translation in translations.values():
        for set_id, spec in translation.specs.items():
            state.sets[set_id] = (spec.kind, frozenset(_members(resources, spec)))
    _add_routing(state, resources, hosts)
    return state


T = TypeVar("T")


def _of(resources: Resources, kind: type[T]) -> list[tuple[ResourceKey, T]]:
    """The resources of a kind."""
    return [(key, value) for key, (value, _) in resources.items() if isinstance(key, ResourceKey) and isinstance(value, kind)]


def _policies(resources: Resources) -> dict[ResourceKey, tuple[PolicyFacts, NetworkPolicy | GlobalNetworkPolicy]]:
    found: list[tuple[ResourceKey, NetworkPolicy | GlobalNetworkPolicy]] = []
    found.extend(_of(resources, NetworkPolicy))
    found.extend(_of(resources, GlobalNetworkPolicy))
    return {key: (describe_policy(key, value), value) for key, value in found}


def _endpoints(resources: Resources, hosts: frozenset[str]) -> dict[ResourceKey, tuple[int, WorkloadEndpoint]]:
    """The endpoints to be programmed: of those that claim one interface, the one with the smallest key."""
    found: dict[ResourceKey, tuple[int, WorkloadEndpoint]] = {}
    taken: set[tuple[str, str]] = set()
    for key, value in sorted(_of(resources, WorkloadEndpoint), key=lambda item: item[0]):
        place = (value.spec.node, value.spec.interface_name)
        if value.spec.node in hosts and programmable(value.spec) and place not in taken:
            taken.add(place)
            found[key] = (resources[key][1], value)
    return found


def _profile(resources: Resources, name: str) -> ProfileSpec | None:
    value, _ = resources.get(ResourceKey("Profile", name), (None, 0))
    return value.spec if isinstance(value, Profile) else BUILT_IN_PROFILES.get(name)


def _own(key: ResourceKey, value: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Own labels and profiles of an endpoint or network set."""
    if isinstance(value, WorkloadEndpoint):
        return endpoint_labels(key, value), value.spec.profiles
    assert isinstance(value, NetworkSet | GlobalNetworkSet)
    return network_set_labels(key, value.metadata.labels), network_set_profiles(key)


def _effective(resources: Resources, own: dict[str, str], profiles: tuple[str, ...]) -> dict[str, str]:
    labels = dict(own)
    for name in profiles:
        spec = _profile(resources, name)
        for label, value in (spec.labels_to_apply if spec else {}).items():
            labels.setdefault(label, value)
    return labels


def _members(resources: Resources, spec: SetSpec) -> Iterator[Member]:
    for key, (value, _) in resources.items():
        if not isinstance(key, ResourceKey) or not isinstance(value, WorkloadEndpoint | NetworkSet | GlobalNetworkSet):
            continue
        if not matches(spec.selector.root, _effective(resources, *_own(key, value))):
            continue
        texts = value.spec.ip_networks if isinstance(value, WorkloadEndpoint) else value.spec.nets
        ports = value.spec.ports if isinstance(value, WorkloadEndpoint) else ()
        for text in texts:
            try:
                prefix = parse_prefix(text)
            except ValueError:
                continue
            if spec.kind is SetKind.NETS:
                yield prefix
            else:
                yield from (PortMember(prefix, spec.protocol, port.port) for port in ports if _named(port, spec))


def _named(port: EndpointPort, spec: SetSpec) -> bool:
    try:
        return port.name == spec.port_name and parse_protocol(port.protocol) == spec.protocol
    except ValueError:
        return False


def _add_routing(state: State, resources: Resources, hosts: frozenset[str]) -> None:
    facts = RoutingFacts(
        nodes={key.name: value for key, value in _of(resources, Node)},
        configurations={key.name: value.spec for key, value in _of(resources, BGPConfiguration)},
        peers={key.name: value for key, value in _of(resources, BGPPeer)},
        filters={key.name: value.spec for key, value in _of(resources, BGPFilter)},
        pools={key.name: value.spec for key, value in _of(resources, IPPool)},
    )
    for key, (value, _) in resources.items():
        if isinstance(key, AffinityKey) and confirmed(value):
            facts.blocks.setdefault(key.host, set()).add(key.block)
    for name, endpoint in _of(resources, WorkloadEndpoint):
        facts.endpoints.setdefault(endpoint.spec.node, {})[name] = endpoint
    configurations = {key.name: value.spec for key, value in _of(resources, FelixConfiguration)}
    for host in hosts:
        state.bgp[host], _ = bgp_intent(host, facts)
        state.config[host] = overlay(configurations, host)
    information, _ = resources.get(ResourceKey("ClusterInformation", "default"), (None, 0))
    state.ready = is_ready(information if isinstance(information, ClusterInformation) else None)
