"""Single endpoints and network sets: the labels that they carry by themselves, what they become as messages, what is wrong with them.

An endpoint can be programmed when somebody can tell its packets: a workload endpoint by an interface and at least one address that can be
read, a host endpoint by an interface or an address. Pure; O(size of the resource).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from tabinet.calc.carriers import ORIGIN_KEYS, Origin
from tabinet.calc.messages import AddressQos, Endpoint, Forward, HostEndpoint, Migration, Nat, TierPolicies
from tabinet.calc.ports import NOTHING, PortNeeds, routed_prefixes
from tabinet.calc.qos import build_qos, qos_problems
from tabinet.errors import Problem
from tabinet.lib.ip import IPV4, Prefix, parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import HostEndpointSpec, IpNat, WorkloadEndpoint, WorkloadEndpointSpec

EVERY_INTERFACE = "*"
"""``spec.interfaceName`` of a host endpoint for all interfaces of its host."""

EndpointSpec = WorkloadEndpointSpec | HostEndpointSpec


def endpoint_origin(key: ResourceKey, spec: WorkloadEndpointSpec) -> Origin:
    """What a workload endpoint carries by what it is, which its own labels cannot override."""
    return (key.namespace, spec.orchestrator, spec.service_account_name)


def endpoint_labels(key: ResourceKey, resource: WorkloadEndpoint) -> dict[str, str]:
    """All labels of a workload endpoint but the inherited ones."""
    origin = zip(ORIGIN_KEYS, endpoint_origin(key, resource.spec), strict=True)
    return resource.metadata.labels | {label: value for label, value in origin if value}


def network_set_origin(key: ResourceKey) -> Origin:
    """A namespaced network set carries its namespace."""
    return (key.namespace, "", "")


def network_set_profiles(key: ResourceKey) -> tuple[str, ...]:
    """The profiles whose labels a network set inherits: that of its namespace."""
    return (f"kns.{key.namespace}",) if key.namespace else ()


def programmable(spec: EndpointSpec) -> bool:
    """True when the endpoint can be programmed, if no other one has its interface."""
    if isinstance(spec, HostEndpointSpec):
        return bool(spec.interface_name) or any(True for _ in readable_addresses(spec.expected_ips))
    return bool(spec.interface_name) and any(True for _ in readable(spec.ip_networks))


def build_endpoint(
    spec: WorkloadEndpointSpec,
    parts: Mapping[str, tuple[TierPolicies, ...]],
    nats: Iterable[Nat],
    needs: PortNeeds = NOTHING,
    migration: Migration | None = None,
    yields: tuple[Prefix, ...] = (),
    addresses_of: Callable[[str], tuple[Prefix, ...]] = lambda _: (),
) -> Endpoint:
    """The message's record of a programmable workload endpoint; ``nats`` are those of its floating addresses that are its own.

    ``addresses_of``: a host's, one of each family.
    """
    nats, forwards = tuple(sorted(nats)), own_forwards(spec, needs.forwards)
    return Endpoint(
        host=spec.node,
        interface=spec.interface_name,
        mac=spec.mac.lower().replace("-", ":"),
        nets=tuple(sorted(set(readable(spec.ip_networks)))),
        spoof_nets=tuple(sorted(set(readable(spec.allow_spoofed_source_prefixes)))),
        ingress=parts["ingress"],
        egress=parts["egress"],
        profiles=tuple(dict.fromkeys(spec.profiles)),
        nats=nats,
        qos=build_qos(spec.qos_controls),
        gateway4=next((address for address in readable_addresses((spec.ipv4_gateway,)) if address.family == IPV4), None),
        trunk=needs.trunk,
        pairs=needs.pairs,
        routed=routed_prefixes(needs.pairs, tuple(readable(spec.ip_networks))),
        any_mac=needs.any_mac,
        stateless=needs.stateless,
        forwards=forwards,
        elsewhere=tuple(msgspec.structs.replace(each, addresses=addresses_of(each.host)) for each in needs.elsewhere),
        address_qos=_own_address_qos(needs.address_qos, nats, forwards),
        migration=migration,
        shared=shared_addresses(spec),
        yields=yields,
    )


def shared_addresses(spec: WorkloadEndpointSpec) -> tuple[Prefix, ...]:
    """Those of the endpoint's addresses that others may have as well, sorted."""
    if not spec.allowed_ips:
        return ()
    allowed = set(readable(spec.allowed_ips))
    return tuple(sorted({net for net in readable(spec.ip_networks) if net.is_host and net in allowed}))


def build_host_endpoint(spec: HostEndpointSpec, parts: Mapping[str, tuple[TierPolicies, ...]]) -> HostEndpoint:
    """The message's record of a programmable host endpoint."""
    return HostEndpoint(
        host=spec.node,
        interface=spec.interface_name,
        addresses=tuple(sorted(set(readable_addresses(spec.expected_ips)))),
        profiles=tuple(dict.fromkeys(spec.profiles)),
        **parts,
    )


