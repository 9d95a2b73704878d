"""Limits of neighbours are raised where they are low, and nowhere else."""

from __future__ import annotations

from tabinet.dataplane.links.limits import Raised, raise_neighbour_limits
from tabinet.kernel.sysctl import FakeSysctl

BASE = "net/{}/neigh/default/gc_thresh{}"


def machine(*thresholds: int) -> dict[str, str]:
    return {BASE.format(family, number): str(value) for family in ("ipv4", "ipv6") for number, value in enumerate(thresholds, 1)}


def test_defaults_are_raised():
    sysctl = FakeSysctl(machine(128, 512, 1024))
    raised = raise_neighbour_limits(sysctl, 16384)
    assert sysctl.values == machine(2048, 8192, 16384)
    assert raised.changed[0] == "net.ipv4.neigh.default.gc_thresh3=16384"
    assert len(raised.changed) == 6
    assert raise_neighbour_limits(sysctl, 16384) == Raised(())


def test_what_is_higher_stays():
    sysctl = FakeSysctl(machine(128, 100_000, 200_000))
    raise_neighbour_limits(sysctl, 16384)
    assert sysctl.values == machine(2048, 100_000, 200_000)
    raise_neighbour_limits(sysctl, 0)
    assert sysctl.values == machine(2048, 100_000, 200_000)


def test_without_ipv6_its_own_stay():
    sysctl = FakeSysctl(machine(128, 512, 1024))
    assert len(raise_neighbour_limits(sysctl, 16384, ipv6=False).changed) == 3
    assert not [key for key, _ in sysctl.writes if "ipv6" in key]


def test_other_namespaces_than_the_first_have_none():
    sysctl = FakeSysctl(absent=frozenset({"net/ipv4/neigh/default", "net/ipv6/neigh/default"}))
    assert raise_neighbour_limits(sysctl, 16384) == Raised(())


def test_nonsense_is_told():
    sysctl = FakeSysctl(machine(128, 512, 1024) | {BASE.format("ipv4", 3): "many"})
    raised = raise_neighbour_limits(sysctl, 16384)
    assert raised.refused == "net.ipv4.neigh.default.gc_thresh3 is no number"
    assert len(raised.changed) == 5
