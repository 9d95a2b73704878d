"""What a CNI call asks for is done: the shell between ``translate`` and attachments, addresses, and the store.

In: requests, each with the place where its namespace can be opened. Out: exit code and output. Calls about the same workload run one
after another, so that a late DEL of one container does not meet the ADD of the next. ADD is ``attach``: what it did is undone when it
fails or the caller goes away. DEL and GC may be repeated, and are of no consequence where nothing is left. Not done here: sockets
(``server``), and calls to delete that have to wait (``deletions``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from tabinet.attach.cni import checks, garbage
from tabinet.attach.cni.config import OWN_IPAM, NetworkConfig, parse_network
from tabinet.attach.cni.delegate import run_ipam
from tabinet.attach.cni.inherited import find_inherited, remove_inherited
from tabinet.attach.cni.protocol import (
    IPAM_PLUGIN,
    Call,
    Code,
    Request,
    Result,
    merge,
    parse_call,
    parse_result,
    render_error,
    render_result,
    version_for_errors,
)
from tabinet.attach.cni.shim import render_version
from tabinet.attach.cni.translate import (
    Wanted,
    attach_request,
    attachment_result,
    attributes_of,
    ipam_result,
    network_profile,
    pool_prefixes,
    wanted_addresses,
    workload_of,
)
from tabinet.attach.names import INTERFACE_PREFIX, Workload, interface_name
from tabinet.attach.netns import DEFAULT_WAIT_S, attach, check_request, detach
from tabinet.attach.network import Network
from tabinet.attach.ready import LocalAgent
from tabinet.errors import (
    AddressError,
    AlreadyExists,
    AttachError,
    CniError,
    Conflict,
    InputError,
    StoreUnavailable,
    TabinetError,
)
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.ipam.settings import load_settings
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient

CALL_TIMEOUT_S = 100.0
"""Longest time for a call; waiting for the agent, and for the store, have limits of their own below it."""


PROFILE_AGE_S = 5.0
"""So long a network's profile counts as there once it was seen: one that is deleted comes back with an ADD after that."""


