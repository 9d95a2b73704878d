"""Packets of a trunk's subport, as the drivers leave interfaces, routes and policy. Skipped where the kernel has no VLAN interfaces.

::

    guest: eth0, eth0.7 ---- tapp, taps (VLAN 7 of tapp): host: tapo ---- eth0: other
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import pytest
from ports_world import GATEWAY, MACS, OTHER, PARENT, SUBPORT, SUBPORTS_GATEWAY, World

from tabinet.calc import messages as m
from tabinet.kernel.rtnetlink import AddVlan

pytestmark = pytest.mark.kernel


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.closing(World()) as world:
        world.plug_parent()
        outcome = world.rt.execute([AddVlan("probe", next(link.index for link in world.rt.links() if link.name == "tapp"), 9)])[0]
        if outcome is not None and outcome.errno == errno.EOPNOTSUPP:
            pytest.skip("this kernel has no VLAN interfaces")
        world.ip("host", "link del dev probe")
        yield world


def test_a_subport_is_reached_and_checked_like_any_port(world: World) -> None:
    world.plug_subport()
    world.plug("other", "tapo", MACS["o"], OTHER, GATEWAY)
    subport = world.endpoint("s", SUBPORT, SUBPORTS_GATEWAY, trunk=m.Trunk("tapp", 7))
    world.tell(world.endpoint("p", PARENT, GATEWAY), world.endpoint("o", OTHER, GATEWAY), subport)
    world.settle("p", "s", "o")
    assert world.vlans() == {("taps", 7)}
    assert world.pings("guest", OTHER, "-I", SUBPORT)
    assert world.pings("other", SUBPORT)
    assert world.pings("other", PARENT)
    # What has the tag may not have the parent's address.
    world.ip("guest", f"rule add from {PARENT} table 7 pref 5")
    assert not world.pings("guest", OTHER, "-I", PARENT, wait_s=1)
    world.ip("guest", "rule del pref 5")
    assert world.pings("guest", OTHER, "-I", PARENT)

    # Another TAP of the same name, as after a restart of the virtual machine.
    world.ip("host", "link del dev tapp")
    world.plug_parent()
    world.plug_subport()
    world.settle("p", "s", "o")
    assert world.pings("other", SUBPORT)

    world.tell(m.EndpointRemove(subport.key))
    world.settle("p", "o")
    assert world.vlans() == set()
    assert not world.pings("other", SUBPORT, wait_s=1)
    assert world.pings("other", PARENT)
