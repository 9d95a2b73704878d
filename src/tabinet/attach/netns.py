"""A network namespace attached to the fabric as a workload: what a CNI plugin, the lab and others call.

In: an ``AttachRequest``. Out: an ``Attachment`` whose policy and routes are in the kernel. ``attach`` is idempotent: repeated, it repairs
what is missing and gives the same addresses. When it fails or is cancelled, what it did is undone, addresses included, and what an earlier
successful call did stays. ``detach`` is idempotent too, and does not need the namespace. Names follow from the workload alone, nothing
is remembered in this process.

One attachment costs three round trips to the store, or three more where the agent is in another process, a handful of netlink messages,
and the agent's time. Not done here: routes, sysctls and policy of the host's side (the agent's), and choosing what runs where.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from tabinet.attach.endpoint import EndpointFacts, endpoint_document
from tabinet.attach.inside import GATEWAYS
from tabinet.attach.mtu import workload_mtu
from tabinet.attach.names import INTERFACE_PREFIX, Workload, interface_name
from tabinet.attach.network import LinuxNetwork, Network
from tabinet.attach.plug import configure, connect, disconnect, drops_packets, take_up
from tabinet.attach.ready import LocalAgent, StatusWatch
from tabinet.attach.steps import Undo, in_thread, together, uninterrupted
from tabinet.errors import Conflict, InputError, Problem
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.codec import decode_document
from tabinet.model.documents import Document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import EndpointPort, QosControls
from tabinet.model.status import status_path_of
from tabinet.model.validate import validate
from tabinet.store.api import Compare, Datastore, DeleteOp, GetOp, KeyValue, PutOp, TxnResult

MAX_ATTEMPTS = 20
DEFAULT_WAIT_S = 30.0
RUNNING_LOOKS = 400
RUNNING_POLL_S = 0.005
_ANY_UID, _ANY_TIME = "00000000-0000-0000-0000-000000000000", "2000-01-01T00:00:00Z"


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is attached, and with what."""

    workload: Workload
    netns: str = ""
    """The network namespace: a name as in ip-netns(8), or a path."""
    tap: str = ""
    """In place of a namespace: an interface of the host, made by others, behind which a guest is that has the addresses."""
    interface: str = "eth0"
    """What the interface is called inside."""
    count4: int = 0
    count6: int = 0
    """How many addresses of each family, requested ones included."""
    addresses: tuple[Prefix, ...] = ()
    """These addresses, from pools."""
    unmanaged: tuple[Prefix, ...] = ()
    """These addresses, which are assigned by others; not counted."""
    pools4: tuple[Prefix, ...] = ()
    pools6: tuple[Prefix, ...] = ()
    """Only from these pools; empty: from any that fits."""
    handle: str = ""
    """The owner of its addresses; empty: the workload's own. One that is given may have addresses already that are in use elsewhere, so
    what fails gives back only what it took."""
    labels: dict[str, str] = {}
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    qos: QosControls | None = None
    floating: tuple[Prefix, ...] = ()
    """Addresses outside that lead to the first address of their family."""
    container: str = ""
    """What the container runtime calls it, where that is not the workload's name."""
    annotations: dict[str, str] = {}
    """Of the endpoint, beside those of others."""
    mac: str = ""
    """Of the interface inside; empty: a random one, of a tap unknown."""
    forwarding: bool = False
    """The workload forwards packets between its interfaces."""
    attributes: dict[str, str] = {}
    """Stored beside the addresses; namespace and workload are added."""
    mtu: int = 0
    """Bytes; 0: what the host's agent reports that its tunnels carry, or else the kernel's default."""
    interface_prefix: str = INTERFACE_PREFIX
    """What names of interfaces on the host begin with: the agent's ``interfacePrefix``."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A workload that is attached."""

    key: ResourceKey
    """Of its WorkloadEndpoint."""
    revision: int
    """The revision of the WorkloadEndpoint."""
    host_interface: str
    mac: str
    """Of the interface inside."""
    addresses: tuple[Prefix, ...]
    """IPv4 first."""
    gateways: tuple[Prefix, ...]
    """One for each family of the addresses."""
    ready: bool
    """True: the agent has it in the kernel. False: nobody waited for that."""


