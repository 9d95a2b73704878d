"""``build_agent``: the one place that knows which parts an agent is made of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import tabinet
from tabinet.agent.agent import Agent
from tabinet.agent.bgp import BgpWatcher
from tabinet.agent.calculation import Calculation
from tabinet.agent.checksum import ChecksumTest
from tabinet.agent.companions import Companion, Surroundings
from tabinet.agent.dataplane import Dataplane
from tabinet.agent.feed import Feed
from tabinet.agent.felixspec import read_felix
from tabinet.agent.holding import Holding
from tabinet.agent.hostname import host_name
from tabinet.agent.http import Response, Routes, serve
from tabinet.agent.kernelthread import KernelThread, call_aside
from tabinet.agent.log import Logger, open_log
from tabinet.agent.metrics import Metrics
from tabinet.agent.moving import Moving
from tabinet.agent.operator import ADDRESS, ANSWER_TIMEOUT_S, RUNNING, STOPPED, operator_routes
from tabinet.agent.parameters import Parameters, store_config
from tabinet.agent.reporter import Reporter
from tabinet.agent.statusrequests import StatusRequests, look_at
from tabinet.agent.tableoptions import table_options
from tabinet.agent.takeover.guard import is_guarded_by_felix
from tabinet.agent.tunneloptions import is_checksum_tested, tunnel_options
from tabinet.agent.tunnels import TunnelAddresses
from tabinet.agent.verification import Verification
from tabinet.bgp.driver import open_driver
from tabinet.bgp.records import BgpOptions
from tabinet.calc.graph import Graph
from tabinet.dataplane.adoption import Adopter
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.limits import raise_neighbour_limits
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.sweep import MarkSweeper
from tabinet.dataplane.nft.verify import TableAudit
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.tunnels.manager import build_tunnels
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError, SetupError
from tabinet.guest.listener import Listener, SocketListener
from tabinet.ipam.client import IpamClient
from tabinet.kernel.ctsocket import open_conntrack
from tabinet.kernel.ethtool import EthtoolSocket
from tabinet.kernel.nftbrowse import open_browser
from tabinet.kernel.nftsocket import open_nftables
from tabinet.kernel.packetlog import open_packet_log
from tabinet.kernel.rtnetlink import TABINET_PROTOCOL, TABINET_REMOTE_PROTOCOL, Watch
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.kernel.sightings import Sightings, SocketSightings
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.kernel.tcsocket import open_traffic_control
from tabinet.lib.backoff import Backoff
from tabinet.model.arrivals import ARRIVALS
from tabinet.model.holders import HOLDERS
from tabinet.model.keys import AFFINITIES, kind_prefix
from tabinet.model.report import report_path
from tabinet.model.status import HostStatus, HostStatusKey, endpoint_status_prefix, status_path_of
from tabinet.rules.builder import TableBuilder
from tabinet.rules.servers import needs_localnet
from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient
from tabinet.store.open import open_store
from tabinet.store.syncer import Syncer

APPLY_BACKOFF = Backoff(first_s=0.1, limit_s=10.0)


METRICS_WAIT_S = 2.0
"""How long a scrape waits for the kernel's counters before it gets the last ones."""


@dataclass(slots=True)
class Face:
    """What the agent shows over HTTP, from before it is an agent: while it waits for its store."""

    metrics: Metrics
    agent: Agent | None = None
    waiting: str = "starting"

    def wait(self, why: str) -> None:
        """It is not an agent yet, for this reason."""
        self.waiting = why

    async def show_health(self) -> Response:
        """200 when the kernel holds what the store says, and we follow the store; else 503."""
        if self.agent is None:
            return Response(503, "application/json", msgspec.json.encode({"ready": False, "waiting": self.waiting}))
        ready, body = self.agent.health()
        return Response(200 if ready else 503, "application/json", body)

    async def show_report(self) -> Response:
        """What the host reports to the store, as it is now: also while the store is away."""
        report = self.agent.reporter.report if self.agent is not None else b""
        if not report:
            return Response(503, "application/json", msgspec.json.encode({"waiting": self.waiting}))
        return Response(200, "application/json", report)

    async def show_metrics(self) -> Response:
        """All metrics; the kernel's counters as fresh as can be had."""
        if self.agent is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(METRICS_WAIT_S):
                    await self.agent.count()
        # Thousands of rules make a text that takes a while: not on the loop.
        return Response(200, "text/plain; version=0.0.4; charset=utf-8", await call_aside(self.metrics.render))

    async def tell_view(self) -> bytes:
        """What the kernel should hold, one record a line; nothing while there is no agent yet."""
        return await self.agent.tell_view() if self.agent is not None else b""

    async def tell_statistics(self) -> bytes:
        """What the policies have counted."""
        return await self.agent.tell_statistics() if self.agent is not None else b"{}"

    async def note_machine(self, command: str, interface: str) -> Response:
        """A hook of the hypervisor tells of a machine that moves."""
        moving = self.agent.moving if self.agent is not None else None
        if moving is None or command not in (STOPPED, RUNNING):
            return Response(503, "text/plain", b"the agent is starting\n")
        known = self.tell_machine(interface, command == RUNNING)
        return Response(200, "text/plain", b"") if known else Response(404, "text/plain", b"no machine moves there\n")

    def tell_machine(self, interface: str, running: bool) -> bool:
        """The machine behind the interface runs, or has stopped to go on elsewhere; False: none moves there."""
        moving = self.agent.moving if self.agent is not None else None
        return moving is not None and (moving.running(interface) if running else moving.stopped(interface))

    async def show_life(self) -> Response:
        """The process answers."""
        return Response(200, "application/json", b'{"live":true}')

    def routes(self) -> Routes:
        """By path."""
        health = self.show_health
        return {
            "/metrics": self.show_metrics,
            "/report": self.show_report,
            "/health": health,
            "/readiness": health,
            "/liveness": self.show_life,
        }


