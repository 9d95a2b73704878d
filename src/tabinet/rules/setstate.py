"""What the calculation announced of sets, as the elements of IR sets; and which way each set moved.

A NETS set becomes ``a4-``/``a6-`` sets of addresses, and ``n4-``/``n6-`` sets of ranges only while it has nets of that family, because hash
sets are cheap to change and interval sets are not. A PORTS set becomes ``p4-``/``p6-``.

``queue`` costs what the message holds and touches no table. ``settle`` brings one set into the table: it costs what changed, plus, when
nets changed, the number of nets of that set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tabinet.calc.messages import Member, PortMember, SetDelta, SetKind, SetRemove, SetUpdate
from tabinet.lib.ip import BITS, IPV4, IPV6, Prefix
from tabinet.rules import names
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import Element, SetDef, SetType
from tabinet.rules.policy import SetShape, collapse

FAMILIES = (IPV4, IPV6)
_LETTERS = {SetKind.NETS: "a", SetKind.PORTS: "p"}
"""How the names of hash sets begin."""


@dataclass(slots=True)
class _Queued:
    """What came since the last flush: a replacement (or removal), then a delta."""

    replaces: bool = False
    kind: SetKind | None = None
    """With ``replaces``: the set's kind, None when it was removed."""
    members: frozenset[Member] = frozenset()
    added: set[Member] = field(default_factory=set)
    removed: set[Member] = field(default_factory=set)


@dataclass(slots=True)
class _Live:
    """A set that the table holds."""

    kind: SetKind
    nets: dict[int, set[Prefix]] = field(default_factory=lambda: {IPV4: set(), IPV6: set()})
    hosts: int = 0
    """How many members are no nets."""


@dataclass(slots=True)
class _Sorted:
    """Members of one set, by family."""

    hosts: dict[int, set[Element]] = field(default_factory=lambda: {IPV4: set(), IPV6: set()})
    """Elements of its hash sets."""
    nets: dict[int, set[Prefix]] = field(default_factory=lambda: {IPV4: set(), IPV6: set()})


@dataclass(slots=True)
class Move:
    """What a flush did to one set."""

    grew: bool = False
    shrank: bool = False
    reshaped: bool = False
    """It came, went, changed its kind, or began or ceased to have nets of a family: rules that name it must be made again."""


