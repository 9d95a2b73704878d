"""What ``plan`` and ``verify`` do not calculate, of a given fabric: host endpoints of too many hosts, and translations that policy sees.

In: situations. Out: sentences that name what is left out, and nothing where nothing is. Not told: that workloads in pools with natOutgoing
reach workloads that are in no pool with their host's address, which ingress policy sees. ``explain`` answers for one packet of each.
Pure; O(endpoints).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tabinet.analysis.situation import Situation
from tabinet.analysis.tables import differing
from tabinet.calc.messages import HostEndpoint, TierPolicies
from tabinet.calc.replica import State, policies_of, set_kinds
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import WorkloadEndpoint

NAMED = 4
OWN, FORWARDED, PRE_DNAT, UNTRACKED = "its host's own flows", "forwarded flows", "preDNAT", "doNotTrack"
Parts = dict[str, tuple[TierPolicies, ...]]


def changed_host_endpoints(before: State, after: State) -> dict[ResourceKey, tuple[str, ...]]:
    """Host endpoints that judge otherwise after a change, or come or go, each with which of its flows that is about."""
    policies, profiles = changed_policies(before, after)
    found = {}
    for key in sorted(before.host_endpoints.keys() | after.host_endpoints.keys()):
        was, now = before.host_endpoints.get(key), after.host_endpoints.get(key)
        old, new = (({} if entry is None else _parts(entry[1])) for entry in (was, now))
        parts = [part for part in old.keys() | new.keys() if _differ(part, old, new, policies)]
        if (was is None) != (now is None) or (was and now and _is_another(was[1], now[1], profiles)):
            parts = [*parts, OWN]
        if parts:
            found[key] = tuple(sorted(set(parts)))
    return found


def changed_policies(before: State, after: State) -> tuple[set[ResourceKey], set[str]]:
    """Policies and profiles that are others, or have others as members of their sets."""
    sets = differing(before.sets, after.sets)
    policies = differing(before.policies, after.policies)
    policies |= {key for key, policy in after.policies.items() if sets and not sets.isdisjoint(set_kinds(policy))}
    profiles = differing(before.profiles, after.profiles)
    profiles |= {name for name, profile in after.profiles.items() if sets and not sets.isdisjoint(set_kinds(profile))}
    return policies, profiles


def changed_endpoints(before: Situation, after: Situation) -> set[ResourceKey]:
    """Workload endpoints with another list of policies, or with changed rules or members in one of them. O(endpoints) at worst, without
    looking into sets: a shared one is the same object."""
    policies, profiles = changed_policies(before.state, after.state)
    found = set()
    for key in before.state.endpoints.keys() | after.state.endpoints.keys():
        was, now = before.state.endpoints.get(key), after.state.endpoints.get(key)
        if was is not now or (now is not None and not (policies.isdisjoint(policies_of(now[1])) and profiles.isdisjoint(now[1].profiles))):
            found.add(key)
    return set(after.twins.expanded(found))


def hosts_changed(before: Situation, after: Situation) -> list[str]:
    """The hosts of these endpoints, sorted."""
    hosts = set()
    for key in changed_endpoints(before, after):
        value, _ = after.resources.get(key) or before.resources[key]
        assert isinstance(value, WorkloadEndpoint)
        hosts.add(value.spec.node)
    return sorted(hosts)


def _parts(endpoint: HostEndpoint) -> Parts:
    return {
        OWN: (*endpoint.ingress, *endpoint.egress),
        FORWARDED: (*endpoint.forward_ingress, *endpoint.forward_egress),
        PRE_DNAT: endpoint.pre_dnat,
        UNTRACKED: (*endpoint.untracked_ingress, *endpoint.untracked_egress),
    }


def _differ(part: str, old: Parts, new: Parts, policies: set[ResourceKey]) -> bool:
    was, now = old.get(part, ()), new.get(part, ())
    return was != now or any(key in policies for tier in now for key in tier.policies)


def _is_another(was: HostEndpoint, now: HostEndpoint, profiles: set[str]) -> bool:
    return (was.interface, was.addresses, was.profiles) != (now.interface, now.addresses, now.profiles) or bool(profiles & {*now.profiles})


def uncovered_by_change(before: State, after: State) -> str:
    """Whose flows a change may open or close without a calculation saying so; empty: nobody's."""
    changed = changed_host_endpoints(before, after)
    if not changed:
        return ""
    named = [f"{key} ({', '.join(parts)})" for key, parts in list(changed.items())[:NAMED]]
    return (
        f"this changes policy of host endpoints, and which of their flows that opens or closes is not in here: {_list(named, len(changed))}"
    )


def uncovered(situation: Situation, *, with_hosts: bool) -> Iterator[str]:
    """What of this fabric is in no calculation of flows; ``with_hosts``: host endpoints are in it."""
    endpoints = {key: endpoint for key, (_, endpoint) in sorted(situation.state.host_endpoints.items())}
    if endpoints and not with_hosts:
        yield f"flows of hosts themselves, which host endpoints judge, are not in here: {_list(list(map(str, endpoints)), len(endpoints))}"
    strict = [key for key, endpoint in endpoints.items() if any(tiers for part, tiers in _parts(endpoint).items() if part != OWN)]
    if strict and not with_hosts:
        names = _list(list(map(str, strict)), len(strict))
        yield f"forwarded, preDNAT or doNotTrack policy also judges flows that pass these, which is not in here: {names}"
    yield from _translations(situation)


def _translations(situation: Situation) -> Iterator[str]:
    """Endpoints that translate addresses have no twins, so all of them are in the state."""
    endpoints = [endpoint for _, endpoint in situation.state.endpoints.values()]
    whole = {nat.external for endpoint in endpoints for nat in endpoint.nats}
    floating = sorted(whole | {forward.external for endpoint in endpoints for forward in endpoint.forwards})
    if floating:
        names = _list([net.address for net in floating], len(floating))
        yield (
            "floating addresses count as outside when workloads send to them, so that the receiver's ingress policy is not asked; "
            f"from outside they are in here, as the addresses behind them: {names}"
        )


def _list(names: Iterable[str], count: int) -> str:
    shown = list(names)[:NAMED]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
