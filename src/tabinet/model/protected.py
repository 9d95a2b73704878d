"""Resources that always exist: the tiers kube-admin, default and kube-baseline, and the profile projectcalico-default-allow.

What of them is fixed. On plain documents, because a record cannot tell what was written from what was left
out. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tabinet.model.findings import Finding

DEFAULT_ALLOW = "projectcalico-default-allow"
"""Name of the profile that allows everything, in both directions."""


class FixedTier(msgspec.Struct, frozen=True):
    """What cannot be changed of a tier."""

    order: int
    default_action: str


FIXED_TIERS = {
    "kube-admin": FixedTier(1_000, "Pass"),
    "default": FixedTier(1_000_000, "Deny"),
    "kube-baseline": FixedTier(10_000_000, "Pass"),
}
"""The tiers that always exist."""


def protected_findings(kind: str, name: str, spec: dict[str, Any]) -> Iterator[Finding]:
    """What a document says otherwise than it must be."""
    if kind == "Profile" and name == DEFAULT_ALLOW:
        yield Finding("metadata.name", name, "this profile always exists, and cannot be changed")
    fixed = FIXED_TIERS.get(name) if kind == "Tier" else None
    if fixed is not None:
        for wire, value in (("order", fixed.order), ("defaultAction", fixed.default_action)):
            if spec.get(wire) not in (None, "", value):
                yield Finding(f"spec.{wire}", spec[wire], f"must be {value} for this tier")
