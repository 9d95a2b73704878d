"""The labels that selectors see at a workload endpoint: its own, those of what it is, and those that its profiles give it. Pure."""

from __future__ import annotations

from tabinet.analysis.fabric import Resources
from tabinet.calc.endpoints import endpoint_labels
from tabinet.calc.profiles import BUILT_IN_PROFILES
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import Profile, WorkloadEndpoint


def effective_labels(resources: Resources, key: ResourceKey, endpoint: WorkloadEndpoint) -> dict[str, str]:
    """All labels of the endpoint; its own win, then those of its profiles in order."""
    labels = endpoint_labels(key, endpoint)
    for name in endpoint.spec.profiles:
        profile, _ = resources.get(ResourceKey("Profile", name), (None, 0))
        spec = profile.spec if isinstance(profile, Profile) else BUILT_IN_PROFILES.get(name)
        for label, value in (spec.labels_to_apply if spec else {}).items():
            labels.setdefault(label, value)
    return labels
