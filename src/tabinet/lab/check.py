"""The connectivity check: what the policies in the store say, against what packets do.

In: the store, and where workloads and hosts are. Out: a ``CheckReport``. The namespace of each of them gets a prober; all of them probe at
the same time, so the check takes about as long as one denied probe takes to time out. What does not match is tried once more before it
counts: on a busy machine a packet may come late, but what policy does it does every time. Nothing in the lab is changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec

from tabinet.lab.expectation import PlannedProbe, Target, build_fabric, plan_probes, ports_of_hosts
from tabinet.lab.probe.client import ProbeResult, Program, run_probes, start_prober, start_relay
from tabinet.lab.topology import CheckPorts
from tabinet.store.api import Datastore, KeyValue

PROBE_TIMEOUT_MS = 1000
RETRY_TIMEOUT_MS = 2500
"""Long enough for a second SYN (RFC 6298: the first comes again after one second)."""
MACHINE_RETRY_TIMEOUT_MS = 10_000
"""Where virtual machines take part: every instruction of theirs is computed, by a machine that may be busy."""
STORE_PREFIX = "/calico/"


class Detail(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A probe that did not do what it should."""

    source: str
    destination: str
    family: str
    """``ipv4`` or ``ipv6``."""
    protocol: str
    port: int
    expected: str
    """``answered`` or ``denied``."""
    reason: str
    """The rule that decides, in words."""
    seen: str
    """``answered``, ``refused``, ``forbidden``, ``unreachable`` or ``timeout``."""
    who: str
    """Who answered, if anyone did."""
    took_ms: float


class PairResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All probes from one workload or host to another: a cell of the matrix."""

    source: str
    destination: str
    probes: int
    allowed: int
    """How many of them should be answered."""
    mismatches: int


class CheckReport(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a check found."""

    probes: int
    mismatches: int
    families: tuple[str, ...]
    details: tuple[Detail, ...]
    """One for each mismatch."""
    retried: int
    """How many probes had to be made twice."""
    pairs: tuple[PairResult, ...]
    """In the order of the workloads, then those with hosts."""
    duration_s: float


async def check(
    store: Datastore,
    hosts: Sequence[str],
    targets: Sequence[Target],
    ports: CheckPorts,
    uplinks: Mapping[str, Sequence[str]] | None = None,
) -> CheckReport:
    """Probes between all workloads, and between workloads and hosts, compared with what the oracle expects.

    ``uplinks``: the hosts' interfaces towards each other; needed where host endpoints name them.

    Raises:
        LabError: a prober could not run.
        StoreUnavailable: the store does not answer.
    """
    began = time.monotonic()
    planned = plan_probes(build_fabric(await snapshot(store), hosts, uplinks), targets, ports)
    probers = await _start(targets, ports)
    try:
        results = await _probe(probers, planned, PROBE_TIMEOUT_MS)
        doubtful = [index for index, probe in enumerate(planned) if not matches(probe, results[index])]
        retry_ms = MACHINE_RETRY_TIMEOUT_MS if any(target.socket for target in targets) else RETRY_TIMEOUT_MS
        again = await _probe(probers, [planned[index] for index in doubtful], retry_ms)
        for index, result in zip(doubtful, again, strict=True):
            results[index] = result
    finally:
        await asyncio.gather(*(prober.close() for prober in probers.values()))
    return summarize(planned, results, retried=len(doubtful), duration_s=time.monotonic() - began)


async def snapshot(store: Datastore) -> list[KeyValue]:
    """Everything of ours in the store, at one revision."""
    return [item async for page in store.list(STORE_PREFIX) for item in page.items]


async def _start(targets: Sequence[Target], ports: CheckPorts) -> dict[str, Program]:
    started: dict[str, Program] = {}

    async def start(target: Target) -> None:
        own = ports_of_hosts(ports) if target.is_host else ports
        if target.socket:
            started[target.name] = await start_relay(target.socket, target.name, own.tcp, own.udp)
        else:
            started[target.name] = await start_prober(target.namespace, target.name, own.tcp, own.udp)

    outcomes = await asyncio.gather(*(start(target) for target in targets), return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failed:
        await asyncio.gather(*(prober.close() for prober in started.values()))
        raise failed[0]
    return started


async def _probe(probers: dict[str, Program], planned: Sequence[PlannedProbe], timeout_ms: int) -> list[ProbeResult]:
    """The results in the order of the probes; each workload makes its own at the same time as the others."""
    by_source: dict[str, list[int]] = {}
    for index, probe in enumerate(planned):
        by_source.setdefault(probe.source, []).append(index)
    answers = await asyncio.gather(
        *(run_probes(probers[source], [planned[index].spec for index in own], timeout_ms) for source, own in by_source.items())
    )
    results = {
        index: result for own, found in zip(by_source.values(), answers, strict=True) for index, result in zip(own, found, strict=True)
    }
    return [results[index] for index in range(len(planned))]


def matches(probe: PlannedProbe, result: ProbeResult) -> bool:
    """True when an allowed probe was answered by the one whom it was sent to, and a denied one by nobody.

    A reset is an answer, of the kernel behind the policy; an error about the way is none, but neither is it what a denied packet gets.
    A host is told at once when its own policy denies what it sends.
    """
    if not probe.allowed:
        return result.outcome in ("timeout", "forbidden")
    if result.outcome != "answered":
        return False
    return result.who in (probe.destination, probe.spec.address)


def summarize(planned: Sequence[PlannedProbe], results: Sequence[ProbeResult], *, retried: int, duration_s: float) -> CheckReport:
    """The report on probes and their results, which come in the same order."""
    details = tuple(_detail(probe, result) for probe, result in zip(planned, results, strict=True) if not matches(probe, result))
    wrong = [(detail.source, detail.destination) for detail in details]
    cells: dict[tuple[str, str], list[PlannedProbe]] = {}
    for probe in planned:
        cells.setdefault((probe.source, probe.destination), []).append(probe)
    return CheckReport(
        probes=len(planned),
        mismatches=len(details),
        families=tuple(f"ipv{family}" for family in sorted({probe.spec.family for probe in planned})),
        details=details,
        retried=retried,
        pairs=tuple(
            PairResult(
                source=source,
                destination=destination,
                probes=len(probes),
                allowed=sum(probe.allowed for probe in probes),
                mismatches=wrong.count((source, destination)),
            )
            for (source, destination), probes in cells.items()
        ),
        duration_s=round(duration_s, 2),
    )


def _detail(probe: PlannedProbe, result: ProbeResult) -> Detail:
    return Detail(
        source=probe.source,
        destination=probe.destination,
        family=f"ipv{probe.spec.family}",
        protocol=probe.spec.protocol,
        port=probe.spec.port,
        expected="answered" if probe.allowed else "denied",
        reason=probe.reason,
        seen=result.outcome,
        who=result.who,
        took_ms=result.took_ms,
    )