@contextlib.asynccontextmanager
async def build_agent(parameters: Parameters, companions: Sequence[Companion] = ()) -> AsyncIterator[Agent]:
    """An agent that is ready to run, and its companions, which run already; everything it opened is closed at the end.

    Raises:
        SetupError: the kernel lacks something, another agent is here, or an address to serve on is taken.
        StoreError: the store's address makes no sense. A store that is merely away is waited for.
    """
    host = host_name(parameters)
    log = open_log(parameters.text("agent", "log_level"), parameters.text("agent", "log_format"), host)
    face = Face(Metrics())
    kernel = KernelThread()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(claim_namespace())
        stack.callback(kernel.close)
        is_new = await kernel.call(protect, parameters)
        address = parameters.text("agent", "http_address")
        if address:
            server = await serve(address, face.routes())
            stack.callback(server.close)
        operator = await serve(
            ADDRESS, operator_routes(face.tell_view, face.tell_statistics), face.note_machine, only_root=True, timeout_s=ANSWER_TIMEOUT_S
        )
        stack.callback(operator.close)
        store = await open_store(store_config(parameters))
        stack.push_async_callback(store.close)
        parameters = parameters.under(await read_felix(store, host, log, face.wait))
        await kernel.call(make_room_for_neighbours, parameters, log)
        dataplane = await kernel.call(open_dataplane, parameters)
        stack.push_async_callback(kernel.call, dataplane.close)
        sightings = SocketSightings()
        stack.callback(sightings.close)
        bgp = _bgp(parameters, dataplane, kernel, log)
        listener = SocketListener(time.monotonic)
        stack.callback(listener.listen, None)
        face.agent = assemble(parameters, host, store, dataplane, kernel, face.metrics, bgp, log, sightings, listener)
        face.agent.calculation.keeper.begin()
        if is_new:
            face.agent.adopter = await kernel.call(open_adopter, parameters, log)
        log.info("started", version=tabinet.__version__, pid=os.getpid(), store=parameters.text("store", "kind"))
        beside = Surroundings(host, parameters, store, log, face.agent.readiness, face.agent.why_not_ready, face.tell_machine)
        for companion in companions:
            await stack.enter_async_context(companion(beside))
        yield face.agent


