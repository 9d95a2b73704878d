"""TunnelDriver: tunnels' interfaces exist as wanted, and know behind which host each other end is.

In: the host's own ends (``want``, ``unwant``), the other hosts' ends (``want_peer``, ``unwant_peer``), news of the kernel (``on_event``).
Out: ``apply`` makes it so. What an interface shall be says ``tunnels.plan``.

Invariants
- An interface of ours is ours alone: addresses, forwarding entries and permanent neighbours on it that nobody wants go.
- An interface that cannot be made as wanted yet, because something about it is not known, stays as it is. One that no pool wants goes if
  it is ours; the kernel's own ``tunl0``, which cannot go, loses its address and goes down.
- Nothing is sent anywhere that was not told: interfaces learn nothing, and have no default destination.
- Each other end has two entries, the MAC address for its tunnel address, and the host for that MAC address.

Cost: O(what is pending); reading is O(what the interfaces have), at the start, after lost events and when an interface was made anew.
Not thread-safe.
"""

from __future__ import annotations

import errno

import msgspec

from tabinet.calc.messages import Tunnel, TunnelPeer
from tabinet.dataplane.tunnels.plan import OWNER, TUNNELS, Wanted, kind_problem, plan_interface, plan_settings
from tabinet.errors import KernelError
from tabinet.kernel.ethtool import Offloads
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddIpip,
    AddressEvent,
    DeleteAddress,
    DeleteForwarding,
    DeleteLink,
    DeleteNeighbour,
    Event,
    Forwarding,
    ForwardingEvent,
    InterfaceAddress,
    Link,
    LinkEvent,
    Neighbour,
    NeighbourEvent,
    Overrun,
    Rtnetlink,
    RtOp,
    SetForwarding,
    SetLink,
    SetNeighbour,
)
from tabinet.kernel.sysctl import Sysctl, ensure, interface_key
from tabinet.lib.delta import DeltaTracker
from tabinet.lib.ip import Prefix

Entry = Forwarding | Neighbour | InterfaceAddress
"""What an interface has, as the kernel has it."""
Key = tuple[str, int, str | Prefix]
"""Kind, interface and what tells the entries of one kind apart."""
Step = tuple[RtOp | None, KernelError | None]
"""What was done (``None``: a sysctl was written), and what the kernel said to it."""

NO_IPIP = (
    f"this kernel has no IP-in-IP ({Tunnel.IPIP.interface}: not supported), so pools with ipipMode have no routes to other hosts: "
    "load the module ipip (CONFIG_NET_IPIP), or use vxlanMode"
)


class TunnelResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    operations: tuple[RtOp, ...]
    errors: tuple[KernelError, ...]
    """Still pending: call again."""
    problems: tuple[str, ...]
    """What the kernel will not do however often it is asked, in words."""


def key_of(entry: Entry) -> Key:
    """What the kernel tells entries apart by."""
    match entry:
        case Forwarding(index, mac):
            return "forwarding", index, mac
        case Neighbour(index, address):
            return "neighbour", index, address
        case InterfaceAddress(index, address):
            return "address", index, address


def plan_entries(tracker: DeltaTracker[Key, Entry]) -> list[tuple[RtOp, Key, Entry | None]]:
    """The steps from actual to desired: what is there no more first, then addresses, then where to send; with what is so afterwards."""
    steps: list[tuple[RtOp, Key, Entry | None]] = []
    for key, entry in tracker.to_delete():
        match entry:
            case Forwarding():
                steps.append((DeleteForwarding(entry), key, None))
            case Neighbour():
                steps.append((DeleteNeighbour(entry), key, None))
            case InterfaceAddress():
                steps.append((DeleteAddress(entry), key, None))
    for key, entry in sorted(tracker.to_set(), key=lambda item: item[0][0]):
        match entry:
            case Forwarding():
                steps.append((SetForwarding(entry), key, entry))
            case Neighbour():
                steps.append((SetNeighbour(entry), key, entry))
            case InterfaceAddress():
                steps.append((AddAddress(entry), key, entry))
    return steps


