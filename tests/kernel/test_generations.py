"""Flows that are idle while the generation wraps, and flows that are older than the table, in a real kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from one_host import ADDRESSES, Connection, OneHost, eventually, one_host
from test_nft_packets import Agent, members, start_serving

from tabinet.calc import messages as m
from tabinet.dataplane.adoption import Adopter
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.sweep import MarkSweeper
from tabinet.kernel import netns
from tabinet.kernel.ctsocket import open_conntrack
from tabinet.kernel.nftables import DeleteTable
from tabinet.kernel.packetlog import open_packet_log
from tabinet.rules.marks import LAST_GENERATION

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)


@pytest.fixture(scope="module")
def fabric() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


@pytest.fixture
def agent(fabric: OneHost) -> Iterator[Agent]:
    made = Agent(fabric)
    yield made
    if made.nft.read_table() is not None:
        made.nft.commit([DeleteTable()])
    made.nft.close()


@pytest.fixture
def sweeper(fabric: OneHost) -> Iterator[MarkSweeper]:
    conntrack = netns.run_in(fabric.host, open_conntrack)
    yield MarkSweeper(conntrack)
    conntrack.close()


def revoke(agent: Agent, driver: NftDriver) -> None:
    """A permission that nobody uses goes, and with it the generation."""
    for added, removed in ((members("c"), frozenset()), (frozenset(), members("c"))):
        agent.builder.on_update(m.SetDelta("clients", added, removed))
        result = driver.apply(agent.builder.flush())
    assert result.revoked and not result.resynced


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("swept", [True, False])
def test_a_flow_that_is_idle_while_the_generation_wraps(fabric: OneHost, agent: Agent, sweeper: MarkSweeper, swept: bool, family: int):
    agent.driver = NftDriver(agent.nft, first_generation=4)
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][family], 80)) as connection:
        assert connection.carries() and agent.driver.generation == 5
        # The permission goes, and many generations later only five are left before the round is over.
        agent.builder.on_update(m.SetDelta("clients", frozenset(), members("a")))
        agent.builder.flush()
        agent.nft.commit([DeleteTable()])
        NftDriver(agent.nft, first_generation=LAST_GENERATION - 6).resync(agent.builder.table)
        driver = NftDriver(agent.nft, sweeper=sweeper if swept else None)
        assert driver.resync(agent.builder.table).operations == 0 and driver.generation == LAST_GENERATION - 5
        for generation in (*range(LAST_GENERATION - 4, LAST_GENERATION + 1), 1, 2, 3, 4, 5):
            revoke(agent, driver)
            assert driver.generation == generation
        assert connection.carries() is not swept, "without the sweep its mark would mean something again"
        assert not sweeper.owed and (sweeper.swept > 0) is swept


def test_a_sweep_keeps_the_flows_that_are_current(fabric: OneHost, agent: Agent, sweeper: MarkSweeper):
    agent.driver = NftDriver(agent.nft, first_generation=LAST_GENERATION - 3, sweeper=sweeper)
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][0], 80)) as connection:
        for forward in (True, False, True, False):
            revoke(agent, agent.driver)
            assert connection.carries(forward=forward)
    assert agent.driver.generation == 2


def adopter_of(fabric: OneHost, agent: Agent) -> Adopter:
    group = agent.builder.options.middle_group
    return netns.run_in(fabric.host, lambda: Adopter(open_packet_log(group), open_conntrack()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_that_is_older_than_the_table(fabric: OneHost, agent: Agent, family: int):
    """Whichever end speaks next; and only if it is allowed."""
    b = ADDRESSES["b"][family]
    with contextlib.ExitStack() as stack:

        def connection(source: str, port: int) -> Connection:
            made = stack.enter_context(contextlib.closing(fabric.tcp(source, "b", b, port)))
            assert made.carries()
            return made

        client_first, server_first, unlistened = connection("a", 80), connection("a", 80), connection("a", 80)
        strangers, wrong_port = (connection("c", 80), connection("c", 80)), connection("a", 81)
        start_serving(agent)
        assert client_first.carries() and client_first.carries(forward=False)
        assert not unlistened.carries(forward=False)
        adopter = stack.enter_context(contextlib.closing(adopter_of(fabric, agent)))

        def server_is_heard() -> bool:
            adopter.turn()
            return server_first.carries(forward=False)

        assert eventually(server_is_heard) and server_first.carries() and adopter.adopted
        for each in (*strangers, wrong_port):
            for _ in range(3):
                assert not each.carries(forward=False)
                adopter.turn()
            assert not each.carries()


def test_a_new_table_knows_no_marks_of_an_old_one(fabric: OneHost, agent: Agent, sweeper: MarkSweeper):
    agent.driver = NftDriver(agent.nft, first_generation=9)
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][0], 80)) as connection:
        assert connection.carries()
        agent.builder.on_update(m.SetDelta("clients", frozenset(), members("a")))
        agent.builder.flush()
        agent.nft.commit([DeleteTable()])
        NftDriver(agent.nft, first_generation=9, sweeper=sweeper).resync(agent.builder.table)
        assert not connection.carries() and not connection.carries(forward=False)
