"""The dataplane of one host as the agent drives it: policy table, interfaces and routes of workloads, tunnels, in that order.

Lives on the kernel thread. In: updates of the calculation, events of the kernel. Out: ``ApplyReport``. Policy comes first, so that an
endpoint never has a route before it has rules. What fails is left pending and named in the report; the agent's loop calls again.
Nothing is removed before the first updates came: an agent that has just started knows too little.

``verify`` looks at what no event tells, little at a time (``agent.verification``). What seems to differ is repaired by the next ``apply``,
which also says what somebody else had changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

import msgspec

from tabinet.agent.counting import Counting
from tabinet.agent.verification import QUIET_WAIT_S, Verification
from tabinet.bgp.records import HostFacts
from tabinet.bgp.records import InterfaceAddress as BgpAddress
from tabinet.calc.intents import peering_addresses
from tabinet.calc.messages import (
    NO_QOS,
    BgpUpdate,
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
    SetDelta,
    TunnelPeerRemove,
    TunnelPeerUpdate,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.dataplane.facts import wanted_facts
from tabinet.dataplane.moves import Expected, MoveManager
from tabinet.dataplane.nft.counters import TableCounters
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.repair import repair
from tabinet.dataplane.passing import PassingManager
from tabinet.dataplane.switches import Switches
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.tunnels.manager import TunnelManager, TunnelsApplied
from tabinet.dataplane.tunnels.plan import TUNNELS
from tabinet.dataplane.view import AnyView, wanted_views
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.conntrack import Conntrack
from tabinet.kernel.flowcodec import Flow, about
from tabinet.kernel.nftables import Nftables, NftReader
from tabinet.kernel.rtnetlink import AddressEvent, Event, LinkEvent, Overrun, RtEvents, Rtnetlink
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.ir import TableDelta
from tabinet.rules.marks import GENERATION_MASK


class EndpointStatus(msgspec.Struct, frozen=True, gc=False):
    """What the kernel holds of an endpoint."""

    revision: int
    ready: bool
    reason: str
    failed: bool = False
    """The kernel refused something of it."""


class VerifyReport(msgspec.Struct, frozen=True, gc=False):
    """What a look in the background came to."""

    differs: bool
    """Call ``apply``."""
    wait_s: float
    """Look again so many seconds later."""


class ApplyReport(msgspec.Struct, frozen=True):
    """What an apply did."""

    endpoints: dict[ResourceKey, EndpointStatus]
    """Those whose status may have changed."""
    removed: tuple[ResourceKey, ...]
    operations: dict[str, int]
    """Sent to the kernel, by driver."""
    error: str
    """Empty when the kernel holds everything that was asked for."""
    addresses_changed: bool
    """Addresses or links of the host changed, so BGP should look again."""
    drifts: tuple[Drift, ...] = ()
    """What somebody else had changed, and is repaired unless ``error`` says otherwise."""
    problems: tuple[str, ...] = ()
    """What keeps tunnels, and hosts that forwarded ports are passed on to, from getting what they should, in words."""
    workload_mtu: int = 0
    """The largest packet that workloads can send wherever it goes, in bytes; 0 when no tunnel limits it."""
    arriving: Mapping[ResourceKey, Expected] = {}
    """Endpoints whose machine is expected here, and where it will be seen."""


@dataclass(slots=True)
class Dataplane:
    """Drivers and managers of one host."""

    builder: TableBuilder
    nftables: Nftables
    nft: NftDriver
    reader: NftReader
    verification: Verification
    workloads: WorkloadManager
    bandwidth: BandwidthDriver
    tunnels: TunnelManager
    rtnetlink: Rtnetlink
    events: RtEvents
    interface_prefixes: tuple[str, ...]
    conntrack: Conntrack | None = None
    """Closed with the rest."""
    clock: Callable[[], float] = monotonic
    linger_s: float = 30.0
    """How long machines that have left are passed on after their endpoint is gone."""
    moves: MoveManager = field(init=False)
    passing: PassingManager = field(init=False)
    counting: Counting = field(init=False)
    floating: bool = True
    """Floating addresses have routes, so that BGP announces them."""
    _switches: Switches = field(default_factory=Switches)
    _switched: dict[ResourceKey, EndpointUpdate] = field(default_factory=dict)
    """Endpoints to be taken in again."""
    _limited: dict[ResourceKey, str] = field(default_factory=dict)
    """Interfaces of the endpoints whose bandwidth is limited."""
    _addresses_known: bool = False
    """Host endpoints that name no interface are found by the addresses as they are."""
    _revisions: dict[ResourceKey, int] = field(default_factory=dict)
    _waiting: set[ResourceKey] = field(default_factory=set)
    """Endpoints whose rules the kernel may not hold yet."""
    _told_waiting: set[ResourceKey] = field(default_factory=set)
    """Endpoints that were reported as waiting for their rules."""
    _removed: dict[ResourceKey, None] = field(default_factory=dict)
    """Endpoints that are gone and were not reported so."""
    _begun: bool = False
    _stale: bool = True
    """The kernel's table has to be read before it is changed."""
    _read_once: bool = False
    _chains_may_change: bool = False
    """An update came that may rewrite chains."""
    _drifts: list[Drift] = field(default_factory=list)
    """Found by this ``apply``."""

    def __post_init__(self) -> None:
        self.moves = MoveManager(self.rtnetlink, self.workloads, self.interface_prefixes, self.clock, self.linger_s)
        self.passing = PassingManager(self.rtnetlink, self.tunnels.way_to)
        self.verification.others += (self.passing.mark_stale,)
        self.counting = Counting(self.nftables, self.reader, self.nft, self.builder.counted)

    def event_fd(self) -> int:
        """Readable when the kernel has news of links, addresses, neighbours or our routes."""
        return self.events.fileno()

    def apply(self, updates: Iterable[Update], complete: bool) -> ApplyReport:
        """The kernel is as the updates say, but for ``error``. ``complete``: the first snapshot is in the updates so far."""
        switched, self._switched = self._switched, {}
        self._take_in(switched.values())  # as they were told before: what is told now is newer
        self._take_in(updates)
        addresses_changed = self._read_events()
        self._addresses_known = self._addresses_known and not addresses_changed
        self._begun = self._begun or complete
        if not self._begun:
            return ApplyReport({}, (), {}, "", addresses_changed)
        nft_operations, error = self._apply_policy()
        operations = {"nft": nft_operations}
        if not error:
            self._waiting.clear()
        self.workloads.begin()
        try:
            self.moves.prepare()
            result = self.workloads.apply()
            operations["moves"] = self.moves.apply()
        except KernelError as problem:
            error = error or str(problem)
        else:
            self._drifts += result.drifts
            operations |= {"links": len(result.links.changed) + len(result.vlans.changed), "routes": len(result.routes.operations)}
            if result.failed:
                error = error or str(result.errors[0])
        operations["bandwidth"], problem_of_limits = self._apply_bandwidth()
        error = error or problem_of_limits
        tunnels = self._apply_tunnels()
        self._drifts += tunnels.drifts
        operations["tunnels"], error = tunnels.operations, error or tunnels.error
        try:
            operations["passing"], passing_drifts = self.passing.apply()
            self._drifts += passing_drifts
        except KernelError as problem:
            error = error or str(problem)
        removed, self._removed = tuple(self._removed), {}
        drifts, self._drifts = tuple(self._drifts), []
        return ApplyReport(
            endpoints=self._statuses(),
            removed=removed,
            operations=operations,
            error=error,
            addresses_changed=addresses_changed,
            drifts=drifts,
            problems=(*tunnels.problems, *self.passing.problems),
            workload_mtu=tunnels.workload_mtu,
            arriving=self.moves.arriving(),
        )

    def switch(self, key: ResourceKey, moved: bool) -> None:
        """The machine behind a local endpoint was seen to have changed its host, or not to have; the next ``apply`` follows."""
        told = self._switches.switch(key, moved)
        if told is not None:
            self._switched[key] = told

    def hear(self, address: Prefix, key: ResourceKey | None) -> None:
        """A local endpoint was heard to hold an address that others may have as well; None: what the calculation tells counts again. The
        next ``apply`` follows."""
        self._switched |= {told.key: told for told in self._switches.hear(address, key)}

    def end_detour(self, to: ResourceKey) -> None:
        """This endpoint on another host is no more; the next ``apply`` passes nothing on to it."""
        self.moves.end_detour(to)

    def flows_of(self, nets: Iterable[Prefix]) -> list[Flow]:
        """Flows that these addresses are ends of, to be handed over to another host, which asks its own policy about them.

        Raises:
            KernelError: they could not be read.
        """
        if self.conntrack is None:
            return []
        found = {flow.original: flow for net in nets if net.is_host for flow in self.conntrack.flows_of(net)}
        return [msgspec.structs.replace(flow, mark=flow.mark & ~GENERATION_MASK) for flow in found.values()]

    def forget_translated(self, endpoint: Endpoint) -> int:
        """The endpoint's flows through its floating addresses are not known here any more; gives how many were. Others stay, above all
        those behind an address of this host, to which answers still come.

        Raises:
            KernelError: nobody knows which were forgotten.
        """
        externals = frozenset(external.packed for external in externals_of(endpoint, announced_only=False))
        if self.conntrack is None or not externals:
            return 0
        return self.conntrack.remove_flows(about(self.flows_of(endpoint.nets), externals))

    def add_flows(self, flows: list[Flow], nets: Iterable[Prefix]) -> int:
        """Flows that another host handed over are known, as far as these addresses are ends of them; gives how many are new.

        Raises:
            KernelError: nobody knows which were added.
        """
        if self.conntrack is None:
            return 0
        mine = about(flows, frozenset(net.packed for net in nets))
        return self.conntrack.add_flows([msgspec.structs.replace(flow, mark=flow.mark & ~GENERATION_MASK) for flow in mine])

    def verify(self, now_s: float) -> VerifyReport:
        """A little more of the kernel has been looked at; nothing is changed here. ``now_s``: any clock that only goes forward."""
        wait_s = QUIET_WAIT_S
        if not self._begun:
            return VerifyReport(False, wait_s)
        if not self._stale:
            try:
                wait_s = self.verification.turn(now_s)
            except KernelError:
                self._stale = True
        managers = (self.moves, self.passing, self.workloads, self.bandwidth, self.tunnels)
        in_sync = all(manager.in_sync for manager in managers)
        differs = self._stale or self.verification.audit.suspects or not in_sync
        return VerifyReport(bool(differs), wait_s)

    def views(self) -> Iterator[AnyView]:
        """What the kernel should hold, a small piece each time; for the kernel thread, like everything here."""
        names, routes, items = self.workloads.wanted()
        return wanted_views(self.nft, wanted_facts(names, routes, items, self.bandwidth.wanted()))

    def counters(self) -> TableCounters:
        """Packets and bytes by rule, by reason of denial and by endpoint. O(rules + endpoints)."""
        return self.counting.read()

    def facts(self) -> HostFacts:
        """The host's addresses, without those of workloads' interfaces and of tunnels."""
        names = {link.index: link.name for link in self.rtnetlink.links()}
        found = (BgpAddress(names[a.index], a.address, a.length) for a in self.rtnetlink.addresses() if a.index in names)
        own = (address for address in found if not address.interface.startswith(self.interface_prefixes))
        return HostFacts(tuple(sorted(address for address in own if address.interface not in TUNNELS)))

    def close(self) -> None:
        """Closes the sockets; the kernel keeps everything."""
        self.nftables.close()
        self.reader.close()
        if self.conntrack is not None:
            self.conntrack.close()
        self.events.close()
        self.tunnels.close()
        self.rtnetlink.close()

    def _take_in(self, updates: Iterable[Update]) -> None:
        for told in updates:
            update = self._switches.take(told) if isinstance(told, EndpointUpdate) else told
            self.builder.on_update(update)
            self._chains_may_change = self._chains_may_change or not isinstance(update, SetDelta)
            self.tunnels.on_update(update)
            match update:
                case EndpointUpdate(key=key, revision=revision, endpoint=endpoint):
                    routed = self._with_floating(update)
                    self.workloads.on_endpoint_update(routed)
                    self.moves.on_endpoint_update(routed)
                    if self.floating:
                        self.passing.on_endpoint_update(update)
                    self._limit(key, endpoint)
                    self._revisions[key] = revision
                    self._waiting.add(key)
                    self._removed.pop(key, None)
                case TunnelUpdate() | TunnelRemove() | TunnelPeerUpdate() | TunnelPeerRemove():
                    self.passing.look_again()
                case BgpUpdate(intent=intent):
                    self.workloads.want_host_addresses(peering_addresses(intent))
                case EndpointRemove(key=key):
                    self._switches.forget(key)
                    self.workloads.on_endpoint_remove(update)
                    self.moves.on_endpoint_remove(update)
                    self.passing.on_endpoint_remove(update)
                    self._limit(key, None)
                    self._revisions.pop(key, None)
                    self._waiting.discard(key)
                    self._removed[key] = None
                case _:
                    pass

    def _with_floating(self, update: EndpointUpdate) -> EndpointUpdate:
        """The endpoint is reached under its floating addresses as well."""
        endpoint = update.endpoint
        if not self.floating or not (endpoint.nats or endpoint.forwards):
            return update
        nets = tuple(sorted({*endpoint.nets, *externals_of(endpoint)}))
        return msgspec.structs.replace(update, endpoint=msgspec.structs.replace(endpoint, nets=nets))

    def _limit(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        """The endpoint's interface has the bandwidth that it asks for, and no other interface has it any more."""
        before = self._limited.pop(key, None)
        if endpoint is not None and endpoint.qos != NO_QOS:
            self._limited[key] = endpoint.interface
            self.bandwidth.want(endpoint.interface, endpoint.qos)
        if before is not None and before not in self._limited.values():
            self.bandwidth.unwant(before)

    def _apply_bandwidth(self) -> tuple[int, str]:
        try:
            result = self.bandwidth.apply()
        except KernelError as problem:
            return 0, str(problem)
        self._drifts += result.drifts
        failure = next(iter(result.errors.items()), None)
        return len(result.operations), f"bandwidth of {failure[0]}: {failure[1]}" if failure else ""

    def want_offload(self, on: bool) -> None:
        """Checksums inside of tunnels are left to the network card, or not; what fails is tried again by ``apply``."""
        self.tunnels.want_offload(on)
        self._apply_tunnels()

    def _apply_tunnels(self) -> TunnelsApplied:
        self.tunnels.begin()
        try:
            return self.tunnels.apply()
        except KernelError as problem:
            return TunnelsApplied(0, str(problem))

    def _find_host_endpoints(self) -> None:
        """Host endpoints that name no interface are where their addresses are.

        Raises:
            KernelError: the kernel does not answer.
        """
        found: dict[str, set[Prefix]] = {}
        for address in self.facts().addresses:
            found.setdefault(address.interface, set()).add(address.address)
        self.builder.on_interfaces({name: frozenset(addresses) for name, addresses in found.items()})
        self._addresses_known = True

    def _read_events(self) -> bool:
        changed = False
        for event in self.events.read():
            changed = changed or self._concerns_facts(event)
            self.workloads.on_event(event)
            self.moves.on_event(event)
            self.passing.on_event(event)
            self.bandwidth.on_event(event)
            self.tunnels.on_event(event)
        return changed

    def _concerns_facts(self, event: Event) -> bool:
        """``facts`` may be other ones: interfaces of workloads come and go often, and have no part in them."""
        match event:
            case LinkEvent(link=link):
                names = (link.name, self.workloads.interface_of(link.index) or link.name)
                return not all(name.startswith(self.interface_prefixes) for name in names)
            case AddressEvent(address=address):
                return not self.workloads.interface_of(address.index).startswith(self.interface_prefixes)
            case _:
                return isinstance(event, Overrun)

    def _apply_policy(self) -> tuple[int, str]:
        try:
            if not self._addresses_known:
                self._find_host_endpoints()
            delta = self._flush()
            if self._stale:
                self.nftables.disturbed()  # whatever was changed until now is about to be read
                operations = self.nft.resync(self.builder.table).operations
                if operations and self._read_once and delta.empty:
                    self._drifts.append(Drift(DriftKind.TABLE, "inet tabinet", "differed when it was read again as a whole"))
                self._stale, self._read_once = False, True
                self.verification.was_read()
            else:
                operations = self._apply_delta(delta)
        except KernelError as problem:
            self._stale = True
            return 0, str(problem)
        return operations, ""

    def _flush(self) -> TableDelta:
        """What the calculation wants now; what the chains that it will change have counted is kept."""
        # Members that come and go change no chain, nearly always, and come often.
        before = dict(self.builder.table.chains) if self._chains_may_change else {}
        self._chains_may_change = False
        delta = self.builder.flush()
        if self._stale:
            self.builder.counted.take_left()
        else:
            self.counting.before(delta, before)
        return delta

    def _apply_delta(self, delta: TableDelta) -> int:
        """The kernel's table has the changes, and what seemed to differ is repaired; gives how many operations that took."""
        result = self.nft.apply(delta)
        self.counting.after(delta)
        if result.resynced:
            self.verification.was_read()
            if result.refused:
                text = f"read and repaired as a whole, as a change was refused: {result.refused}"
                self._drifts.append(Drift(DriftKind.TABLE, "inet tabinet", text))
            return result.operations
        suspects = self.verification.audit.take()
        if not suspects:
            return result.operations
        repaired = repair(self.nft, self.nftables, self.reader, suspects)
        self._drifts += repaired.drifts
        return result.operations + repaired.operations

    def _statuses(self) -> dict[ResourceKey, EndpointStatus]:
        unbound = self.builder.unbound
        statuses = {}
        changed = self.workloads.take_changed() | self._told_waiting
        self._told_waiting = changed & self._waiting
        for key in changed:
            if key not in self._revisions:
                continue
            state = self.workloads.status(key)
            reason, failed = state.reason, state.failed
            if key in self._waiting:
                reason = "its policy is not in the kernel"
            elif key in unbound:
                reason = f"interface {unbound[key]} has none of the prefixes {', '.join(self.interface_prefixes)}"
            statuses[key] = EndpointStatus(self._revisions[key], not reason, reason, failed)
        return statuses


def externals_of(endpoint: Endpoint, *, announced_only: bool = True) -> set[Prefix]:
    """The endpoint's floating addresses, with those that another host announces or without; none that its host has in any case."""
    forwards = (forward for forward in endpoint.forwards if not (forward.own or (forward.home and announced_only)))
    return {nat.external for nat in endpoint.nats} | {forward.external for forward in forwards}
