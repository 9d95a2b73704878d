"""The driver against the fake kernel: what reaches it, what a restart sends, what a stranger's hand costs."""

from __future__ import annotations

import errno

import pytest

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.sweep import MarkSweeper
from tabinet.errors import KernelError
from tabinet.kernel.conntrack import TcpFlow
from tabinet.kernel.ctfake import FakeConntrack
from tabinet.kernel.nftables import AddChain, AddElements, AddRule, AddSet, AddTable, DeleteElements, FlushChain, FlushSet, Hook, NftOp
from tabinet.kernel.nftfake import FakeNftables
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import layout, roles
from tabinet.rules.builder import TableBuilder
from tabinet.rules.marks import LAST_GENERATION, generation_mark

POLICY = ResourceKey("NetworkPolicy", "web", "default")
OTHER = ResourceKey("NetworkPolicy", "db", "default")


def endpoint(number: int, *policies: ResourceKey) -> m.EndpointUpdate:
    tier = m.TierPolicies("default", m.Action.DENY, policies)
    nets = (parse_prefix(f"10.0.{number >> 8}.{number & 255}"), parse_prefix(f"fd00::{number:x}"))
    body = m.Endpoint("h", f"cali{number}", "", nets, (), (tier,), (), ("open",))
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", f"w{number}", "default"), 1, body)


def allow_from(set_id: str) -> m.Policy:
    return m.Policy(ingress=(m.Rule(m.Action.ALLOW, protocol=6, source=m.Side(sets=(set_id,))),), egress=())


def addresses(*texts: str) -> frozenset:
    return frozenset(parse_prefix(text) for text in texts)


def small_world(builder: TableBuilder) -> None:
    builder.on_update(m.SetUpdate("s", m.SetKind.NETS, addresses("10.0.0.2", "192.0.2.0/24")))
    builder.on_update(m.PolicyUpdate(POLICY, allow_from("s")))
    builder.on_update(m.ProfileUpdate("open", m.Policy((), (m.Rule(m.Action.ALLOW),))))
    builder.on_update(endpoint(1, POLICY))
    builder.on_update(endpoint(2, POLICY))
    builder.flush()


def started(fake: FakeNftables) -> tuple[TableBuilder, NftDriver]:
    builder = TableBuilder()
    small_world(builder)
    driver = NftDriver(fake, first_generation=7)
    driver.resync(builder.table)
    return builder, driver


def kernel_state(fake: FakeNftables):
    info = fake.read_table()
    assert info is not None
    rules = {chain: [rule.userdata for rule in rules] for chain, rules in info.rules.items()}
    elements = {
        name: {repr(element) for element in fake.read_elements(name)}
        for name in info.sets
        if name not in (layout.VALID, layout.VALID_RELATED)
    }
    rules.pop(layout.MARK_FLOW)  # holds the generation
    return info.chains, rules, info.sets, elements


def fresh_state(builder: TableBuilder):
    fake = FakeNftables()
    NftDriver(fake, first_generation=7).resync(builder.table)
    return kernel_state(fake)


def test_restart_with_an_equal_table_sends_nothing():
    fake = FakeNftables()
    builder, driver = started(fake)
    again = NftDriver(fake)
    result = again.resync(builder.table)
    assert (result.operations, result.revoked, len(fake.commits)) == (0, False, 1)
    assert again.generation == driver.generation


def test_empty_delta_sends_nothing():
    fake = FakeNftables()
    builder, driver = started(fake)
    assert driver.apply(builder.flush()).operations == 0
    assert len(fake.commits) == 1


def test_new_member_is_one_operation_and_no_new_generation():
    fake = FakeNftables()
    builder, driver = started(fake)
    before = driver.generation
    builder.on_update(m.SetDelta("s", addresses("10.0.0.9"), frozenset()))
    result = driver.apply(builder.flush())
    assert (result.operations, result.revoked, driver.generation) == (1, False, before)


def test_lost_member_begins_a_generation_in_the_same_transaction():
    fake = FakeNftables()
    builder, driver = started(fake)
    before = driver.generation
    builder.on_update(m.SetDelta("s", frozenset(), addresses("10.0.0.2")))
    result = driver.apply(builder.flush())
    assert result.revoked and driver.generation == before + 1
    assert len(fake.commits) == 2
    assert {type(operation) for operation in fake.commits[-1]} >= {DeleteElements, FlushChain, AddRule}