async def attach(
    request: AttachRequest,
    store: Datastore,
    *,
    network: Network | None = None,
    ipam: IpamClient | None = None,
    agent: LocalAgent | None = None,
    beside: Callable[[], Coroutine[Any, Any, object]] | None = None,
    wait: bool = True,
    wait_s: float = DEFAULT_WAIT_S,
) -> Attachment:
    """The namespace is attached and, unless ``wait`` is off, the agent has its endpoint in the kernel.

    ``ipam`` saves round trips when many workloads are attached through one client; so does ``agent``, where the host's is in this process.
    ``beside`` is run while interface and addresses are got ready, and is done before the endpoint is written; it is not undone.

    Raises:
        InputError: the request makes no sense; nothing was changed.
        AttachError: no such namespace, another interface in the way, or not ready within ``wait_s`` seconds.
        AddressError: no address to be had.
        KernelError, StoreError: refused. In all cases what was done is undone; a note on the error says what could not be.
    """
    check_request(request)
    undo = Undo()
    work = _Attaching(request, store, network or LinuxNetwork(), ipam or IpamClient(store), undo, agent, beside)
    try:
        return await _attach(work, wait_s if wait else None)
    except BaseException as error:
        for left in await uninterrupted(undo.run()):
            error.add_note(left)
        raise


async def detach(
    workload: Workload,
    store: Datastore,
    *,
    network: Network | None = None,
    ipam: IpamClient | None = None,
    interface_prefix: str = INTERFACE_PREFIX,
) -> KeyValue | None:
    """The workload has no endpoint, no interface and no addresses; gives the endpoint that it had. Nothing happens where it had none.

    Every part is tried whatever becomes of the others; but addresses are kept while endpoint or interface may still use them.

    Raises:
        KernelError, StoreError: the first thing that failed; repeat the call.
    """
    network = network or LinuxNetwork()
    host_name = interface_name(workload, interface_prefix)
    path = path_of(workload.key)
    deleted, disconnected = await asyncio.gather(
        store.txn([], [GetOp(path), DeleteOp(path)]), in_thread(lambda: disconnect(network, host_name)), return_exceptions=True
    )
    for outcome in (deleted, disconnected):
        if isinstance(outcome, BaseException):
            raise outcome
    await (ipam or IpamClient(store)).release_handle(workload.handle)
    return deleted.values[0] if isinstance(deleted, TxnResult) else None


def check_workload(workload: Workload, interface_prefix: str = INTERFACE_PREFIX) -> None:
    """Returns when the workload can have an endpoint and an interface.

    Raises:
        InputError: a part of its name cannot stand there.
    """
    if problems := _workload_problems(workload, interface_prefix):
        raise InputError(problems)


def _workload_problems(workload: Workload, interface_prefix: str) -> list[Problem]:
    try:
        path_of(workload.key)
        status_path_of(workload.status_key)
        interface_name(workload, interface_prefix)
    except ValueError as error:
        return [Problem(path="workload", value=str(error), allowed="parts without '/' that neither begin nor end with '-'")]
    return []


def check_request(request: AttachRequest) -> None:
    """Returns when the request can be carried out by anyone.

    Raises:
        InputError: says everything that is wrong with it.
    """
    problems = _workload_problems(request.workload, request.interface_prefix)
    if not 0 < len(request.interface.encode()) <= 15 or "/" in request.interface or request.interface in (".", "..", "lo"):
        problems.append(Problem(path="interface", value=repr(request.interface), allowed="an interface name of 1 to 15 bytes"))
    if not request.addresses and not request.unmanaged and request.count4 <= 0 and request.count6 <= 0:
        problems.append(Problem(path="addresses", value="none", allowed="at least one address, or a count"))
    problems += [
        Problem(path=f"addresses[{index}]", value=str(address), allowed="a single address")
        for index, address in enumerate((*request.addresses, *request.unmanaged))
        if not address.is_host
    ]
    if bool(request.netns) == bool(request.tap):
        allowed = "either a network namespace, by name or path, or an interface of the host"
        problems.append(Problem(path="netns", value=repr(request.netns or request.tap), allowed=allowed))
    families = {address.family for address in (*request.addresses, *request.unmanaged)}
    families |= {family for family, count in ((IPV4, request.count4), (IPV6, request.count6)) if count > 0}
    problems += [
        Problem(path=f"floating[{index}]", value=str(outside), allowed=f"the workload has an IPv{outside.family} address")
        for index, outside in enumerate(request.floating)
        if outside.family not in families
    ]
    if not problems:
        outside = {address.family: address for address in request.floating}  # stand for the endpoint's own, which nobody knows yet
        addresses = (*request.addresses, *request.unmanaged, *outside.values())
        document = endpoint_document(_facts(request, request.tap or "cali", request.mac, addresses), None, _ANY_UID, _ANY_TIME)
        problems = validate(Document(data=document, source="", index=0, line=0))
    if problems:
        raise InputError(problems)


