"""The dataplane as the agent drives it: what it looks at by itself, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tabinet.agent.dataplane import READING_PAUSE, Dataplane
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel.nftables import AddTable, DeleteTable
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.rules.builder import TableBuilder


class World:
    def __init__(self) -> None:
        self.nftables = FakeNftables()
        self.rtnetlink = FakeRtnetlink()
        self.dataplane = Dataplane(
            builder=TableBuilder(),
            nftables=self.nftables,
            nft=NftDriver(self.nftables),
            workloads=WorkloadManager(LinkDriver(self.rtnetlink, FakeSysctl()), RouteDriver(self.rtnetlink)),
            rtnetlink=self.rtnetlink,
            events=self.rtnetlink.events(),
            interface_prefixes=("cali",),
        )

    def turn(self, now_s: float) -> int:
        """One turn of the background's verification; gives the operations on nf_tables."""
        if not self.dataplane.verify(now_s):
            return 0
        return self.dataplane.apply([], complete=True).operations["nft"]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.dataplane.close()


def test_nothing_is_touched_before_the_snapshot_is_complete(world: World) -> None:
    assert not world.dataplane.verify(0.0)
    report = world.dataplane.apply([], complete=False)
    assert (report.operations, world.nftables.commits, world.rtnetlink.executed) == ({}, [], [])


def test_a_quiet_kernel_is_not_read(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.nftables.read_table = None  # type: ignore[method-assign, assignment]  # whoever reads now fails
    assert [world.turn(float(now)) for now in range(100)] == [0] * 100


def test_what_others_do_is_looked_at_as_often_as_looking_is_cheap(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.nftables.stranger([DeleteTable()])
    assert world.turn(1000.0) > 0
    took_s = world.dataplane._reading_took_s
    assert took_s > 0
    world.nftables.stranger([DeleteTable()])
    assert world.turn(1000.0 + READING_PAUSE * took_s * 0.9) == 0
    assert world.nftables.read_table() is None
    assert world.turn(1000.0 + READING_PAUSE * took_s * 1.1) > 0
    assert world.nftables.read_table() is not None


def test_others_that_change_tables_of_their_own_cost_a_reading_and_change_nothing(world: World) -> None:
    world.dataplane.apply([], complete=True)
    before = len(world.nftables.commits)
    world.nftables.stranger([AddTable()])
    assert world.turn(1000.0) == 0
    assert len(world.nftables.commits) == before