def test_endpoint_of_a_known_class_adds_elements_only():
    fake = FakeNftables()
    builder, driver = started(fake)
    builder.on_update(endpoint(3, POLICY))
    result = driver.apply(builder.flush())
    assert not result.revoked
    assert not any(isinstance(operation, AddChain | AddRule | AddSet) for operation in fake.commits[-1])


@pytest.mark.parametrize(
    "updates",
    [
        [m.PolicyUpdate(POLICY, allow_from("t"))],
        [m.PolicyRemove(POLICY)],
        [m.SetRemove("s")],
        [m.SetDelta("s", frozenset(), addresses("192.0.2.0/24"))],
        [m.SetDelta("s", addresses("198.51.100.0/24", "192.0.3.0/24"), frozenset())],
        [endpoint(1, OTHER), m.PolicyUpdate(OTHER, allow_from("s"))],
        [m.EndpointRemove(endpoint(1).key), m.EndpointRemove(endpoint(2).key), m.PolicyRemove(POLICY), m.SetRemove("s")],
        [m.ProfileRemove("open")],
    ],
)
def test_a_delta_leads_where_a_fresh_start_would(updates):
    fake = FakeNftables()
    builder, driver = started(fake)
    for update in updates:
        builder.on_update(update)
    driver.apply(builder.flush())
    assert kernel_state(fake) == fresh_state(builder)
    assert NftDriver(fake).resync(builder.table).operations == 0


def test_maps_from_ports_follow_policy():
    keys = [ResourceKey("GlobalNetworkPolicy", f"p{number}") for number in range(6)]

    def allow(*ports: int) -> m.Policy:
        ranges = tuple(m.PortRange(port, port + 1) for port in ports)
        return m.Policy((m.Rule(m.Action.ALLOW, protocol=6, destination=m.Side(ports=ranges)),), ())

    fake = FakeNftables()
    builder, driver = started(fake)
    steps = [
        [endpoint(3, *keys), *(m.PolicyUpdate(key, allow(80, 65534 - 3 * number)) for number, key in enumerate(keys))],
        [m.PolicyUpdate(keys[2], allow(81, 90, 65534))],
        [m.PolicyUpdate(keys[3], m.Policy((m.Rule(m.Action.ALLOW),), ()))],  # parts the run
        [m.PolicyRemove(keys[0])],
        [endpoint(3, *keys[1:])],
        [m.EndpointRemove(endpoint(3).key)],
    ]
    for updates in steps:
        for update in updates:
            builder.on_update(update)
        assert not driver.apply(builder.flush()).resynced
        assert kernel_state(fake) == fresh_state(builder)
        assert NftDriver(fake).resync(builder.table).operations == 0


def test_a_full_set_grows_and_keeps_everything():
    fake = FakeNftables()
    builder, driver = started(fake)
    many = addresses(*(f"10.1.{index >> 8}.{index & 255}" for index in range(1500)))
    builder.on_update(m.SetDelta("s", many, frozenset()))
    result = driver.apply(builder.flush())
    assert not result.resynced
    assert "a4-s" not in fake.read_table().sets
    assert len(fake.read_elements("a4-s.g2")) == 1501
    assert NftDriver(fake).resync(builder.table).operations == 0
    builder.on_update(m.SetDelta("s", frozenset(), many))
    driver.apply(builder.flush())
    assert len(fake.read_elements("a4-s.g2")) == 1


def test_maps_grow_while_classes_go():
    fake = FakeNftables()
    builder, driver = started(fake)
    builder.on_update(m.PolicyUpdate(OTHER, allow_from("s")))
    for number in range(1, 1100):
        builder.on_update(endpoint(number, OTHER))
    result = driver.apply(builder.flush())
    assert not result.resynced
    assert NftDriver(fake).resync(builder.table).operations == 0


def test_a_flushed_table_is_made_again_with_another_generation():
    fake = FakeNftables()
    builder, driver = started(fake)
    before = driver.generation
    fake.drop_table()
    builder.on_update(m.SetDelta("s", addresses("10.0.0.9"), frozenset()))
    result = driver.apply(builder.flush())
    assert result.resynced and driver.generation != before
    assert kernel_state(fake) == fresh_state(builder)


