"""Labs for the scenario tests, and what has to be true of one: nothing of the agents' is missing, and nothing is left over.

A lab is brought up under a name of its own and is removed whatever happens. The questions here only read; the kernel's table is compared
through ``ReadOnly``, so that asking does not repair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from tabinet.dataplane.nft.driver import NftDriver
from tabinet.errors import KernelError, LabError, TabinetError
from tabinet.kernel.netns import run_in
from tabinet.kernel.nftables import Element, NftOp, TableInfo
from tabinet.kernel.nftsocket import NftSocket, open_nftables
from tabinet.kernel.rtnetlink import TABINET_PROTOCOL
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lab.check import CheckReport, snapshot
from tabinet.lab.expectation import build_fabric
from tabinet.lab.groups import lab_groups
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.state import ROOT
from tabinet.lab.up import lab_up
from tabinet.model.codec import decode_stored
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import load_documents
from tabinet.model.report import HostReport, report_path
from tabinet.model.resources import WorkloadEndpoint
from tabinet.model.status import endpoint_status_path, endpoint_status_prefix, parse_endpoint_status
from tabinet.rules.ir import Table
from tabinet.store.api import Datastore, KeyValue
from tabinet.store.client import Document

EXAMPLES = Path(__file__).parents[2] / "examples"
TABINET = Path(__file__).parents[2] / ".venv" / "bin" / "tabinet"
SETTLED_WITHIN_S = 30.0


FORWARDING_WITHIN_S = 20.0


def unique_name() -> str:
    """Short, as the names of a lab's interfaces and namespaces are made from it."""
    return f"t{secrets.token_hex(3)}"


@contextlib.contextmanager
def running_lab(example: str) -> Iterator[Lab]:
    """The example's lab under another name; removed at the end, and that nothing is left of it is checked."""
    loaded = load_topology(EXAMPLES / "labs" / f"{example}.yaml")
    name = unique_name()
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    try:
        yield asyncio.run(lab_up(loaded))
    finally:
        asyncio.run(lab_down(name))
    assert leftovers(name) == []


def leftovers(name: str) -> list[str]:
    """Whatever there still is of a lab: namespaces, control groups, files, processes."""
    prefix = namespace_of(name, "")
    found = [f"namespace {entry.name}" for entry in Path("/run/netns").glob(f"{prefix}*")]
    found += [f"control group {path}" for path in lab_groups(name)]
    found += [f"file {path}" for path in ROOT.glob(f"{name}*")]
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            where = os.readlink(directory / "cwd")
        except OSError:
            continue
        if int(directory.name) != os.getpid() and (f"{ROOT}/{name}" in arguments + where or prefix in arguments):
            found.append(f"process {directory.name}: {arguments}")
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in tables.splitlines() if "tabinet" in line]


async def eventually(question: Callable[[], Awaitable[list[str]]], within_s: float = SETTLED_WITHIN_S) -> None:
    """The question has no more objections."""
    deadline = time.monotonic() + within_s
    while objections := await question():
        assert time.monotonic() < deadline, f"after {within_s} s still: {objections}"
        await asyncio.sleep(0.1)


class ReadOnly:
    """``Nftables`` of a host that keeps what it is asked to do instead of doing it."""

    def __init__(self, real: NftSocket) -> None:
        self._real = real
        self.asked: list[NftOp] = []

    def commit(self, operations: list[NftOp]) -> None:
        self.asked += operations

    def read_table(self) -> TableInfo | None:
        return self._real.read_table()

    def read_elements(self, set_name: str) -> list[Element]:
        return self._real.read_elements(set_name)

    def read_counters(self) -> dict[tuple[str, bytes], tuple[int, int]]:
        return self._real.read_counters()

    def read_element_counters(self, set_name: str) -> dict[bytes, tuple[int, int]]:
        return self._real.read_element_counters(set_name)

    def disturbed(self) -> bool:
        return self._real.disturbed()

    def close(self) -> None:
        self._real.close()


def table_differences(namespace: str, table: Table) -> list[str]:
    """What a fresh driver would do to the table of the namespace; nothing is done."""

    def compare() -> list[str]:
        nftables = ReadOnly(open_nftables())
        try:
            result = NftDriver(nftables).resync(table)
        except KernelError as error:  # it changed while it was read
            return [str(error)]
        finally:
            nftables.close()
        return [f"{result.operations} operations: {nftables.asked[:5]}"] if result.operations else []

    return run_in(namespace, compare)


