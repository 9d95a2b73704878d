"""What packets between workloads, and between workloads and hosts, should do: the oracle's half of the connectivity check.

In: the snapshot of a store, the hosts, the lab's workloads and hosts as targets. Out: a ``Fabric`` that says for any flow whether it may
begin, computed with the same calculation and rules as the agents', but from scratch and for all hosts in this process; and the probes that
the check should make. Pure; O(snapshot) to build, then some table evaluations (50 us each) for each question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec

from tabinet.agent.feed import Feed
from tabinet.agent.parameters import parse_parameters
from tabinet.agent.tableoptions import table_options
from tabinet.analysis.fabric import Fabric as Directory
from tabinet.analysis.fabric import HostView, survey
from tabinet.analysis.way import ECHO_REQUEST, Question, find_way
from tabinet.calc.inputs import Input, Put
from tabinet.lab.probe.client import ProbeSpec
from tabinet.lab.topology import CheckPorts
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.keys import Key
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.evaluate import Verdict
from tabinet.rules.hostlayout import COVERED
from tabinet.rules.ir import Interface, Table
from tabinet.rules.options import TableOptions
from tabinet.rules.reach import UPLINK, judge
from tabinet.store.api import KeyValue, PutEvent, WatchBatch

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17}
FAILSAFE_TCP = 22
"""A port that no host endpoint closes (by default), and that nobody else in a lab's host listens on."""
TAKEN_ON_HOSTS = frozenset({179, 2379, 3784, 3785, 4784, 4789})
"""Ports that the programs of a host have themselves: BGP, etcd, BFD, VXLAN."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """A workload, or a host, as the check sees it."""

    name: str
    namespace: str
    """Its network namespace."""
    addresses: tuple[Prefix, ...]
    host: str = ""
    """Where a workload is; of a host its own name."""
    is_host: bool = False
    bare: bool = False
    """A host that is a workload itself: all others try it, and it tries all."""
    underlay: str = ""
    """Of a host: between hosts of different ones no packet with a workload's address passes."""
    floating: tuple[Prefix, ...] = ()
    """Addresses that a workload is reached under besides."""
    socket: str = ""
    """Of a virtual machine: where its prober is reached."""


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

    directory: Directory
    views: dict[str, HostView]
    uplinks: dict[str, tuple[str, ...]]
    """A host's interfaces towards the others that its table tells apart; which of them a packet takes is routing's affair."""

    @property
    def tables(self) -> dict[str, Table]:
        """By host."""
        return {host: view.table for host, view in self.views.items()}

    def addresses_on(self, host: str) -> set[Prefix]:
        """Those of the workloads that the host has."""
        return {net for endpoint in self.views[host].world.endpoints.values() for net in endpoint.nets}

    def verdict(self, spec: ProbeSpec, source: Prefix, destination: Prefix) -> Verdict | None:
        """Whether the probe's first packet may reach its destination; None when that depends on the uplink that it takes.

        Raises:
            ValueError: neither address is a workload's or a host's.
        """
        is_icmp = spec.protocol == "icmp"
        question = Question(
            source=self.directory.places_of(source)[0],
            destination=self.directory.places_of(destination)[0],
            protocol=(ICMP if spec.family == IPV4 else ICMPV6) if is_icmp else PROTOCOL_NUMBERS[spec.protocol],
            destination_port=spec.port,
            icmp_type=ECHO_REQUEST[spec.family] if is_icmp else 0,
        )
        hosts = {place.host for place in (question.source, question.destination) if place.host}
        verdicts = []
        for chosen in product(*[[(host, name) for name in self.uplinks[host]] for host in sorted(hosts)]):
            way = find_way(self.directory, self.views, question, dict(chosen).__getitem__)
            verdicts.append(judge(self.tables, way.passes))
        return verdicts[0] if len({verdict.accepted for verdict in verdicts}) == 1 else None


def build_fabric(items: Iterable[KeyValue], hosts: Sequence[str], uplinks: Mapping[str, Sequence[str]] | None = None) -> Fabric:
    """The fabric as the stored resources want it. Broken values fail closed, as they do in the agents."""
    resources: dict[Key, tuple[object, int]] = {}

    def take(told: Input) -> None:
        if isinstance(told, Put):
            resources[told.key] = (told.value, told.revision)

    Feed(take).on_batch(WatchBatch([PutEvent(item) for item in items], 0))
    directory = survey(resources, _options_of)
    views = directory.view(hosts)
    return Fabric(directory, views, {host: _told_apart(view.table, (uplinks or {}).get(host, ())) for host, view in views.items()})


