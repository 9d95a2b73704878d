"""Profiles: rules by name, and how many local endpoints use each.

Their labels live in ``labels``. The profile ``projectcalico-default-allow`` exists without a resource and allows everything. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tabinet.calc.translate import Translation, translate
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import ProfileSpec, Rule

_ALLOW = (Rule(action="Allow"),)
BUILT_IN_PROFILES = {"projectcalico-default-allow": ProfileSpec(ingress=_ALLOW, egress=_ALLOW)}
"""Profiles that exist without a resource."""


def profile_key(name: str) -> ResourceKey:
    """The key of the profile's resource."""
    return ResourceKey("Profile", name)


def translate_profile(name: str, spec: ProfileSpec) -> Translation:
    """The profile's rules as messages."""
    return translate(spec.ingress, spec.egress, "", str(profile_key(name)))


@dataclass(slots=True)
class ProfileIndex:
    """All profiles, and who uses them."""

    specs: dict[str, ProfileSpec] = field(default_factory=lambda: dict(BUILT_IN_PROFILES))
    dirty: dict[str, None] = field(default_factory=dict)
    """Names of which it has to be looked at again whether they are in use."""
    _users: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, spec: ProfileSpec | None) -> None:
        """The profile is this now (None: its resource is gone)."""
        spec = spec or BUILT_IN_PROFILES.get(name)
        old = self.specs.get(name)
        if spec is None:
            self.specs.pop(name, None)
        else:
            self.specs[name] = spec
        rules_differ = old is None or spec is None or (old.ingress, old.egress) != (spec.ingress, spec.egress)
        if rules_differ and name in self._users:
            self.dirty[name] = None

    def count(self, names: Iterable[str], change: int) -> None:
        """One more (1) or one less (-1) endpoint uses each of these."""
        for name in names:
            before = self._users.get(name, 0)
            if before + change:
                self._users[name] = before + change
            else:
                del self._users[name]
            if not before or not before + change:
                self.dirty[name] = None

    def in_use(self, name: str) -> ProfileSpec | None:
        """The profile, if it exists and is in use."""
        return self.specs.get(name) if name in self._users else None