def route_differences(namespace: str, endpoints: list[WorkloadEndpoint]) -> list[str]:
    """Routes of ours that should not be there, and missing ones."""

    def read() -> set[tuple[str, str]]:
        rtnetlink = open_rtnetlink()
        try:
            names = {link.index: link.name for link in rtnetlink.links()}
            routes = rtnetlink.routes(protocol=TABINET_PROTOCOL)
            return {(str(route.destination), names.get(hop.index, "?")) for route in routes for hop in route.hops}
        finally:
            rtnetlink.close()

    wanted = {(net, endpoint.spec.interface_name) for endpoint in endpoints for net in endpoint.spec.ip_networks}
    wanted |= {(f"{nat.external_ip}/32", endpoint.spec.interface_name) for endpoint in endpoints for nat in endpoint.spec.ip_nats}
    actual = run_in(namespace, read)
    return [f"stale route {each}" for each in sorted(actual - wanted)] + [f"no route {each}" for each in sorted(wanted - actual)]


async def differences(lab: Lab) -> list[str]:
    """Where kernels and statuses are not what a fresh computation from the store wants."""
    try:
        async with lab.store() as store:
            items = await snapshot(store)
            return await _differences(lab, store, items)
    except TabinetError as error:
        return [str(error)]


async def _differences(lab: Lab, store: Datastore, items: list[KeyValue]) -> list[str]:
    hosts = [host.name for host in lab.plan.hosts]
    found = []
    for host in hosts:
        namespace = namespace_of(lab.name, host)
        local = local_endpoints(items, host)
        table = build_fabric(items, [host]).tables[host]
        wrong = await asyncio.to_thread(table_differences, namespace, table)
        wrong += await asyncio.to_thread(route_differences, namespace, [endpoint for _, endpoint in local])
        wrong += status_differences(items, host, local)
        report = await read_report(store, host)
        if report is None or not report.in_sync or report.kernel or report.endpoints_waiting:
            wrong.append(f"reports {report}")
        found += [f"{host}: {each}" for each in wrong]
    return found


def local_endpoints(items: list[KeyValue], host: str) -> list[tuple[KeyValue, WorkloadEndpoint]]:
    """The endpoints of a host that can be understood."""
    found = []
    for item in items:
        try:
            decoded = decode_stored(item.key, item.value)
        except TabinetError:
            continue
        if decoded is not None and isinstance(decoded[1], WorkloadEndpoint) and decoded[1].spec.node == host:
            found.append((item, decoded[1]))
    return found


def status_differences(items: list[KeyValue], host: str, local: list[tuple[KeyValue, WorkloadEndpoint]]) -> list[str]:
    """Statuses of endpoints that do not exist, and endpoints that are not reported up as they are now."""
    statuses = {item.key: item for item in items if item.key.startswith(endpoint_status_prefix(host))}
    found = []
    for item, _ in local:
        decoded = decode_stored(item.key, item.value)
        assert decoded is not None
        status = statuses.pop(endpoint_status_path(host, decoded[0]), None)
        said = parse_endpoint_status(status.key, status.value) if status is not None else None
        if said is None or said.status != "up" or said.revision != item.revision:
            found.append(f"{item.key} of revision {item.revision} is reported {said}")
    return found + [f"stale status {path}" for path in statuses]


async def read_report(store: Datastore, host: str) -> HostReport | None:
    """What the host's agent says of itself."""
    item = await store.get(report_path(host))
    return msgspec.json.decode(item.value, type=HostReport) if item is not None else None


async def assert_well(lab: Lab, probes: int = 1) -> CheckReport:
    """Everything settles, and then every packet does what policy says."""
    await eventually(lambda: differences(lab))
    await eventually(lambda: _convergence(lab))
    # Hosts see when their own routes are back, not when those of the routers between them are: packets tell, within a deadline.
    deadline = time.monotonic() + FORWARDING_WITHIN_S
    report = await lab.check()
    while report.mismatches and time.monotonic() < deadline:
        print(f"{report.mismatches} mismatches yet")
        report = await lab.check()
    assert report.details == ()
    assert report.mismatches == 0
    assert report.probes >= probes
    assert report.families == ("ipv4", "ipv6")
    return report


async def _convergence(lab: Lab) -> list[str]:
    try:
        await lab.wait_converged(1.0)
    except LabError as error:
        return [str(error)]
    return []


def example_policies() -> list[Document]:
    """All resources of the example policies."""
    found = [load_documents(path.read_bytes(), str(path)) for path in sorted((EXAMPLES / "policies").glob("*.yaml"))]
    return [with_defaults(document.data) for documents in found for document in documents]