def own_forwards(spec: WorkloadEndpointSpec, forwards: tuple[Forward, ...]) -> tuple[Forward, ...]:
    """Those that lead to addresses of the endpoint, of the same family."""
    if not forwards:
        return ()
    nets = set(readable(spec.ip_networks))
    return tuple(sorted({each for each in forwards if each.internal in nets and each.internal.family == each.external.family}))


def _own_address_qos(asked: tuple[AddressQos, ...], nats: tuple[Nat, ...], forwards: tuple[Forward, ...]) -> tuple[AddressQos, ...]:
    """That of floating addresses by which the endpoint is reached."""
    if not asked:
        return ()
    externals = {nat.external for nat in nats} | {forward.external for forward in forwards}
    return tuple(each for each in asked if each.external in externals)


def readable(texts: Iterable[str]) -> Iterator[Prefix]:
    """Those of the texts that are prefixes."""
    for text in texts:
        try:
            yield parse_prefix(text)
        except ValueError:
            continue


def nets_of(spec: WorkloadEndpointSpec) -> tuple[Prefix, ...]:
    """Those of the endpoint's networks that are prefixes, each once, in their order."""
    texts = spec.ip_networks
    if len(texts) == 1:  # most have one, and there are very many of them
        try:
            return (parse_prefix(texts[0]),)
        except ValueError:
            return ()
    return tuple(dict.fromkeys(readable(texts)))


def readable_addresses(texts: Iterable[str]) -> Iterator[Prefix]:
    """Those of the texts that are addresses, with or without a length, as host prefixes."""
    for text in texts:
        try:
            yield parse_address(text.partition("/")[0])
        except ValueError:
            continue


def readable_nats(spec: WorkloadEndpointSpec) -> dict[Prefix, Nat]:
    """By external address: the floating addresses that make sense. Of several for one external address the smallest."""
    if not spec.ip_nats:
        return {}
    nets = set(readable(spec.ip_networks))
    found: dict[Prefix, Nat] = {}
    for nat in sorted(nat for nat in (_read_nat(written, nets) for written in spec.ip_nats) if nat is not None):
        found.setdefault(nat.external, nat)
    return found


def _read_nat(nat: IpNat, nets: set[Prefix]) -> Nat | None:
    try:
        external, internal = parse_prefix(nat.external_ip), parse_prefix(nat.internal_ip)
    except ValueError:
        return None
    fits = external.is_host and internal.is_host and internal in nets and external.family == internal.family
    return Nat(external, internal) if fits else None


# --- what is wrong --------------------------------------------------------------------------------------------------


def endpoint_problems(source: str, spec: EndpointSpec) -> Iterator[Problem]:
    """What is wrong with an endpoint by itself."""
    if isinstance(spec, HostEndpointSpec):
        yield from _host_problems(source, spec)
    else:
        yield from _workload_problems(source, spec)


def _host_problems(source: str, spec: HostEndpointSpec) -> Iterator[Problem]:
    if not programmable(spec):
        allowed = "the name of an interface, * for all, or expectedIPs; without, this endpoint is not programmed"
        yield Problem(path="spec.interfaceName", value="''", allowed=allowed, source=source)
    for index, text in enumerate(spec.expected_ips):
        try:
            parse_address(text.partition("/")[0])
        except ValueError:
            yield Problem(path=f"spec.expectedIPs[{index}]", value=repr(text)[:80], allowed="an address", source=source)


def _workload_problems(source: str, spec: WorkloadEndpointSpec) -> Iterator[Problem]:
    if spec.ip_networks and not spec.interface_name:
        yield Problem(path="spec.interfaceName", value="''", allowed="the name of the host's interface to it", source=source)
    for name, texts in (("ipNetworks", spec.ip_networks), ("allowSpoofedSourcePrefixes", spec.allow_spoofed_source_prefixes)):
        for index, text in enumerate(texts):
            try:
                parse_prefix(text)
            except ValueError:
                yield Problem(path=f"spec.{name}[{index}]", value=repr(text)[:80], allowed="an address or prefix", source=source)
    nets, externals = set(readable(spec.ip_networks)), readable_nats(spec)
    for index, written in enumerate(spec.ip_nats):
        nat = _read_nat(written, nets)
        value = f"{written.external_ip} to {written.internal_ip}"[:80]
        if nat is None:
            allowed = "an address outside for one of ipNetworks, of the same family; it is left out"
            yield Problem(path=f"spec.ipNATs[{index}]", value=value, allowed=allowed, source=source)
        elif externals[nat.external] != nat:
            allowed = f"each external address once; {externals[nat.external].internal} has this one"
            yield Problem(path=f"spec.ipNATs[{index}]", value=value, allowed=allowed, source=source)
    yield from qos_problems(spec.qos_controls, source)
