"""LinkDriver: interfaces of workloads, and the host itself, are set up as wanted.

In: which interfaces are workloads' (``want``, ``drop``), news of the kernel (``on_event``). Out: ``apply`` makes it so and says what it
changed. What exactly is wanted is listed in ``links.items``.

Invariants
- Every fact is read before it is written: at the start from dumps, later from events, sysctls from their files. An adopted host on which
  nothing differs is not touched.
- Interfaces are known by index: one that vanishes and comes back under the same name is set up anew.
- On interfaces that are not workloads' nothing is changed but that ``lo`` gets the host's addresses towards its workloads. Of what is on a
  workload's, only permanent neighbours are removed again: they are of no use to anyone else. Sysctls, addresses and the administrative
  state stay as they are when the workload goes. An address of the host that is not wanted any more is removed by the driver that added it,
  and by no other: nothing in the kernel says whose it is.
- What failed stays pending. An interface that vanished meanwhile is no failure and no drift: nothing is wanted of it any more.

Cost: linear in what is pending; O(1) when nothing is. A new interface costs about seven reads of sysctls. Not thread-safe.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping

import msgspec

from tabinet.dataplane.drift import Drift, DriftKind, Ledger
from tabinet.dataplane.links.items import (
    DOWN,
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    LOOPBACK_INDEX,
    PRESENT,
    UP,
    Address,
    Admin,
    Item,
    Parameter,
    PermanentNeighbour,
    host_items,
    workload_items,
)
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddressEvent,
    DeleteAddress,
    DeleteNeighbour,
    Event,
    InterfaceAddress,
    Link,
    LinkEvent,
    Neighbour,
    NeighbourEvent,
    Overrun,
    Rtnetlink,
    RtOp,
    SetLink,
    SetNeighbour,
    is_gone,
)
from tabinet.kernel.sysctl import Sysctl, dotted
from tabinet.lib.delta import DeltaTracker
from tabinet.lib.ip import Prefix

_VANISHED = (errno.ENODEV, errno.ENOENT)
"""What the kernel says of an interface that is not there, and of its sysctls."""
HOST = 0
"""The index under which the host's own facts are kept."""


class LinkResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    changed: tuple[str, ...]
    """In words, one for each fact that was made so."""
    errors: dict[int, KernelError]
    """By interface index (``HOST`` for the host): still pending."""
    drifts: tuple[Drift, ...] = ()
    """What somebody else had changed."""


class LinkChange(msgspec.Struct, frozen=True, gc=False):
    """One step: a fact and the value that it has afterwards; None: it is gone."""

    item: Item
    value: str | None


def plan(tracker: DeltaTracker[Item, str]) -> list[LinkChange]:
    """The steps from actual to desired: sysctls before the interface comes up, then addresses, then neighbours."""
    steps = [LinkChange(item, value) for item, value in tracker.to_set()]
    steps += [LinkChange(item, None) for item, _ in tracker.to_delete()]
    order = (Parameter, Admin, Address, PermanentNeighbour)
    return sorted(steps, key=lambda step: (order.index(type(step.item)), step.item.index))


def render_step(step: LinkChange) -> RtOp:
    """The operation of a step that is not a sysctl."""
    match step.item:
        case Admin(index):
            return SetLink(index, up=step.value == UP)
        case Address(_, address):
            return AddAddress(address) if step.value is not None else DeleteAddress(address)
        case PermanentNeighbour(index, address) if step.value is None:
            return DeleteNeighbour(Neighbour(index, address, ""))
        case PermanentNeighbour(index, address) if step.value is not None:
            return SetNeighbour(Neighbour(index, address, step.value))
        case _:
            raise TypeError(f"not a fact about an interface: {step.item!r}")


def describe(step: LinkChange, name: str) -> str:
    """The step in words, for the log."""
    match step.item:
        case Admin():
            return f"{name} {step.value}"
        case Address(_, address):
            return f"{name} address {address.address.address}/{address.length}{'' if step.value else ' removed'}"
        case PermanentNeighbour(_, address):
            return f"{name} neighbour {address.address} {step.value or 'removed'}"
        case Parameter(_, key):
            return f"{dotted(key)} = {step.value}"
        case _:
            raise TypeError(f"not a fact about an interface: {step.item!r}")


def _concerns_us(address: InterfaceAddress) -> bool:
    """True for addresses of a kind that we may want."""
    return address.index == LOOPBACK_INDEX or address.address in (GATEWAY_IPV4, GATEWAY_IPV6)


