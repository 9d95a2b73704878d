"""``Graph``: from changes of resources to what the dataplane and BGP of our hosts shall do, with work that follows the change.

In: ``on_input`` with the changes, in any order, repeated or not. Out: ``flush`` with the messages of ``messages.py``. The nodes of the
graph are plain objects that call each other; this one joins them:

    migrations, arrivals -> moves ......................................... which endpoints are away
    endpoints, records of holders -> holders .............................. who has an address that several may have
    endpoints, network sets, profiles -> members (-> labels) .............. members of active sets -> outbox
    profiles, tiers, policies, local endpoints -> locals -> activation .... rules in use, sets in use -> outbox
    nodes, host endpoints -> autohosts .................................... endpoints, as above
    nodes, pools -> reserved .............................................. sets that are always there -> outbox
    nodes, BGP, pools, affinities -> routing; configurations -> configuration ...................... -> outbox
    nodes, pools, affinities, endpoints -> remote ......................... tunnels, routes through them -> outbox

``on_input`` files a change and marks what depends on it; what one endpoint brings to active sets it does at once. ``work`` settles what is
marked, in the order policies, endpoints, rules, sets, members, routing, so that each is looked at once however many changes touched it.
Several hosts are served by one graph; sets, policies and profiles are told once if any of the hosts needs them.

Invariants: what was told, all in all, is a function of the current resources (``naive`` says which); nothing is told before ``InSync``;
messages never refer to what was not told before. Pure and synchronous; not thread-safe. Does not decode, log or wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Container
from itertools import islice
from typing import Any

from tabinet.calc.activation import Activation
from tabinet.calc.autohosts import HostEndpointIndex, template_problems
from tabinet.calc.carriers import NOWHERE
from tabinet.calc.configuration import ConfigurationIndex
from tabinet.calc.endpoints import (
    build_endpoint,
    build_host_endpoint,
    endpoint_origin,
    network_set_origin,
    network_set_profiles,
    shared_addresses,
)
from tabinet.calc.holders import HolderIndex, endpoint_of
from tabinet.calc.inputs import Input, InSync, Put
from tabinet.calc.labels import LabelIndex
from tabinet.calc.locals import LocalEndpoint, LocalIndex
from tabinet.calc.members import MemberIndex
from tabinet.calc.messages import Migration, SetDelta, SetUpdate, Update
from tabinet.calc.moves import MoveIndex
from tabinet.calc.outbox import Outbox
from tabinet.calc.policies import Arrangement, PolicyIndex
from tabinet.calc.policyfacts import EnforcedPolicy, PolicyResource, translate_policy
from tabinet.calc.ports import port_needs
from tabinet.calc.profiles import ProfileIndex, profile_key, translate_profile
from tabinet.calc.remote import RemoteIndex
from tabinet.calc.reserved import ReservedSets
from tabinet.calc.routing import RoutingIndex, confirmed
from tabinet.calc.staged import StagedEffect, staged_effects
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix
from tabinet.model import resources
from tabinet.model.arrivals import Arrival
from tabinet.model.holders import Holder
from tabinet.model.keys import AffinityKey, ArrivalKey, HolderKey, ResourceKey

ASKED = 250
"""So many local endpoints are asked in a unit of work whether a policy selects them."""

TOLD_MEMBERS = 250
"""So many members of sets are told in the time of another message."""

ARRANGED = 16
"""So many policies of an endpoint are arranged or counted in a unit of work."""

Take = Callable[[ResourceKey, Any, int], None]
"""Takes the new value of a resource, None when it is gone, and its revision. The value is a record of the kind that the taker is for."""


SETTLED_TOGETHER = 1000
"""Endpoints that are chosen at once."""


class Graph:
    """The calculation for a set of hosts; ``routed`` are those of which routes, tunnels and sessions are worked out (None: all).

    ``chosen``: of their workload endpoints only these are local (None: all). Who adds one later tells it again.
    """

    __slots__ = (
        "_activation",
        "_chosen",
        "_configuration",
        "_holders",
        "_host_endpoints",
        "_hosts",
        "_in_sync",
        "_locals",
        "_members",
        "_moves",
        "_outbox",
        "_policies",
        "_profiles",
        "_remote",
        "_reserved",
        "_routing",
        "_rules",
        "_takers",
    )

    def __init__(self, hosts: frozenset[str], routed: frozenset[str] | None = None, chosen: Container[ResourceKey] | None = None) -> None:
        routed = hosts if routed is None else routed
        self._hosts = hosts
        self._chosen = chosen
        self._in_sync = False
        self._outbox = Outbox()
        self._members = MemberIndex(LabelIndex(), self._outbox)
        self._policies = PolicyIndex()
        self._profiles = ProfileIndex()
        self._locals = LocalIndex()
        self._host_endpoints = HostEndpointIndex()
        self._moves = MoveIndex()
        self._holders = HolderIndex()
        self._activation = Activation(self._members, self._outbox)
        self._routing = RoutingIndex(routed, self._outbox, dirty=dict.fromkeys(sorted(routed)))
        self._remote = RemoteIndex(routed, self._outbox)
        self._reserved = ReservedSets(self._outbox)
        self._reserved.start()
        self._configuration = ConfigurationIndex(hosts, self._outbox)
        self._configuration.start()
        self._rules: dict[ResourceKey, None] = {}
        """Policies of which it has to be looked at again whether they are in use, and with which rules."""
        self._takers: dict[str, tuple[type, Take]] = {
            "WorkloadEndpoint": (resources.WorkloadEndpoint, self._on_endpoint_update),
            "LiveMigration": (resources.LiveMigration, self._on_migration_update),
            "HostEndpoint": (resources.HostEndpoint, self._on_host_endpoint_update),
            "NetworkSet": (resources.NetworkSet, self._on_network_set_update),
            "GlobalNetworkSet": (resources.GlobalNetworkSet, self._on_network_set_update),
            "NetworkPolicy": (resources.NetworkPolicy, self._on_policy_update),
            "GlobalNetworkPolicy": (resources.GlobalNetworkPolicy, self._on_policy_update),
            "StagedNetworkPolicy": (resources.StagedNetworkPolicy, self._on_policy_update),
            "StagedGlobalNetworkPolicy": (resources.StagedGlobalNetworkPolicy, self._on_policy_update),
            "StagedKubernetesNetworkPolicy": (resources.StagedKubernetesNetworkPolicy, self._on_policy_update),
            "Profile": (resources.Profile, self._on_profile_update),
            "Tier": (resources.Tier, self._on_tier_update),
            "Node": (resources.Node, self._on_node_update),
            "IPPool": (resources.IPPool, self._on_pool_update),
            "BGPConfiguration": (resources.BGPConfiguration, self._on_bgp_configuration_update),
            "BGPPeer": (resources.BGPPeer, self._on_bgp_peer_update),
            "BGPFilter": (resources.BGPFilter, self._on_bgp_filter_update),
            "FelixConfiguration": (resources.FelixConfiguration, self._on_felix_configuration_update),
            "ClusterInformation": (resources.ClusterInformation, self._on_cluster_update),
            "KubeControllersConfiguration": (resources.KubeControllersConfiguration, self._on_controllers_update),
        }
        """By kind; kinds that have no part in the calculation are not here."""

    @property
    def kinds(self) -> list[str]:
        """The kinds of resources that have a part in the calculation, sorted."""
        return sorted(self._takers)

    # --- in ---------------------------------------------------------------------------------------------------------

    def on_input(self, item: Input) -> None:
        """The change is taken in; cheap, all the more before ``InSync``.

        Raises:
            TypeError: the value of a Put is not a record of the key's kind.
        """
        if isinstance(item, InSync):
            self._in_sync = True
            return
        key = item.key
        value, revision = (item.value, item.revision) if isinstance(item, Put) else (None, 0)
        if isinstance(key, ResourceKey):
            taker = self._takers.get(key.kind)
            if taker is not None:
                kind, take = taker
                if value is not None and not isinstance(value, kind):
                    raise TypeError(f"{key} has a value of {type(value).__name__}, not {kind.__name__}")
                take(key, value, revision)
        elif isinstance(key, AffinityKey):
            self._routing.on_affinity_update(key, value)
            self._remote.on_affinity_update(key, confirmed(value))
        elif isinstance(key, ArrivalKey):
            self._look_at_ends(self._moves.on_arrival_update(key, value if isinstance(value, Arrival) else None))
        elif isinstance(key, HolderKey):
            holder = value if isinstance(value, Holder) else None
            has = self._nets_here(endpoint_of(holder)) if holder is not None else ()
            self._look_at_sharing(self._holders.on_holder_update(key.address, holder, has))

    # --- endpoints and network sets ---

    def _on_endpoint_update(self, key: ResourceKey, resource: resources.WorkloadEndpoint | None, revision: int) -> None:
        self._remote.on_endpoint_update(key, resource)
        self._look_at_holder(key)
        if resource is None:
            self._members.delete(key)
            self._on_not_local(key)
            return
        spec = resource.spec
        self._members.put(key, endpoint_origin(key, spec), resource.metadata.labels, spec.profiles, spec.ip_networks, spec.ports)
        if spec.node not in self._hosts or (self._chosen is not None and key not in self._chosen):
            self._on_not_local(key)
            return
        self._routing.on_endpoint_update(key, resource)
        needs = port_needs(resource.metadata.annotations, str(key))
        if self._locals.put(key, spec, revision, self._members.labels_of(key), needs):
            self._policies.enter_namespace(key.namespace)

    def _on_migration_update(self, key: ResourceKey, resource: resources.LiveMigration | None, revision: int) -> None:
        self._look_at_ends(self._moves.on_migration_update(key, resource))

    def _look_at_ends(self, endpoints: set[ResourceKey]) -> None:
        for key in endpoints:
            self._remote.set_away(key, self._moves.is_away(key))
            self._look_at_holder(key)
            self._locals.touch(key)

    def _look_at_holder(self, key: ResourceKey) -> None:
        if self._holders.names(key):
            self._look_at_sharing(self._holders.on_endpoint_update(key, self._nets_here(key)))

    def _nets_here(self, key: ResourceKey) -> frozenset[Prefix]:
        return frozenset() if self._moves.is_away(key) else self._remote.nets_of(key)

    def _look_at_sharing(self, addresses: Collection[Prefix]) -> None:
        for address in addresses:
            self._remote.set_holder(address, self._holders.holder(address))
            self._locals.touch_sharing(address)

    def _on_not_local(self, key: ResourceKey) -> None:
        if self._locals.delete(key) and key.namespace:
            self._routing.on_endpoint_update(key, None)
            self._policies.leave_namespace(key.namespace)

    def _on_host_endpoint_update(self, key: ResourceKey, resource: resources.HostEndpoint | None, revision: int) -> None:
        self._host_endpoints.on_endpoint_update(key.name, resource, revision)
        self._take_host_endpoint(key)

    def _take_host_endpoint(self, key: ResourceKey) -> None:
        found = self._host_endpoints.get(key.name)
        if found is None:
            self._members.delete(key)
            self._on_not_local(key)
            return
        resource, revision = found
        spec = resource.spec
        self._members.put(key, NOWHERE, resource.metadata.labels, spec.profiles, spec.expected_ips, spec.ports)
        if spec.node in self._hosts:
            self._locals.put(key, spec, revision, self._members.labels_of(key))
        else:
            self._on_not_local(key)

    def _on_network_set_update(
        self, key: ResourceKey, resource: resources.NetworkSet | resources.GlobalNetworkSet | None, revision: int
    ) -> None:
        if resource is None:
            self._members.delete(key)
        else:
            labels = resource.metadata.labels
            self._members.put_network_set(key, network_set_origin(key), labels, network_set_profiles(key), resource.spec.nets)

    def knows_endpoint(self, key: ResourceKey) -> bool:
        """True: there is a workload endpoint of this key, on whichever host, in what was put in so far. O(1)."""
        return self._remote.knows_endpoint(key)

    # --- policies, profiles, tiers ---

    def _on_policy_update(self, key: ResourceKey, resource: PolicyResource | None, revision: int) -> None:
        self._policies.put(key, resource)

    def _on_profile_update(self, key: ResourceKey, resource: resources.Profile | None, revision: int) -> None:
        name, spec = key.name, None if resource is None else resource.spec
        self._members.set_profile(name, {} if spec is None else spec.labels_to_apply)
        for local in self._locals.with_profile(name):
            self._locals.relabel(local, self._members.labels_of(local.key))
        self._profiles.put(name, spec)
        self._routing.on_profile_update(name, {} if spec is None else spec.labels_to_apply)

    def _on_tier_update(self, key: ResourceKey, resource: resources.Tier | None, revision: int) -> None:
        if self._policies.set_tier(key.name, None if resource is None else resource.spec):
            self._locals.forget_matches()

    # --- hosts, routing, configuration ---

    def _on_node_update(self, key: ResourceKey, resource: resources.Node | None, revision: int) -> None:
        self._routing.on_node_update(key.name, resource)
        self._remote.on_node_update(key.name, resource)
        self._look_at_ends(self._moves.on_host_update(key.name))
        self._locals.on_host_update(key.name)
        self._reserved.on_node_update(key.name, resource)
        for endpoint in self._host_endpoints.on_node_update(key.name, resource, revision):
            self._take_host_endpoint(endpoint)

    def _on_controllers_update(self, key: ResourceKey, resource: resources.KubeControllersConfiguration | None, revision: int) -> None:
        if key.name == "default":
            for endpoint in self._host_endpoints.on_configuration_update(resource):
                self._take_host_endpoint(endpoint)

    def _on_pool_update(self, key: ResourceKey, resource: resources.IPPool | None, revision: int) -> None:
        self._routing.on_pool_update(key.name, resource)
        self._remote.on_pool_update(key.name, resource)
        self._reserved.on_pool_update(key.name, resource)

    def _on_bgp_configuration_update(self, key: ResourceKey, resource: resources.BGPConfiguration | None, revision: int) -> None:
        self._routing.on_configuration_update(key.name, resource)

    def _on_bgp_peer_update(self, key: ResourceKey, resource: resources.BGPPeer | None, revision: int) -> None:
        self._routing.on_peer_update(key.name, resource)

    def _on_bgp_filter_update(self, key: ResourceKey, resource: resources.BGPFilter | None, revision: int) -> None:
        self._routing.on_filter_update(key.name, resource)

    def _on_felix_configuration_update(self, key: ResourceKey, resource: resources.FelixConfiguration | None, revision: int) -> None:
        self._configuration.on_configuration_update(key.name, resource)

    def _on_cluster_update(self, key: ResourceKey, resource: resources.ClusterInformation | None, revision: int) -> None:
        if key.name == "default":
            self._configuration.on_cluster_update(resource)

    # --- work -------------------------------------------------------------------------------------------------------

    def work(self, budget: int = sys.maxsize) -> bool:
        """Settles up to ``budget`` units; True when nothing is left to settle.

        A unit is a policy, an endpoint, a set, or a handful of carriers or members: 20 to 100 microseconds, whatever the size of the
        fabric. A host's routing is one unit, too, though it takes longer the more nodes there are. A caller that has other things to do
        calls this with a small budget until it is True, then ``flush``.
        """
        if not self._in_sync:
            return True
        for settle in (
            self._settle_policies,
            self._settle_endpoints,
            self._settle_rules,
            self._activation.settle_sets,
            self._members.settle,
            self._routing.settle,
            self._remote.settle,
        ):
            budget -= settle(budget)
            if budget <= 0:
                return False
        return True

    def _settle_policies(self, limit: int) -> int:
        unread = self._policies.unread
        if not unread:
            return 0
        # Reading one asks every local endpoint.
        weight = 1 + len(self._locals.by_key) // ASKED
        chosen = list(islice(unread, max(1, limit // weight)))
        for key in chosen:
            old, new = self._policies.read(key, unread.pop(key))
            self._locals.on_policy_read(old, new)
            if old is not None and old.users:
                self._rules[key] = None
        return weight * len(chosen)

    def _settle_endpoints(self, limit: int) -> int:
        done = 0
        while done < limit and self._locals.gone:
            local = self._locals.gone.popitem()[0]
            self._locals.own_nats(local, programmed=False)
            self._retire(local)
            done += 1
        # One that gains or loses a floating address makes others dirty, at most once each.
        dirty = self._locals.dirty
        while done < limit and dirty:
            # Many at a time: to find the first one is O(those that were taken before).
            for local in list(islice(dirty, min(limit - done, SETTLED_TOGETHER))):
                del dirty[local]
                done += self._settle_endpoint(local)
                if done >= limit:
                    break
        return done

    def _settle_endpoint(self, local: LocalEndpoint) -> int:
        """The endpoint is programmed as it should be; gives the units of work that it took."""
        programmed = self._locals.is_programmed(local)
        nats = self._locals.own_nats(local, programmed)
        if not programmed:
            self._retire(local)
            return 1
        before = local.arrangement
        if local.match is None:
            local.match = self._policies.match(local.labels)
            self._locals.is_matched = True
        if isinstance(local.spec, resources.HostEndpointSpec):
            arrangement = self._policies.for_hosts(local.match)
            host_endpoint = build_host_endpoint(local.spec, arrangement.parts)
            self._outbox.host_endpoints.set_desired(local.key, (local.revision, host_endpoint))
            self._count(local, arrangement, host_endpoint.profiles)
        else:
            arrangement = self._policies.for_workloads(local.match)
            migration = self._moves.get(local.key, self._remote.addresses_of)
            yields, addresses_of = self._yields(local, migration), self._remote.addresses_of
            endpoint = build_endpoint(local.spec, arrangement.parts, nats, local.needs, migration, yields, addresses_of)
            self._outbox.endpoints.set_desired(local.key, (local.revision, endpoint))
            self._count(local, arrangement, endpoint.profiles)
        return 1 if arrangement is before else 1 + len(arrangement.enforced) // ARRANGED

    def _yields(self, local: LocalEndpoint, migration: Migration | None) -> tuple[Prefix, ...]:
        """The addresses that another machine holds: not the same one at the other end of its migration."""
        shared = shared_addresses(local.spec) if isinstance(local.spec, resources.WorkloadEndpointSpec) else ()
        own = (None, local.key, migration.other_end if migration is not None else None)
        return tuple(address for address in shared if self._holders.holder(address) not in own)

    def _retire(self, local: LocalEndpoint) -> None:
        """The endpoint is not programmed (any more)."""
        if local.key.kind == "HostEndpoint":
            self._outbox.host_endpoints.drop_desired(local.key)
        else:
            self._outbox.endpoints.drop_desired(local.key)
        self._count(local, None, ())

    def _count(self, local: LocalEndpoint, arrangement: Arrangement | None, profiles: tuple[str, ...]) -> None:
        """The endpoint uses these policies and profiles now, instead of those that it used before."""
        before = local.arrangement
        if arrangement is not before:
            if arrangement is not None:
                arrangement.users += 1
                if arrangement.users == 1:
                    for entry in arrangement.enforced:
                        entry.users += 1
                        if entry.users == 1:
                            self._rules[entry.facts.key] = None
            if before is not None:
                before.users -= 1
                if not before.users:
                    for entry in before.enforced:
                        entry.users -= 1
                        if not entry.users:
                            self._rules[entry.facts.key] = None
            local.arrangement = arrangement
        if profiles != local.profiles:
            self._profiles.count(profiles, 1)
            self._profiles.count(local.profiles, -1)
            local.profiles = profiles

    def _settle_rules(self, limit: int) -> int:
        if not (self._rules or self._profiles.dirty):
            return 0
        policies = list(islice(self._rules, limit))
        for key in policies:
            del self._rules[key]
            entry = self._policies.entries.get(key)
            if entry is not None and entry.users:
                self._activation.use(key, translate_policy(entry.facts, entry.resource))
            else:
                self._activation.disuse(key)
        profiles = list(islice(self._profiles.dirty, limit - len(policies)))
        for name in profiles:
            del self._profiles.dirty[name]
            spec = self._profiles.in_use(name)
            if spec is not None:
                self._activation.use(profile_key(name), translate_profile(name, spec))
            else:
                self._activation.disuse(profile_key(name))
        return len(policies) + len(profiles)

    # --- out --------------------------------------------------------------------------------------------------------

    def flush(self, limit: int = sys.maxsize) -> list[Update]:
        """Settles what is left and gives the next messages; empty when everything was told, or before ``InSync``.

        They are at most ``limit``, of which a set with many members takes up several. After a flush that was cut the next one goes on,
        with whatever changed in between; the order still holds.
        """
        if not self._in_sync:
            return []
        self.work()
        told: list[Update] = []
        room = limit
        while True:
            # Not before: a set that only changes hands until it is told stays as it is.
            retired = self._activation.retire_sets(room)
            for update in self._outbox.messages():
                told.append(update)
                room -= 1 + _members_of(update) // TOLD_MEMBERS
                if room <= 0:
                    return told
            if not retired:
                return told

    def problems(self) -> list[Problem]:
        """What is wrong with resources, beyond their own documents, as far as our hosts are concerned; as of the last ``work``.

        A policy or profile whose rules cannot be enforced, a tier or profile that does not exist, an interface or address that
        two endpoints claim, a peering that makes no sense. O(local endpoints + rules in use).
        """
        return [
            *self._policies.problems(),
            *self._activation.problems(),
            *self._locals.problems(self._profiles.specs),
            *template_problems(self._host_endpoints.asked),
            *self._routing.problems(),
        ]

    def written_rules(self, key: ResourceKey, *, ingress: bool) -> tuple[resources.Rule, ...]:
        """The rules of an enforced policy or profile as they were written; none of one that does not exist."""
        if key.kind == "Profile":
            profile = self._profiles.specs.get(key.name)
            return () if profile is None else tuple((profile.ingress if ingress else profile.egress) or ())
        entry = self._policies.entries.get(key)
        if entry is None or not isinstance(entry.resource, EnforcedPolicy):
            return ()
        return tuple((entry.resource.spec.ingress if ingress else entry.resource.spec.egress) or ())

    def staged(self) -> list[StagedEffect]:
        """What each staged policy would come to on our hosts; as of the last ``work``. See ``staged.staged_effects``."""
        return staged_effects(self._policies, self._locals.by_key.values())


def _members_of(update: Update) -> int:
    """How many members of sets the message tells of."""
    match update:
        case SetUpdate():
            return len(update.members)
        case SetDelta():
            return len(update.added) + len(update.removed)
        case _:
            return 0