def _told_apart(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """Interfaces without a host endpoint of their own are all the same to the table."""
    covered = table.elements[COVERED]
    return tuple(dict.fromkeys(name if Interface(name) in covered else UPLINK for name in names)) or (UPLINK,)


def _options_of(felix: Mapping[str, object]) -> TableOptions:
    return table_options(parse_parameters("", {}, felix))


def plan_probes(fabric: Fabric, targets: Sequence[Target], ports: CheckPorts) -> list[PlannedProbe]:
    """For each ordered pair of workloads and family: ICMP, and of TCP and UDP one port that is allowed and one that is denied.

    Where a pair has no allowed (or no denied) port among those to choose from, two of the other kind are tried. The choice begins at
    another port for each pair, so that all of them get their turn. Each workload and its host, and another host by turns, try each other
    in both directions where the underlay lets them: ICMP, and TCP or UDP. So do all others try a workload's floating addresses. A host
    that is a workload itself and each workload try each other, by both protocols.
    """
    workloads = [target for target in targets if not target.is_host]
    found: list[PlannedProbe] = []
    pairs = [(source, destination) for source in workloads for destination in workloads if source.name != destination.name]
    for turn, (source, destination) in enumerate(pairs):
        for start, end in _ends(source, destination.addresses):
            found += _probe(fabric, source, destination, (start, end), _chosen(ports, turn))
    for turn, (source, destination) in enumerate(_with_hosts(workloads, [target for target in targets if target.is_host])):
        for start, end in _ends(source, destination.addresses):
            choice = _chosen(_ports_of(destination, ports), turn)
            if not (source.bare or destination.bare):
                choice = choice[(turn // 2 + (end.family == IPV6)) % 2 :][:1]
            found += _probe(fabric, source, destination, (start, end), choice)
    for turn, (source, destination) in enumerate(pairs):
        for start, end in _ends(source, destination.floating):
            found += _probe(fabric, source, destination, (start, end), _chosen(ports, turn)[turn % 2 :][:1])
    return found


def _with_hosts(workloads: Sequence[Target], hosts: Sequence[Target]) -> Iterator[tuple[Target, Target]]:
    """Workloads and hosts that try each other."""
    for turn, workload in enumerate(workloads):
        own = [host for host in hosts if host.host == workload.host]
        bare = [host for host in hosts if host.bare and host not in own]
        others = [host for host in hosts if host not in (*own, *bare)]
        for host in (*own, *bare, *(others[turn % len(others)],)) if others else (*own, *bare):
            if all(home.underlay == host.underlay for home in own):
                yield workload, host
            yield host, workload


def ports_of_hosts(ports: CheckPorts) -> CheckPorts:
    """The ports that hosts listen on."""
    tcp = (FAILSAFE_TCP, *(port for port in ports.tcp if port not in TAKEN_ON_HOSTS and port != FAILSAFE_TCP))
    return CheckPorts(tcp=tcp, udp=tuple(port for port in ports.udp if port not in TAKEN_ON_HOSTS))


def _ports_of(target: Target, ports: CheckPorts) -> CheckPorts:
    return ports_of_hosts(ports) if target.is_host else ports


def _chosen(ports: CheckPorts, turn: int) -> list[tuple[str, tuple[int, ...]]]:
    """Protocols with the ports to choose from, in the order of this turn."""
    kinds = (("tcp", ports.tcp), ("udp", ports.udp))
    return [(protocol, (*numbers[turn % len(numbers) :], *numbers[: turn % len(numbers)])) for protocol, numbers in kinds if numbers]


def _ends(source: Target, destinations: Iterable[Prefix]) -> Iterator[tuple[Prefix, Prefix]]:
    """The source's and the destination's address of each family that both have."""
    for family in (IPV4, IPV6):
        start = next((address for address in source.addresses if address.family == family), None)
        end = next((address for address in destinations if address.family == family), None)
        if start is not None and end is not None:
            yield start, end


def _probe(
    fabric: Fabric,
    source: Target,
    destination: Target,
    ends: tuple[Prefix, Prefix],
    choice: Sequence[tuple[str, tuple[int, ...]]],
) -> list[PlannedProbe]:
    """ICMP, and of each protocol one port that is allowed and one that is denied."""
    start, end = ends
    own = start.address if source.is_host else ""

    def judged(specs: Iterable[ProbeSpec]) -> list[PlannedProbe]:
        verdicts = [(spec, fabric.verdict(spec, start, end)) for spec in specs]
        return [
            PlannedProbe(source.name, destination.name, spec, told.accepted, told.reason) for spec, told in verdicts if told is not None
        ]

    found = judged([ProbeSpec(end.family, "icmp", end.address, 0, own)])
    for protocol, numbers in choice:
        found += _one_of_each(judged([ProbeSpec(end.family, protocol, end.address, port, own) for port in numbers]))
    return found


def _one_of_each(probes: list[PlannedProbe]) -> list[PlannedProbe]:
    allowed = [probe for probe in probes if probe.allowed]
    denied = [probe for probe in probes if not probe.allowed]
    chosen = allowed[:1] + denied[:1]
    return chosen if len(chosen) == 2 else (allowed or denied)[:2]