@contextlib.contextmanager
def claim_namespace() -> Iterator[None]:
    """While inside, this is the only agent of the network namespace: two would undo each other's work.

    The claim is an abstract unix socket, which belongs to the network namespace and ends with the process (unix(7)).

    Raises:
        SetupError: another agent runs here.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as claim:
        try:
            claim.bind("\0tabinet-agent")
        except OSError as error:
            raise SetupError("another tabinet agent runs in this network namespace: there can be only one, stop it first") from error
        yield


def protect(parameters: Parameters) -> bool:
    """A kernel without a table of ours (True) has one that passes nothing of workloads' interfaces; an existing one stays as it is.

    Where Calico's Felix guards the workloads, our table comes with the whole policy only: so nothing is interrupted.

    Raises:
        SetupError: the kernel refuses it.
    """
    try:
        nftables = open_nftables()
        is_new = nftables.read_table() is None
        if is_new and not is_guarded_by_felix():
            NftDriver(nftables).resync(TableBuilder(table_options(parameters)).table)
        nftables.close()
    except (OSError, KernelError) as error:
        raise SetupError(f"the kernel refuses our nf_tables table: {error}; the agent needs root (CAP_NET_ADMIN) and nf_tables") from error
    return is_new


def open_adopter(parameters: Parameters, log: Logger) -> Adopter | None:
    """What takes over the connections that are older than the table; None, and a warning, where the kernel does not give it its log."""
    try:
        return Adopter(open_packet_log(table_options(parameters).middle_group), open_conntrack())
    except (OSError, KernelError) as error:
        log.warning("no adoption of older connections", error=str(error))
        return None


def make_room_for_neighbours(parameters: Parameters, log: Logger) -> None:
    """The machine keeps as many neighbours as the parameters say, if this is the namespace where that is decided."""
    ipv6 = parameters.switch("felix", "ipv6_support")
    raised = raise_neighbour_limits(ProcSysctl(), parameters.integer("agent", "neighbour_entries"), ipv6=ipv6)
    if raised.changed:
        log.info("more neighbours", raised=raised.changed)
    if raised.refused:
        log.warning("limits of neighbours stay", error=raised.refused)


def open_dataplane(parameters: Parameters) -> Dataplane:
    """The real dataplane of this network namespace.

    Raises:
        SetupError: the kernel does not give us its sockets.
    """
    try:
        nftables = open_nftables()
        rtnetlink, conntrack = open_rtnetlink(), open_conntrack()
        links = LinkDriver(
            rtnetlink,
            ProcSysctl(),
            ipv6=parameters.switch("felix", "ipv6_support"),
            localnet=needs_localnet(table_options(parameters)),
        )
        workloads = WorkloadManager(links, RouteDriver(rtnetlink), VlanDriver(rtnetlink))
        bandwidth = BandwidthDriver(open_traffic_control())
        tunnels = build_tunnels(rtnetlink, ProcSysctl(), EthtoolSocket(), tunnel_options(parameters))
        driver, reader = NftDriver(nftables, sweeper=MarkSweeper(conntrack)), open_browser()
        return Dataplane(
            builder=TableBuilder(table_options(parameters)),
            nftables=nftables,
            nft=driver,
            conntrack=conntrack,
            reader=reader,
            verification=Verification(nftables, TableAudit(driver, reader), workloads, bandwidth, (tunnels.verify,)),
            workloads=workloads,
            bandwidth=bandwidth,
            tunnels=tunnels,
            rtnetlink=rtnetlink,
            events=open_events(
                Watch.LINKS | Watch.ADDRESSES | Watch.ROUTES | Watch.NEIGHBOURS,
                route_protocols=(TABINET_PROTOCOL, TABINET_REMOTE_PROTOCOL),
            ),
            interface_prefixes=parameters.items("felix", "interface_prefix"),
            floating=parameters.text("felix", "floating_ips") == "Enabled",
            linger_s=parameters.seconds("felix", "live_migration_route_convergence_time_s"),
        )
    except (OSError, KernelError) as error:
        raise SetupError(f"the kernel refuses a netlink socket: {error}; the agent needs root (CAP_NET_ADMIN) and nf_tables") from error


def assemble(
    parameters: Parameters,
    host: str,
    store: Datastore,
    dataplane: Dataplane,
    kernel: KernelThread,
    metrics: Metrics,
    bgp: BgpWatcher | None,
    log: Logger,
    sightings: Sightings | None = None,
    listener: Listener | None = None,
) -> Agent:
    """The agent made of these parts and of its own."""
    started, first = time.monotonic(), [True]

    def heartbeat() -> bytes:
        status = HostStatus(time=_now(), uptime=round(time.monotonic() - started, 1), first_update=first[0])
        first[0] = False
        return msgspec.json.encode(status)

    graph = Graph(frozenset((host,)))
    feed = Feed(graph.on_input)
    return Agent(
        host=host,
        version=tabinet.__version__,
        started=_now(),
        parameters=parameters,
        syncer=Syncer(store, [*(kind_prefix(kind) for kind in graph.kinds), AFFINITIES, ARRIVALS, HOLDERS]),
        calculation=Calculation(graph, feed),
        kernel=kernel,
        dataplane=dataplane,
        bgp=bgp,
        checksums=ChecksumTest(lambda on: kernel.call(dataplane.want_offload, on), log, enabled=is_checksum_tested(parameters)),
        tunnels=TunnelAddresses(host, IpamClient(store), ResourceClient(store), log),
        reporter=Reporter(
            store=store,
            endpoint_prefix=endpoint_status_prefix(host),
            heartbeat_path=status_path_of(HostStatusKey(host)),
            last_heartbeat_path=status_path_of(HostStatusKey(host, last_reported=True)),
            report_path=report_path(host),
            interval_s=parameters.seconds("felix", "reporting_interval_s"),
            ttl_s=parameters.seconds("felix", "reporting_ttl_s"),
            heartbeat=heartbeat,
        ),
        requests=StatusRequests(host, store, look_at(bgp), _now, lambda: feed.hold),
        moving=Moving(host, store, kernel, dataplane, sightings, log, graph.knows_endpoint) if sightings is not None else None,
        holding=Holding(store, listener, log, time.monotonic) if listener is not None else None,
        metrics=metrics,
        log=log,
        retry=APPLY_BACKOFF,
        chance=random.random,
    )


def _bgp(parameters: Parameters, dataplane: Dataplane, kernel: KernelThread, log: Logger) -> BgpWatcher | None:
    if not parameters.switch("bird", "enabled"):
        return None
    options = BgpOptions(
        bfd_interval_ms=parameters.integer("bird", "bfd_interval_ms"),
        bfd_multiplier=parameters.integer("bird", "bfd_multiplier"),
        mesh_bfd_interval_ms=parameters.integer("bird", "mesh_bfd_interval_ms"),
    )
    secrets = parameters.text("bird", "secrets_dir")
    driver = open_driver(
        Path(parameters.text("bird", "config")), Path(parameters.text("bird", "socket")), options, Path(secrets) if secrets else None
    )
    return BgpWatcher(driver, dataplane.facts, kernel, log)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