@dataclass(slots=True)
class CniService:
    """Answers the CNI calls of one host."""

    host: str
    store: Datastore
    network: Network
    ipam: IpamClient
    why_not_ready: Callable[[], str] = lambda: ""
    """Why new workloads cannot be attached now; empty: they can."""
    agent: LocalAgent | None = None
    """The host's agent, where it runs in this process."""
    interface_prefix: str = INTERFACE_PREFIX
    wait_s: float = DEFAULT_WAIT_S
    _profiles: dict[str, float] = field(default_factory=dict)
    """When the profile of each network was last seen."""
    _locks: dict[Workload, tuple[asyncio.Lock, int]] = field(default_factory=dict)
    """With the number of calls that use each."""

    async def answer(self, request: Request, netns: str) -> tuple[int, bytes]:
        """Exit code and output of a call. ``netns``: where its namespace can be opened; empty: nowhere."""
        version = version_for_errors(request.stdin)
        try:
            return 0, await self.run(request, netns)
        except TabinetError as error:
            told = as_cni_error(error)
            if netns and (name := request.environ.get("CNI_NETNS")):
                told.args = (str(told).replace(netns, name),)
            return 1, render_error(version, told)

    async def run(self, request: Request, netns: str) -> bytes:
        """The output of a call.

        Raises:
            TabinetError: it has none, and nothing was changed.
        """
        if request.environ.get("CNI_COMMAND") == "VERSION":
            return render_version(request.stdin)
        call = parse_call(request)
        strict = call.command in ("ADD", "CHECK", "STATUS")
        config = parse_network(call.config, strict=strict, foreign=call.plugin == IPAM_PLUGIN)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._run(call, config, netns)
        except TimeoutError:
            raise CniError(Code.TRY_AGAIN, f"{call.command} was not done within {CALL_TIMEOUT_S:g} s") from None

    async def _run(self, call: Call, config: NetworkConfig, netns: str) -> bytes:
        mine = call.plugin == IPAM_PLUGIN
        match call.command:
            case "ADD":
                result = await self._assign(call, config) if mine else await self._add(call, config, netns)
                return render_result(result, call.version)
            case "DEL":
                await (self.ipam.release_handle(ipam_handle(call, self.host)) if mine else self.delete(call, config))
            case "CHECK" if mine:
                await checks.check_assigned(call, self.ipam, ipam_handle(call, self.host))
            case "CHECK":
                await checks.check_attached(call, workload_of(call, self.host), self.store, self.network, netns, self.agent)
            case "GC":
                await garbage.collect(call, self.host, self.store, self.ipam, self.network, self.interface_prefix, self._busy)
            case _:
                if reason := self.why_not_ready():
                    raise CniError(Code.NOT_AVAILABLE, f"the agent of this host is not ready: {reason}")
        return b""

    # --- tabinet-cni

    async def _add(self, call: Call, config: NetworkConfig, netns: str) -> Result:
        if not netns:
            raise CniError(Code.CONTAINER, f"CNI_NETNS: got {call.netns!r}; there is no network namespace")
        async with self._alone(workload_of(call, self.host)), contextlib.AsyncExitStack() as undo:
            wanted = wanted_addresses(call, config)
            if config.ipam.type not in OWN_IPAM and not wanted.unmanaged:
                given = await run_ipam(call, config.ipam.type)
                undo.push_async_callback(run_ipam, call, config.ipam.type, "DEL")
                wanted = Wanted(unmanaged=given, floating=wanted.floating)
            request = attach_request(call, config, self.host, netns, await self._pools(wanted), wanted)
            check_request(request)
            attachment = await attach(
                request,
                self.store,
                network=self.network,
                ipam=self.ipam,
                agent=self.agent,
                beside=partial(self._ensure_profile, config, open_to_all=request.workload.orchestrator == "k8s"),
                wait_s=float(config.policy_setup_timeout_seconds) or self.wait_s,
            )
            undo.pop_all()
        own = attachment_result(attachment, call, config)
        before = call.config.get("prevResult")
        return merge(parse_result(before), own) if before else own

    async def delete(self, call: Call, config: NetworkConfig) -> None:
        """The container's endpoint, interface and addresses are gone; those of another container of the same pod stay.

        Raises:
            TabinetError: something is left; repeat the call.
        """
        workload = workload_of(call, self.host)
        async with self._alone(workload):
            if not await self._is_of_another(workload, call.container):
                before = await detach(workload, self.store, network=self.network, ipam=self.ipam, interface_prefix=self.interface_prefix)
                own = interface_name(workload, self.interface_prefix)
                inherited = await find_inherited(garbage.spec_in(before), own, self.interface_prefix, self.ipam)
                await remove_inherited(inherited, self.network, self.ipam)
            if config.ipam.type not in OWN_IPAM:
                await run_ipam(call, config.ipam.type, "DEL")

    async def _is_of_another(self, workload: Workload, container: str) -> bool:
        """The endpoint has passed to another container: pods keep their names.

        Raises:
            CniError: there can be no such endpoint.
        """
        try:
            path = path_of(workload.key)
        except ValueError as error:
            raise CniError(Code.ENVIRONMENT, str(error)) from None
        if workload.orchestrator != "k8s":
            return False
        spec = garbage.spec_in(await self.store.get(path))
        return spec.get("containerID") not in (None, "", container)

    def _busy(self) -> set[str]:
        """Owners of addresses about which a call is under way."""
        handles = set()
        for workload in self._locks:
            with contextlib.suppress(ValueError):  # of a name that can own none
                handles.add(workload.handle)
        return handles

    @contextlib.asynccontextmanager
    async def _alone(self, workload: Workload) -> AsyncIterator[None]:
        lock, users = self._locks.get(workload, (asyncio.Lock(), 0))
        self._locks[workload] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(workload)
            if users > 1:
                self._locks[workload] = lock, users - 1

    async def _pools(self, wanted: Wanted) -> dict[str, Prefix]:
        """Pools by name, where a name has to be looked up."""
        if all(_is_prefix(pool) for pool in (*wanted.pools4, *wanted.pools6)):
            return {}
        return {pool.name: pool.cidr for pool in (await load_settings(self.store, "")).pools}

    async def _ensure_profile(self, config: NetworkConfig, *, open_to_all: bool) -> None:
        """The profile of the network exists, if its endpoints have one."""
        if config.profiles is not None or config.policy.type == "k8s":
            return
        now_s = monotonic()
        if now_s < self._profiles.get(config.name, -PROFILE_AGE_S) + PROFILE_AGE_S:
            return
        if await self.store.get(path_of(ResourceKey("Profile", config.name))) is None:
            with contextlib.suppress(AlreadyExists):
                await ResourceClient(self.store).create(network_profile(config.name, open_to_all=open_to_all))
        self._profiles[config.name] = now_s

    # --- tabinet-ipam

    async def _assign(self, call: Call, config: NetworkConfig) -> Result:
        wanted = wanted_addresses(call, config)
        known = await self._pools(wanted)
        request = AssignRequest(
            host=self.host,
            handle=ipam_handle(call, self.host),
            count4=wanted.count4,
            count6=wanted.count6,
            pools4=pool_prefixes("ipam.ipv4_pools", wanted.pools4, known),
            pools6=pool_prefixes("ipam.ipv6_pools", wanted.pools6, known),
            attributes=attributes_of(call),
        )
        try:
            for address in wanted.addresses:
                await self.ipam.assign_address(address, request)
            addresses = (await self.ipam.assign(request)).addresses
        except TabinetError:
            if wanted.addresses:
                await self.ipam.release_handle(request.handle)
            raise
        return ipam_result(addresses, config)


def ipam_handle(call: Call, host: str) -> str:
    """The owner of the addresses that ``tabinet-ipam`` gives to another plugin's interface.

    Raises:
        CniError: a part cannot stand in it.
    """
    try:
        return Workload(node=host, workload=call.container, orchestrator="ipam", endpoint=call.interface).handle
    except ValueError as error:
        raise CniError(Code.ENVIRONMENT, str(error)) from None


def _is_prefix(text: str) -> bool:
    try:
        parse_prefix(text)
    except ValueError:
        return False
    return True


def as_cni_error(error: TabinetError) -> CniError:
    """The error in CNI's words, with what is left behind."""
    match error:
        case CniError():
            return error
        case InputError():
            told = CniError(Code.CONFIG, str(error).replace("\n", "; "))
        case AddressError():
            told = CniError(Code.ADDRESS, str(error))
        case AttachError() if "no network namespace" in str(error):
            told = CniError(Code.CONTAINER, str(error))
        case AttachError() | StoreUnavailable() | Conflict():
            told = CniError(Code.TRY_AGAIN, str(error), "try again later")
        case _:
            told = CniError(Code.IO, str(error))
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
