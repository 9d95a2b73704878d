"""Laws of the plain structures: each against the most naive thing that could do the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tabinet.lib.backoff import Backoff
from tabinet.lib.delta import DeltaTracker
from tabinet.lib.ip import BITS, Prefix, parse_address, parse_prefix
from tabinet.lib.refcount import RefCounter
from tabinet.lib.trie import PrefixTrie


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    """Prefixes of both families, crowded enough that they nest."""
    family = draw(st.sampled_from((4, 6)))
    bits = BITS[family]
    length = draw(st.integers(0, bits) | st.integers(0, 6))
    value = draw(st.integers(0, (1 << bits) - 1) | st.integers(0, 7).map(lambda top: top << bits - 3))
    shift = bits - length
    return Prefix(family, value >> shift << shift, length)


@given(prefixes())
def test_prefix_text_round_trips(prefix: Prefix) -> None:
    assert parse_prefix(str(prefix), strict=True) == prefix
    assert parse_address(prefix.address).value == prefix.value
    assert int.from_bytes(prefix.packed, "big") == prefix.value


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f:./]{0,50}"))
def test_any_text_is_a_prefix_or_a_value_error(text: str) -> None:
    for parse in (parse_address, parse_prefix):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert parse_prefix(str(found)) == found


@given(prefixes(), prefixes())
def test_containment_is_that_of_the_address_ranges(one: Prefix, other: Prefix) -> None:
    same = one.family == other.family
    assert one.contains(other) == (same and one.value <= other.value and other.last <= one.last)
    assert one.overlaps(other) == (same and one.value <= other.last and other.value <= one.last)


@given(st.integers(1, 200), st.floats(0.01, 10), st.floats(1, 4), st.floats(0, 1))
def test_backoff_stays_within_its_limits(failures: int, first_s: float, factor: float, chance: float) -> None:
    backoff = Backoff(first_s=first_s, limit_s=20.0, factor=factor)
    assert 0 <= backoff.delay_s(failures, lambda: chance) <= backoff.limit_after(failures) <= 20.0
    assert backoff.limit_after(failures) <= backoff.limit_after(failures + 1)


KEYS = st.sampled_from("abcdef")
VALUES = st.integers(0, 2)


class DeltaMachine(RuleBasedStateMachine):
    """The tracker against two dictionaries that are compared from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker: DeltaTracker[str, int] = DeltaTracker()
        self.desired: dict[str, int] = {}
        self.actual: dict[str, int] = {}

    @rule(key=KEYS, value=VALUES)
    def want(self, key: str, value: int) -> None:
        self.tracker.set_desired(key, value)
        self.desired[key] = value

    @rule(key=KEYS)
    def do_not_want(self, key: str) -> None:
        self.tracker.drop_desired(key)
        self.desired.pop(key, None)

    @rule(key=KEYS, value=VALUES)
    def see(self, key: str, value: int) -> None:
        self.tracker.set_actual(key, value)
        self.actual[key] = value

    @rule(key=KEYS)
    def miss(self, key: str) -> None:
        self.tracker.drop_actual(key)
        self.actual.pop(key, None)

    @rule(actual=st.dictionaries(KEYS, VALUES))
    def read_all(self, actual: dict[str, int]) -> None:
        self.tracker.replace_actual(actual)
        self.actual = dict(actual)

    @invariant()
    def pending_is_the_difference(self) -> None:
        to_set = {key: value for key, value in self.desired.items() if self.actual.get(key) != value}
        to_delete = {key: value for key, value in self.actual.items() if key not in self.desired}
        assert dict(self.tracker.to_set()) == to_set
        assert dict(self.tracker.to_delete()) == to_delete
        assert set(self.tracker.pending()) == to_set.keys() | to_delete.keys()
        assert self.tracker.in_sync == (not to_set and not to_delete)


class TrieMachine(RuleBasedStateMachine):
    """The trie against a dictionary that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.trie: PrefixTrie[int] = PrefixTrie()
        self.stored: dict[Prefix, int] = {}

    @rule(prefix=prefixes(), value=st.integers())
    def store(self, prefix: Prefix, value: int) -> None:
        self.trie.set(prefix, value)
        self.stored[prefix] = value

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.stored:
            prefix = data.draw(st.sampled_from(sorted(self.stored)))
            self.trie.delete(prefix)
            del self.stored[prefix]

    @rule(prefix=prefixes())
    def ask(self, prefix: Prefix) -> None:
        covering = sorted((item for item in self.stored.items() if item[0].contains(prefix)), key=lambda item: item[0].length)
        assert list(self.trie.covering(prefix)) == covering
        assert self.trie.longest_match(prefix) == (covering[-1] if covering else None)
        assert list(self.trie.covered(prefix)) == sorted(item for item in self.stored.items() if prefix.contains(item[0]))
        assert self.trie.get(prefix) == self.stored.get(prefix)
        assert (prefix in self.trie) == (prefix in self.stored)

    @invariant()
    def holds_what_was_stored_in_order(self) -> None:
        assert list(self.trie.items()) == sorted(self.stored.items())
        assert len(self.trie) == len(self.stored)


class RefMachine(RuleBasedStateMachine):
    """The counter against ``collections.Counter``."""

    def __init__(self) -> None:
        super().__init__()
        self.counter: RefCounter[str] = RefCounter()
        self.model: Counter[str] = Counter()

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        assert self.counter.add(key) == (self.model[key] == 0)
        self.model[key] += 1

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        if self.model[key]:
            self.model[key] -= 1
            assert self.counter.drop(key) == (self.model[key] == 0)

    @invariant()
    def counts_agree(self) -> None:
        assert {key: self.counter.count(key) for key in self.counter} == dict(+self.model)


SETTINGS = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDelta = DeltaMachine.TestCase
TestDelta.settings = SETTINGS
TestTrie = TrieMachine.TestCase
TestTrie.settings = SETTINGS
TestRefCounter = RefMachine.TestCase
TestRefCounter.settings = SETTINGS