class _Attaching(msgspec.Struct, frozen=True):
    request: AttachRequest
    store: Datastore
    network: Network
    ipam: IpamClient
    undo: Undo
    agent: LocalAgent | None
    beside: Callable[[], Coroutine[Any, Any, object]] | None


async def _attach(work: _Attaching, wait_s: float | None) -> Attachment:
    workload, agent = work.request.workload, work.agent
    path, status_key = path_of(workload.key), workload.status_key
    if wait_s is None:
        return await _change(work, work.store.get(path))
    if agent is not None:
        attachment = await _change(work, work.store.get(path))
        await _until_ready(work, attachment, agent.wait_until_ready(workload.key, attachment.revision, wait_s))
    else:
        before = await work.store.txn([], [GetOp(path), GetOp(status_path_of(status_key))])
        stored, status = before.values
        async with aclosing(StatusWatch(work.store, status_key, status, before.revision)) as watch:
            await watch.open()
            attachment = await _change(work, _known(stored))
            await _until_ready(work, attachment, watch.wait_until_ready(attachment.revision, wait_s))
    return msgspec.structs.replace(attachment, ready=True)


async def _known(stored: KeyValue | None) -> KeyValue | None:
    """What was read before."""
    return stored


async def _until_ready(work: _Attaching, attachment: Attachment, told: Coroutine[Any, Any, None]) -> None:
    """The agent has the endpoint in the kernel, as ``told`` hears, and the interface takes packets."""
    if work.request.tap:  # which takes packets once its guest runs
        await told
    else:
        await asyncio.gather(told, _wait_until_it_takes_packets(work.network, attachment.host_interface))


async def _wait_until_it_takes_packets(network: Network, host_interface: str) -> None:
    """The interface takes packets, or it has been looked at ``RUNNING_LOOKS`` times: it will, and no attachment fails for that."""
    for _ in range(RUNNING_LOOKS):
        if not await in_thread(lambda: drops_packets(network, host_interface)):
            return
        await asyncio.sleep(RUNNING_POLL_S)


async def _change(work: _Attaching, reading: Coroutine[Any, Any, KeyValue | None]) -> Attachment:
    """Everything is as it shall be, as far as it is up to us. ``reading`` gives the endpoint as it is stored.

    What does not need each other is done at the same time: addresses and interface; the endpoint and the inside of the namespace.
    """
    request = work.request
    host_name = request.tap or interface_name(request.workload, request.interface_prefix)
    (stored, addresses), mac = await together(_assign(work, reading), _connect(work, host_name), _do_beside(work))
    facts = _facts(request, host_name, mac, addresses)
    revision, _ = await together(_write_endpoint(work, facts, stored), _configure(work, addresses))
    return Attachment(
        key=request.workload.key,
        revision=revision,
        host_interface=host_name,
        mac=mac,
        addresses=addresses,
        gateways=tuple(GATEWAYS[family] for family in sorted({address.family for address in addresses})),
        ready=False,
    )


def _facts(request: AttachRequest, interface: str, mac: str, addresses: tuple[Prefix, ...]) -> EndpointFacts:
    """What the request says of its endpoint, with what was found out since."""
    return EndpointFacts(
        workload=request.workload,
        interface=interface,
        mac=mac,
        addresses=addresses,
        labels=request.labels,
        profiles=request.profiles,
        ports=request.ports,
        container=request.container,
        annotations=request.annotations,
        qos=request.qos,
        floating=request.floating,
    )


