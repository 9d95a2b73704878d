"""Staged policies: what enforcing them would concern, as far as our hosts go.

In: the matches of local endpoints. Out: a ``StagedEffect`` for each staged policy that may select one of them. What is staged is read,
judged and counted like any policy, and takes part in no message. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.calc.locals import LocalEndpoint
from tabinet.calc.policies import PolicyEntry, PolicyIndex
from tabinet.calc.policyfacts import EnforcedPolicy, translate_policy
from tabinet.errors import Problem
from tabinet.model.keys import ResourceKey
from tabinet.model.kubernetes.kinds import POLICY_PREFIX

_ENFORCED_KIND = {
    "StagedNetworkPolicy": "NetworkPolicy",
    "StagedGlobalNetworkPolicy": "GlobalNetworkPolicy",
}
"""By staged kind: the kind of the policy that a Set replaces and a Delete removes; it has the same name."""


class StagedEffect(msgspec.Struct, frozen=True):
    """What a staged policy would come to on our hosts."""

    key: ResourceKey
    action: str
    """Set, Delete, Learn or Ignore."""
    tier: str
    replaces: ResourceKey | None
    """The policy of the same name that is enforced now, if it is among those that may select local endpoints."""
    endpoints: tuple[ResourceKey, ...]
    """Local endpoints that it would police; for Delete those that ``replaces`` polices now. Sorted."""
    rules: int
    """How many of its rules could be enforced."""
    sets: int
    """How many sets of members they would need."""
    problems: tuple[Problem, ...]
    """What is wrong with it, its rules included."""


def staged_effects(policies: PolicyIndex, endpoints: Iterable[LocalEndpoint]) -> list[StagedEffect]:
    """The effect of each staged policy, sorted by key, as of the last ``work``. O(staged policies + local endpoints x their policies)."""
    polices: dict[ResourceKey, list[ResourceKey]] = {}
    for local in endpoints:
        if local.arrangement is not None:
            for entry in (*local.arrangement.staged, *local.arrangement.enforced):
                polices.setdefault(entry.facts.key, []).append(local.key)
    staged = sorted((entry for entry in policies.entries.values() if entry.facts.staged), key=lambda entry: entry.facts.key)
    return [_effect(entry, policies, polices) for entry in staged]


def _enforced_key(key: ResourceKey) -> ResourceKey:
    """The policy that the staged one is about. A converted Kubernetes policy carries a prefix."""
    kind = _ENFORCED_KIND.get(key.kind)
    if kind is None:
        return ResourceKey("NetworkPolicy", POLICY_PREFIX + key.name, key.namespace)
    return ResourceKey(kind, key.name, key.namespace)


def _effect(entry: PolicyEntry, policies: PolicyIndex, polices: dict[ResourceKey, list[ResourceKey]]) -> StagedEffect:
    facts, resource = entry.facts, entry.resource
    action = "Set" if isinstance(resource, EnforcedPolicy) else resource.spec.staged_action or "Set"
    replaces: ResourceKey | None = _enforced_key(facts.key)
    if replaces not in policies.entries:
        replaces = None
    concerned = replaces if action == "Delete" else facts.key
    translation = translate_policy(facts, resource)
    return StagedEffect(
        key=facts.key,
        action=action,
        tier=facts.tier,
        replaces=replaces,
        endpoints=tuple(sorted(polices.get(concerned, ()) if concerned is not None else ())),
        rules=len(translation.policy.ingress) + len(translation.policy.egress),
        sets=len(translation.specs),
        problems=(*facts.problems, *translation.problems),
    )
