"""What on a host that Calico ran fits together, what does not, and what is to be done next. Pure.

In: a ``Sighting``. Out: a line for each address of each endpoint, findings with the command that puts each right, and the next step. A
finding ``blocks`` when traffic would suffer, or an endpoint would have no policy, if the takeover went on; all others can wait. What fits
nothing else is a stranger: an interface without endpoint, a route without interface, an address or block that nobody uses.
O(endpoints + routes + addresses assigned on the host).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.agent.takeover.progress import Step, next_step
from tabinet.agent.takeover.records import BPF_INTERFACES, WIREGUARD, Sighting, describe_route
from tabinet.agent.takeover.routes import orphaned_routes
from tabinet.dataplane.routes.driver import FELIX_PROTOCOLS
from tabinet.ipam.audit import Allocation, allocations, find_spares
from tabinet.ipam.blocks import owner_of
from tabinet.ipam.owners import WORKLOAD, host_of, owner_for
from tabinet.ipam.pools import containing_pool
from tabinet.kernel.rtnetlink import TABINET_PROTOCOL, Route
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey

WRITERS = {TABINET_PROTOCOL: "tabinet", 80: "felix", 3: "boot", 12: "bird", 4: "static", 2: "kernel"}
"""Who makes routes of these protocol numbers; felix may also make those of 3."""
NOTHING = "-"


class AddressLine(msgspec.Struct, frozen=True):
    """An address of an endpoint, and what it meets in each place."""

    address: str
    route: str
    """Who made the route, and where it leads if not to the endpoint's interface."""
    block: str
    """The block, and whose it is if not this host's."""
    handle: str


