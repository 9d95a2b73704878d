"""Members of sets against judging every carrier, with all work done in the smallest pieces and changes in between."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tabinet.calc.labels import LabelIndex
from tabinet.calc.members import ActiveSet, MemberIndex
from tabinet.calc.messages import Member, PortMember, SetKind
from tabinet.calc.specs import SetSpec
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import EndpointPort
from tabinet.selector import parse

dice = st.integers(0, 2**32 - 1).map(Random)
PROFILES = ("p", "q")
SELECTORS = ("all()", "has(a)", "!has(a)", "a == 'x'", "a != 'x'", "has(a) && has(b)", "b == 'x' || a == 'y'", "c == 'x'")
NETS = tuple(f"10.0.0.{number}" for number in range(8))
HTTP = (EndpointPort(name="http", protocol="TCP", port=80),)


class Told:
    """What a receiver knows that hears of a set's members when it is full, and of changes from then on."""

    def __init__(self) -> None:
        self.sets: dict[str, set[Member]] = {}
        self.active: set[str] = set()

    def on_member_added(self, set_id: str, member: Member) -> None:
        assert set_id in self.active
        if set_id in self.sets:
            assert member not in self.sets[set_id]
            self.sets[set_id].add(member)

    def on_member_removed(self, set_id: str, member: Member) -> None:
        assert set_id in self.active
        if set_id in self.sets:
            self.sets[set_id].remove(member)


class MemberMachine(RuleBasedStateMachine):
    """Whatever happens in between, sets are right once nothing is left to do, and deltas of full sets always fit."""

    @initialize(steps=st.sampled_from((1, 2, 16)), part=st.sampled_from((1, 2, 1000)), idle=st.sampled_from((0, 64)))
    def start(self, steps: int, part: int, idle: int) -> None:
        self.told = Told()
        self.labels = LabelIndex(2, idle)
        self.index = MemberIndex(self.labels, self.told, steps, part)
        self.profiles: dict[str, dict[str, str]] = {}
        self.carriers: dict[ResourceKey, tuple[dict[str, str], tuple[str, ...], tuple[str, ...], tuple[EndpointPort, ...]]] = {}
        self.active: dict[str, ActiveSet] = {}

    @rule(random=dice, count=st.integers(1, 6))
    def put_some(self, random: Random, count: int) -> None:
        self.put(random, count)

    def put(self, random: Random, count: int) -> None:
        for _ in range(count):
            if random.random() < 0.3:
                # Network sets may be large, and have no ports.
                key, size, ports = ResourceKey("GlobalNetworkSet", random.choice("ab")), random.choice((0, 1, 1, 4, 8)), ()
            else:
                key, size, ports = ResourceKey("WorkloadEndpoint", random.choice("abcdef")), 1, random.choice(((), HTTP))
            nets = tuple(random.sample(NETS, size))
            carrier = self.carriers[key] = (labels(random), tuple(random.sample(PROFILES, random.randrange(2))), nets, ports)
            if key.kind == "GlobalNetworkSet":
                self.index.put_network_set(key, ("", "", ""), *carrier[:3])
            else:
                self.index.put(key, ("", "", ""), *carrier)

    @precondition(lambda self: self.carriers)
    @rule(random=dice)
    def delete_one(self, random: Random) -> None:
        self.delete(random)

    def delete(self, random: Random) -> None:
        key = random.choice(sorted(self.carriers))
        del self.carriers[key]
        self.index.delete(key)

    @rule(random=dice)
    def set_profile(self, random: Random) -> None:
        name = random.choice(PROFILES)
        self.profiles[name] = labels(random)
        self.index.set_profile(name, self.profiles[name])

    @rule(random=dice, count=st.integers(1, 3))
    def activate_some(self, random: Random, count: int) -> None:
        self.activate(random, count)

    def activate(self, random: Random, count: int) -> None:
        specs: dict[str, SetSpec] = {}
        for _ in range(count):
            kind = random.choice(tuple(SetKind))
            port = ("http", 6) if kind is SetKind.PORTS else ("", 0)
            spec = SetSpec(kind, parse(random.choice(SELECTORS)), *port)
            if spec.set_id not in self.active:
                specs[spec.set_id] = spec
        for each in self.index.activate(list(specs.values())):
            self.active[each.set_id] = each
            self.told.active.add(each.set_id)

    @precondition(lambda self: self.active)
    @rule(random=dice)
    def deactivate_one(self, random: Random) -> None:
        self.deactivate(random)

    def deactivate(self, random: Random) -> None:
        set_id = random.choice(sorted(self.active))
        del self.active[set_id]
        self.index.deactivate(set_id)
        self.told.sets.pop(set_id, None)
        self.told.active.discard(set_id)

    @rule(limit=st.integers(1, 8))
    def settle_a_little(self, limit: int) -> None:
        if self.index.settle(limit) < limit:
            self.check()

    @rule(random=dice)
    def hurry(self, random: Random) -> None:
        """Sets come and go and carriers change while there is hardly time for anything."""
        for _ in range(10):
            turn = random.randrange(5)
            if turn == 0:
                self.activate(random, 1)
            elif turn == 1 and self.active:
                self.deactivate(random)
            elif turn == 2 and self.carriers:
                self.delete(random)
            else:
                self.put(random, 2)
            self.index.settle(random.randrange(3))

    @rule()
    def settle(self) -> None:
        for _ in range(10_000):
            if self.index.settle(3) < 3:
                break
        self.check()

    def check(self) -> None:
        assert self.index.settle(1) == 0
        for set_id, each in self.active.items():
            assert dict(each.members) == self.expected(each.spec)
            assert all(each.members.values())
            assert self.told.sets.setdefault(set_id, set(each.members)) == set(each.members)
        for each in self.active.values():
            for of in self.labels.answer(each.spec.selector):
                # Nothing is kept of sets that went.
                assert all(held.live for held in of.sets)

    def expected(self, spec: SetSpec) -> dict[Member, int]:
        """With how many carriers bring each member: parts of one are disjoint."""
        counted: dict[Member, int] = {}
        for own, profiles, nets, ports in self.carriers.values():
            effective = dict(own)
            for name in profiles:
                for key, value in self.profiles.get(name, {}).items():
                    effective.setdefault(key, value)
            if spec.selector.evaluate(effective):
                for member in brought(spec.kind, {parse_prefix(net) for net in nets}, ports):
                    counted[member] = counted.get(member, 0) + 1
        return counted

    def teardown(self) -> None:
        if not hasattr(self, "index"):
            return
        self.settle()
        for key in self.carriers:
            self.index.delete(key)
        self.carriers.clear()
        self.settle()
        for set_id in list(self.active):
            self.index.deactivate(set_id)
        self.active.clear()
        self.settle()
        assert not self.index.settle(1)


def labels(random: Random) -> dict[str, str]:
    """Few, so that many carriers are alike."""
    return {key: random.choice("xy") for key in "ab" if random.random() < 0.5}


def brought(kind: SetKind, prefixes: set[Prefix], ports: tuple[EndpointPort, ...]) -> set[Member]:
    if kind is SetKind.NETS:
        return set(prefixes)
    return {PortMember(prefix, 6, port.port) for prefix in prefixes for port in ports}


TestMembers = MemberMachine.TestCase
TestMembers.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
