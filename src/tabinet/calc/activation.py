"""``Activation``: the policies and profiles that local endpoints use, and through their rules the sets that are needed.

In: the rules of a policy or profile that came into use, changed, or went out of use. Out: what the ``Outbox`` shall tell, and which sets
are active in the ``MemberIndex``. Sets are counted by the policies and profiles that name them. They are activated late
(``settle_sets``) and deactivated last (``retire_sets``), so that a set which changes hands in between stays as it is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from tabinet.calc.members import MemberIndex
from tabinet.calc.outbox import Outbox
from tabinet.calc.specs import SetSpec
from tabinet.calc.translate import Translation
from tabinet.errors import Problem
from tabinet.model.keys import ResourceKey


@dataclass(slots=True)
class _Demand:
    spec: SetSpec
    uses: int = 0
    active: bool = False


@dataclass(slots=True)
class Activation:
    """The rules in use."""

    members: MemberIndex
    outbox: Outbox
    _in_use: dict[ResourceKey, Translation] = field(default_factory=dict)
    _demands: dict[str, _Demand] = field(default_factory=dict)
    _unsettled: dict[str, None] = field(default_factory=dict)
    """Sets that may have to be activated."""
    _unused: dict[str, None] = field(default_factory=dict)
    """Sets that may have to be deactivated."""

    def use(self, key: ResourceKey, translation: Translation) -> None:
        """The policy or profile is in use with these rules."""
        old = self._in_use.get(key)
        for set_id, spec in translation.specs.items():
            demand = self._demands.get(set_id)
            if demand is None:
                demand = self._demands[set_id] = _Demand(spec)
            demand.uses += 1
            if not demand.active:
                self._unsettled[set_id] = None
        if old is not None:
            self._release(old.specs)
        self._in_use[key] = translation
        if key.kind == "Profile":
            self.outbox.profiles.set_desired(key.name, translation.policy)
        else:
            self.outbox.policies.set_desired(key, translation.policy)

    def disuse(self, key: ResourceKey) -> None:
        """The policy or profile is not in use; nothing happens when it was not."""
        old = self._in_use.pop(key, None)
        if old is None:
            return
        self._release(old.specs)
        if key.kind == "Profile":
            self.outbox.profiles.drop_desired(key.name)
        else:
            self.outbox.policies.drop_desired(key)

    def _release(self, set_ids: Iterable[str]) -> None:
        for set_id in set_ids:
            demand = self._demands[set_id]
            demand.uses -= 1
            if not demand.uses:
                self._unused[set_id] = None

    def settle_sets(self, limit: int) -> int:
        """Activates up to ``limit`` sets that are in use; gives how many were looked at."""
        if not self._unsettled:
            return 0
        chosen = list(islice(self._unsettled, limit))
        wanted = []
        for set_id in chosen:
            del self._unsettled[set_id]
            demand = self._demands[set_id]
            if demand.uses and not demand.active:
                demand.active = True
                wanted.append(demand.spec)
        if wanted:
            for activated in self.members.activate(wanted):
                self.outbox.on_set_activated(activated.set_id, activated.spec.kind, activated.members)
        return len(chosen)

    def retire_sets(self, limit: int) -> int:
        """Deactivates up to ``limit`` sets that are not in use; gives how many were looked at. For when all is settled, before telling."""
        if not self._unused:
            return 0
        chosen = list(islice(self._unused, limit))
        for set_id in chosen:
            del self._unused[set_id]
            demand = self._demands[set_id]
            if demand.uses:
                continue
            del self._demands[set_id]
            if demand.active:
                self.members.deactivate(set_id)
                self.outbox.on_set_deactivated(set_id)
        return len(chosen)

    def problems(self) -> list[Problem]:
        """What cannot be enforced of the rules in use. O(policies and profiles in use)."""
        return [problem for translation in self._in_use.values() for problem in translation.problems]
