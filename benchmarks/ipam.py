"""Assigning addresses on a real etcd, which the benchmark starts itself.

- ``one_host``: one host with its block in hand, one caller after the other, and with ``--callers`` at the same time.
- ``hosts``: ``--hosts`` processes, each a host with ``--callers`` callers, all on one pool, all beginning at the same moment.
- ``crash``: the same, and half of the processes are killed (SIGKILL) in the middle. Then what is stored is checked, and all requests of the
  dead ones are made again: nothing may be owned by nobody, twice, or lost.

The baseline in the same run (``raw_...``): transactions with about as many compares and puts of the same size, with as many processes and
callers, without any address management. Rates in assignments per second, latencies in milliseconds as each caller saw them. ``conflicts``
are errors that callers saw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from benchmarks.etcd import own_etcd
from tabinet.errors import TabinetError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, Datastore, PutOp
from tabinet.store.open import open_store

Figures = dict[str, float]
POOL = "10.0.0.0/16"
BLOCK_BYTES, HANDLE_BYTES = 4600, 60
"""What a half-full block and a handle take, on average."""


@dataclass(slots=True)
class Tally:
    """What callers saw."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    began: float = 0.0
    """Of the clock that all processes share (CLOCK_MONOTONIC)."""
    ended: float = 0.0


async def many(count: int, callers: int, one: Callable[[int], Awaitable[object]]) -> Tally:
    """``one`` was called for each number below ``count``, by so many callers at the same time."""
    tally = Tally(began=time.monotonic())
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            began = time.monotonic()
            try:
                await one(number)
            except TabinetError as error:
                tally.errors.append(str(error))
            tally.latencies_ms.append((time.monotonic() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(callers)))
    tally.ended = time.monotonic()
    return tally


def figures(*tallies: Tally) -> Figures:
    """Rate, latencies and conflicts of all together."""
    latencies = sorted(latency for tally in tallies for latency in tally.latencies_ms)
    took_s = max(tally.ended for tally in tallies) - min(tally.began for tally in tallies)
    return {
        "per_s": round(len(latencies) / took_s, 1),
        "p50_ms": round(statistics.median(latencies), 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100], 2),
        "conflicts": sum(len(tally.errors) for tally in tallies),
    }


def raw(store: Datastore, host: str) -> Callable[[int], Awaitable[object]]:
    """A transaction as an assignment makes it, but of values that mean nothing; the host's "block" is rewritten each time."""

    async def one(number: int) -> object:
        compares = [Compare(f"/raw/{host}/handle/{number}", 0), *(Compare(f"/raw/absent/{index}", 0) for index in range(3))]
        puts = [PutOp(f"/raw/{host}/block", b"x" * BLOCK_BYTES), PutOp(f"/raw/{host}/handle/{number}", b"x" * HANDLE_BYTES)]
        return await store.txn(compares, puts)

    return one


def assignment(client: IpamClient, host: str) -> Callable[[int], Awaitable[object]]:
    """An assignment of one address to a new handle."""
    return lambda number: client.assign(
        AssignRequest(host=host, handle=f"{host}.{number}", count4=1, attributes={"workload": f"w{number}"})
    )


async def one_host(endpoint: str, count: int, callers: int) -> dict[str, Figures]:
    """One process: raw and assignments, one caller and several."""
    store = await open_store(endpoint)
    try:
        await put_pool(store)
        results: dict[str, Figures] = {}
        for number in (1, callers):
            results[f"raw_{number}_callers"] = figures(await many(count, number, raw(store, f"raw{number}")))
            client = IpamClient(store)
            host = f"one{number}"
            await assignment(client, host)(count)  # the first block is claimed
            results[f"one_host_{number}_callers"] = figures(await many(count, number, assignment(client, host)))
        return results
    finally:
        await store.close()


async def put_pool(store: Datastore) -> None:
    document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "bench"}, "spec": {"cidr": POOL}}
    await store.txn([], [PutOp(path_of(ResourceKey("IPPool", "bench")), msgspec.json.encode(document))])


# --- many processes -------------------------------------------------------------------------------------------------------


def work(endpoint: str, kind: str, host: str, count: int, callers: int) -> None:
    """A process of ``hosts``: says that it is ready, begins when it is told to, says every assignment that a caller was told."""

    async def run() -> Tally:
        store = await open_store(endpoint)
        try:
            await store.get("/")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            one = raw(store, host) if kind == "raw" else assignment(IpamClient(store), host)

            async def told(number: int) -> None:
                await one(number)
                print(number, flush=True)

            return await many(count, callers, told)
        finally:
            await store.close()

    tally = asyncio.run(run())
    print(json.dumps({"latencies_ms": tally.latencies_ms, "errors": tally.errors, "began": tally.began, "ended": tally.ended}), flush=True)


