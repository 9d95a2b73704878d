"""What Docker asks its drivers for is done: networks, endpoints and addresses of one host.

In: calls, by their method. Out: answers. ``Join`` makes a pair of interfaces and returns when the kernel of the host has policy and routes
for it. The container's namespace does not exist then; Docker moves the inner end there, with addresses and routes, before the container's
program runs. Which container it is, and so which labels, no call says: it is one that Docker makes ready while it makes the endpoint.
Where that leaves several with different labels, the interface waits without an endpoint, and so without any packet, until Docker tells,
some ms later. What was found is compared with Docker's word in any case.

Networks are Docker's; what is kept here is their names and options, calls under way, and the ports of the host that are published (``-p``),
by the interface with the default route. Not done here: sockets (``web``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from tabinet.attach.docker import protocol, translate
from tabinet.attach.docker.daemon import Docker, DockerNetwork, starting
from tabinet.attach.docker.inside import complete, has_default_route
from tabinet.attach.docker.leftovers import Leftovers, handle_prefix
from tabinet.attach.docker.memory import KnownNetworks
from tabinet.attach.docker.ports import HeldPorts, forwards_of, host_addresses, parse_published
from tabinet.attach.docker.profiles import ensure_profiles
from tabinet.attach.docker.protocol import DriverCall
from tabinet.attach.docker.translate import Container, EndpointPlan, NetworkOptions
from tabinet.attach.mtu import workload_mtu
from tabinet.attach.names import INTERFACE_PREFIX, interface_name
from tabinet.attach.netns import DEFAULT_WAIT_S, attach, check_request, detach
from tabinet.attach.network import Network
from tabinet.attach.plug import disconnect, make_pair
from tabinet.attach.ready import LocalAgent
from tabinet.attach.steps import in_thread
from tabinet.errors import AttachError, TabinetError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.ipam.settings import load_settings
from tabinet.lib.backoff import Backoff
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address
from tabinet.model.forwards import PortForward
from tabinet.store.api import Datastore

CLOCK_SLACK_S = 0.05
"""Times of files are those of the kernel's last tick."""
ASK_WITHIN_S = 1.0
"""How long an interface waits for Docker's word before it is made without: Docker may be starting, and wait for us."""
IDENTIFY_WITHIN_S = 600.0
"""How long Docker may take to start all its containers, and then say who they are."""
_LOOK = Backoff(first_s=0.05, limit_s=1.0)
_COLLECT = Backoff(first_s=1.0, limit_s=30.0)


@dataclass(slots=True)
class _Planned:
    """An endpoint between its creation and its deletion."""

    plan: EndpointPlan
    created_s: float
    confirming: asyncio.Task[None] | None = None
    joined: bool = True
    """Something may be attached; to begin with, by a call that an agent before this one did not finish."""


