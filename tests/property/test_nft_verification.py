"""Whatever somebody does to the kernel's table, after a round of verification it is as wanted; our own changes are not taken for damage."""

from __future__ import annotations

from time import perf_counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.repair import repair
from tabinet.dataplane.nft.verify import TableAudit
from tabinet.errors import KernelError
from tabinet.kernel.nftables import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Element,
    FlushChain,
    FlushSet,
    Hook,
    NftOp,
)
from tabinet.kernel.nftexpr import Datatype, Verdict, ifname, set_spec
from tabinet.kernel.nftfake import FakeNftables
from tabinet.lib.ip import IPV4, Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import layout
from tabinet.rules.builder import TableBuilder

POLICIES = [ResourceKey("NetworkPolicy", name, "default") for name in ("web", "db", "all")]
HOUR_S = 3600.0


def member(number: int) -> Prefix:
    return Prefix(IPV4, (10 << 24) + number, 32)


class World:
    """A driver, its kernel, and a source of changes to both."""

    def __init__(self) -> None:
        self.fake = FakeNftables()
        self.builder = TableBuilder()
        self.driver = NftDriver(self.fake, first_generation=7)
        self.audit = TableAudit(self.driver, self.fake)
        self.members: set[int] = set()
        self.builder.on_update(m.ProfileUpdate("open", m.Policy((), (m.Rule(m.Action.ALLOW),))))
        self.builder.on_update(m.SetUpdate("s", m.SetKind.NETS, frozenset((parse_prefix("192.0.2.0/24"), parse_prefix("fd00:5::/64")))))
        for number, key in enumerate(POLICIES):
            self.put_policy(key, number)
            self.put_endpoint(number, key)
        self.builder.flush()
        self.driver.resync(self.builder.table)

    def put_policy(self, key: ResourceKey, port: int) -> None:
        source = m.Side(sets=("s",), nets=(parse_prefix("10.0.0.0/9"), parse_prefix("10.200.0.0/16")))
        rules = [m.Rule(m.Action.ALLOW, protocol=6, source=source, destination=m.Side(ports=(m.PortRange(port, port + 5),)))]
        self.builder.on_update(m.PolicyUpdate(key, m.Policy(tuple(rules), ())))

    def put_endpoint(self, number: int, *policies: ResourceKey) -> None:
        tier = m.TierPolicies("default", m.Action.DENY, policies)
        nets = (parse_prefix(f"10.65.0.{number}"), parse_prefix(f"fd00::{number:x}"))
        body = m.Endpoint("h", f"cali{number}", "ee:ee:ee:ee:ee:ee", nets, (parse_prefix("172.16.0.0/20"),), (tier,), (), ("open",))
        self.builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", f"w{number}", "default"), 1, body))

    def change(self, number: int) -> None:
        """A change of ours, as far as the store is concerned."""
        kind, number = number % 4, number // 4
        match kind:
            case 0:
                self.put_endpoint(number % 9, POLICIES[number % 3], POLICIES[number % 2])
            case 1:
                self.builder.on_update(m.EndpointRemove(ResourceKey("WorkloadEndpoint", f"w{number % 9}", "default")))
            case 2:
                self.put_policy(POLICIES[number % 3], number % 100)
            case _:
                gone = frozenset(member(number) for number in self.members if number % 3 == 0)
                added = frozenset(member(number + step) for step in range(number % 40))
                self.members = {item.value - (10 << 24) for item in added} | {number for number in self.members if number % 3}
                self.builder.on_update(m.SetDelta("s", added, gone - added))
        self.driver.apply(self.builder.flush())

    def damage(self, number: int) -> bool:
        """Somebody does something to our table, if that is possible."""
        info = self.fake.read_table()
        if info is None:
            return False
        kind, number = number % 10, number // 10
        chains, sets = sorted(info.chains), sorted(info.sets)
        chain, name = chains[number % len(chains)], sets[number % len(sets)]
        elements = sorted(self.fake.read_elements(name))
        operations: list[NftOp] = [
            AddRule(chain, b"\0" * 8, b""),
            FlushChain(chain),
            AddChain(f"foreign{number % 3}", Hook(2, 5) if number % 2 else None),
            AddSet(f"foreign{number % 3}", set_spec(Datatype.IPV4_ADDR, size=16)),
            AddElements("a4-s", (Element(bytes((203, 0, 113, number % 256))),)),
            FlushSet(name),
            DeleteChain(chain),
            DeleteSet(name),
            AddElements(layout.INGRESS, (Element(ifname(f"tap{number % 5}"), verdict=Verdict.GOTO, chain=chain),)),
            DeleteElements(name, (elements[number % len(elements)],) if elements else ()),
        ]
        if kind == 7 and number % 5 == 0:
            operations[7] = DeleteTable()
        try:
            self.fake.stranger([operations[kind]])
        except KernelError:
            return False
        return True

    def verify(self, units: int = 1 << 30) -> int:
        """So much of a round, and the repair of what was found; gives the number of objects that differed."""
        try:
            self.audit.look_at_gates()
            self.audit.work(units, HOUR_S + perf_counter(), perf_counter)
        except KernelError:
            return 1 if self.driver.resync(self.builder.table).operations else 0
        suspects = self.audit.take()
        return len(repair(self.driver, self.fake, self.fake, suspects).drifts) if suspects else 0

    def state(self) -> object:
        """All that the kernel holds but for generations, which say how often something was revoked."""
        info = self.fake.read_table()
        assert info is not None
        rules = {chain: [rule.userdata for rule in rules] for chain, rules in info.rules.items() if chain != layout.MARK_FLOW}
        names = [name for name in info.sets if name not in (layout.VALID, layout.VALID_RELATED)]
        elements = {name: {repr(element) for element in self.fake.read_elements(name)} for name in names}
        return info.chains, rules, info.sets, elements

    def oracle(self) -> object:
        """The same of a kernel that was never touched by anyone else."""
        fresh = World.__new__(World)
        fresh.fake = FakeNftables()
        NftDriver(fresh.fake, first_generation=7).resync(self.builder.table)
        return fresh.state()


numbers = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), numbers), max_size=12))
def test_after_a_round_the_kernel_is_as_wanted_whatever_was_done_to_it(steps: list[tuple[bool, int]]) -> None:
    world = World()
    for ours, number in steps:
        if ours:
            world.change(number)
        else:
            world.damage(number)
    world.verify()
    # Sets shrink their names when they are made anew, so the oracle's table may have other steps: none here holds more than one step does.
    assert world.state() == world.oracle()
    assert world.driver.resync(world.builder.table).operations == 0
    assert world.verify() == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), numbers, st.booleans()), min_size=1, max_size=25))
def test_rounds_among_our_own_changes_find_exactly_what_others_did(steps: list[tuple[int, int, bool]]) -> None:
    """A round is never taken back to its beginning: what was damaged behind it is found by the next."""
    world = World()
    damaged = False
    found = 0
    for units, number, damage in steps:
        damaged = (damage and world.damage(number)) or damaged
        world.change(number)
        found += world.verify(units)
    if not damaged:
        assert found == 0
        assert world.state() == world.oracle()
    while world.audit.under_way:
        world.verify(1)
    world.verify()
    assert world.state() == world.oracle()
