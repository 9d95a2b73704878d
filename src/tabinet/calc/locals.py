"""Local workload endpoints: what each becomes once its policies are known, and which of two that claim one interface counts.

An endpoint is programmed when it has an interface and at least one address that can be read. Of several endpoints of one host that
name one interface the one with the smallest key is programmed, and the others are reported. Pure; O(1) for each change plus the
endpoints that share something with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from tabinet.calc.labels import LabelClass
from tabinet.calc.messages import Endpoint, TierPolicies
from tabinet.calc.policies import PolicyEntry
from tabinet.calc.scopes import NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import WorkloadEndpoint, WorkloadEndpointSpec


def endpoint_labels(key: ResourceKey, resource: WorkloadEndpoint) -> dict[str, str]:
    """An endpoint's own labels: those of the resource, and what it is by itself, which nobody can override."""
    labels = dict(resource.metadata.labels)
    labels[NAMESPACE] = key.namespace
    spec = resource.spec
    if spec.orchestrator:
        labels[ORCHESTRATOR] = spec.orchestrator
    if spec.service_account_name:
        labels[SERVICE_ACCOUNT] = spec.service_account_name
    return labels


def network_set_labels(key: ResourceKey, labels: dict[str, str]) -> dict[str, str]:
    """A network set's own labels; a namespaced one carries its namespace."""
    return labels | {NAMESPACE: key.namespace} if key.namespace else labels


def network_set_profiles(key: ResourceKey) -> tuple[str, ...]:
    """The profiles whose labels a network set inherits: that of its namespace."""
    return (f"kns.{key.namespace}",) if key.namespace else ()


def programmable(spec: WorkloadEndpointSpec) -> bool:
    """True when the endpoint can be programmed, if no other one has its interface."""
    return bool(spec.interface_name) and any(True for _ in _readable(spec.ip_networks))


def build_endpoint(spec: WorkloadEndpointSpec, ingress: tuple[TierPolicies, ...], egress: tuple[TierPolicies, ...]) -> Endpoint:
    """The message's record of a programmable endpoint."""
    return Endpoint(
        host=spec.node,
        interface=spec.interface_name,
        mac=spec.mac.lower().replace("-", ":"),
        nets=tuple(sorted(set(_readable(spec.ip_networks)))),
        spoof_nets=tuple(sorted(set(_readable(spec.allow_spoofed_source_prefixes)))),
        ingress=ingress,
        egress=egress,
        profiles=tuple(dict.fromkeys(spec.profiles)),
    )


def _readable(texts: Iterable[str]) -> Iterator[Prefix]:
    for text in texts:
        try:
            yield parse_prefix(text)
        except ValueError:
            continue


@dataclass(slots=True, eq=False)
class LocalEndpoint:
    """An endpoint of one of our hosts."""

    key: ResourceKey
    spec: WorkloadEndpointSpec
    revision: int
    label_class: LabelClass
    programmable: bool
    enforced: tuple[PolicyEntry, ...] = ()
    """The policies that count it as a user."""
    profiles: tuple[str, ...] = ()
    """The profiles that count it as a user."""


