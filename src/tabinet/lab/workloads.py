"""The workloads of a lab: attached as their kinds are, and found again in the store.

In: a plan and its store. Out: endpoints that are ready, or ``Target`` records with the addresses that they got. All workloads are
attached at the same time.
"""

from __future__ import annotations

import asyncio

import msgspec

from tabinet.calc.autohosts import host_addresses
from tabinet.errors import DataError, LabError, TabinetError
from tabinet.ipam.client import IpamClient
from tabinet.lab.expectation import Target
from tabinet.lab.kinds.facts import FACTS, HOST, Maker
from tabinet.lab.kinds.kind import Endpoint, Session, Site
from tabinet.lab.kinds.known import kind_of
from tabinet.lab.plan import Plan, namespace_of
from tabinet.lab.state import LabDirectory
from tabinet.lab.together import together
from tabinet.lab.topology import Workload
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix, path_of
from tabinet.model.resources import HostEndpoint, Node, WorkloadEndpoint
from tabinet.store.api import Datastore

_ENDPOINTS = (WorkloadEndpoint, HostEndpoint)


async def attach_workloads(store: Datastore, plan: Plan, directory: LabDirectory) -> None:
    """Every workload of the plan is attached and ready.

    Raises:
        LabError: one could not be attached; all the reasons are told.
    """
    session = Session(store, IpamClient(store))
    workloads = plan.topology.workloads
    outcomes = await asyncio.gather(
        *(kind_of(workload).attach(Site(plan, directory, workload.host), session, workload) for workload in workloads),
        return_exceptions=True,
    )
    failed = []
    for workload, outcome in zip(workloads, outcomes, strict=True):
        if isinstance(outcome, TabinetError):
            failed.append(f"{workload.name}: {outcome}")
        elif isinstance(outcome, BaseException):
            raise outcome
    if failed:
        raise LabError(f"not attached: {'; '.join(failed)}")


async def wait_workloads(plan: Plan, directory: LabDirectory) -> None:
    """Every attached workload has its addresses and can be probed.

    Raises:
        LabError: not in time; with all the reasons.
    """
    await together(kind_of(workload).wait(Site(plan, directory, workload.host), workload) for workload in plan.topology.workloads)


async def read_targets_found(store: Datastore, plan: Plan, directory: LabDirectory) -> list[Target]:
    """The workloads that have an endpoint in the store, with their addresses, in the order of the topology."""
    endpoints = await _endpoints(store)
    found = []
    for workload in plan.topology.workloads:
        kind, site = kind_of(workload), Site(plan, directory, workload.host)
        endpoint = next((value for key, value in endpoints.items() if kind.is_endpoint(site, workload, key, value)), None)
        if isinstance(endpoint, WorkloadEndpoint):
            found.append(_target(site, workload, endpoint, kind.prober_socket(site, workload)))
        elif isinstance(endpoint, HostEndpoint) and isinstance(node := await _read(store, ResourceKey("Node", workload.host)), Node):
            target = host_target(plan, workload.host, tuple(host_addresses(node)))
            found.append(msgspec.structs.replace(target, name=workload.name, bare=True))
    return found


def _target(site: Site, workload: Workload, endpoint: WorkloadEndpoint, socket: str) -> Target:
    has_namespace = FACTS[workload.kind].namespace_by is not Maker.NOBODY
    return Target(
        name=workload.name,
        namespace=site.namespace_of(workload) if has_namespace else "",
        addresses=tuple(parse_prefix(text) for text in endpoint.spec.ip_networks),
        host=workload.host,
        floating=tuple(parse_address(nat.external_ip) for nat in endpoint.spec.ip_nats),
        socket=socket,
    )


async def _endpoints(store: Datastore) -> dict[ResourceKey, Endpoint]:
    """All endpoints of workloads and hosts that can be understood."""
    found: dict[ResourceKey, Endpoint] = {}
    for kind in ("WorkloadEndpoint", "HostEndpoint"):
        async for page in store.list(kind_prefix(kind)):
            for item in page.items:
                try:
                    decoded = decode_stored(item.key, item.value)
                except DataError:  # nobody programs a broken one
                    continue
                if decoded is not None and isinstance(decoded[0], ResourceKey) and isinstance(decoded[1], _ENDPOINTS):
                    found[decoded[0]] = decoded[1]
    return found


async def read_hosts(store: Datastore, plan: Plan) -> list[Target]:
    """The hosts that have a Node in the store and are no workload, under the addresses that the others know them by."""
    bare = {workload.host for workload in plan.topology.of_kind(HOST)}
    found = []
    for host in plan.hosts:
        node = await _read(store, ResourceKey("Node", host.name))
        if isinstance(node, Node) and host.name not in bare:
            found.append(host_target(plan, host.name, tuple(host_addresses(node))))
    return found


async def _read(store: Datastore, key: ResourceKey) -> object | None:
    """The resource; None when there is none, or a broken one, which nobody programs."""
    item = await store.get(path_of(key))
    if item is None:
        return None
    try:
        decoded = decode_stored(item.key, item.value)
    except DataError:
        return None
    return decoded[1] if decoded is not None else None


def host_target(plan: Plan, host: str, addresses: tuple[Prefix, ...]) -> Target:
    """A host under these addresses."""
    namespace = namespace_of(plan.name, host)
    return Target(host, namespace, addresses, host=host, is_host=True, underlay=plan.underlay_of(host))


async def read_targets(store: Datastore, plan: Plan, directory: LabDirectory) -> list[Target]:
    """All workloads with their addresses, in the order of the topology.

    Raises:
        LabError: one has no endpoint in the store.
    """
    found = await read_targets_found(store, plan, directory)
    missing = [workload.name for workload in plan.topology.workloads if workload.name not in {target.name for target in found}]
    if missing:
        raise LabError(f"not attached: {', '.join(missing)}; bring the lab down and up again")
    return found
