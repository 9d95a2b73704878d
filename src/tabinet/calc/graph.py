"""``Graph``: from changes of resources to what the dataplane and BGP of our hosts shall do, with work that follows the change.

In: ``on_input`` with the changes, in any order, repeated or not. Out: ``flush`` with the messages of ``messages.py``. The nodes of the
graph are plain objects that call each other; this one joins them:

    endpoints, network sets -> members (-> labels) ........................ members of active sets -> outbox
    profiles, tiers, policies, local endpoints -> locals -> activation .... rules in use, sets in use -> outbox
    nodes, BGP, pools, affinities -> routing; configurations -> configuration ...................... -> outbox

``on_input`` files a change and marks what depends on it; it does the members of active sets at once. ``work`` settles what is marked,
in the order policies, endpoints, rules, sets, routing, so that each is looked at once however many changes touched it. Several hosts are
served by one graph; sets, policies and profiles are told once if any of the hosts needs them.

Invariants: what was told, all in all, is a function of the current resources (``naive`` says which); nothing is told before ``InSync``;
messages never refer to what was not told before. Pure and synchronous; not thread-safe. Does not decode, log or wait.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from tabinet.calc.activation import Activation
from tabinet.calc.configuration import ConfigurationIndex
from tabinet.calc.inputs import Delete, Input, InSync, Put
from tabinet.calc.labels import LabelClass, LabelIndex
from tabinet.calc.locals import (
    LocalEndpoint,
    LocalIndex,
    build_endpoint,
    endpoint_labels,
    network_set_labels,
    network_set_profiles,
)
from tabinet.calc.members import MemberIndex
from tabinet.calc.messages import Update
from tabinet.calc.outbox import Outbox
from tabinet.calc.policies import PolicyEntry, PolicyIndex, PolicyResource, translate_policy
from tabinet.calc.profiles import ProfileIndex, profile_key, translate_profile
from tabinet.calc.routing import RoutingIndex
from tabinet.errors import Problem
from tabinet.model import resources
from tabinet.model.keys import AffinityKey, Key, ResourceKey

T = TypeVar("T")


class Graph:
    """The calculation for a set of hosts."""

    __slots__ = (
        "_activation",
        "_configuration",
        "_hosts",
        "_in_sync",
        "_locals",
        "_members",
        "_outbox",
        "_policies",
        "_profiles",
        "_routing",
        "_rules",
        "_unread",
    )

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts
        self._in_sync = False
        self._outbox = Outbox()
        self._members = MemberIndex(LabelIndex(), self._outbox)
        self._policies = PolicyIndex()
        self._profiles = ProfileIndex()
        self._locals = LocalIndex()
        self._activation = Activation(self._members, self._outbox)
        self._routing = RoutingIndex(hosts, self._outbox, dirty=dict.fromkeys(sorted(hosts)))
        self._configuration = ConfigurationIndex(hosts, self._outbox)
        self._configuration.start()
        self._unread: dict[ResourceKey, PolicyResource | None] = {}
        """Policies that changed and were not looked at yet."""
        self._rules: dict[ResourceKey, None] = {}
        """Policies of which it has to be looked at again whether they are in use, and with which rules."""

    # --- in ---------------------------------------------------------------------------------------------------------

    def on_input(self, item: Input) -> None:
        """The change is taken in; cheap, all the more before ``InSync``.

        Raises:
            TypeError: the value of a Put is not a record of the key's kind.
        """
        match item:
            case Put(key, value, revision):
                self._on_value(key, value, revision)
            case Delete(key):
                self._on_value(key, None, 0)
            case InSync():
                self._in_sync = True

    def _on_value(self, key: Key, value: object, revision: int) -> None:
        match key:
            case ResourceKey("WorkloadEndpoint"):
                self._on_endpoint_update(key, _record(key, value, resources.WorkloadEndpoint), revision)
            case ResourceKey("NetworkSet"):
                self._on_network_set_update(key, _record(key, value, resources.NetworkSet))
            case ResourceKey("GlobalNetworkSet"):
                self._on_network_set_update(key, _record(key, value, resources.GlobalNetworkSet))
            case ResourceKey("NetworkPolicy"):
                self._unread[key] = _record(key, value, resources.NetworkPolicy)
            case ResourceKey("GlobalNetworkPolicy"):
                self._unread[key] = _record(key, value, resources.GlobalNetworkPolicy)
            case ResourceKey("Profile", name):
                self._on_profile_update(name, _record(key, value, resources.Profile))
            case ResourceKey("Tier", name):
                self._on_tier_update(name, _record(key, value, resources.Tier))
            case _:
                self._on_routing_value(key, value)

    def _on_routing_value(self, key: Key, value: object) -> None:
        match key:
            case AffinityKey():
                self._routing.on_affinity_update(key, value)
            case ResourceKey("Node", name):
                self._routing.on_node_update(name, _record(key, value, resources.Node))
            case ResourceKey("BGPConfiguration", name):
                self._routing.on_configuration_update(name, _record(key, value, resources.BGPConfiguration))
            case ResourceKey("BGPPeer", name):
                self._routing.on_peer_update(name, _record(key, value, resources.BGPPeer))
            case ResourceKey("BGPFilter", name):
                self._routing.on_filter_update(name, _record(key, value, resources.BGPFilter))
            case ResourceKey("IPPool", name):
                self._routing.on_pool_update(name, _record(key, value, resources.IPPool))
            case ResourceKey("FelixConfiguration", name):
                self._configuration.on_configuration_update(name, _record(key, value, resources.FelixConfiguration))
            case ResourceKey("ClusterInformation", "default"):
                self._configuration.on_cluster_update(_record(key, value, resources.ClusterInformation))
            case _:
                # Blocks, handles and kinds that have no part in the calculation.
                pass

    def _on_endpoint_update(self, key: ResourceKey, resource: resources.WorkloadEndpoint | None, revision: int) -> None:
        self._routing.on_endpoint_update(key, resource)
        if resource is None:
            self._members.delete(key)
            self._locals.delete(key)
            return
        spec = resource.spec
        joined = self._members.put(key, endpoint_labels(key, resource), spec.profiles, spec.ip_networks, spec.ports)
        if spec.node in self._hosts:
            self._locals.put(key, spec, revision, joined)
        else:
            self._locals.delete(key)

    def _on_network_set_update(self, key: ResourceKey, resource: resources.NetworkSet | resources.GlobalNetworkSet | None) -> None:
        if resource is None:
            self._members.delete(key)
        else:
            labels = network_set_labels(key, resource.metadata.labels)
            self._members.put(key, labels, network_set_profiles(key), resource.spec.nets, ())

    def _on_profile_update(self, name: str, resource: resources.Profile | None) -> None:
        spec = None if resource is None else resource.spec
        changed = self._members.set_profile(name, {} if spec is None else spec.labels_to_apply)
        self._forget_policies([each for each in changed if each.locals])
        self._profiles.put(name, spec)

    def _on_tier_update(self, name: str, resource: resources.Tier | None) -> None:
        if self._policies.set_tier(name, None if resource is None else resource.spec):
            self._forget_policies(self._locals.classes)

    def _forget_policies(self, classes: Iterable[LabelClass]) -> None:
        for each in classes:
            each.policies = None
        self._locals.touch(classes)

    # --- work -------------------------------------------------------------------------------------------------------

    def work(self, budget: int = sys.maxsize) -> bool:
        """Settles up to ``budget`` units (policies, endpoints, sets, hosts); True when nothing is left to settle.

        A caller that has other things to do calls this with a small budget until it is True, then ``flush``.
        """
        if not self._in_sync:
            return True
        for settle in (
            self._settle_policies,
            self._settle_endpoints,
            self._settle_rules,
            self._activation.settle_sets,
            self._routing.settle,
        ):
            budget -= settle(budget)
            if budget <= 0:
                return False
        return True

    def _settle_policies(self, limit: int) -> int:
        chosen = list(islice(self._unread, limit))
        for key in chosen:
            entry = self._policies.entries.get(key)
            self._locals.touch(self._policies.set_policy(key, self._unread.pop(key), self._locals.classes))
            if entry is not None and entry.users:
                self._rules[key] = None
        return len(chosen)

    def _settle_endpoints(self, limit: int) -> int:
        gone = list(islice(self._locals.gone, limit))
        for local in gone:
            del self._locals.gone[local]
            self._count(local, (), ())
            self._outbox.endpoints.drop_desired(local.key)
        changed = list(islice(self._locals.dirty, limit - len(gone)))
        for local in changed:
            del self._locals.dirty[local]
            if self._locals.programmed(local):
                match = self._policies.match(local.label_class)
                endpoint = build_endpoint(local.spec, match.ingress, match.egress)
                self._outbox.endpoints.set_desired(local.key, (local.revision, endpoint))
                self._count(local, match.enforced, endpoint.profiles)
            else:
                self._outbox.endpoints.drop_desired(local.key)
                self._count(local, (), ())
        return len(gone) + len(changed)

    def _count(self, local: LocalEndpoint, enforced: tuple[PolicyEntry, ...], profiles: tuple[str, ...]) -> None:
        """The endpoint uses these policies and profiles now, instead of those that it used before."""
        if enforced is not local.enforced:
            for entry in enforced:
                entry.users += 1
                if entry.users == 1:
                    self._rules[entry.facts.key] = None
            for entry in local.enforced:
                entry.users -= 1
                if not entry.users:
                    self._rules[entry.facts.key] = None
            local.enforced = enforced
        if profiles != local.profiles:
            self._profiles.count(profiles, 1)
            self._profiles.count(local.profiles, -1)
            local.profiles = profiles

    def _settle_rules(self, limit: int) -> int:
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

    def flush(self, limit: int | None = None) -> list[Update]:
        """Settles what is left and gives the next messages, at most ``limit``; empty when everything was told, or before ``InSync``.

        After a flush that was cut the next one goes on, with whatever changed in between; the order still holds.
        """
        if not self._in_sync:
            return []
        self.work()
        self._activation.retire_sets()
        return list(islice(self._outbox.messages(), limit))

    def problems(self) -> list[Problem]:
        """What is wrong with resources, beyond their own documents, as far as our hosts are concerned; as of the last ``work``.

        A policy or profile whose rules cannot be enforced, a tier or profile that does not exist, an interface or address that
        two endpoints claim, a peering that makes no sense. O(local endpoints + rules in use).
        """
        return [
            *self._policies.problems(),
            *self._activation.problems(),
            *self._locals.problems(self._profiles.specs),
            *self._routing.problems(),
        ]


def _record(key: Key, value: object, kind: type[T]) -> T | None:
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{key} has a value of {type(value).__name__}, not {kind.__name__}")
