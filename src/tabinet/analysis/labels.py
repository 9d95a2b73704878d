"""The labels that selectors see at a workload endpoint: its own, those of what it is, and those that its profiles give it. Pure.

``marks_of`` is how endpoints are told apart by labels that no policy asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabinet.analysis.fabric import Resources
from tabinet.analysis.universe import Marks
from tabinet.calc.endpoints import endpoint_labels, endpoint_origin
from tabinet.calc.profiles import BUILT_IN_PROFILES
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import Profile, WorkloadEndpoint
from tabinet.selector import Selector


def effective_labels(resources: Resources, key: ResourceKey, endpoint: WorkloadEndpoint) -> dict[str, str]:
    """All labels of the endpoint; its own win, then those of its profiles in order."""
    labels = endpoint_labels(key, endpoint)
    for name in endpoint.spec.profiles:
        profile, _ = resources.get(ResourceKey("Profile", name), (None, 0))
        spec = profile.spec if isinstance(profile, Profile) else BUILT_IN_PROFILES.get(name)
        for label, value in (spec.labels_to_apply if spec else {}).items():
            labels.setdefault(label, value)
    return labels


def marks_of(resources: Resources, selectors: Sequence[Selector], keys: Sequence[str]) -> dict[ResourceKey, Marks]:
    """Of each workload endpoint: which of the selectors select it, and its values of the labels.

    O(endpoints), and O(selectors + keys) for those that differ in what is asked for.
    """
    asked = frozenset(keys).union(*[selector.keys for selector in selectors])
    known: dict[tuple[object, ...], Marks] = {}
    found = {}
    for key, (value, _) in resources.items():
        if isinstance(value, WorkloadEndpoint) and isinstance(key, ResourceKey):
            own = tuple([pair for pair in value.metadata.labels.items() if pair[0] in asked])
            alike = (own, endpoint_origin(key, value.spec), value.spec.profiles)
            marks = known.get(alike)
            if marks is None:
                mine = effective_labels(resources, key, value)
                marks = (tuple([selector.evaluate(mine) for selector in selectors]), tuple([mine.get(name) for name in keys]))
                known[alike] = marks
            found[key] = marks
    return found
