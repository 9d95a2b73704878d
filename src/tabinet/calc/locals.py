"""``LocalIndex``: the endpoints of our hosts, what of each counts where two claim the same thing, and which have to be looked at again.

Of several endpoints of one host that name one interface the one with the smallest key is programmed, workload and host endpoints apart; a
floating address of several programmed ones belongs to the smallest key. The others are reported.

Pure; O(1) for each change plus the endpoints that share something with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tabinet.calc.endpoints import (
    EndpointSpec,
    endpoint_problems,
    programmable,
    readable,
    readable_addresses,
    readable_nats,
    shared_addresses,
)
from tabinet.calc.messages import Nat
from tabinet.calc.policies import Arrangement, PolicyEntry, PolicyMatch
from tabinet.calc.ports import NOTHING, PortNeeds
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import HostEndpointSpec, WorkloadEndpointSpec

Place = tuple[str, str, str]
"""Kind, host and interface."""
External = tuple[str, Prefix]
"""Host and floating address."""


@dataclass(slots=True, eq=False)
class LocalEndpoint:
    """An endpoint of one of our hosts."""

    key: ResourceKey
    spec: EndpointSpec
    revision: int
    labels: dict[str, str]
    """Effective labels."""
    programmable: bool
    nats: dict[Prefix, Nat]
    """Its floating addresses, by external address, whether they are its own or not."""
    needs: PortNeeds = NOTHING
    match: PolicyMatch | None = None
    """The policies that select it; None: to be asked for."""
    arrangement: Arrangement | None = None
    """The arrangement that counts it as a user."""
    profiles: tuple[str, ...] = ()
    """The profiles that count it as a user."""
    claimed: frozenset[External] = frozenset()
    """The floating addresses that it claims, being programmed."""


@dataclass(slots=True)
class LocalIndex:
    """All local endpoints."""

    by_key: dict[ResourceKey, LocalEndpoint] = field(default_factory=dict)
    dirty: dict[LocalEndpoint, None] = field(default_factory=dict)
    """Those that have to be looked at again."""
    gone: dict[LocalEndpoint, None] = field(default_factory=dict)
    """Deleted ones whose policies and profiles still count them."""
    is_matched: bool = False
    """The policies of one of them have been asked for."""
    _by_profile: dict[str, dict[LocalEndpoint, None]] = field(default_factory=dict)
    _passing: dict[str, dict[LocalEndpoint, None]] = field(default_factory=dict)
    """By host: the endpoints with floating addresses of which ports lead there."""
    _interfaces: dict[Place, dict[ResourceKey, None]] = field(default_factory=dict)
    """The programmable endpoints that name an interface."""
    _sharing: dict[Prefix, dict[LocalEndpoint, None]] = field(default_factory=dict)
    """By address that several may have."""
    _externals: dict[External, dict[ResourceKey, None]] = field(default_factory=dict)
    """The programmed endpoints that claim a floating address."""

    def put(self, key: ResourceKey, spec: EndpointSpec, revision: int, labels: dict[str, str], needs: PortNeeds = NOTHING) -> bool:
        """The endpoint is local and this now; True when it was not local before."""
        nats = readable_nats(spec) if isinstance(spec, WorkloadEndpointSpec) else {}
        local = self.by_key.get(key)
        new = local is None
        if local is None:
            local = self.by_key[key] = LocalEndpoint(key, spec, revision, labels, programmable(spec), nats, needs)
        else:
            self._release(local)
            if local.labels != labels:
                local.labels, local.match = labels, None
            local.spec, local.revision, local.programmable, local.nats = spec, revision, programmable(spec), nats
            local.needs = needs
        for name in spec.profiles:
            self._by_profile.setdefault(name, {})[local] = None
        for address in _shared(spec):
            self._sharing.setdefault(address, {})[local] = None
        for each in needs.elsewhere:
            self._passing.setdefault(each.host, {})[local] = None
        if local.programmable:
            claimants = self._interfaces.setdefault(_place(local), {})
            claimants[key] = None
            self._touch_rivals(claimants)
        self.dirty[local] = None
        return new

    def delete(self, key: ResourceKey) -> bool:
        """The endpoint is not local (any more); True when it was."""
        local = self.by_key.pop(key, None)
        if local is None:
            return False
        self._release(local)
        self.dirty.pop(local, None)
        self.gone[local] = None
        return True

    def with_profile(self, name: str) -> list[LocalEndpoint]:
        """The endpoints that name the profile."""
        return list(self._by_profile.get(name, ()))

    def relabel(self, local: LocalEndpoint, labels: dict[str, str]) -> None:
        """The endpoint inherits other labels now."""
        if local.labels != labels:
            local.labels, local.match = labels, None
            self.dirty[local] = None

    def touch(self, key: ResourceKey) -> None:
        """The endpoint, if it is local, has to be looked at again."""
        local = self.by_key.get(key)
        if local is not None:
            self.dirty[local] = None

    def touch_sharing(self, address: Prefix) -> None:
        """The endpoints that may have this address, as others may, have to be looked at again."""
        self.dirty.update(self._sharing.get(address, {}))

    def on_host_update(self, host: str) -> None:
        """Endpoints that send something on to the host are looked at again: it may have other addresses."""
        self.dirty |= self._passing.get(host, {})

    def forget_matches(self) -> None:
        """Every endpoint's policies have to be asked for again."""
        for local in self.by_key.values():
            local.match = None
            self.dirty[local] = None

    def on_policy_read(self, old: PolicyEntry | None, new: PolicyEntry | None) -> None:
        """Endpoints that the policy selected or selects are looked at again. O(local endpoints), O(1) before any was looked at."""
        if old is new or not self.is_matched:
            return
        for local in self.by_key.values():
            match = local.match
            if match is not None and (old in match.selected_by or (new is not None and new.selects(local.labels))):
                local.match = None
                self.dirty[local] = None

    def is_programmed(self, local: LocalEndpoint) -> bool:
        """True when the endpoint is to be programmed."""
        return local.programmable and self._owner(local) == local.key

    def own_nats(self, local: LocalEndpoint, programmed: bool) -> list[Nat]:
        """The floating addresses that are the endpoint's own; it claims all that it names if it is programmed, else none."""
        wanted = frozenset((local.spec.node, address) for address in local.nats) if programmed else frozenset()
        for external in wanted - local.claimed:
            claimants = self._externals.setdefault(external, {})
            self._touch_rivals(claimants)
            claimants[local.key] = None
        for external in local.claimed - wanted:
            claimants = self._externals[external]
            del claimants[local.key]
            self._touch_rivals(claimants)
            if not claimants:
                del self._externals[external]
        local.claimed = wanted
        return [local.nats[address] for host, address in wanted if min(self._externals[host, address]) == local.key]

    def _owner(self, local: LocalEndpoint) -> ResourceKey:
        """Of those that name the endpoint's interface, the one that has it."""
        return min(self._interfaces[_place(local)]) if local.spec.interface_name else local.key

    def _release(self, local: LocalEndpoint) -> None:
        for name in dict.fromkeys(local.spec.profiles):
            having = self._by_profile[name]
            del having[local]
            if not having:
                del self._by_profile[name]
        for address in _shared(local.spec):
            sharing = self._sharing[address]
            del sharing[local]
            if not sharing:
                del self._sharing[address]
        for host in {each.host for each in local.needs.elsewhere}:
            del self._passing[host][local]
            if not self._passing[host]:
                del self._passing[host]
        if local.programmable:
            place = _place(local)
            claimants = self._interfaces[place]
            del claimants[local.key]
            self._touch_rivals(claimants)
            if not claimants:
                del self._interfaces[place]

    def _touch_rivals(self, claimants: Mapping[ResourceKey, None]) -> None:
        for key in claimants:
            rival = self.by_key.get(key)
            if rival is not None:
                self.dirty[rival] = None

    # --- what is wrong ----------------------------------------------------------------------------------------------

    def problems(self, known_profiles: Container[str]) -> Iterator[Problem]:
        """What is wrong with local endpoints, by themselves and with each other. O(local endpoints)."""
        owners: dict[tuple[str, str, Prefix], ResourceKey] = {}
        for key in sorted(self.by_key):
            local = self.by_key[key]
            spec, source = local.spec, str(key)
            yield from endpoint_problems(source, spec)
            yield from local.needs.problems
            for name in spec.profiles:
                if name not in known_profiles:
                    yield _problem("spec.profiles", name, "the name of a profile that exists", source)
            if not local.programmable:
                continue
            first = self._owner(local)
            if first != key:
                allowed = f"an interface of its own; {first} has this one, so this endpoint is not programmed"
                yield _problem("spec.interfaceName", spec.interface_name, allowed, source)
            shared = {pair.net for pair in local.needs.pairs}
            for address in dict.fromkeys(address for address in _addresses(spec) if address not in shared):
                owner = owners.setdefault((key.kind, spec.node, address), key)
                if owner != key:
                    path = "spec.expectedIPs" if isinstance(spec, HostEndpointSpec) else "spec.ipNetworks"
                    yield _problem(path, str(address), f"an address of its own; {owner} has this one", source)
            for host, address in sorted(local.claimed):
                owner = min(self._externals[host, address])
                if owner != key:
                    yield _problem("spec.ipNATs", str(address), f"a floating address of its own; {owner} has this one", source)


def _place(local: LocalEndpoint) -> Place:
    return (local.key.kind, local.spec.node, local.spec.interface_name)


def _shared(spec: EndpointSpec) -> tuple[Prefix, ...]:
    return shared_addresses(spec) if isinstance(spec, WorkloadEndpointSpec) else ()


def _addresses(spec: EndpointSpec) -> Iterable[Prefix]:
    """The addresses that no other endpoint of the host may have: of a host endpoint only those that say which interface is meant."""
    if isinstance(spec, HostEndpointSpec):
        return () if spec.interface_name else readable_addresses(spec.expected_ips)
    return readable(spec.ip_networks)


def _problem(path: str, value: str, allowed: str, source: str) -> Problem:
    return Problem(path=path, value=repr(value)[:80], allowed=allowed, source=source)
