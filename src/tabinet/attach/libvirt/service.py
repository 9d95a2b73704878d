"""What libvirt's hooks ask for is done: TAPs, endpoints and addresses of the domains of one host.

In: calls of the hook. Out: exit code and message. ``prepare`` returns when the kernel of the host has policy and routes for all interfaces
of the domain; when that fails, everything that it did is undone and the domain does not start. ``migrate``, on the host that a domain comes
to, puts down where it comes from before anything else, so that its endpoint there changes nothing until it runs. ``release`` removes what
is of the domain on this host; its addresses are given back when no other host has it. ``sync`` removes what libvirt does not know any more:
after a reboot, a kill, a call that nobody answered.

Calls about a domain run one after another; each may be repeated. Addresses belong to the domain and not to a host: the last host that
lets go of it gives them back. Not done here: sockets (``server``), following libvirt's events (``events``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from tabinet.attach.libvirt import places
from tabinet.attach.libvirt.domain import Domain, handle_of, parse_domain, request_of
from tabinet.attach.libvirt.protocol import HookCall
from tabinet.attach.libvirt.taps import Taps
from tabinet.attach.libvirt.virsh import Hypervisor, Lifecycle
from tabinet.attach.mtu import workload_mtu
from tabinet.attach.names import Workload
from tabinet.attach.netns import DEFAULT_WAIT_S, attach, check_request
from tabinet.attach.network import Network
from tabinet.attach.ready import LocalAgent
from tabinet.attach.steps import in_thread, together, uninterrupted
from tabinet.errors import TabinetError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.settings import load_settings
from tabinet.model.keys import path_of
from tabinet.store.api import Datastore, DeleteOp

_STRICT = ("prepare", "migrate", "sync")


@dataclass(slots=True)
class LibvirtService:
    """Answers the hook's calls on one host."""

    host: str
    store: Datastore
    network: Network
    ipam: IpamClient
    taps: Taps
    hypervisor: Hypervisor
    interface_prefixes: tuple[str, ...]
    agent: LocalAgent | None = None
    """The host's agent, where it runs in this process."""
    note_machine: Callable[[str, bool], bool] = lambda *_: False
    """The agent's: the machine behind an interface has stopped to go on elsewhere (False), or runs (True)."""
    wait_s: float = DEFAULT_WAIT_S
    note: Callable[..., object] = lambda *_, **__: None
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once there is a domain of ours on this host."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every call: libvirt is there."""
    _devices: dict[str, set[str]] = field(default_factory=dict)
    """Interfaces, by the name of their domain."""
    _calls: int = 0
    _last_call: dict[str, int] = field(default_factory=dict)
    """By UUID: the number of the last call about the domain."""
    _locks: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)

    async def answer(self, call: HookCall) -> tuple[int, str]:
        """Exit code and message. An error of ours is a message; only ``prepare``, ``migrate`` and ``sync`` fail for it."""
        begin = perf_counter()
        self.heard.set()
        message, failed = "", ""
        try:
            message = await self._dispatch(call)
        except TabinetError as error:
            failed = "\n".join([str(error), *getattr(error, "__notes__", ())])
        took_ms = round((perf_counter() - begin) * 1e3, 1)
        self.note("libvirt", domain=call.domain, operation=call.operation, ms=took_ms, error=failed or None)
        return (int(bool(failed) and call.operation in _STRICT), failed or message)

    async def _dispatch(self, call: HookCall) -> str:
        if call.operation == "sync":
            return "\n".join(await self.sync())
        domain = parse_domain(call.xml, self.interface_prefixes)
        if domain is None:
            return ""
        self._calls += 1
        self._last_call[domain.uuid] = self._calls
        async with self._alone(domain.uuid):
            match call.operation:
                case "migrate":
                    await self._expect(domain)
                case "prepare":
                    await self._prepare(domain, self.wait_s)
                case "reconnect":
                    await self._prepare(domain, None)
                case "stopped":
                    self._note_stopped(device.device for device in domain.interfaces)
                case "release":
                    await self._release(domain)
                case _:
                    pass
        return ""

    @contextlib.asynccontextmanager
    async def _alone(self, uuid: str) -> AsyncIterator[None]:
        """While inside, nobody else works on the domain."""
        lock, users = self._locks.get(uuid, (asyncio.Lock(), 0))
        self._locks[uuid] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(uuid)
            if users > 1:
                self._locks[uuid] = lock, users - 1

    # --- calls

    async def _expect(self, domain: Domain) -> None:
        """The domain is about to come here; where it runs now, that is known."""
        for interface in domain.interfaces:
            target = domain.workload(self.host, interface)
            for source in (await places.find_elsewhere(self.store, target))[:1]:
                await places.begin_migration(self.store, source, target)

    async def _prepare(self, domain: Domain, wait_s: float | None) -> None:
        settings, reported = await asyncio.gather(load_settings(self.store, ""), workload_mtu(self.agent, self.store, self.host))
        pools = {pool.name: pool.cidr for pool in settings.pools}
        requests = [request_of(self.host, domain, each, pools, self.interface_prefixes[0]) for each in domain.interfaces]
        for request in requests:
            check_request(request)
        self._devices.setdefault(domain.name, set()).update(each.device for each in domain.interfaces)
        self.seen.set()
        try:
            for interface in domain.interfaces:
                mtu = interface.mtu or reported
                await in_thread(partial(self.taps.make, interface.device, domain.uuid, queues=interface.queues, mtu=mtu))
            async with asyncio.TaskGroup() as group:
                wait = wait_s is not None
                for request in requests:
                    attaching = attach(
                        request,
                        self.store,
                        network=self.network,
                        ipam=self.ipam,
                        agent=self.agent,
                        wait=wait,
                        wait_s=wait_s or DEFAULT_WAIT_S,
                    )
                    group.create_task(attaching)
        except BaseException as error:
            if wait_s is not None:
                await uninterrupted(self._undo(domain, error))
            if isinstance(error, BaseExceptionGroup) and isinstance(error.exceptions[0], TabinetError):
                raise error.exceptions[0] from None
            raise

    async def _undo(self, domain: Domain, error: BaseException) -> None:
        try:
            await self._release(domain)
        except TabinetError as another:
            error.add_note(f"left behind: what there is of domain {domain.name} ({another}); tabinet libvirt sync removes it")

    async def _release(self, domain: Domain) -> None:
        self._devices.pop(domain.name, None)
        for interface in domain.interfaces:
            await self._detach(domain.workload(self.host, interface))

    async def _detach(self, workload: Workload) -> None:
        """The interface of a domain is not on this host; nothing happens where that is so already."""
        own = workload.key
        migrations = [places.migration_key(own), *await places.migrations_from(self.store, workload)]
        deletions = [DeleteOp(path_of(key)) for key in (own, *migrations)]
        await together(self.store.txn([], deletions), in_thread(lambda: self.taps.remove(workload.endpoint, workload.workload)))
        if not await places.find_elsewhere(self.store, workload):
            await self.ipam.release_handle(handle_of(workload.workload, workload.endpoint))

    # --- what libvirt's events tell

    def on_event(self, event: Lifecycle) -> None:
        """Something has become of a domain, of ours or not."""
        devices = self._devices.get(event.domain, set())
        if event.has_stopped_to_move:
            self._note_stopped(devices)
        elif event.runs:
            for device in devices:
                self.note_machine(device, True)

    def _note_stopped(self, devices: Iterable[str]) -> None:
        for device in devices:
            self.note_machine(device, False)

    # --- leftovers

    async def look(self) -> None:
        """``seen`` is set if there is something of a domain on this host.

        Raises:
            StoreError: the store does not answer.
        """
        stored, taps = await places.endpoints_here(self.store, self.host), await in_thread(self.taps.ours)
        if stored or taps:
            self.seen.set()

    async def sync(self) -> list[str]:
        """Nothing is left of domains that do not run here; says what was removed.

        Raises:
            SetupError: libvirt does not say what runs.
            StoreError, KernelError: refused.
        """
        before = self._calls
        stored = await places.endpoints_here(self.store, self.host)
        taps = await in_thread(self.taps.ours)
        active = await self.hypervisor.active()  # last, so that what was there before and does not run has been given up
        removed = []
        for each in stored:
            workload = each.workload
            if workload.workload in active:
                if each.domain:
                    self._devices.setdefault(each.domain, set()).add(workload.endpoint)
                continue
            async with self._alone(workload.workload):
                if self._last_call.get(workload.workload, 0) <= before:
                    await self._detach(workload)
                    removed.append(f"{workload.key} removed")
        for name, uuid in taps.items():
            if uuid in active:
                continue
            async with self._alone(uuid):
                if self._last_call.get(uuid, 0) <= before and name in await in_thread(self.taps.ours):
                    await in_thread(partial(self.taps.remove, name, uuid))
                    removed.append(f"interface {name} removed")
        self.note("libvirt sync", active=len(active), removed=removed)
        return removed