class TunnelDriver:
    """Owns the tunnels' interfaces of one network namespace."""

    def __init__(self, rtnetlink: Rtnetlink, sysctl: Sysctl, offloads: Offloads) -> None:
        self._rtnetlink = rtnetlink
        self._sysctl = sysctl
        self._offloads = offloads
        self._offload: bool | None = None
        self._wanted: dict[Tunnel, Wanted | None] = {}
        """``None``: wanted, but not known how yet."""
        self._peers: dict[tuple[Tunnel, str], TunnelPeer] = {}
        self._links: dict[Tunnel, Link] = {}
        """Interfaces of the tunnels' names that exist, ours or not."""
        self._tracker: DeltaTracker[Key, Entry] = DeltaTracker()
        self._unsettled: set[Tunnel] = set(Tunnel)
        """Tunnels whose interfaces have to be compared."""
        self._unlisted: set[Tunnel] = set()
        """Tunnels of which it has to be worked out what their interfaces shall have."""
        self._refusals: dict[Tunnel, str] = {}
        """Why an interface cannot be had, in words."""
        self._stale = True

    # --- desired

    def want(self, tunnel: Tunnel, wanted: Wanted | None) -> None:
        """The tunnel's interface shall be like this; ``None``: it may stay as it is."""
        if self._wanted.get(tunnel, self) != wanted:
            self._wanted[tunnel] = wanted
            self._unsettled.add(tunnel)
            self._unlisted.add(tunnel)

    def unwant(self, tunnel: Tunnel) -> None:
        """No pool wants the tunnel."""
        if tunnel in self._wanted:
            del self._wanted[tunnel]
            self._unsettled.add(tunnel)
            self._unlisted.add(tunnel)

    def want_offload(self, on: bool) -> None:
        """Checksums inside of tunnels are left to the network card, or computed by the kernel; until this is called either may be."""
        self._offload = on
        self._unsettled |= set(Tunnel)

    def close(self) -> None:
        """Closes the socket that is not anybody else's."""
        self._offloads.close()

    def want_peer(self, tunnel: Tunnel, name: str, end: TunnelPeer) -> None:
        """The other host's end is there."""
        self._peers[tunnel, name] = end
        self._unlisted.add(tunnel)

    def unwant_peer(self, tunnel: Tunnel, name: str) -> None:
        """The other host has no end of the tunnel."""
        self._peers.pop((tunnel, name), None)
        self._unlisted.add(tunnel)

    def peer(self, tunnel: Tunnel, name: str) -> TunnelPeer | None:
        """The other host's end, if it has one."""
        return self._peers.get((tunnel, name))

    def _list_entries(self, tunnel: Tunnel) -> None:
        """What the tunnel's interface shall have is desired; of two hosts with one address or MAC the smaller name counts."""
        link, wanted = self._links.get(tunnel), self._wanted.get(tunnel)
        if link is None or not self._is_ours(tunnel) or (wanted is None and tunnel in self._wanted):
            return
        entries: list[Entry] = []
        if wanted is not None:
            entries.append(InterfaceAddress(link.index, wanted.address, wanted.address.bits))
            ends = sorted((name, end) for (other, name), end in self._peers.items() if other is tunnel)
            entries += [Neighbour(link.index, end.address, end.mac) for _, end in ends]
            entries += [Forwarding(link.index, end.mac, end.underlay) for _, end in ends]
        desired: dict[Key, Entry] = {}
        for entry in entries:
            desired.setdefault(key_of(entry), entry)
        for key in [key for key in self._tracker.desired if key[1] == link.index and key not in desired]:
            self._tracker.drop_desired(key)
        for key, entry in desired.items():
            if self._tracker.desired.get(key) != entry:
                self._tracker.set_desired(key, entry)

    def _is_ours(self, tunnel: Tunnel) -> bool:
        link = self._links.get(tunnel)
        wanted = self._wanted.get(tunnel)
        return link is not None and (link.alias == OWNER if wanted is None else not kind_problem(wanted, link))

    # --- actual

    @property
    def links(self) -> dict[Tunnel, Link]:
        """The interfaces that exist and are ours, as far as we know; read only."""
        return {tunnel: link for tunnel, link in self._links.items() if self._is_ours(tunnel)}

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not (self._stale or self._unsettled or self._unlisted) and self._tracker.in_sync

    def mark_stale(self) -> None:
        """The next ``apply`` reads everything again."""
        self._stale = True

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        match event:
            case Overrun():
                self._stale = True
            case LinkEvent(link, gone):
                self._on_link(link, gone)
            case AddressEvent(entry, gone) if not _is_link_local(entry.address):
                self._see(entry, gone)
            case NeighbourEvent(neighbour, gone):
                # One that is not permanent any more is as good as gone.
                self._see(neighbour, gone or not neighbour.permanent)
            case ForwardingEvent(forwarding, gone):
                self._see(forwarding, gone)
            case _:
                pass

    def _on_link(self, link: Link, gone: bool) -> None:
        tunnel = TUNNELS.get(link.name)
        for other, known in list(self._links.items()):
            if known.index == link.index and (gone or other is not tunnel):
                self._forget(other)
        if tunnel is None or gone or self._links.get(tunnel) == link:
            return
        before = self._links.get(tunnel)
        if before is not None and before.index > link.index:
            return  # old news of an interface that was made anew since
        self._links[tunnel] = link
        self._unsettled.add(tunnel)
        if before is None or before.index != link.index:
            self._stale = True

    def _forget(self, tunnel: Tunnel) -> None:
        index = self._links.pop(tunnel).index
        self._unsettled.add(tunnel)
        for key in [key for key in (*self._tracker.desired, *self._tracker.actual) if key[1] == index]:
            self._tracker.drop_desired(key)
            self._tracker.drop_actual(key)

    def _see(self, entry: Entry, gone: bool) -> None:
        if entry.index not in {link.index for link in self.links.values()}:
            return
        if not gone:
            self._tracker.set_actual(key_of(entry), entry)
        elif self._tracker.actual.get(key_of(entry), entry) == entry or isinstance(entry, Neighbour):
            self._tracker.drop_actual(key_of(entry))

    def resync(self) -> None:
        """What is there was read.

        Raises:
            KernelError: it could not be.
        """
        self._links = {TUNNELS[link.name]: link for link in self._rtnetlink.links() if link.name in TUNNELS}
        ours = {link.index for link in self.links.values()}
        found: list[Entry] = []
        if ours:
            found += [entry for entry in self._rtnetlink.addresses() if entry.index in ours and not _is_link_local(entry.address)]
            found += [entry for entry in self._rtnetlink.neighbours() if entry.index in ours and entry.permanent]
        for index in ours:
            found += self._rtnetlink.forwarding(index)
        for key in [key for key in self._tracker.desired if key[1] not in ours]:
            self._tracker.drop_desired(key)
        self._tracker.replace_actual({key_of(entry): entry for entry in found})
        self._unsettled, self._unlisted = set(Tunnel), set(Tunnel)
        self._stale = False

    # --- reconciliation

    def apply(self) -> TunnelResult:
        """Interfaces and their entries are as wanted, but for what the result names.

        Raises:
            KernelError: the kernel could not be asked; what it has now is read again by the next call.
        """
        if self._stale:
            self.resync()
        done: list[Step] = []
        for tunnel in sorted(self._unsettled, key=lambda each: each.value):
            steps = self._settle(tunnel)
            done += steps
            if all(error is None for _, error in steps):
                self._unsettled.discard(tunnel)
        if self._stale:  # an interface was made anew
            unsettled = self._unsettled
            self.resync()
            self._unsettled = unsettled
        for tunnel in self._unlisted:
            self._list_entries(tunnel)
        self._unlisted = set()
        done += self._apply_entries()
        operations = tuple(operation for operation, _ in done if operation is not None)
        return TunnelResult(operations, tuple(error for _, error in done if error is not None), tuple(self._refusals.values()))

    def _apply_entries(self) -> list[Step]:
        steps = plan_entries(self._tracker)
        done: list[Step] = []
        for (operation, key, entry), outcome in zip(steps, self._execute([step[0] for step in steps]), strict=True):
            gone = entry is None and outcome is not None and outcome.errno in _ALREADY_GONE
            done.append((operation, None if gone else outcome))
            if outcome is not None and not gone:
                continue
            if entry is not None:
                self._tracker.set_actual(key, entry)
            else:
                self._tracker.drop_actual(key)
        return done

    def _settle(self, tunnel: Tunnel) -> list[Step]:
        """The tunnel's interface is as wanted; gives what was done, and where it failed."""
        found, wanted = self._links.get(tunnel), self._wanted.get(tunnel)
        self._refusals.pop(tunnel, None)
        if wanted is None:
            ours = found is not None and found.alias == OWNER
            return self._remove(tunnel, found) if found is not None and ours and tunnel not in self._wanted else []
        problem = kind_problem(wanted, found)
        if problem:
            self._refusals[tunnel] = problem
            return []
        making = plan_interface(wanted, found)
        done = self._tried(making)
        if any(isinstance(step, AddIpip) and error is not None and error.errno == errno.EOPNOTSUPP for step, error in done):
            self._refusals[tunnel] = NO_IPIP
            return []
        if making:
            self._stale = True
            found = self._find(wanted.name)
        if found is None:
            return done
        if tunnel is Tunnel.IPIP:  # to ask for it can load the module, which makes tunl0 itself: it is there, so nothing failed
            done = [(step, None if error is not None and error.errno == errno.EEXIST else error) for step, error in done]
        self._links[tunnel] = found
        for key, value in _parameters(wanted.name):
            try:
                ensure(self._sysctl, key, value)
            except KernelError as error:
                if error.errno != errno.ENOENT:  # a host without IPv6
                    done.append((None, error))
        if self._offload is not None and wanted.vxlan is not None:
            try:
                if self._offloads.tx_checksum(wanted.name) != self._offload:
                    self._offloads.set_tx_checksum(wanted.name, self._offload)
            except KernelError as error:
                done.append((None, error))
        return done + self._tried(plan_settings(wanted, found))

    def _tried(self, operations: list[RtOp]) -> list[Step]:
        return list(zip(operations, self._execute(operations), strict=True))

    def _find(self, name: str) -> Link | None:
        """The interface as the kernel has it now."""
        return self._rtnetlink.link(name)

    def _remove(self, tunnel: Tunnel, found: Link) -> list[Step]:
        step, error = self._tried([DeleteLink(found.name)])[0]
        if error is not None and error.errno != errno.ENODEV:
            return [(step, error)]
        self._forget(tunnel)
        left = self._find(found.name) if tunnel is Tunnel.IPIP else None
        if left is None:
            return [(step, None)]
        # The kernel's own tunl0: it says yes to the deletion, and keeps it with everything it has (ip_tunnel_dellink, Linux 6.1).
        addresses = [entry for entry in self._rtnetlink.addresses() if entry.index == left.index]
        done = self._tried([*(DeleteAddress(entry) for entry in addresses), SetLink(left.index, up=False, alias="")])
        settled = all(error is None for _, error in done)
        self._links[tunnel] = msgspec.structs.replace(left, up=False, alias="") if settled else left
        return [(step, None), *done]

    def _execute(self, operations: list[RtOp]) -> list[KernelError | None]:
        if not operations:
            return []
        try:
            return self._rtnetlink.execute(operations)
        except KernelError:
            self._stale = True
            raise


_ALREADY_GONE = (errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)


def _parameters(name: str) -> list[tuple[str, str]]:
    """Sysctls of a tunnel's interface: what comes out of it was checked where it came from, and nobody there gives this host a route."""
    return [
        (interface_key("ipv4", "conf", name, "rp_filter"), "0"),
        (interface_key("ipv6", "conf", name, "accept_ra"), "0"),
    ]


def _is_link_local(address: Prefix) -> bool:
    """The kernel gives an interface such an address by itself."""
    return address.family == 6 and address.value >> 118 == 0x3FA
