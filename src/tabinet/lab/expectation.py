"""What packets between workloads should do, from the resources in the store: the oracle's half of the connectivity check.

In: the snapshot of a store as change events, the hosts, the lab's workloads. Out: a ``Fabric`` that says for any flow whether it may begin,
computed with the same calculation and rules as the agents', but from scratch and for all hosts in this process; and the probes that the
check should make. Pure; O(snapshot) to build, then a table evaluation (some 50 us) for each question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tabinet.agent.feed import Feed
from tabinet.calc.graph import Graph
from tabinet.calc.messages import EndpointUpdate
from tabinet.lab.probe.client import ProbeSpec
from tabinet.lab.topology import CheckPorts
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Verdict
from tabinet.rules.ir import Table
from tabinet.rules.reach import Flow, Location, expected
from tabinet.store.api import KeyValue, PutEvent, WatchBatch

PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17}
ICMPV6 = 58
ECHO_REQUEST = {IPV4: 8, IPV6: 128}
ANY_CLIENT_PORT = 40_000
"""Source port of the flows that the oracle is asked about; probes get theirs from the kernel (ip_local_port_range)."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """A workload as the check sees it."""

    name: str
    namespace: str
    """Its network namespace."""
    addresses: tuple[Prefix, ...]


class PlannedProbe(msgspec.Struct, frozen=True, gc=False):
    """One probe and what should come of it."""

    source: str
    destination: str
    spec: ProbeSpec
    allowed: bool
    reason: str
    """Comment of the rule that decided."""


@dataclass(slots=True)
class Fabric:
    """All hosts' tables, and where addresses are attached."""

    tables: dict[str, Table]
    endpoints: dict[Prefix, Location]

    def verdict(self, spec: ProbeSpec, source: Prefix, destination: Prefix) -> Verdict:
        """Whether the probe's first packet may reach its destination.

        Raises:
            ValueError: neither address is an endpoint's.
        """
        is_icmp = spec.protocol == "icmp"
        flow = Flow(
            source=source,
            destination=destination,
            protocol=ICMPV6 if is_icmp and spec.family == IPV6 else PROTOCOL_NUMBERS[spec.protocol],
            source_port=0 if is_icmp else ANY_CLIENT_PORT,
            destination_port=spec.port,
            icmp_type=ECHO_REQUEST[spec.family] if is_icmp else 0,
        )
        return expected(self.tables, self.endpoints, flow)


def build_fabric(items: Iterable[KeyValue], hosts: Sequence[str]) -> Fabric:
    """The fabric as the stored resources want it. Broken values fail closed, as they do in the agents."""
    graph = Graph(frozenset(hosts))
    feed = Feed(graph.on_input)
    stored = list(items)
    feed.on_batch(WatchBatch([PutEvent(item) for item in stored], max((item.revision for item in stored), default=0)))
    feed.on_in_sync()
    builders = {host: TableBuilder() for host in hosts}
    endpoints: dict[Prefix, Location] = {}
    for update in graph.flush():
        for host, builder in builders.items():
            if isinstance(update, EndpointUpdate) and update.endpoint.host != host:
                continue
            builder.on_update(update)
        if isinstance(update, EndpointUpdate):
            endpoint = update.endpoint
            endpoints.update((net, Location(endpoint.host, endpoint.interface)) for net in endpoint.nets)
    for builder in builders.values():
        builder.flush()
    return Fabric({host: builder.table for host, builder in builders.items()}, endpoints)


def plan_probes(fabric: Fabric, targets: Sequence[Target], ports: CheckPorts) -> list[PlannedProbe]:
    """For each ordered pair and family: ICMP, and of TCP and UDP one port that is allowed and one that is denied.

    Where a pair has no allowed (or no denied) port among those to choose from, two of the other kind are tried. The choice begins at
    another port for each pair, so that all of them get their turn.
    """
    found: list[PlannedProbe] = []
    pairs = [(source, destination) for source in targets for destination in targets if source.name != destination.name]
    for turn, (source, destination) in enumerate(pairs):
        for family in (IPV4, IPV6):
            start = _of_family(source, family)
            end = _of_family(destination, family)
            if start is None or end is None:
                continue
            found.append(_judge(fabric, source, destination, ProbeSpec(family, "icmp", end.address, 0), start, end))
            for protocol, numbers in (("tcp", ports.tcp), ("udp", ports.udp)):
                first = turn % len(numbers)
                specs = [ProbeSpec(family, protocol, end.address, port) for port in (*numbers[first:], *numbers[:first])]
                found += _one_of_each([_judge(fabric, source, destination, spec, start, end) for spec in specs])
    return found


def _judge(fabric: Fabric, source: Target, destination: Target, spec: ProbeSpec, start: Prefix, end: Prefix) -> PlannedProbe:
    verdict = fabric.verdict(spec, start, end)
    return PlannedProbe(source.name, destination.name, spec, verdict.accepted, verdict.reason)


def _one_of_each(probes: list[PlannedProbe]) -> list[PlannedProbe]:
    allowed = [probe for probe in probes if probe.allowed]
    denied = [probe for probe in probes if not probe.allowed]
    chosen = allowed[:1] + denied[:1]
    return chosen if len(chosen) == 2 else (allowed or denied)[:2]


def _of_family(target: Target, family: int) -> Prefix | None:
    return next((address for address in target.addresses if address.family == family), None)
