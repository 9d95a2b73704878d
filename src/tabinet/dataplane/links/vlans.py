"""VlanDriver: every wanted VLAN interface exists on its parent, and none of ours that nobody wants.

The ports on a trunk (its subports) are reached through their parent's interface, each by a tag of its own (IEEE 802.1Q). A VLAN interface
for each makes them interfaces like any other: routes, policy, and what guests are answered know nothing of tags.

In: wanted interfaces (``want``, ``unwant``), news of the kernel (``on_event``, ``resync``). Out: ``apply`` makes it so. What is made is
found in the kernel's events, and set up by the drivers of links and routes like an interface that somebody else made.

Invariants
- Ours carry ``OWNER`` as their alias; nothing else is deleted. One that is as wanted is taken over, whoever made it.
- A parent that goes takes its VLAN interfaces along, and when it is back they are made again: that is no drift.
- A kernel without VLAN interfaces is asked again when something is wanted anew or everything is read again, and is no failure of ``apply``.

Cost: linear in the interfaces that changed; O(1) when nothing did. Not thread-safe.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import msgspec

from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import AddVlan, DeleteLink, Event, Link, LinkEvent, Overrun, Rtnetlink, RtOp, SetAlias

OWNER = "tabinet"
"""Alias of interfaces that we made."""
UNSUPPORTED = "this kernel has no VLAN interfaces (8021q), which subports of trunks need"


class Vlan(msgspec.Struct, frozen=True, gc=False):
    """What makes a VLAN interface."""

    parent: str
    """Name of the interface that it is on."""
    tag: int
    """1 to 4094."""


class VlanResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    changed: tuple[str, ...] = ()
    """In words, one for each operation that succeeded."""
    errors: dict[str, KernelError] = {}
    """By name: still pending."""
    drifts: tuple[Drift, ...] = ()
    """What somebody else had changed."""


def plan(name: str, wanted: Vlan | None, found: Link | None, parent: Link | None, *, ours: bool) -> list[RtOp]:
    """The steps from what is found to what is wanted. What is in the way and not ours stays."""
    steps: list[RtOp] = []
    if wanted is not None and found is not None and is_as_wanted(wanted, found, parent):
        return [] if ours else [SetAlias(name, OWNER)]
    if found is not None:
        if not ours:
            return []
        steps.append(DeleteLink(name))
    if wanted is not None and parent is not None:
        steps += [AddVlan(name, parent.index, wanted.tag), SetAlias(name, OWNER)]
    return steps


def is_as_wanted(wanted: Vlan, found: Link, parent: Link | None) -> bool:
    """True when the interface is the one that is wanted."""
    return parent is not None and found.kind == "vlan" and (found.peer_index, found.vlan) == (parent.index, wanted.tag)


class VlanDriver:
    """Owns the VLAN interfaces of workloads in one network namespace."""

    def __init__(self, rtnetlink: Rtnetlink) -> None:
        self._rtnetlink = rtnetlink
        self._wanted: dict[str, Vlan] = {}
        self._on: dict[str, set[str]] = {}
        """Wanted interfaces by their parent."""
        self._links: dict[int, Link] = {}
        self._index: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._made: dict[str, AddVlan] = {}
        """How the interfaces that are as wanted were made."""
        self._marked: set[str] = set()
        """Interfaces that carry our alias, which the kernel does not tell of while they are down."""
        self.errors: dict[str, KernelError] = {}
        """Of the last attempt, by name."""

    # --- desired

    def want(self, name: str, vlan: Vlan) -> None:
        """The interface exists whenever its parent does."""
        if self._wanted.get(name) != vlan:
            self.unwant(name)
            self._wanted[name] = vlan
            self._on.setdefault(vlan.parent, set()).add(name)

    def unwant(self, name: str) -> None:
        """We want no VLAN interface of this name."""
        before = self._wanted.pop(name, None)
        self._dirty.add(name)
        self._made.pop(name, None)
        self.errors.pop(name, None)
        if before is not None:
            names = self._on[before.parent]
            names.discard(name)
            if not names:
                del self._on[before.parent]

    def wanted(self, name: str) -> bool:
        """True when a VLAN interface of this name is wanted."""
        return name in self._wanted

    def obstacle(self, name: str) -> str:
        """Why the interface is not there as it is wanted, in words; empty when it is, or no VLAN interface of this name is wanted."""
        wanted = self._wanted.get(name)
        if wanted is None:
            return ""
        found, parent = self._find(name), self._find(wanted.parent)
        if found is not None and is_as_wanted(wanted, found, parent):
            return ""
        if parent is None:
            return f"interface {wanted.parent} of its trunk does not exist"
        error = self.errors.get(name)
        if error is not None:
            return UNSUPPORTED if error.errno == errno.EOPNOTSUPP else f"interface {name} could not be made: {error}"
        if found is not None and not self._is_ours(found):
            return f"interface {name} is there and is not VLAN {wanted.tag} of {wanted.parent}"
        return f"interface {name} is being made"

    def _is_ours(self, link: Link) -> bool:
        return link.kind == "vlan" and (link.alias == OWNER or link.name in self._marked)

    def _find(self, name: str) -> Link | None:
        index = self._index.get(name)
        return self._links[index] if index is not None else None

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._dirty

    # --- actual

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says; after lost events ``resync`` is for the caller to call."""
        match event:
            case LinkEvent(link, gone):
                before = self._links.pop(link.index, None)
                for name in {link.name, before.name if before is not None else link.name}:
                    if self._index.get(name) == link.index:
                        del self._index[name]
                    self._touch(name)
                if gone and link.kind == "vlan":
                    self._marked.discard(link.name)
                if not gone:
                    self._links[link.index] = link
                    self._index[link.name] = link.index
            case Overrun():
                self._dirty |= self._wanted.keys()
            case _:
                pass

    def resync(self, links: Iterable[Link]) -> None:
        """These are all interfaces."""
        self._links = {link.index: link for link in links}
        self._index = {link.name: link.index for link in self._links.values()}
        self._marked.clear()
        self._dirty |= self._wanted.keys() | {link.name for link in self._links.values() if self._is_ours(link)}

    def _touch(self, name: str) -> None:
        """Something happened to the interface of this name."""
        if name in self._wanted:
            self._dirty.add(name)
        self._dirty |= self._on.get(name, set())

    # --- reconciliation

    def apply(self) -> VlanResult:
        """VLAN interfaces are as wanted, but for those in ``errors`` and those whose parents do not exist.

        Raises:
            KernelError: no outcome is known; the same is tried by the next call.
        """
        if not self._dirty:
            return VlanResult()
        steps: list[tuple[str, RtOp]] = []
        for name in sorted(self._dirty):
            wanted = self._wanted.get(name)
            parent = self._find(wanted.parent) if wanted is not None else None
            found = self._find(name)
            ours = found is not None and self._is_ours(found)
            steps += [(name, step) for step in plan(name, wanted, found, parent, ours=ours)]
            self.errors.pop(name, None)
        outcomes = self._rtnetlink.execute([step for _, step in steps]) if steps else []
        self._dirty.clear()
        changed, drifts = [], []
        for (name, step), outcome in zip(steps, outcomes, strict=True):
            if outcome is None:
                changed.append(_describe(step))
                if isinstance(step, AddVlan):
                    if self._made.get(name) == step:
                        drifts.append(Drift(DriftKind.LINK, name, f"{_describe(step)}: is missing"))
                    self._made[name] = step
                elif isinstance(step, SetAlias):
                    self._marked.add(name)
            elif outcome.errno != errno.ENODEV:  # what went meanwhile has an event on its way
                self.errors[name] = outcome
                if outcome.errno != errno.EOPNOTSUPP:
                    self._dirty.add(name)
        failed = {name: error for name, error in self.errors.items() if error.errno != errno.EOPNOTSUPP}
        return VlanResult(tuple(changed), failed, tuple(drifts))


def _describe(step: RtOp) -> str:
    match step:
        case AddVlan(name, _, tag):
            return f"{name} made with tag {tag}"
        case SetAlias(name, alias):
            return f"{name} alias {alias}"
        case DeleteLink(name):
            return f"{name} deleted"
        case _:
            raise TypeError(f"not about a VLAN interface: {step!r}")