class _Joining(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an endpoint that joins a namespace."""

    plan: EndpointPlan
    network: DockerNetwork
    options: NetworkOptions
    sandbox: str
    process: int
    first: bool
    """The first interface of ours in the container, which gets its routes from Docker."""
    forwards: tuple[PortForward, ...] = ()
    """Published ports."""

    @property
    def inner(self) -> str:
        """What the end of the container is called until Docker moves it: no name of the host's own workloads."""
        return "dkr" + self.plan.id[:11]

    def outer(self, service: DockerService) -> str:
        """The host's end."""
        return interface_name(translate.workload_of(service.host, self.plan.id), service.interface_prefix)


@dataclass(slots=True)
class DockerService:
    """Answers the driver calls of one host's Docker."""

    host: str
    store: Datastore
    network: Network
    ipam: IpamClient
    docker: Docker
    agent: LocalAgent | None = None
    """The host's agent, where it runs in this process."""
    driver: str = "tabinet"
    interface_prefix: str = INTERFACE_PREFIX
    wait_s: float = DEFAULT_WAIT_S
    networks: KnownNetworks = field(default_factory=KnownNetworks)
    note: Callable[..., object] = lambda *_, **__: None
    now_s: Callable[[], float] = time.time
    """Seconds since the epoch."""
    _planned: dict[str, _Planned] = field(default_factory=dict)
    """By endpoint."""
    _containers: dict[str, Container] = field(default_factory=dict)
    """Who is in a namespace, by the namespace's path."""
    _sandboxes: dict[str, set[str]] = field(default_factory=dict)
    """Endpoints by the path of their namespace."""
    _given: dict[Prefix, str] = field(default_factory=dict)
    """Owners of the addresses that were given to Docker since this agent runs."""
    _ports: HeldPorts = field(default_factory=HeldPorts)
    _group: asyncio.TaskGroup | None = None
    _collecting: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Never returns: confirms whose endpoints are, and removes what Docker has forgotten, at first and whenever there is reason to."""
        self._collecting.set()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._collect_when_there_is_reason()
            finally:
                self._ports.close()

    async def _collect_when_there_is_reason(self) -> None:
        failures = 0
        while True:
            await self._collecting.wait()
            self._collecting.clear()
            if await self._collect():
                failures = 0
                continue
            failures += 1
            await asyncio.sleep(_COLLECT.limit_after(failures))
            self._collecting.set()

    async def answer(self, method: str, body: bytes, process: int = 0) -> tuple[bool, bytes]:
        """Whether the call succeeded, and its answer. ``process``: Docker's, in whose mounts its namespaces are; 0: in ours."""
        begin = time.perf_counter()
        call, failure = DriverCall(), None
        try:
            call = protocol.parse_driver_call(body)
            answer: dict[str, Any] = await self._dispatch(method, call, process)
        except TabinetError as error:
            failure = error
        took_ms = round((time.perf_counter() - begin) * 1e3, 1)
        self.note("docker", call=method, endpoint=call.endpoint[:12], ms=took_ms, error=None if failure is None else str(failure))
        return (True, msgspec.json.encode(answer)) if failure is None else (False, protocol.render_failure(failure))

    async def _dispatch(self, method: str, call: DriverCall, process: int) -> dict[str, Any]:
        match method:
            case "Plugin.Activate":
                self._collecting.set()  # Docker has been started
                return {"Implements": protocol.IMPLEMENTS}
            case "NetworkDriver.GetCapabilities":
                return {"Scope": "local", "ConnectivityScope": "global"}
            case "NetworkDriver.CreateNetwork":
                translate.check_creation(call.options or {})
                return {}
            case "NetworkDriver.CreateEndpoint":
                return self._create(call)
            case "NetworkDriver.EndpointOperInfo":
                return {"Value": {}}
            case "NetworkDriver.Join":
                return await self._join(call, process)
            case "NetworkDriver.Leave" | "NetworkDriver.DeleteEndpoint":
                if call.endpoint:  # Docker speaks of endpoints that it failed to make
                    await self._delete(call.endpoint, forget=method.endswith("DeleteEndpoint"))
                return {}
            case "IpamDriver.GetCapabilities":
                return {"RequiresMACAddress": False, "RequiresRequestReplay": False}
            case "IpamDriver.GetDefaultAddressSpaces":
                return {"LocalDefaultAddressSpace": protocol.ADDRESS_SPACE, "GlobalDefaultAddressSpace": protocol.ADDRESS_SPACE}
            case "IpamDriver.RequestPool":
                return await self._request_pool(call)
            case "IpamDriver.RequestAddress":
                return await self._request_address(call)
            case "IpamDriver.ReleaseAddress":
                await self._release_address(call)
                return {}
            case "NetworkDriver.DeleteNetwork":
                self.networks.forget(call.network)
                return {}
            case _ if method in _NOTHING_TO_DO:
                return {}
            case _:
                raise AttachError(f"{method} is no call of a network or address driver")

    # --- endpoints

    def _create(self, call: DriverCall) -> dict[str, Any]:
        if not call.endpoint:
            raise AttachError("EndpointID: got none; letters and digits")
        given = call.interface or protocol.EndpointInterface()
        plan = translate.plan_endpoint(call.endpoint, call.network, (given.address, given.address6), given.mac)
        self._planned[call.endpoint] = _Planned(plan, self.now_s() - CLOCK_SLACK_S)
        return {"Interface": {} if given.mac else {"MacAddress": plan.mac}}

    async def _join(self, call: DriverCall, process: int) -> dict[str, Any]:
        planned = self._planned.get(call.endpoint)
        if planned is None:
            raise AttachError(f"endpoint {call.endpoint[:12]} was made by an agent before this one: start the container again")
        network = self.networks.get(call.network) or await self.docker.network(call.network)
        self.networks.remember(network)
        options = translate.parse_options(network.options or {})
        planned.joined = True
        first = call.sandbox not in self._sandboxes and not await in_thread(lambda: has_default_route(self.network, call.sandbox, process))
        self._sandboxes.setdefault(call.sandbox, set()).add(call.endpoint)
        forwards = await self._publish(planned.plan, call.options or {}) if first else ()
        joining = _Joining(
            plan=planned.plan, network=network, options=options, sandbox=call.sandbox, process=process, first=first, forwards=forwards
        )
        containers = await self._who(joining, planned.created_s)
        known = containers[0] if containers and all(each.labels == containers[0].labels for each in containers) else None
        mtu = options.mtu or await workload_mtu(self.agent, self.store, self.host)
        await in_thread(lambda: make_pair(self.network, joining.outer(self), joining.inner, mtu, joining.plan.mac))
        if known is not None:
            try:
                await self._attach(joining, known)
            except BaseException:
                await in_thread(lambda: disconnect(self.network, joining.outer(self)))
                raise
        if self._group is not None:
            planned.confirming = self._group.create_task(self._confirm(joining, known if len(containers) == 1 else None))
        return translate.join_answer(joining.inner, options.interface, joining.plan.addresses if first else ())

    async def _publish(self, plan: EndpointPlan, options: dict[str, Any]) -> tuple[PortForward, ...]:
        """The ports that the container publishes, taken on the host."""
        published = parse_published(options)
        if not published:
            return ()
        forwards = forwards_of(published, plan.addresses, await host_addresses(self.store, self.host))
        self._ports.hold(plan.id, forwards)
        return forwards

    async def _who(self, joining: _Joining, since_s: float) -> list[Container]:
        """The containers that it may be; none: Docker does not answer, as when it starts and begins with its containers."""
        if joining.sandbox in self._containers:
            return [self._containers[joining.sandbox]]
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                listed = await self.docker.containers()
                started = {each.id: await self.docker.started_s(each.id) for each in listed if each.may_join(joining.network)}
        except (AttachError, TimeoutError):
            return []
        return starting(joining.network, listed, started, since_s, self.now_s() + CLOCK_SLACK_S)

    async def _attach(self, joining: _Joining, container: Container) -> None:
        name, ports = joining.network.name, {(each.protocol, each.internal_port) for each in joining.forwards}
        request = translate.attach_request(joining.plan, self.host, joining.outer(self), name, joining.options, container, joining.forwards)
        check_request(request)
        beside = partial(ensure_profiles, self.store, name, frozenset(ports)) if joining.options.profiles is None else None
        await attach(request, self.store, network=self.network, ipam=self.ipam, agent=self.agent, beside=beside, wait_s=self.wait_s)
        self._containers[joining.sandbox] = container

    async def _confirm(self, joining: _Joining, known: Container | None) -> None:
        """The endpoint has the labels of the container that Docker says it is in."""
        try:
            async with asyncio.timeout(IDENTIFY_WITHIN_S):
                container = await self._told_by_docker(joining)
                if not joining.first:
                    await self._complete(joining)
            if known is None or container.id != known.id:
                await self._attach(joining, container)
                self.note("docker container", endpoint=joining.plan.id[:12], container=container.name, corrected=known is not None)
        except (TabinetError, TimeoutError) as error:
            self.note("docker container not found", endpoint=joining.plan.id[:12], error=str(error) or "not in time")

    async def _complete(self, joining: _Joining) -> None:
        """The interface has its routes in the container."""
        failures = 0
        plan = joining.plan
        while not await in_thread(lambda: complete(self.network, joining.sandbox, joining.process, plan.mac, plan.addresses)):
            failures += 1
            await asyncio.sleep(_LOOK.limit_after(failures))

    async def _told_by_docker(self, joining: _Joining) -> Container:
        failures = 0
        while True:
            with contextlib.suppress(AttachError):
                identifier = (await self.docker.network(joining.network.id)).container_of(joining.plan.id)
                found = [each for each in await self.docker.containers(identifier) if each.id == identifier] if identifier else []
                if found:
                    return found[0].described()
            failures += 1
            await asyncio.sleep(_LOOK.limit_after(failures))

    async def _delete(self, endpoint: str, *, forget: bool) -> None:
        planned = self._planned.get(endpoint)
        if planned is not None and planned.confirming is not None:
            planned.confirming.cancel()
            await asyncio.wait((planned.confirming,))
            planned.confirming = None
        try:
            if planned is None or planned.joined:
                workload = translate.workload_of(self.host, endpoint)
                await detach(workload, self.store, network=self.network, ipam=self.ipam, interface_prefix=self.interface_prefix)
            if planned is not None:
                planned.joined = False
        except TabinetError:
            self._collecting.set()  # Docker forgets the endpoint in any case
            raise
        finally:
            self._ports.release(endpoint)
            for sandbox in [sandbox for sandbox, endpoints in self._sandboxes.items() if endpoint in endpoints]:
                self._sandboxes[sandbox].remove(endpoint)
                if not self._sandboxes[sandbox]:
                    del self._sandboxes[sandbox]
                    self._containers.pop(sandbox, None)
            if forget:
                self._planned.pop(endpoint, None)

    async def _collect(self) -> bool:
        """What Docker has forgotten is gone; False: to be tried again."""
        leftovers = Leftovers(
            host=self.host,
            driver=self.driver,
            store=self.store,
            network=self.network,
            ipam=self.ipam,
            docker=self.docker,
            interface_prefix=self.interface_prefix,
            busy=lambda: frozenset(self._planned),
            publish=self._ports.hold,
        )
        try:
            return await leftovers.collect(self.now_s())
        except TabinetError as error:
            self.note("docker leftovers", error=str(error))
            return False

    # --- addresses

    async def _request_pool(self, call: DriverCall) -> dict[str, Any]:
        if call.sub_pool:
            raise AttachError(f"--ip-range {call.sub_pool}: addresses come from the blocks of hosts; name pools instead")
        known = {pool.name: pool.cidr for pool in (await load_settings(self.store, "")).pools}
        pools = translate.select_pools(call.pool, call.options or {}, call.ipv6, known)
        everywhere = "::/0" if call.ipv6 else "0.0.0.0/0"
        # What is everywhere overlaps with nothing, in Docker's eyes, and a gateway there is none.
        shown = str(pools[0]) if call.pool else everywhere
        return {"PoolID": translate.pool_id(call.ipv6, pools), "Pool": shown, "Data": {protocol.GATEWAY_TYPE: everywhere}}

    async def _request_address(self, call: DriverCall) -> dict[str, Any]:
        family, pools = translate.parse_pool_id(call.pool_id)
        asked = _parse_address(call.address) if call.address else None
        if (call.options or {}).get(protocol.REQUEST_TYPE) == protocol.GATEWAY_TYPE and asked is not None:
            return {"Address": str(asked), "Data": {}}  # told to Docker, and nobody's
        request = AssignRequest(
            host=self.host,
            handle=handle_prefix(self.host) + uuid.uuid4().hex,
            count4=int(family == IPV4),
            count6=int(family == IPV6),
            pools4=pools if family == IPV4 else (),
            pools6=pools if family == IPV6 else (),
            attributes={"workload": translate.ORCHESTRATOR},
        )
        given = await (self.ipam.assign(request) if asked is None else self.ipam.assign_address(asked, request))
        self._given[given.addresses[0]] = request.handle
        return {"Address": str(given.addresses[0]), "Data": {}}

    async def _release_address(self, call: DriverCall) -> None:
        """The address is free, if it was given to Docker: a gateway that an operator named was not."""
        address = _parse_address(call.address)
        try:
            handle = self._given.get(address) or await self.ipam.owner_of(address)
            if handle.startswith(handle_prefix(self.host)):
                await self.ipam.release_handle(handle)  # which has no other address
            self._given.pop(address, None)
        except TabinetError:
            self._collecting.set()
            raise


_NOTHING_TO_DO = frozenset(
    (
        "NetworkDriver.DiscoverNew",
        "NetworkDriver.DiscoverDelete",
        "NetworkDriver.ProgramExternalConnectivity",
        "NetworkDriver.RevokeExternalConnectivity",
        "IpamDriver.ReleasePool",
    )
)


def _parse_address(text: str) -> Prefix:
    try:
        return parse_address(text.partition("/")[0])
    except ValueError:
        raise AttachError(f"Address: got {text!r}; an IP address") from None