async def _assign(work: _Attaching, reading: Coroutine[Any, Any, KeyValue | None]) -> tuple[KeyValue | None, tuple[Prefix, ...]]:
    """The endpoint as it is stored, and the workload's addresses."""
    request, ipam = work.request, work.ipam
    handle = request.handle or request.workload.handle
    stored = await reading
    known = stored is not None or bool(request.handle)  # then addresses that it had before are in use
    if not (request.addresses or request.count4 or request.count6):
        return stored, tuple(sorted(request.unmanaged))
    if not known:
        # Before the first attempt: when an answer is lost nobody knows what was assigned, and nobody uses it.
        work.undo.add(f"addresses of {handle}", lambda: ipam.release_handle(handle), last=True)
    wanted = AssignRequest(
        host=request.workload.node,
        handle=handle,
        count4=request.count4,
        count6=request.count6,
        pools4=request.pools4,
        pools6=request.pools6,
        attributes=request.workload.attributes | request.attributes,
    )
    for address in request.addresses:
        given = await ipam.assign_address(address, wanted)
        _undo_assignment(work, given.assigned, known)
    result = await ipam.assign(wanted)
    _undo_assignment(work, result.assigned, known)
    return stored, tuple(sorted({*result.addresses, *request.unmanaged}))


def _undo_assignment(work: _Attaching, assigned: tuple[Prefix, ...], known: bool) -> None:
    if known and assigned:
        handle = work.request.handle or work.request.workload.handle
        how = partial(work.ipam.release_addresses, assigned, handle=handle)
        work.undo.add(f"{len(assigned)} addresses of {handle}", how, last=True)


async def _connect(work: _Attaching, host_name: str) -> str:
    """The interface of the host is there and up, and leads into the namespace; gives the hardware address inside."""
    request, network = work.request, work.network
    if request.tap:
        await in_thread(lambda: take_up(network, request.tap))
        return request.mac
    mtu = request.mtu or await workload_mtu(work.agent, work.store, request.workload.node)
    pair = await in_thread(lambda: connect(network, host_name, request.netns, request.interface, mtu, request.mac))
    if pair.made:
        work.undo.add(f"interface {host_name}", lambda: in_thread(lambda: disconnect(network, host_name)))
    return pair.mac


async def _configure(work: _Attaching, addresses: tuple[Prefix, ...]) -> None:
    """The inside of the namespace has the addresses and routes."""
    request = work.request
    if not request.tap:
        await in_thread(lambda: configure(work.network, request.netns, request.interface, addresses, forwarding=request.forwarding))


async def _do_beside(work: _Attaching) -> None:
    if work.beside is not None:
        await work.beside()


async def _write_endpoint(work: _Attaching, facts: EndpointFacts, stored: KeyValue | None) -> int:
    """The endpoint is stored; gives its revision. Nothing is written when it is so already."""
    path = path_of(facts.workload.key)
    uid, created = str(uuid.uuid4()), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if stored is None:
        work.undo.add(f"endpoint {facts.workload.key}", lambda: work.store.txn([], [DeleteOp(path)]))
    for _ in range(MAX_ATTEMPTS):
        before: dict[str, Any] | None = decode_document(stored.value, path) if stored else None
        document = endpoint_document(facts, before, uid, created)
        if stored is not None and document == before:
            return stored.revision
        put = PutOp(path, msgspec.json.encode(document))
        result = await work.store.txn([Compare(path, stored.revision if stored else 0)], [put], [GetOp(path)])
        if result.succeeded:
            if stored is not None:
                _undo_change(work, path, result.revision, stored)
            return result.revision
        stored = result.values[0]
    raise Conflict(f"{facts.workload.key} changed {MAX_ATTEMPTS} times while it was written")


def _undo_change(work: _Attaching, path: str, revision: int, before: KeyValue) -> None:
    """The earlier document comes back, unless somebody else has written since."""
    work.undo.add(f"changes to {path}", lambda: work.store.txn([Compare(path, revision)], [PutOp(path, before.value)]))