def test_a_stranger_in_our_table_is_swept_and_damage_repaired():
    fake = FakeNftables()
    builder, driver = started(fake)
    chain = next(name for name in builder.table.chains if name.startswith("pi-np"))
    fake.commit([AddChain("stranger"), AddRule(roles.DENY, b"", targets=("stranger",)), FlushSet("own4"), FlushChain(chain)])
    result = driver.resync(builder.table)
    assert result.revoked and result.operations < 20
    assert kernel_state(fake) == fresh_state(builder)


def test_only_the_difference_is_repaired():
    fake = FakeNftables()
    builder, driver = started(fake)
    fake.commit([FlushSet("own4")])
    driver.resync(builder.table)
    written = {operation.chain for operation in fake.commits[-1] if isinstance(operation, AddRule)}
    assert written == {layout.MARK_FLOW}


def test_a_thing_of_another_make_under_our_name_resets_the_table():
    fake = FakeNftables()
    builder, driver = started(fake)
    info = fake.read_table()
    fake.drop_table()
    stranger = FakeNftables()
    stranger.commit([AddTable(), AddChain("judge", Hook(2, 5)), AddSet("own4", info.sets["own6"])])
    driver = NftDriver(stranger)
    driver.resync(builder.table)
    assert kernel_state(stranger) == fresh_state(builder)


def test_a_refused_revocation_is_not_forgotten():
    fake = FakeNftables()
    builder, driver = started(fake)
    builder.on_update(m.SetDelta("s", frozenset(), addresses("10.0.0.2")))
    delta = builder.flush()
    before = driver.generation
    fake.fail_next(errno.EBUSY, 2)
    with pytest.raises(KernelError):
        driver.apply(delta)
    assert driver.generation >= before
    result = driver.apply(builder.flush())
    assert result.revoked
    assert kernel_state(fake) == fresh_state(builder)


def test_a_refused_commit_is_repaired_at_once():
    fake = FakeNftables()
    builder, driver = started(fake)
    builder.on_update(m.SetDelta("s", addresses("10.0.0.9"), frozenset()))
    fake.fail_next(errno.ENOMEM)
    assert driver.apply(builder.flush()).resynced
    assert kernel_state(fake) == fresh_state(builder)


