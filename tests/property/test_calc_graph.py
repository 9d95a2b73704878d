"""The incremental graph against the naive recomputation: random resources, any order, any flush points, several hosts."""

from __future__ import annotations

import sys
from random import Random

from calc_world import HOSTS, World
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.naive import recompute, staged_endpoints
from tabinet.calc.replica import Replica
from tabinet.model.keys import Key, ResourceKey

dice = st.integers(0, 2**32 - 1).map(Random)


class GraphMachine(RuleBasedStateMachine):
    """Whatever happens, what was told equals what the specification says of the current resources."""

    @initialize(random=dice, hosts=st.sampled_from((frozenset({"h1"}), frozenset({"h1", "h2"}))), early=st.booleans())
    def start(self, random: Random, hosts: frozenset[str], early: bool) -> None:
        self.hosts = hosts
        self.resources: dict[Key, tuple[object, int]] = {}
        self.revision = 0
        self.graph = Graph(hosts)
        self.replica = Replica()
        self.in_sync = False
        if early:
            self.synchronise()
        world = World(random)
        for draw in (world.endpoint, world.policy, world.profile, world.network_set, world.host_endpoint) * 4:
            self.put(draw())

    def put(self, item: tuple[Key, object]) -> None:
        self.revision += 1
        self.resources[item[0]] = (item[1], self.revision)
        self.graph.on_input(Put(item[0], item[1], self.revision))

    def take(self, limit: int = sys.maxsize) -> int:
        told = self.graph.flush(limit)
        assert self.in_sync or not told
        for update in told:
            self.replica.apply(update)
        return len(told)

    def check(self) -> None:
        self.take()
        assert self.take() == 0
        assert self.replica.state == recompute(self.resources, self.hosts)
        judged = staged_endpoints(self.resources, self.hosts)
        effects = {effect.key: set(effect.endpoints) for effect in self.graph.staged()}
        # What is put aside unread is not reported, and concerns nobody here.
        assert effects == {key: endpoints for key, endpoints in judged.items() if key in effects or endpoints}

    @rule(random=dice, count=st.integers(1, 4))
    def put_policies_and_endpoints(self, random: Random, count: int) -> None:
        world = World(random)
        for _ in range(count):
            self.put(random.choice((world.endpoint, world.endpoint, world.policy, world.policy, world.host_endpoint))())

    @rule(random=dice)
    def put_other(self, random: Random) -> None:
        world = World(random)
        self.put(random.choice((world.profile, world.tier, world.network_set, world.staged))())

    @rule(random=dice, count=st.integers(1, 3))
    def put_routing(self, random: Random, count: int) -> None:
        world = World(random)
        for _ in range(count):
            draws = (
                world.routing,
                world.node,
                world.pool,
                world.move,
                world.move,
                world.holder,
                world.holder,
                world.configuration,
                world.controllers,
            )
            self.put(random.choice(draws)())

    @precondition(lambda self: self.resources)
    @rule(random=dice, count=st.integers(1, 3), again=st.booleans())
    def delete(self, random: Random, count: int, again: bool) -> None:
        for gone in random.sample(list(self.resources), min(count, len(self.resources))):
            value, _ = self.resources.pop(gone)
            self.graph.on_input(Delete(gone))
            if again:
                self.put((gone, value))

    @precondition(lambda self: self.resources)
    @rule(random=dice)
    def repeat(self, random: Random) -> None:
        same = random.choice(list(self.resources))
        value, revision = self.resources[same]
        self.graph.on_input(Put(same, value, revision))

    @rule(
        kind=st.sampled_from(
            ("Profile", "WorkloadEndpoint", "HostEndpoint", "NetworkPolicy", "StagedNetworkPolicy", "Tier", "Node", "IPPool")
        )
    )
    def delete_unknown(self, kind: str) -> None:
        self.graph.on_input(Delete(ResourceKey(kind, "never")))

    @rule()
    def synchronise(self) -> None:
        self.in_sync = True
        self.graph.on_input(InSync())

    @rule(budget=st.integers(1, 5))
    def work_a_little(self, budget: int) -> None:
        self.graph.work(budget)

    @rule(limit=st.integers(1, 4))
    def take_a_little(self, limit: int) -> None:
        assert self.take(limit) <= limit

    @precondition(lambda self: self.in_sync)
    @rule()
    def take_all(self) -> None:
        self.check()

    def teardown(self) -> None:
        if not hasattr(self, "graph"):
            return
        self.synchronise()
        self.check()
        self.a_restart_in_another_order_tells_the_same()
        for gone in list(self.resources):
            self.graph.on_input(Delete(gone))
        self.resources.clear()
        self.check()
        assert self.graph.problems() == []

    def a_restart_in_another_order_tells_the_same(self) -> None:
        items = list(self.resources.items())
        Random(self.revision).shuffle(items)
        fresh, replica = Graph(self.hosts), Replica()
        for key, (value, revision) in items:
            fresh.on_input(Put(key, value, revision))
        fresh.on_input(InSync())
        for update in fresh.flush():
            replica.apply(update)
        assert replica.state == self.replica.state
        assert set(fresh.problems()) == set(self.graph.problems())
        assert fresh.staged() == self.graph.staged()


assert frozenset({"h1", "h2"}) < frozenset(HOSTS), "some endpoints are remote"
TestGraph = GraphMachine.TestCase
TestGraph.settings = settings(deadline=None, max_examples=120, stateful_step_count=30)