@dataclass(slots=True)
class Host:
    """A process that assigns, and what it has said."""

    name: str
    process: asyncio.subprocess.Process
    numbers: list[int] = field(default_factory=list)
    tally: Tally | None = None
    """None for one that was killed."""

    async def listen(self) -> None:
        """Everything that it says, until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.startswith(b"{"):
                self.tally = Tally(**json.loads(line))
            else:
                self.numbers.append(int(line))
        await self.process.wait()


async def start_hosts(endpoint: str, kind: str, names: list[str], count: int, callers: int) -> list[Host]:
    """The processes, all ready and waiting for the word."""
    hosts = []
    for name in names:
        arguments = ("-m", "benchmarks.ipam", "--worker", endpoint, kind, name, "--count", str(count), "--callers", str(callers))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
        )
        hosts.append(Host(name, process))
    for host in hosts:
        assert host.process.stdout is not None
        if await host.process.stdout.readline() != b"ready\n":
            raise SystemExit(f"{host.name} does not begin")
    return hosts


async def run_hosts(hosts: list[Host], kill_after: int = 0) -> list[Host]:
    """All have worked to their ends; of the first half, those that still worked when ``kill_after`` assignments had been told were killed.

    Returns the killed ones.
    """
    killed: list[Host] = []

    async def kill() -> None:
        while sum(len(host.numbers) for host in hosts) < kill_after:  # noqa: ASYNC110 - what is said comes by itself, line by line
            await asyncio.sleep(0.002)
        for host in hosts[: len(hosts) // 2]:
            if host.process.returncode is None and host.tally is None:
                host.process.kill()
                killed.append(host)

    for host in hosts:
        assert host.process.stdin is not None
        host.process.stdin.write(b"go\n")
    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(host.listen())
        if kill_after:
            group.create_task(kill())
    return killed


async def many_hosts(endpoint: str, count: int, hosts: int, callers: int) -> dict[str, Figures]:
    """``hosts`` and its baseline."""
    results: dict[str, Figures] = {}
    for kind in ("raw", "ipam"):
        started = await start_hosts(endpoint, kind, [f"{kind}{number}" for number in range(hosts)], count, callers)
        await run_hosts(started)
        name = f"raw_{hosts}_hosts" if kind == "raw" else f"hosts_{hosts}"
        results[name] = figures(*(host.tally for host in started if host.tally is not None))
    return results


async def crash(endpoint: str, count: int, hosts: int, callers: int) -> dict[str, Figures]:
    """Half of the hosts are killed in the middle; then everything is looked at, and what the dead had asked for is asked for again."""
    started = await start_hosts(endpoint, "ipam", [f"crash{number}" for number in range(hosts)], count, callers)
    killed = await run_hosts(started, kill_after=hosts * count // 2)
    result = figures(*(host.tally for host in started if host.tally is not None))
    result["killed"] = len(killed)
    store = await open_store(endpoint)
    try:
        client = IpamClient(store)
        result["findings"] = len(await client.check())
        told = {f"{host.name}.{number}" for host in started for number in host.numbers}
        owned = await read_owned(store, "crash")
        result["told_and_not_owned"] = len(told - owned.keys())
        result["assigned_and_not_told"] = len(owned.keys() - told)
        for host in killed:
            await many(count, callers, assignment(IpamClient(store), host.name))
        owned = await read_owned(store, "crash")
        addresses = [address for found in owned.values() for address in found]
        result["lost_after_repeating"] = hosts * count - len(owned)
        result["leaked_after_repeating"] = len(addresses) - hosts * count
        result["owned_twice"] = len(addresses) - len(set(addresses))
        result["findings_after_repeating"] = len(await client.check())
        return {f"crash_{hosts}": result}
    finally:
        await store.close()


async def read_owned(store: Datastore, beginning: str) -> dict[str, list[str]]:
    """The addresses of each handle that begins so, as the blocks have them."""
    owned: dict[str, list[str]] = {}
    async for page in store.list("/calico/ipam/v2/assignment/"):
        for item in page.items:
            document = json.loads(item.value)
            block = parse_prefix(document["cidr"])
            for ordinal, index in enumerate(document["allocations"]):
                handle = document["attributes"][index]["handle_id"] if index is not None else ""
                if handle.startswith(beginning):
                    owned.setdefault(handle, []).append(block.host(ordinal).address)
    return owned


async def measure(workloads: list[str], count: int, hosts: int, callers: int) -> dict[str, Figures]:
    """Each workload on an etcd of its own."""
    results: dict[str, Figures] = {}
    for workload in workloads:
        with own_etcd() as endpoint:
            if workload == "one_host":
                results |= await one_host(endpoint, count * 10, callers)
                continue
            store = await open_store(endpoint)
            await put_pool(store)
            await store.close()
            results |= await (many_hosts if workload == "hosts" else crash)(endpoint, count, hosts, callers)
    return results


WORKLOADS = ("one_host", "hosts", "crash")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)}; all when none is given")
    parser.add_argument(
        "--count", type=int, default=100, help="assignments of each host; ten times as many with one host (default: %(default)s)"
    )
    parser.add_argument("--hosts", type=int, default=20, help="processes (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=4, help="callers of each host at the same time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        endpoint, kind, host = arguments.worker
        work(endpoint, kind, host, arguments.count, arguments.callers)
        return
    chosen = arguments.workloads or list(WORKLOADS)
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    results = asyncio.run(measure(chosen, arguments.count, arguments.hosts, arguments.callers))
    if arguments.json:
        print(json.dumps(results | {"cpus": os.cpu_count()}))
        return
    for name, found in results.items():
        print(name)
        for figure, value in found.items():
            print(f"  {figure:24} {value:10}")


if __name__ == "__main__":
    main()
