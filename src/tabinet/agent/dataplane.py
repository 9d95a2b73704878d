"""The dataplane of one host as the agent drives it: policy table, routes, interfaces, in that order.

Lives on the kernel thread. In: updates of the calculation, events of the kernel. Out: ``ApplyReport``. Policy comes first, so that an
endpoint never has a route before it has rules. What fails is left pending and named in the report; the agent's loop calls again.
Nothing is removed before the first updates came: an agent that has just started knows too little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.bgp.records import HostFacts
from tabinet.bgp.records import InterfaceAddress as BgpAddress
from tabinet.calc.messages import EndpointRemove, EndpointUpdate, Update
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.nftables import Nftables
from tabinet.kernel.rtnetlink import AddressEvent, LinkEvent, Overrun, RtEvents, Rtnetlink
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder


class EndpointStatus(msgspec.Struct, frozen=True, gc=False):
    """What the kernel holds of an endpoint."""

    revision: int
    ready: bool
    reason: str


class Counters(msgspec.Struct, frozen=True):
    denied: dict[str, int] = {}
    rules: dict[str, int] = {}


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


@dataclass(slots=True)
class Dataplane:
    """Drivers and managers of one host."""

    builder: TableBuilder
    nftables: Nftables
    nft: NftDriver
    workloads: WorkloadManager
    rtnetlink: Rtnetlink
    events: RtEvents
    interface_prefixes: tuple[str, ...]
    _revisions: dict[ResourceKey, int] = field(default_factory=dict)
    _waiting: set[ResourceKey] = field(default_factory=set)
    """Endpoints whose rules the kernel may not hold yet."""
    _removed: set[ResourceKey] = field(default_factory=set)
    _begun: bool = False
    _stale: bool = True
    """The kernel's table has to be read before it is changed."""

    def event_fd(self) -> int:
        """Readable when the kernel has news of links or addresses."""
        return self.events.fileno()

    def apply(self, updates: Iterable[Update], complete: bool) -> ApplyReport:
        """The kernel is as the updates say, but for ``error``. ``complete``: the first snapshot is in the updates so far."""
        removed = self._take_in(updates)
        addresses_changed = self._read_events()
        self._begun = self._begun or complete
        if not self._begun:
            return ApplyReport({}, (), {}, "", addresses_changed)
        nft_operations, error = self._apply_policy()
        operations = {"nft": nft_operations}
        if not error:
            self._waiting.clear()
        self.workloads.begin()
        try:
            result = self.workloads.apply()
        except KernelError as problem:
            error = error or str(problem)
        else:
            operations |= {"links": len(result.links.changed), "routes": len(result.routes.operations)}
            failures = [*result.links.errors.values(), *result.routes.errors.values()]
            if failures:
                error = error or str(failures[0])
        return ApplyReport(self._statuses(), tuple(removed), operations, error, addresses_changed)

    def counters(self) -> Counters:
        """Packets by rule and by reason of denial."""
        return Counters()

    def facts(self) -> HostFacts:
        """The host's addresses, without those of workloads' interfaces."""
        names = {link.index: link.name for link in self.rtnetlink.links()}
        found = (BgpAddress(names[a.index], a.address, a.length) for a in self.rtnetlink.addresses() if a.index in names)
        return HostFacts(tuple(sorted(address for address in found if not address.interface.startswith(self.interface_prefixes))))

    def close(self) -> None:
        """Closes the sockets; the kernel keeps everything."""
        self.nftables.close()
        self.events.close()
        self.rtnetlink.close()

    def _take_in(self, updates: Iterable[Update]) -> set[ResourceKey]:
        removed = set()
        for update in updates:
            self.builder.on_update(update)
            match update:
                case EndpointUpdate(key=key, revision=revision):
                    self.workloads.on_endpoint_update(update)
                    self._revisions[key] = revision
                    self._waiting.add(key)
                    removed.discard(key)
                case EndpointRemove(key=key):
                    self.workloads.on_endpoint_remove(update)
                    self._revisions.pop(key, None)
                    self._waiting.discard(key)
                    removed.add(key)
                case _:
                    pass
        return removed

    def _read_events(self) -> bool:
        changed = False
        for event in self.events.read():
            self.workloads.on_event(event)
            changed = changed or isinstance(event, AddressEvent | LinkEvent | Overrun)
        return changed

    def _apply_policy(self) -> tuple[int, str]:
        delta = self.builder.flush()
        try:
            if self._stale:
                operations = self.nft.resync(self.builder.table).operations
                self._stale = False
            else:
                operations = self.nft.apply(delta).operations
        except KernelError as problem:
            self._stale = True
            return 0, str(problem)
        return operations, ""

    def _statuses(self) -> dict[ResourceKey, EndpointStatus]:
        unbound = self.builder.unbound
        statuses = {}
        for key in self.workloads.take_changed():
            if key not in self._revisions:
                continue
            state = self.workloads.status(key)
            reason = state.reason
            if key in self._waiting:
                reason = "its policy is not in the kernel"
            elif key in unbound:
                reason = f"interface {unbound[key]} has none of the prefixes {', '.join(self.interface_prefixes)}"
            statuses[key] = EndpointStatus(self._revisions[key], not reason, reason)
        return statuses