@dataclass(slots=True)
class LocalIndex:
    """All local endpoints, and which of them have to be looked at again."""

    by_key: dict[ResourceKey, LocalEndpoint] = field(default_factory=dict)
    classes: dict[LabelClass, None] = field(default_factory=dict)
    """The label classes that have local endpoints."""
    dirty: dict[LocalEndpoint, None] = field(default_factory=dict)
    gone: dict[LocalEndpoint, None] = field(default_factory=dict)
    """Deleted or replaced ones whose policies and profiles still count them."""
    _claims: dict[tuple[str, str], dict[ResourceKey, None]] = field(default_factory=dict)
    """By host and interface: the programmable endpoints that name it."""

    def put(self, key: ResourceKey, spec: WorkloadEndpointSpec, revision: int, label_class: LabelClass) -> None:
        """The endpoint is local and this now."""
        local = self.by_key.get(key)
        if local is None:
            local = self.by_key[key] = LocalEndpoint(key, spec, revision, label_class, programmable(spec))
        else:
            self._leave_class(local)
            self._release(local)
            local.spec, local.revision, local.label_class, local.programmable = spec, revision, label_class, programmable(spec)
        if label_class.locals is None:
            label_class.locals = {}
        label_class.locals[local] = None
        self.classes[label_class] = None
        self._claim(local)
        self.dirty[local] = None

    def delete(self, key: ResourceKey) -> None:
        """The endpoint is not local (any more)."""
        local = self.by_key.pop(key, None)
        if local is None:
            return
        self._leave_class(local)
        self._release(local)
        self.dirty.pop(local, None)
        self.gone[local] = None

    def touch(self, classes: Iterable[LabelClass]) -> None:
        """The policies of these classes changed."""
        for each in classes:
            self.dirty.update(each.locals or {})

    def programmed(self, local: LocalEndpoint) -> bool:
        """True when the endpoint is to be programmed."""
        return local.programmable and min(self._claims[_place(local)]) == local.key

    def _leave_class(self, local: LocalEndpoint) -> None:
        left = local.label_class
        if left.locals is not None:
            del left.locals[local]
        if not left.locals:
            # Whoever changes policies does not ask it any more, so its answer would go stale.
            left.policies = None
            del self.classes[left]

    def _claim(self, local: LocalEndpoint) -> None:
        if local.programmable:
            claimants = self._claims.setdefault(_place(local), {})
            claimants[local.key] = None
            self._touch_rivals(claimants)

    def _release(self, local: LocalEndpoint) -> None:
        if local.programmable:
            claimants = self._claims[_place(local)]
            self._touch_rivals(claimants)
            del claimants[local.key]
            if not claimants:
                del self._claims[_place(local)]

    def _touch_rivals(self, claimants: dict[ResourceKey, None]) -> None:
        if len(claimants) > 1:
            self.dirty.update(dict.fromkeys(self.by_key[key] for key in claimants if key in self.by_key))

    def problems(self, known_profiles: Container[str]) -> list[Problem]:
        """What is wrong with local endpoints, by themselves and with each other. O(local endpoints)."""
        found: list[Problem] = []
        owners: dict[Prefix, ResourceKey] = {}
        for key in sorted(self.by_key):
            local = self.by_key[key]
            spec, source = local.spec, str(key)
            found.extend(_own_problems(source, spec))
            found.extend(
                Problem(path="spec.profiles", value=repr(name), allowed="the name of a profile that exists", source=source)
                for name in spec.profiles
                if name not in known_profiles
            )
            if not local.programmable:
                continue
            first = min(self._claims[_place(local)])
            if first != key:
                found.append(
                    Problem(
                        path="spec.interfaceName",
                        value=repr(spec.interface_name),
                        allowed=f"an interface of its own; {first} has this one, so this endpoint is not programmed",
                        source=source,
                    )
                )
            for address in dict.fromkeys(_readable(spec.ip_networks)):
                owner = owners.setdefault(address, key)
                if owner != key:
                    allowed = f"an address of its own; {owner} has this one"
                    found.append(Problem(path="spec.ipNetworks", value=str(address), allowed=allowed, source=source))
        return found


def _place(local: LocalEndpoint) -> tuple[str, str]:
    return (local.spec.node, local.spec.interface_name)


def _own_problems(source: str, spec: WorkloadEndpointSpec) -> Iterator[Problem]:
    if spec.ip_networks and not spec.interface_name:
        yield Problem(path="spec.interfaceName", value="''", allowed="the name of the host's interface to it", source=source)
    for name, texts in (("ipNetworks", spec.ip_networks), ("allowSpoofedSourcePrefixes", spec.allow_spoofed_source_prefixes)):
        for index, text in enumerate(texts):
            try:
                parse_prefix(text)
            except ValueError:
                yield Problem(path=f"spec.{name}[{index}]", value=repr(text)[:80], allowed="an address or prefix", source=source)