def test_large_new_sets_are_loaded_before_they_count():
    fake = FakeNftables()
    builder = TableBuilder()
    many = frozenset(parse_prefix(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}") for i in range(1200))
    builder.on_update(m.SetUpdate("s", m.SetKind.NETS, many))
    small_world_without_set(builder)
    builder.flush()
    driver = NftDriver(fake, preload_elements=1000)
    driver.resync(builder.table)
    assert len(fake.commits) == 3
    assert not any(isinstance(operation, AddRule) for commit in fake.commits[:2] for operation in commit)
    assert len(fake.read_elements("a4-s.g2")) == 1200
    assert NftDriver(fake).resync(builder.table).operations == 0


def small_world_without_set(builder: TableBuilder) -> None:
    builder.on_update(m.PolicyUpdate(POLICY, allow_from("s")))
    builder.on_update(endpoint(1, POLICY))


def test_apply_before_resync_is_a_bug():
    with pytest.raises(ValueError, match="resync first"):
        NftDriver(FakeNftables()).apply(TableBuilder().flush())


def test_counters_by_policy_rule_and_by_reason():
    fake = FakeNftables()
    builder, driver = started(fake)
    info = fake.read_table()
    chain = next(name for name in builder.table.chains if name.startswith("pi-np"))
    for rule in info.rules[chain]:
        fake.count(chain, rule.userdata, 2, 100)
    spoofed = info.rules["sources"][-1]
    fake.count("sources", spoofed.userdata, 5, 250)
    counters = driver.counters()
    (origin,) = [origin for origin, count in counters.rules.items() if count.packets]
    assert (origin.owner, origin.ingress, origin.index, origin.action) == ("NetworkPolicy/default/web", True, 0, "Allow")
    assert counters.rules[origin].packets == 2 * len(info.rules[chain]) > 2
    assert counters.denied["spoofed source"].packets == 5


FLOW = TcpFlow(parse_prefix("10.0.0.1"), parse_prefix("10.0.0.2"), 40000, 80)


def revoke(builder: TableBuilder, driver: NftDriver) -> None:
    for update in (m.SetDelta("s", addresses("10.9.9.9"), frozenset()), m.SetDelta("s", frozenset(), addresses("10.9.9.9"))):
        builder.on_update(update)
        result = driver.apply(builder.flush())
    assert result.revoked


@pytest.mark.parametrize("mark", [1, 2, 300, LAST_GENERATION // 2, LAST_GENERATION // 2 + 1, LAST_GENERATION])
def test_no_mark_outlives_half_a_round(mark):
    """Whenever a generation was current, its mark is gone before the generation comes again."""
    sweeper = MarkSweeper(FakeConntrack())
    for generation in (mark, *range(mark + 1, LAST_GENERATION + 1), *range(1, mark)):
        if generation == mark:
            sweeper.conntrack.add_tcp(FLOW, generation_mark(generation) | 0xFF0000FF)
        sweeper.before_next(generation)
    assert sweeper.conntrack.marks == {FLOW: 0xFF0000FF}
    assert sweeper.swept == 1


def test_a_sweep_that_failed_is_tried_again_and_holds_nothing_up():
    fake = FakeNftables()
    builder = TableBuilder()
    small_world(builder)
    conntrack = FakeConntrack({FLOW: generation_mark(5)})
    driver = NftDriver(fake, first_generation=LAST_GENERATION - 2, sweeper=(sweeper := MarkSweeper(conntrack)))
    driver.resync(builder.table)
    assert conntrack.marks == {FLOW: 0}, "a new table knows no marks of an old one"
    conntrack.marks[FLOW] = generation_mark(5)
    revoke(builder, driver)
    assert driver.generation == LAST_GENERATION
    conntrack.failing = True
    revoke(builder, driver)
    assert driver.generation == 1 and sweeper.owed
    conntrack.failing = False
    revoke(builder, driver)
    assert driver.generation == 2 and not sweeper.owed and conntrack.marks == {FLOW: 0}


def test_no_map_leads_to_a_chain_of_the_same_transaction():
    """A packet that keeps to the rules of before would find that chain empty."""
    fake = FakeNftables()
    builder, driver = started(fake)
    table_made = len(fake.commits)
    steps: list[list[m.Update]] = [
        [m.PolicyUpdate(OTHER, allow_from("s")), endpoint(1, OTHER)],
        [endpoint(3, POLICY, OTHER), endpoint(2, OTHER, POLICY), m.PolicyRemove(POLICY)],
        [m.PolicyUpdate(POLICY, allow_from("t")), m.SetUpdate("t", m.SetKind.NETS, addresses("10.0.0.9"))],
        [endpoint(2, OTHER), m.EndpointRemove(endpoint(3).key)],
    ]
    for updates in steps:
        for update in updates:
            builder.on_update(update)
        result = driver.apply(builder.flush())
        assert not result.resynced
        assert kernel_state(fake) == fresh_state(builder)
    for operations in fake.commits[table_made:]:
        made = {operation.name for operation in operations if isinstance(operation, AddChain)}
        present = {operation.name for operation in operations if isinstance(operation, AddSet)}
        added = [operation for operation in operations if isinstance(operation, AddElements) and operation.set_name not in present]
        assert not made & {element.chain for operation in added for element in operation.elements}
    assert len(fake.commits) > table_made + len(steps)


class Dying:
    """A kernel whose agent is gone after so many transactions."""

    def __init__(self, fake: FakeNftables, commits: int) -> None:
        self.fake, self.left = fake, commits

    def commit(self, operations: list[NftOp]) -> None:
        if not self.left:
            raise InterruptedError
        self.left -= 1
        self.fake.commit(operations)

    def __getattr__(self, name: str):
        return getattr(self.fake, name)


def test_chains_that_were_prepared_in_vain_are_used_or_removed_by_the_next_agent():
    for removed in (False, True):
        fake = FakeNftables()
        builder, _ = started(fake)
        dying = NftDriver(Dying(fake, 1))
        dying.resync(builder.table)
        for update in (m.PolicyUpdate(OTHER, allow_from("s")), endpoint(1, OTHER)):
            builder.on_update(update)
        with pytest.raises(InterruptedError):
            dying.apply(builder.flush())
        if removed:
            builder.on_update(endpoint(1, POLICY))
            builder.flush()
        NftDriver(fake).resync(builder.table)
        assert kernel_state(fake) == fresh_state(builder)