@dataclass(slots=True)
class SetStates:
    """All announced sets."""

    live: dict[str, _Live] = field(default_factory=dict)
    queued: dict[str, _Queued] = field(default_factory=dict)

    def queue(self, update: SetUpdate | SetDelta | SetRemove) -> None:
        """The message counts from the next ``settle`` on."""
        match update:
            case SetUpdate(set_id=set_id, kind=kind, members=members):
                self.queued[set_id] = _Queued(replaces=True, kind=kind, members=members)
            case SetRemove(set_id=set_id):
                self.queued[set_id] = _Queued(replaces=True)
            case SetDelta(set_id=set_id, added=added, removed=removed):
                queued = self.queued.setdefault(set_id, _Queued())
                queued.removed -= added
                queued.added -= removed
                queued.added |= added
                queued.removed |= removed

    def shape(self, set_id: str) -> SetShape | None:
        """What rules have to know of the set; None when it is not announced."""
        live = self.live.get(set_id)
        if live is None:
            return None
        return SetShape(live.kind, frozenset(family for family in FAMILIES if live.nets[family]))

    def occupied(self, set_id: str) -> bool:
        """True when the set is announced and has members."""
        live = self.live.get(set_id)
        return live is not None and (live.hosts > 0 or any(live.nets.values()))

    def settle(self, edit: TableEdit) -> dict[str, Move]:
        """All that was queued is in the table; says how each set moved."""
        queued, self.queued = self.queued, {}
        return {set_id: self._settle(set_id, item, edit) for set_id, item in queued.items()}

    def _settle(self, set_id: str, item: _Queued, edit: TableEdit) -> Move:
        before = self.shape(set_id)
        live = self.live.get(set_id)
        move = Move()
        if item.replaces:
            if live is not None and live.kind is not item.kind:
                move.shrank = True
                self._forget(set_id, live, edit)
                live = None
            if item.kind is None:
                move.reshaped = before is not None
                return move
        if live is None:
            if item.kind is None:
                return move  # a delta for a set that was never announced
            live = self.live[set_id] = _Live(item.kind)
            for name, definition in _hash_sets(set_id, item.kind):
                edit.add_set(name, definition)
        present = set(_members(set_id, live, edit)) if item.replaces else None
        if present is None:
            added, removed = item.added, item.removed
        else:
            wanted = (item.members | item.added) - item.removed
            added, removed = set(wanted - present), present - wanted
        self._change(set_id, live, added, removed, edit, move)
        move.reshaped = before != self.shape(set_id)
        return move

    def _change(self, set_id: str, live: _Live, added: set[Member], removed: set[Member], edit: TableEdit, move: Move) -> None:
        came, went = _sort(live.kind, added), _sort(live.kind, removed)
        for family in FAMILIES:
            name = names.member_set(set_id, _LETTERS[live.kind], family)
            fewer = edit.remove_elements(name, went.hosts[family])
            more = edit.add_elements(name, came.hosts[family])
            live.hosts += more - fewer
            nets = live.nets[family]
            lost, gained = nets & went.nets[family], came.nets[family] - nets
            if lost or gained:
                nets -= lost
                nets |= gained
                _put_nets(names.member_set(set_id, "n", family), family, nets, edit)
            move.shrank = move.shrank or fewer > 0 or bool(lost)
            move.grew = move.grew or more > 0 or bool(gained)

    def _forget(self, set_id: str, live: _Live, edit: TableEdit) -> None:
        for name, _ in _hash_sets(set_id, live.kind):
            edit.remove_set(name)
        for family in FAMILIES:
            if live.nets[family]:
                edit.remove_set(names.member_set(set_id, "n", family))
        del self.live[set_id]


def _put_nets(name: str, family: int, nets: set[Prefix], edit: TableEdit) -> None:
    """The set of ranges holds the nets, if there are any; else there is none."""
    if nets:
        edit.add_set(name, SetDef(SetType.NETS, family))
        edit.replace_elements(name, set(collapse(nets)))
    else:
        edit.remove_set(name)


def _hash_sets(set_id: str, kind: SetKind) -> Iterator[tuple[str, SetDef]]:
    set_type = SetType.ADDRESSES if kind is SetKind.NETS else SetType.ADDRESS_PORTS
    for family in FAMILIES:
        yield names.member_set(set_id, _LETTERS[kind], family), SetDef(set_type, family)


def _sort(kind: SetKind, members: set[Member]) -> _Sorted:
    """The members by where they belong; one of the wrong kind matches nothing and is left out."""
    found = _Sorted()
    rest = members
    for family in FAMILIES if members else ():
        bits = BITS[family]
        hosts: set[Element]
        if kind is SetKind.NETS:
            hosts = {m for m in rest if isinstance(m, Prefix) and m.length == bits and m.family == family}
        else:
            hosts = {m for m in rest if isinstance(m, PortMember) and m.address.family == family}
        found.hosts[family] = hosts
        # Mostly all members are hosts of one family, and nothing is left to be looked at.
        rest = rest - hosts if len(hosts) < len(rest) else set()
    if kind is SetKind.NETS:
        for member in rest:
            if isinstance(member, Prefix):
                found.nets[member.family].add(member)
    return found


def _members(set_id: str, live: _Live, edit: TableEdit) -> Iterator[Member]:
    for name, _ in _hash_sets(set_id, live.kind):
        for element in edit.elements(name):
            if isinstance(element, Prefix | PortMember):  # hash sets hold nothing else
                yield element
    for nets in live.nets.values():
        yield from nets
