"""The workloads of a lab: attached through the same code as any other workload, and found again in the store.

In: a plan and its store. Out: endpoints that are ready, or ``Target`` records with the addresses that they got. All workloads are
attached at the same time; a lab's workload has orchestrator ``lab`` and its own name.
"""

from __future__ import annotations

import asyncio

import msgspec

from tabinet.attach.names import Workload as Identity
from tabinet.attach.netns import AttachRequest, attach
from tabinet.attach.network import LinuxNetwork
from tabinet.calc.autohosts import host_addresses
from tabinet.errors import DataError, LabError, TabinetError
from tabinet.ipam.client import IpamClient
from tabinet.lab.expectation import Target
from tabinet.lab.launches import prober_socket
from tabinet.lab.plan import Plan, namespace_of
from tabinet.lab.state import LabDirectory
from tabinet.lab.topology import Workload
from tabinet.lab.vm import VM, mac_of, tap_of
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import EndpointPort, Node, WorkloadEndpoint
from tabinet.store.api import Datastore

ORCHESTRATOR = "lab"


def identity_of(workload: Workload) -> Identity:
    """By which name a workload is attached."""
    return Identity(node=workload.host, workload=workload.name, orchestrator=ORCHESTRATOR, namespace=workload.namespace)


async def attach_workloads(store: Datastore, plan: Plan) -> None:
    """Every workload of the plan is attached and ready.

    Raises:
        LabError: one could not be attached; all the reasons are told.
    """
    ipam = IpamClient(store)
    outcomes = await asyncio.gather(
        *(attach(request_of(plan, workload), store, network=_network(plan, workload), ipam=ipam) for workload in plan.topology.workloads),
        return_exceptions=True,
    )
    failed = []
    for workload, outcome in zip(plan.topology.workloads, outcomes, strict=True):
        if isinstance(outcome, TabinetError):
            failed.append(f"{workload.name}: {outcome}")
        elif isinstance(outcome, BaseException):
            raise outcome
    if failed:
        raise LabError(f"not attached: {'; '.join(failed)}")


def _network(plan: Plan, workload: Workload) -> LinuxNetwork:
    return LinuxNetwork(namespace_of(plan.name, workload.host))


def request_of(plan: Plan, workload: Workload) -> AttachRequest:
    """How a workload is attached: one address of each family that the lab has a pool of; a virtual machine has none of IPv6."""
    families = [pool.family for pool in plan.topology.pools]
    is_machine = workload.kind == VM
    return AttachRequest(
        workload=identity_of(workload),
        netns="" if is_machine else namespace_of(plan.name, workload.name),
        tap=tap_of(workload.name) if is_machine else "",
        mac=mac_of(plan.name, workload.name) if is_machine else "",
        count4=int(IPV4 in families),
        count6=int(IPV6 in families and not is_machine),
        labels=workload.labels,
        profiles=workload.profiles,
        ports=tuple(EndpointPort(name=port.name, protocol=port.protocol, port=port.port) for port in workload.ports),
    )


async def read_targets_found(store: Datastore, plan: Plan) -> list[Target]:
    """The workloads that have an endpoint in the store, with their addresses, in the order of the topology."""
    found = []
    for workload in plan.topology.workloads:
        endpoint = await _read(store, identity_of(workload).key)
        if isinstance(endpoint, WorkloadEndpoint):
            spec = endpoint.spec
            found.append(
                Target(
                    name=workload.name,
                    namespace=namespace_of(plan.name, workload.name),
                    addresses=tuple(parse_prefix(text) for text in spec.ip_networks),
                    host=workload.host,
                    floating=tuple(parse_address(nat.external_ip) for nat in spec.ip_nats),
                )
            )
    return found


async def read_hosts(store: Datastore, plan: Plan) -> list[Target]:
    """The hosts that have a Node in the store, under the addresses that the others know them by."""
    found = []
    for host in plan.hosts:
        node = await _read(store, ResourceKey("Node", host.name))
        if isinstance(node, Node):
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


async def read_targets(store: Datastore, plan: Plan) -> list[Target]:
    """All workloads with their addresses, in the order of the topology.

    Raises:
        LabError: one has no endpoint in the store.
    """
    found = await read_targets_found(store, plan)
    missing = [workload.name for workload in plan.topology.workloads if workload.name not in {target.name for target in found}]
    if missing:
        raise LabError(f"not attached: {', '.join(missing)}; bring the lab down and up again")
    return found


def reachable_probers(targets: list[Target], plan: Plan, directory: LabDirectory) -> list[Target]:
    """The same, virtual machines with the socket of their prober."""
    sockets = {workload.name: str(prober_socket(directory, workload)) for workload in plan.topology.workloads if workload.kind == VM}
    return [msgspec.structs.replace(target, socket=sockets.get(target.name, "")) for target in targets]