class LinkDriver:
    """Owns the set-up of workload interfaces in one network namespace."""

    def __init__(self, rtnetlink: Rtnetlink, sysctl: Sysctl, *, ipv6: bool = True, localnet: bool = False) -> None:
        self._rtnetlink = rtnetlink
        self._sysctl = sysctl
        self._ipv6 = ipv6
        self._localnet = localnet
        self._tracker: DeltaTracker[Item, str] = DeltaTracker()
        self._ledger: Ledger[Item, str] = Ledger()
        self._seen: dict[int, dict[Item, str]] = {}
        """What is known of all interfaces, workloads' or not: an interface can become a workload's later."""
        self._wanted: dict[int, dict[Item, str]] = {}
        self._names: dict[int, str] = {HOST: "host"}
        self._added: set[Item] = set()
        """Addresses that were not there before us."""
        self._stale = True
        self._keeps_parameters = True
        """The next reading can take sysctls as they were known."""
        self.errors: dict[int, KernelError] = {}
        """The first of the last attempt, by interface index."""

    # --- desired

    def want_host(self, addresses: Iterable[Prefix] = ()) -> None:
        """The host is a router: forwarding, multipath hashing, and on the loopback interface the gateway's address and these."""
        self._want(HOST, host_items(self._ipv6, addresses))

    def want(self, index: int, name: str, neighbours: Mapping[Prefix, str], *, answers: bool = True) -> None:
        """A workload with these addresses (and their MAC where known, else "") lives behind the interface. ``answers``: the host answers
        for every address that is not there."""
        self._want(index, workload_items(index, name, neighbours, self._ipv6, self._localnet, answers=answers))

    def drop(self, index: int) -> None:
        """The interface is no workload's."""
        for item in self._wanted.pop(index, {}):
            self._tracker.drop_desired(item)
            if not isinstance(item, PermanentNeighbour):  # those are removed first, and until then they are our doing
                self._ledger.forget(item)
                self._tracker.drop_actual(item)
        self.errors.pop(index, None)

    def wanted(self) -> dict[Item, str]:
        """All wanted facts, with their values."""
        return dict(self._tracker.desired)

    def _want(self, index: int, items: dict[Item, str]) -> None:
        before = self._wanted.get(index, {})
        self._wanted[index] = items
        for item in before.keys() - items.keys():
            self._tracker.drop_desired(item)
            if isinstance(item, Address) and item not in self._added:
                self._tracker.drop_actual(item)
        self._adopt(index, {item: value for item, value in items.items() if item not in before})
        for item, value in items.items():
            self._tracker.set_desired(item, value)

    def _adopt(self, index: int, items: Mapping[Item, str]) -> None:
        """What was seen counts from now on: whatever is wanted, and permanent neighbours even if not."""
        for item in items:
            value = self._seen.get(item.index, {}).get(item)
            if value is not None:
                self._tracker.set_actual(item, value)
                if value == items[item]:
                    self._ledger.made(item, value)
        for item, value in self._seen.get(index, {}).items():
            if isinstance(item, PermanentNeighbour):
                self._tracker.set_actual(item, value)

    def is_set_up(self, index: int) -> bool:
        """True when everything that the interface (or the host) wants is so, as far as we know."""
        items = self._wanted.get(index)
        if items is None or self._stale:
            return False
        actual = self._tracker.actual
        return all(actual.get(item) == value for item, value in items.items())

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._stale and self._tracker.in_sync

    # --- actual

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        match event:
            case Overrun():
                self.mark_stale()
            case LinkEvent(link, gone) if gone:
                self._forget(link.index)
            case LinkEvent(link):
                self._names[link.index] = link.name
                self._see(Admin(link.index), UP if link.up else DOWN)
            case AddressEvent(address, gone) if _concerns_us(address):
                self._see(Address(address.index, address), None if gone else PRESENT)
            case NeighbourEvent(neighbour, gone):
                item = PermanentNeighbour(neighbour.index, neighbour.address)
                known = item in self._seen.get(neighbour.index, {})
                if neighbour.permanent and not gone:
                    self._see(item, neighbour.mac)
                elif known:
                    self._see(item, None)
            case _:
                pass

    def mark_stale(self, *, keep_parameters: bool = False) -> None:
        """The next ``apply`` reads everything again: for a verification in the background. ``keep_parameters``: but for sysctls."""
        self._stale = True
        self._keeps_parameters = self._keeps_parameters and keep_parameters

    def recheck(self, index: int) -> None:
        """The next ``apply`` reads the sysctls of this interface (``HOST``: the host's) again: no event tells of them."""
        for item in self._wanted.get(index, {}):
            if isinstance(item, Parameter):
                self._tracker.drop_actual(item)

    def resync(self) -> list[Link]:
        """What is there was read; gives the interfaces. Sysctls are read when they are next looked at.

        Raises:
            KernelError: it could not be.
        """
        links = self._rtnetlink.links()
        addresses = [address for address in self._rtnetlink.addresses() if _concerns_us(address)]
        neighbours = [n for n in self._rtnetlink.neighbours() if n.permanent]
        self._names = {HOST: "host"} | {link.index: link.name for link in links}
        self._seen = {link.index: {Admin(link.index): UP if link.up else DOWN} for link in links}
        for address in addresses:
            self._seen.setdefault(address.index, {})[Address(address.index, address)] = PRESENT
        for neighbour in neighbours:
            self._seen.setdefault(neighbour.index, {})[PermanentNeighbour(neighbour.index, neighbour.address)] = neighbour.mac
        known = self._tracker.actual if self._keeps_parameters else {}
        self._tracker.replace_actual({item: value for item, value in known.items() if isinstance(item, Parameter)})
        for index, items in self._wanted.items():
            self._adopt(index, items)
        self._stale, self._keeps_parameters = False, True
        return links

    def _see(self, item: Item, value: str | None) -> None:
        seen = self._seen.setdefault(item.index, {})
        owned = item in self._tracker.desired or (isinstance(item, PermanentNeighbour) and item.index in self._wanted)
        if value is None:
            seen.pop(item, None)
            self._tracker.drop_actual(item)
        else:
            seen[item] = value
            if owned:
                self._tracker.set_actual(item, value)

    def _forget(self, index: int) -> None:
        """The interface does not exist."""
        self._names.pop(index, None)
        gone = self._seen.pop(index, {}).keys() | self._wanted.get(index, {}).keys()
        self.drop(index)
        for item in gone:
            self._tracker.drop_actual(item)
            self._ledger.forget(item)

    # --- reconciliation

    def apply(self) -> LinkResult:
        """Interfaces and host are as wanted, but for those in ``errors``.

        Raises:
            KernelError: the kernel could not be asked; what it has now is read again by the next call.
        """
        if self._stale:
            self.resync()
        self.errors = {}
        if self._tracker.in_sync:
            return LinkResult((), {})
        self._read_parameters()
        drifts = [(item.index, self._describe_drift(item, text)) for item, text in self._ledger.drifted(self._tracker)]
        self._ledger.complete = True
        steps = plan(self._tracker)
        done = self._write_parameters([step for step in steps if isinstance(step.item, Parameter)])
        done += self._execute([step for step in steps if not isinstance(step.item, Parameter)])
        changed = tuple(describe(step, self._names.get(step.item.index, "?")) for step in done)
        gone = self._forget_vanished()
        return LinkResult(changed, dict(self.errors), tuple(drift for index, drift in drifts if index not in gone))

    def _forget_vanished(self) -> set[int]:
        """Of the interfaces that an error is about, those that are not there are known to be gone; gives their indices."""
        suspects = [index for index, error in self.errors.items() if index != HOST and error.errno in _VANISHED]
        gone = {index for index in suspects if is_gone(self._rtnetlink, index)}
        for index in gone:
            self._forget(index)
        return gone

    def _describe_drift(self, item: Item, text: str) -> Drift:
        name = self._names.get(item.index, "?")
        value = self._tracker.desired.get(item)
        return Drift(DriftKind.LINK, name, f"{describe(LinkChange(item, value), name)}: {text}")

    def _read_parameters(self) -> None:
        """Every pending sysctl that was not read yet has its present value."""
        for item, wanted in self._tracker.to_set():
            if isinstance(item, Parameter) and item not in self._tracker.actual:
                try:
                    value = self._sysctl.read(item.key)
                except KernelError as error:
                    self.errors.setdefault(self._owner(item), error)
                    continue
                self._tracker.set_actual(item, value)
                if value == wanted:
                    self._ledger.made(item, value)

    def _write_parameters(self, steps: Iterable[LinkChange]) -> list[LinkChange]:
        done = []
        for step in steps:
            item = step.item
            if not isinstance(item, Parameter) or step.value is None or item not in self._tracker.actual:
                continue
            try:
                self._sysctl.write(item.key, step.value)
            except KernelError as error:
                self.errors.setdefault(self._owner(item), error)
                continue
            self._tracker.set_actual(item, step.value)
            self._ledger.made(item, step.value)
            done.append(step)
        return done

    def _execute(self, steps: list[LinkChange]) -> list[LinkChange]:
        if not steps:
            return []
        try:
            outcomes = self._rtnetlink.execute([render_step(step) for step in steps])
        except KernelError:
            self._stale = True
            raise
        done = []
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome is None or step.value is None:  # an entry that could not be deleted is not there any more
                self._see(step.item, step.value)
                done.append(step)
                if step.value is None:
                    self._added.discard(step.item)
                elif isinstance(step.item, Address):
                    self._added.add(step.item)
                if step.value is None:
                    self._ledger.forget(step.item)
                else:
                    self._ledger.made(step.item, step.value)
            else:
                self.errors.setdefault(self._owner(step.item), outcome)
        return done

    def _owner(self, item: Item) -> int:
        """Under which index errors of this fact are reported."""
        return HOST if item.index == LOOPBACK_INDEX else item.index
