"""A whole agent on a host that is made of fakes: memory store, nf_tables, rtnetlink, sysctls. One call away from running."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tabinet.agent.agent import Agent
from tabinet.agent.dataplane import Dataplane
from tabinet.agent.kernelthread import KernelThread
from tabinet.agent.log import open_log
from tabinet.agent.metrics import Metrics
from tabinet.agent.parameters import parse_parameters
from tabinet.agent.verification import Verification
from tabinet.agent.wiring import assemble
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.verify import TableAudit
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.tunnels.manager import build_tunnels
from tabinet.dataplane.tunnels.plan import TunnelOptions
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.guest.listener import FakeListener
from tabinet.kernel.ctfake import FakeConntrack
from tabinet.kernel.ethtool import FakeOffloads
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.rtfake import FakeEvents, FakeRtnetlink
from tabinet.kernel.rtnetlink import AddVeth, Route
from tabinet.kernel.sightings import FakeSightings
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.kernel.tcfake import FakeTrafficControl
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.report import HostReport, report_path
from tabinet.model.status import EndpointStatus, endpoint_status_path
from tabinet.rules.builder import TableBuilder
from tabinet.store.api import DeleteOp, PutOp
from tabinet.store.memory import MemoryStore

HOST = "h1"
TOML = "[bird]\nenabled = false\n"
WITHIN_S = 5.0


def endpoint_key(workload: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", f"{HOST}-lab-{workload}-eth0", "default")


def endpoint(workload: str, *nets: str, **more: Any) -> tuple[ResourceKey, dict[str, Any]]:
    """An endpoint of the host, behind the interface ``cali<workload>``."""
    spec = {"node": HOST, "orchestrator": "lab", "workload": workload, "endpoint": "eth0", "interfaceName": f"cali{workload}"}
    return endpoint_key(workload), {"metadata": {"labels": {"app": workload}}, "spec": spec | {"ipNetworks": list(nets)} | more}


def policy(name: str, *rules: dict[str, Any], selector: str = "all()") -> tuple[ResourceKey, dict[str, Any]]:
    return ResourceKey("GlobalNetworkPolicy", name), {"spec": {"selector": selector, "types": ["Ingress"], "ingress": list(rules)}}


async def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


@dataclass(slots=True)
class World:
    """A host and a store. They outlive agents, as the real ones do."""

    store: MemoryStore = field(default_factory=MemoryStore)
    nftables: FakeNftables = field(default_factory=FakeNftables)
    rtnetlink: FakeRtnetlink = field(default_factory=FakeRtnetlink)
    sysctl: FakeSysctl = field(default_factory=FakeSysctl)
    traffic_control: FakeTrafficControl = field(default_factory=FakeTrafficControl)
    conntrack: FakeConntrack = field(default_factory=FakeConntrack)
    events: FakeEvents | None = None
    sightings: FakeSightings = field(init=False)
    listener: FakeListener = field(init=False)

    def add_interface(self, workload: str) -> int:
        self.rtnetlink.stranger(AddVeth(f"cali{workload}", f"p{workload}"))
        return self.rtnetlink.index_of(f"cali{workload}")

    async def put(self, key: ResourceKey, document: dict[str, Any]) -> int:
        """The resource is stored; gives the store's revision of it."""
        metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {}) | document.get("metadata", {})
        whole = {"apiVersion": "projectcalico.org/v3", "kind": key.kind, **document, "metadata": metadata}
        return await self.put_raw(path_of(key), msgspec.json.encode(whole))

    async def put_raw(self, path: str, value: bytes) -> int:
        return (await self.store.txn((), (PutOp(path, value),))).revision

    async def delete(self, key: ResourceKey) -> None:
        await self.store.txn((), (DeleteOp(path_of(key)),))

    def status(self, key: ResourceKey) -> EndpointStatus | None:
        return self._read(endpoint_status_path(HOST, key), EndpointStatus)

    def is_up(self, key: ResourceKey, revision: int = 0) -> bool:
        status = self.status(key)
        return status is not None and status.status == "up" and status.revision >= revision

    def report(self) -> HostReport | None:
        return self._read(report_path(HOST), HostReport)

    def problems(self) -> str:
        report = self.report()
        return "\n".join(report.problems) if report else ""

    def _read(self, path: str, kind: Any) -> Any:
        items = self.store._items  # the store's own coroutines would need a turn of the loop
        return msgspec.json.decode(items[path].value, type=kind) if path in items else None

    @property
    def routes(self) -> set[Route]:
        return set(self.rtnetlink.routes(protocol=84))

    @contextlib.asynccontextmanager
    async def agent(self, toml: str = TOML) -> AsyncIterator[Agent]:
        """An agent that runs, from a fresh start until the end of the context."""
        kernel = KernelThread()
        self.events = self.rtnetlink.events()
        driver = NftDriver(self.nftables)
        workloads = WorkloadManager(LinkDriver(self.rtnetlink, self.sysctl), RouteDriver(self.rtnetlink), VlanDriver(self.rtnetlink))
        bandwidth = BandwidthDriver(self.traffic_control)
        dataplane = Dataplane(
            builder=TableBuilder(),
            nftables=self.nftables,
            nft=driver,
            reader=self.nftables,
            verification=Verification(self.nftables, TableAudit(driver, self.nftables), workloads, bandwidth),
            workloads=workloads,
            bandwidth=bandwidth,
            tunnels=build_tunnels(self.rtnetlink, self.sysctl, FakeOffloads(), TunnelOptions()),
            rtnetlink=self.rtnetlink,
            events=self.events,
            interface_prefixes=("cali", "tap"),
            conntrack=self.conntrack,
        )
        self.sightings = FakeSightings()
        self.listener = FakeListener()
        log = open_log("error", "text", HOST)
        agent = assemble(
            parse_parameters(toml, {}), HOST, self.store, dataplane, kernel, Metrics(), None, log, self.sightings, self.listener
        )
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(agent.run())
                yield agent
                task.cancel()
        finally:
            self.rtnetlink._listeners.remove(self.events)
            kernel.close()
            dataplane.close()
            self.sightings.close()