class EndpointLine(msgspec.Struct, frozen=True):
    """An endpoint of this host."""

    endpoint: str
    interface: str
    state: str
    """Of the interface: ``up``, ``down`` or ``missing``."""
    addresses: tuple[AddressLine, ...]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not fit."""

    blocks: bool = False
    """It stands in the way of the takeover."""
    subject: str
    problem: str
    command: str = ""
    """What puts it right; empty where nothing has to be done."""


class Survey(msgspec.Struct, frozen=True):
    """The whole answer."""

    host: str
    endpoints: tuple[EndpointLine, ...]
    findings: tuple[Finding, ...]
    step: Step
    advice: str
    """The next step in words."""

    @property
    def blocked(self) -> bool:
        """Something stands in the way."""
        return any(finding.blocks for finding in self.findings)


def survey(sighting: Sighting) -> Survey:
    """What there is, in order of endpoints; findings that block come first."""
    assigned = {allocation.address: allocation for allocation in allocations(sighting.inventory)}
    lines = tuple(_line(sighting, key, assigned) for key in sorted(sighting.endpoints))
    findings = [
        *_obstacles(sighting),
        *_endpoints(sighting),
        *_addresses(sighting, assigned),
        *_interfaces(sighting),
        *_routes(sighting),
        *_unused(sighting, assigned),
    ]
    findings.sort(key=lambda finding: not finding.blocks)
    step, advice = next_step(sighting, blocked=any(finding.blocks for finding in findings))
    return Survey(sighting.host, lines, tuple(findings), step, advice)


def nets_of(sighting: Sighting, key: ResourceKey) -> list[Prefix]:
    """The addresses of an endpoint."""
    return [parse_prefix(text) for text in sighting.endpoints[key].spec.ip_networks]


# --- lines ----------------------------------------------------------------------------------------------------------------


def _line(sighting: Sighting, key: ResourceKey, assigned: dict[Prefix, Allocation]) -> EndpointLine:
    name = sighting.endpoints[key].spec.interface_name
    link = sighting.link(name)
    state = "missing" if link is None else "up" if link.up else "down"
    lines = [_address_line(sighting, net, name, assigned.get(net)) for net in nets_of(sighting, key)]
    return EndpointLine(f"{key.namespace}/{key.name}", name, state, tuple(lines))


def _address_line(sighting: Sighting, net: Prefix, interface: str, allocation: Allocation | None) -> AddressLine:
    route = _route_to(sighting, net)
    writer = WRITERS.get(route.protocol, str(route.protocol)) if route is not None else NOTHING
    elsewhere = _leads_elsewhere(sighting, route, interface)
    if allocation is None:
        return AddressLine(net.address, writer + elsewhere, NOTHING, NOTHING)
    host = _block_host(sighting, allocation.block)
    whose = "" if host == sighting.host else f" of {host or 'nobody'}"
    return AddressLine(net.address, writer + elsewhere, f"{allocation.block}{whose}", allocation.handle or NOTHING)


def _route_to(sighting: Sighting, net: Prefix) -> Route | None:
    """The one that packets take, of those to exactly this address."""
    return min((route for route in sighting.routes if route.destination == net), key=lambda route: route.metric, default=None)


def _leads_elsewhere(sighting: Sighting, route: Route | None, interface: str) -> str:
    link = sighting.link(interface)
    if route is None or (link is not None and {hop.index for hop in route.hops} == {link.index}):
        return ""
    names = {each.index: each.name for each in sighting.links}
    return f" to {', '.join(names.get(hop.index, str(hop.index)) for hop in route.hops) or route.kind.name.lower()}"


def _block_host(sighting: Sighting, block: Prefix) -> str:
    document = sighting.inventory.block(block).document
    return host_of(owner_of(document)) if document is not None else ""


# --- what stands in the way -----------------------------------------------------------------------------------------------


def _obstacles(sighting: Sighting) -> Iterator[Finding]:
    for text in sighting.traces.unread:
        yield Finding(blocks=True, subject="host", problem=text, command="apt-get install iptables" if "iptables" in text else "")
    for text in sighting.fabric.broken:
        yield Finding(subject="store", problem=f"cannot be understood, so no host serves it: {text}", command="tabinet get wep -A")
    if any(sighting.link(name) for name in WIREGUARD):
        problem = "Felix encrypts what goes to other hosts; here it is not encrypted"
        command = """tabinet patch felixconfig default -p '{"spec": {"wireguardEnabled": false, "wireguardEnabledV6": false}}'"""
        yield Finding(blocks=True, subject="WireGuard", problem=problem, command=command)
    if any(sighting.link(name) for name in BPF_INTERFACES):
        problem = "Felix forwards with its eBPF programs, which stay at the interfaces: let it change to iptables first"
        command = """tabinet patch felixconfig default -p '{"spec": {"bpfEnabled": false}}'"""
        yield Finding(blocks=True, subject="eBPF", problem=problem, command=command)
    yield from _closed_tables(sighting)


def _closed_tables(sighting: Sighting) -> Iterator[Finding]:
    """Tables that let workloads' packets pass by Felix's rules only. Ours can be put before only when our policy is there to judge."""
    ready = sighting.agent.report is not None
    for table in sighting.traces.tables:
        if not table.closed:
            continue
        ways = [f"{way} {prefix}+" for prefix in sighting.prefixes for way in ("-i", "-o")]
        command = "; ".join(f"{table.program} -I FORWARD {way} -j ACCEPT" for way in ways)
        later = "" if ready else " (when our agent runs; not before)"
        problem = f"{table.closed}: without Felix's rules nothing there accepts workloads{later}"
        yield Finding(blocks=ready, subject=table.name, problem=problem, command=command if ready else "")


# --- what does not fit ----------------------------------------------------------------------------------------------------


def _endpoints(sighting: Sighting) -> Iterator[Finding]:
    owners: dict[str, ResourceKey] = {}
    for key in sorted(sighting.endpoints):
        name = sighting.endpoints[key].spec.interface_name
        subject = f"endpoint {key.namespace}/{key.name}"
        link = sighting.link(name)
        if not name.startswith(sighting.prefixes):
            problem = f"its interface {name!r} begins with none of {', '.join(sighting.prefixes)}: no policy would guard it"
            command = (
                f"""tabinet patch felixconfig default -p '{{"spec": {{"interfacePrefix": "{",".join(sighting.prefixes)},{name[:3]}"}}}}'"""
            )
            yield Finding(blocks=True, subject=subject, problem=problem, command=command)
        elif name in owners:
            problem = f"its interface {name} is that of {owners[name].namespace}/{owners[name].name}, too: only that one gets it"
            yield Finding(blocks=True, subject=subject, problem=problem, command=_delete(key))
        elif link is None:
            yield Finding(
                subject=subject, problem=f"there is no interface {name}: the workload is gone, or not there yet", command=_delete(key)
            )
        owners.setdefault(name, key)


def _delete(key: ResourceKey) -> str:
    return f"tabinet delete wep {key.name} -n {key.namespace}"


def _addresses(sighting: Sighting, assigned: dict[Prefix, Allocation]) -> Iterator[Finding]:
    names = {link.index: link.name for link in sighting.links}
    managed = [pool for pool in sighting.inventory.settings.pools if any(pool.cidr.contains(block) for block in sighting.inventory.blocks)]
    for key in sorted(sighting.endpoints):
        spec = sighting.endpoints[key].spec
        for net in nets_of(sighting, key):
            subject = f"address {net.address}"
            route = _route_to(sighting, net)
            elsewhere = _leads_elsewhere(sighting, route, spec.interface_name)
            if route is not None and elsewhere and sighting.link(spec.interface_name) is not None:
                problem = f"is routed{elsewhere}, and belongs to {key.name} at {spec.interface_name}"
                yield Finding(blocks=True, subject=subject, problem=problem, command=describe_route(route, names))
            if net not in assigned and containing_pool(managed, net) is not None:
                command = f"tabinet ipam assign {key.name} -n {key.namespace}"
                yield Finding(
                    subject=subject, problem=f"is used by {key.name}, and not assigned: somebody else may get it", command=command
                )


def _interfaces(sighting: Sighting) -> Iterator[Finding]:
    known = {endpoint.spec.interface_name for endpoint in sighting.endpoints.values()}
    for link in sighting.links:
        if link.name in known or not sighting.is_workload_interface(link.name):
            continue
        routed = [
            route.destination
            for route in sighting.routes
            if any(hop.index == link.index for hop in route.hops) and route.destination.is_host
        ]
        options = "".join(
            f" --address {net.address}"
            for net in routed
            if net in sighting.fabric.uses or containing_pool(sighting.inventory.settings.pools, net)
        )
        attach = f"tabinet workload add --tap {link.name}{options}"
        command = f"ip link delete {link.name}" if link.kind == "veth" else attach
        if link.kind == "veth" and routed:
            command += f"   (or, if it is in use: {attach})"
        yield Finding(subject=f"interface {link.name}", problem="has no endpoint: what is behind it passes nothing", command=command)


def _routes(sighting: Sighting) -> Iterator[Finding]:
    """Routes of Felix's kind to what no endpoint here has."""
    names = {link.index: link.name for link in sighting.links}
    wanted = {net for key in sighting.endpoints for net in nets_of(sighting, key)}
    for route in sighting.routes:
        towards = [names.get(hop.index, "") for hop in route.hops]
        local = any(sighting.is_workload_interface(name) for name in towards)
        if route.protocol not in FELIX_PROTOCOLS or not local or route.destination in wanted or not route.destination.is_host:
            continue
        problem = f"leads to {', '.join(towards)}, and no endpoint here has the address"
        yield Finding(subject=f"route {route.destination.address}", problem=problem, command=describe_route(route, names))
    for route in orphaned_routes(sighting):
        problem = "is of a BIRD that runs no more, and ours has none to there: if that is so when all sessions are up, remove it"
        yield Finding(subject=f"route {route.destination}", problem=problem, command=describe_route(route, names))


def _unused(sighting: Sighting, assigned: dict[Prefix, Allocation]) -> Iterator[Finding]:
    by_handle: dict[str, list[Allocation]] = {}
    for allocation in assigned.values():
        if allocation.note("node") == sighting.host and allocation.address not in sighting.fabric.uses and not allocation.note("type"):
            by_handle.setdefault(allocation.handle, []).append(allocation)
    for handle, group in sorted(by_handle.items()):
        names = [allocation.address.address for allocation in group]
        whole = handle and all(each.address not in sighting.fabric.uses for each in assigned.values() if each.handle == handle)
        command = (
            f"tabinet ipam release --handle {handle}" if whole else "tabinet ipam release" + "".join(f" --ip {name}" for name in names)
        )
        problem = f"assigned to {handle or 'nobody'} on this host, and no endpoint has {'it' if len(names) == 1 else 'them'}"
        yield Finding(subject=f"address {', '.join(names)}", problem=problem, command=command)
    mine = owner_for(WORKLOAD, sighting.host)
    for spare in find_spares(sighting.inventory, sighting.fabric, 0.0, float("-inf")):
        if spare.code == "block-spare" and spare.owner == mine:
            yield Finding(subject=spare.subject, problem=spare.problem, command="tabinet ipam gc")
