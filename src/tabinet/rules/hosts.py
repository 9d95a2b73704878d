"""Which host endpoint owns which of the host's interfaces, and the elements that say so.

An interface belongs to the endpoint with the smallest key among those that name it, or that name no interface and expect one of its
addresses; an interface without one of its own to the endpoint for all interfaces (``*``), if there is one. Workloads' interfaces and
the loopback interface belong to none; endpoints that name such an interface are in ``unbound``.

``settle`` looks at all host endpoints and interfaces of the host whenever one of them changed: they are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import HostEndpoint, TierPolicies
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.classes import Classes, Stage
from tabinet.rules.denied import CountedInterfaces, Owner
from tabinet.rules.edit import TableEdit
from tabinet.rules.hostlayout import COVERED, LOOPBACK, HostUse
from tabinet.rules.ir import Interface
from tabinet.rules.options import TableOptions
from tabinet.rules.roles import HOST_MAPS, Role

WILDCARD = "*"
INTERFACE_NAME_BYTES = 15
"""IFNAMSIZ without the closing NUL."""


class HostBinding(msgspec.Struct, frozen=True):
    """What the table holds for one interface, or for all others."""

    key: ResourceKey
    stages: dict[Role, Stage]


@dataclass(slots=True)
class HostBindings:
    """All host endpoints of the host."""

    options: TableOptions
    classes: Classes
    counted: CountedInterfaces
    endpoints: dict[ResourceKey, HostEndpoint] = field(default_factory=dict)
    use: HostUse | None = None
    """As of the last ``settle``."""
    unbound: dict[ResourceKey, str] = field(default_factory=dict)
    """Endpoints that name an interface that cannot be theirs, with its name."""
    revokes: bool = False
    """A change since it was last reset may have taken a permission away."""
    _interfaces: Mapping[str, frozenset[Prefix]] = field(default_factory=dict)
    _bound: dict[str, HostBinding] = field(default_factory=dict)
    _dirty: bool = False

    def put(self, key: ResourceKey, endpoint: HostEndpoint | None) -> None:
        """The endpoint is this; None: it is gone."""
        self._dirty = True
        if endpoint is None:
            self.endpoints.pop(key, None)
        else:
            self.endpoints[key] = endpoint

    def put_interfaces(self, interfaces: Mapping[str, frozenset[Prefix]]) -> None:
        """The host has these interfaces with these addresses."""
        if interfaces != self._interfaces:
            self._interfaces = dict(interfaces)
            self._dirty = True

    def settle(self, edit: TableEdit) -> None:
        """The table's maps are those of the endpoints, ``use`` what the fixed part needs; ``classes`` still has to settle."""
        if not self._dirty:
            return
        self._dirty = False
        owners = self._owners()
        owning = [self.endpoints[key] for key in owners.values()]
        pre_dnat = any(endpoint.pre_dnat for endpoint in owning)
        untracked = any(endpoint.untracked_ingress or endpoint.untracked_egress for endpoint in owning)
        roles = [role for role in HOST_MAPS if role.form.decides or (pre_dnat if role is Role.PRE_DNAT else untracked)]
        wanted = {name: self._binding(key, roles) for name, key in sorted(owners.items())}
        released: list[Stage] = []
        for name in sorted(wanted.keys() | self._bound.keys()):
            before, after = self._bound.get(name), wanted.get(name)
            if before != after:
                self.revokes = self.revokes or not self._widens(before, after)
                self._change(name, before, after, edit)
                released += before.stages.values() if before is not None else ()
        self._bound = wanted
        for stage in released:
            self.classes.release(stage)
        wildcard = wanted.get(WILDCARD)
        chains = {role: stage.chain for role, stage in wildcard.stages.items()} if wildcard is not None else {}
        self.use = HostUse(chains, pre_dnat, untracked) if wanted else None

    def _owners(self) -> dict[str, ResourceKey]:
        """By interface, or ``*``."""
        owners: dict[str, ResourceKey] = {}
        self.unbound = {}
        for key in sorted(self.endpoints):
            for name in self._claimed(self.endpoints[key]):
                if self._ownable(name):
                    owners.setdefault(name, key)
                else:
                    self.unbound[key] = name
        return owners

    def _claimed(self, endpoint: HostEndpoint) -> Iterator[str]:
        if endpoint.interface:
            yield endpoint.interface
            return
        expected = frozenset(endpoint.addresses)
        yield from (name for name, addresses in sorted(self._interfaces.items()) if addresses & expected and self._ownable(name))

    def _ownable(self, name: str) -> bool:
        return name != LOOPBACK and len(name.encode()) <= INTERFACE_NAME_BYTES and not name.startswith(self.options.interface_prefixes)

    def _binding(self, key: ResourceKey, roles: list[Role]) -> HostBinding:
        endpoint = self.endpoints[key]
        tiers: dict[Role, tuple[TierPolicies, ...]] = {
            Role.TO_HOST: endpoint.ingress,
            Role.FROM_HOST: endpoint.egress,
            Role.FORWARD_IN: endpoint.forward_ingress,
            Role.FORWARD_OUT: endpoint.forward_egress,
            Role.PRE_DNAT: endpoint.pre_dnat,
            Role.UNTRACKED_IN: endpoint.untracked_ingress,
            Role.UNTRACKED_OUT: endpoint.untracked_egress,
        }
        return HostBinding(key, {role: Stage(role, tiers[role], endpoint.profiles if role.asks_profiles else ()) for role in roles})

    def _widens(self, before: HostBinding | None, after: HostBinding | None) -> bool:
        # What had no endpoint was not restricted, and flows that were accepted before that time still carry the mark.
        if before is None or after is None or before.stages.keys() != after.stages.keys():
            return False
        return all(self.classes.widens(stage, after.stages[role]) for role, stage in before.stages.items())

    def _change(self, name: str, before: HostBinding | None, after: HostBinding | None, edit: TableEdit) -> None:
        stages = after.stages if after is not None else {}
        chains = {role: self.classes.acquire(stage) for role, stage in stages.items()}
        if name == WILDCARD:
            return
        for role, map_name in HOST_MAPS.items():
            if role in chains:
                edit.set_mapping(map_name, name, chains[role])
            elif before is not None and role in before.stages:
                edit.remove_mapping(map_name, name)
        self.counted.put(name, Owner(after.key, True) if after is not None else None, edit)
        if after is not None:
            edit.add_element(COVERED, Interface(name))
        else:
            edit.remove_element(COVERED, Interface(name))
