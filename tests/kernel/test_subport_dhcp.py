"""A subport's guest gets its address by DHCP over its VLAN, from a real agent and a real guest service. Skipped without VLANs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import pkgutil
from pathlib import Path

import guest_world as guest_world_module
import pytest
from guest_world import ADDRESSES, ALLOW_ALL, MACS, SUBNETS, GuestWorld, endpoint, eventually, guest_world

import tabinet.agent
import tabinet.cli
import tabinet.guest
import tabinet.store
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import AddVeth, AddVlan, execute_all
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.model.openstack import FixedAddress, PortFacts

# Where this runs in another kernel, only what is loaded here is there.
for package in (tabinet.agent, tabinet.cli, tabinet.guest, tabinet.store):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(("__main__", ".etcd")):
            importlib.import_module(found.name)

pytestmark = pytest.mark.kernel


def has_vlans() -> bool:
    with contextlib.closing(netns.run_in_new(open_rtnetlink)) as rt:
        execute_all(rt, [AddVeth("a", "b")])
        outcome = rt.execute([AddVlan("v", next(link.index for link in rt.links() if link.name == "a"), 7)])[0]
        return outcome is None or outcome.errno != errno.EOPNOTSUPP


async def _filled(world: GuestWorld) -> None:
    parent = PortFacts(mtu=1450, hostname="g1", fixed=(FixedAddress(address=ADDRESSES["g1"][0], subnet="s4"),))
    child = PortFacts(mtu=1400, hostname="g2", fixed=(FixedAddress(address=ADDRESSES["g2"][0], subnet="s4"),), trunk_parent="tapg1", vlan=7)
    await world.fill(ALLOW_ALL, endpoint("g1", parent), endpoint("g2", child), subnets=SUBNETS)


def test_a_subport_gets_its_address_by_dhcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_vlans():
        pytest.skip("this kernel has no VLAN interfaces")
    monkeypatch.setattr(guest_world_module, "DEADLINE_S", 600.0)  # a kernel without hardware support begins two programs
    with guest_world(tmp_path) as world:
        world.ip(world.host, "link del dev tapg2")
        inner = world.namespace("g1")
        world.ip(inner, "link add link eth0 name sub type vlan id 7")
        world.ip(inner, f"link set dev sub address {MACS['g2']} up")
        asyncio.run(_filled(world))
        world.start("agent")
        world.start("guest")

        def has_interface() -> bool:
            return "tapg2@tapg1" in world.run("g1", ["ip", "-n", world.host, "link", "show"]).stdout

        assert eventually(has_interface), world.logs()
        for interface, guest in (("sub", "g2"), ("eth0", "g1")):
            script, file = world._script(f"udhcpc-{guest}", '#!/bin/sh\n[ "$1" = bound ] && env > {file}\nexit 0\n')
            argv = ["busybox", "udhcpc", "-i", interface, "-s", str(script), "-fnq", "-t", "60", "-T", "1"]
            done = world.run("g1", argv)
            assert done.returncode == 0, (done.stdout, done.stderr, world.logs())
            assert f"ip={ADDRESSES[guest][0]}\n" in file.read_text()
