"""FakeNftables: an nf_tables table in memory that behaves as the kernel's does.

It passes the same contract suite as ``NftSocket``: errors carry the same errno and text, a failing operation undoes the whole
transaction. References are those that the operations declare (``AddRule.targets``, ``AddRule.sets``, chains of elements).

For tests: ``commits`` keeps what was asked, ``fail_next`` refuses a commit, ``drop_table`` is a stranger's ``nft flush ruleset``,
``count`` is traffic. Cost: linear in the operations of a commit.

It does not evaluate packets (``rules.evaluate`` does), nor refuse overlapping intervals, loops of jumps or malformed expressions.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.nftables import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    ChainInfo,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Element,
    FlushChain,
    FlushSet,
    Hook,
    NftOp,
    RuleInfo,
    SetSpec,
    TableInfo,
    describe,
)
from tabinet.kernel.nftexpr import parse_counter

PAGE = 3
"""Objects of a page in browsing: few, so that tests turn pages."""
T = TypeVar("T")
ElementKey = tuple[bytes, bytes, bool]
"""What makes an element the same element: key, end, and whether it ends an interval."""


@dataclass(slots=True)
class _Rule:
    info: RuleInfo
    targets: tuple[str, ...]
    sets: tuple[str, ...]
    packets: int = 0
    octets: int = 0


@dataclass(slots=True)
class _Table:
    chains: dict[str, Hook | None] = field(default_factory=dict)
    rules: dict[str, list[_Rule]] = field(default_factory=dict)
    sets: dict[str, SetSpec] = field(default_factory=dict)
    elements: dict[str, dict[ElementKey, Element]] = field(default_factory=dict)
    counts: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    """(packets, bytes) of elements of counted sets, by set and key; what is not here has counted nothing."""
    chain_uses: Counter[str] = field(default_factory=Counter)
    """How many rules and elements lead to a chain."""
    set_uses: Counter[str] = field(default_factory=Counter)
    """How many rules look a set up."""


class _Refused(Exception):
    """Carries the errno of the operation that is being executed."""

    def __init__(self, code: int) -> None:
        self.code = code


def _key(element: Element) -> ElementKey:
    return element.key, element.end, element.interval_end


class FakeNftables:
    """Implements ``Nftables`` and ``NftReader`` in memory."""

    def __init__(self, table: str = "tabinet") -> None:
        self._name = table
        self._table: _Table | None = None
        self._undo: list[Callable[[], object]] = []
        self._resized: dict[str, SetSpec] = {}
        self._handle = 0
        self._failures: list[int] = []
        self._disturbed = True
        self.commits: list[list[NftOp]] = []
        """The transactions that succeeded, oldest first; empty ones are left out, as they never reach the kernel."""

    # --- knobs of tests

    def fail_next(self, code: int, times: int = 1) -> None:
        """The next ``times`` commits are refused as a whole with this errno."""
        self._failures += [code] * times

    def drop_table(self) -> None:
        """Somebody deletes the table behind our back."""
        self._table = None
        self._disturbed = True

    def stranger(self, operations: Sequence[NftOp]) -> None:
        """Somebody else commits this; ``commits`` does not show it.

        Raises:
            KernelError: it is not possible.
        """
        self.commit(operations)
        self.commits.pop()
        self._disturbed = True

    def count(self, chain: str, userdata: bytes, packets: int, octets: int) -> None:
        """The rules with this user data have counted that much more."""
        for rule in self._existing().rules[chain]:
            if rule.info.userdata == userdata:
                rule.packets += packets
                rule.octets += octets

    def count_element(self, set_name: str, key: bytes, packets: int, octets: int) -> None:
        """So many lookups more have found this element of a counted set."""
        table = self._existing()
        before = table.counts.get((set_name, key), (0, 0))
        table.counts[set_name, key] = (before[0] + packets, before[1] + octets)

    # --- Nftables

    def close(self) -> None:
        """Nothing is held."""

    def commit(self, operations: Sequence[NftOp]) -> None:
        """Executes all operations, or none.

        Raises:
            KernelError: the operation at fault.
        """
        if not operations:
            return
        if self._failures:
            raise KernelError(self._failures.pop(0), f"commit nftables transaction of {len(operations)} operations")
        self._undo = []
        self._resized = {}
        for operation in operations:
            try:
                self._execute(operation)
            except _Refused as refused:
                for undo in reversed(self._undo):
                    undo()
                raise KernelError(refused.code, f"{describe(operation)} (table {self._name})") from None
        if self._table is not None:
            self._table.sets.update((name, spec) for name, spec in self._resized.items() if name in self._table.sets)
        self.commits.append(list(operations))

    def disturbed(self) -> bool:
        disturbed, self._disturbed = self._disturbed, False
        return disturbed

    def read_table(self) -> TableInfo | None:
        if self._table is None:
            return None
        rules = {chain: [rule.info for rule in rules] for chain, rules in self._table.rules.items()}
        return TableInfo(dict(self._table.chains), rules, dict(self._table.sets))

    def read_elements(self, set_name: str) -> list[Element]:
        if self._table is None or set_name not in self._table.sets:
            raise KernelError(errno.ENOENT, f"read elements of set {set_name} (table {self._name})")
        return list(self._table.elements[set_name].values())

    def read_counters(self) -> dict[tuple[str, bytes], tuple[int, int]]:
        counters: dict[tuple[str, bytes], tuple[int, int]] = {}
        for chain, rules in (self._table.rules if self._table else {}).items():
            for rule in rules:
                if _has_counter(rule.info.expressions):
                    where = (chain, rule.info.userdata)
                    packets, octets = counters.get(where, (0, 0))
                    counters[where] = (packets + rule.packets, octets + rule.octets)
        return counters

    def read_element_counters(self, set_name: str) -> dict[bytes, tuple[int, int]]:
        elements = self.read_elements(set_name)
        table = self._existing()
        return {e.key: table.counts.get((set_name, e.key), (0, 0)) for e in elements} if table.sets[set_name].counted else {}

    # --- NftReader

    def read_chain(self, name: str) -> ChainInfo | None:
        if self._table is None or name not in self._table.chains:
            return None
        return ChainInfo(self._table.chains[name], [rule.info for rule in self._table.rules[name]])

    def find_element(self, set_name: str, element: Element) -> Element | None:
        if self._table is None or set_name not in self._table.sets:
            return None
        return self._table.elements[set_name].get(_key(element))

    def find_element_counter(self, set_name: str, key: bytes) -> tuple[int, int] | None:
        if self.find_element(set_name, Element(key)) is None:
            return None
        return self.read_element_counters(set_name).get(key)

    def browse_chains(self) -> Iterator[list[tuple[str, Hook | None]]]:
        return _pages(lambda: list(self._table.chains.items()) if self._table else [])

    def browse_sets(self) -> Iterator[list[tuple[str, SetSpec]]]:
        return _pages(lambda: list(self._table.sets.items()) if self._table else [])

    def browse_elements(self, set_name: str) -> Iterator[list[Element]]:
        self.read_elements(set_name)
        return _pages(lambda: sorted(self._table.elements.get(set_name, {}).values(), key=_key, reverse=True) if self._table else [])

    # --- execution

    def _existing(self) -> _Table:
        if self._table is None:
            raise _Refused(errno.ENOENT)
        return self._table

    def _execute(self, operation: NftOp) -> None:
        match operation:
            case AddTable():
                if self._table is None:
                    self._replace_table(_Table())
            case DeleteTable():
                self._existing()
                self._replace_table(None)
            case AddChain(name, hook):
                self._add_chain(self._existing(), name, hook)
            case DeleteChain(name):
                self._delete_chain(self._existing(), name)
            case FlushChain(name):
                self._flush_chain(self._existing(), name)
            case AddRule():
                self._add_rule(self._existing(), operation)
            case AddSet(name, spec):
                self._add_set(self._existing(), name, spec)
            case DeleteSet(name):
                self._delete_set(self._existing(), name)
            case FlushSet(name):
                table = self._existing()
                _need(name in table.sets, errno.ENOENT)
                for element in list(table.elements[name].values()):
                    self._remove_element(table, name, element)
            case AddElements(name, elements):
                self._add_elements(self._existing(), name, elements)
            case DeleteElements(name, elements):
                self._delete_elements(self._existing(), name, elements)
            case _:
                raise TypeError(f"not an nf_tables operation: {operation!r}")

    def _replace_table(self, table: _Table | None) -> None:
        before = self._table
        self._table = table
        self._undo.append(lambda: setattr(self, "_table", before))

    def _add_chain(self, table: _Table, name: str, hook: Hook | None) -> None:
        if name in table.chains:
            _need(hook is None or table.chains[name] == hook, errno.EOPNOTSUPP)
            return
        table.chains[name] = hook
        table.rules[name] = []
        self._undo += [lambda: table.rules.pop(name), lambda: table.chains.pop(name)]

    def _delete_chain(self, table: _Table, name: str) -> None:
        _need(name in table.chains, errno.ENOENT)
        _need(not table.chain_uses[name], errno.EBUSY)
        self._flush_chain(table, name)
        hook = table.chains.pop(name)
        del table.rules[name]
        self._undo += [lambda: table.rules.update({name: []}), lambda: table.chains.update({name: hook})]

    def _flush_chain(self, table: _Table, name: str) -> None:
        _need(name in table.chains, errno.ENOENT)
        rules = table.rules[name]
        before = rules.copy()
        rules.clear()
        self._undo.append(lambda: table.rules[name].extend(before))
        for rule in before:
            self._refer(table, rule.targets, rule.sets, -1)

    def _add_rule(self, table: _Table, operation: AddRule) -> None:
        _need(operation.chain in table.chains, errno.ENOENT)
        _need(all(target in table.chains for target in operation.targets), errno.ENOENT)
        _need(all(name in table.sets for name in operation.sets), errno.ENOENT)
        self._handle += 1
        info = RuleInfo(operation.chain, self._handle, operation.expressions, operation.userdata)
        table.rules[operation.chain].append(_Rule(info, operation.targets, operation.sets))
        self._undo.append(table.rules[operation.chain].pop)
        self._refer(table, operation.targets, operation.sets, 1)

    def _refer(self, table: _Table, chains: Sequence[str], sets: Sequence[str], times: int) -> None:
        def change(by: int) -> None:
            for chain in chains:
                table.chain_uses[chain] += by
            for name in sets:
                table.set_uses[name] += by

        change(times)
        self._undo.append(lambda: change(-times))

    def _add_set(self, table: _Table, name: str, spec: SetSpec) -> None:
        before = table.sets.get(name)
        if before is not None:
            _need(_kind(before) == _kind(spec), errno.EEXIST)
            if spec.size:
                self._resized[name] = _resized(before, spec.size)
            return
        table.sets[name] = spec
        table.elements[name] = {}
        self._forget_counts(table, name)
        self._undo += [lambda: table.elements.pop(name), lambda: table.sets.pop(name)]

    def _delete_set(self, table: _Table, name: str) -> None:
        _need(name in table.sets, errno.ENOENT)
        _need(not table.set_uses[name], errno.EBUSY)
        spec, elements = table.sets.pop(name), table.elements.pop(name)
        self._undo += [lambda: table.elements.update({name: elements}), lambda: table.sets.update({name: spec})]
        self._refer(table, [element.chain for element in elements.values() if element.chain], (), -1)

    def _add_elements(self, table: _Table, name: str, elements: Sequence[Element]) -> None:
        _need(name in table.sets, errno.ENOENT)
        spec, held = table.sets[name], table.elements[name]
        for element in elements:
            _need(len(element.key) == spec.key_length, errno.EINVAL)
            needs_verdict = spec.verdict_map and not element.interval_end
            _need((element.verdict is not None) == needs_verdict, errno.EINVAL)
            _need(not element.chain or element.chain in table.chains, errno.ENOENT)
            before = held.get(_key(element))
            if before is not None:
                _need(before == element, errno.EEXIST)
                continue
            _need(not spec.size or len(held) < spec.size, errno.ENFILE)
            self._insert_element(table, name, element)

    def _insert_element(self, table: _Table, name: str, element: Element) -> None:
        held = table.elements[name]
        held[_key(element)] = element
        self._undo.append(lambda: held.pop(_key(element)))
        if element.chain:
            self._refer(table, (element.chain,), (), 1)

    def _forget_counts(self, table: _Table, name: str, key: bytes | None = None) -> None:
        """The element, or all of the set, counts from 0."""
        gone = {place: count for place, count in table.counts.items() if place[0] == name and key in (None, place[1])}
        for place in gone:
            del table.counts[place]
        self._undo.append(lambda: table.counts.update(gone))

    def _delete_elements(self, table: _Table, name: str, elements: Sequence[Element]) -> None:
        _need(name in table.sets, errno.ENOENT)
        for element in elements:
            before = table.elements[name].get(_key(element))
            if before is None:
                raise _Refused(errno.ENOENT)
            self._remove_element(table, name, before)

    def _remove_element(self, table: _Table, name: str, element: Element) -> None:
        held = table.elements[name]
        del held[_key(element)]
        self._forget_counts(table, name, element.key)
        self._undo.append(lambda: held.update({_key(element): element}))
        if element.chain:
            self._refer(table, (element.chain,), (), -1)


def _pages(everything: Callable[[], list[T]]) -> Iterator[list[T]]:
    """What there is when each page is asked for, from where the page before ended."""
    start = 0
    while page := everything()[start : start + PAGE]:
        start += PAGE
        yield page


def _need(holds: bool, code: int) -> None:
    if not holds:
        raise _Refused(code)


def _resized(spec: SetSpec, size: int) -> SetSpec:
    return msgspec.structs.replace(spec, size=size)


def _kind(spec: SetSpec) -> tuple[object, ...]:
    """What cannot be changed of a set."""
    return spec.key_type, spec.key_length, spec.fields, spec.interval, spec.verdict_map, spec.counted, spec.forget_s


def _has_counter(expressions: bytes) -> bool:
    """True when the kernel would find a counter; opaque bytes of a test have none."""
    try:
        return parse_counter(expressions) is not None
    except KernelError:
        return False
