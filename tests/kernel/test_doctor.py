"""``tabinet doctor``: what is in a host's way is found and named, with what to do; what is not in its way is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tabinet.agent.checksystem import Check
from tabinet.agent.doctor.firewalls import FELIX, check_firewalls, read_legacy
from tabinet.agent.doctor.network import check_mtu, check_peers, check_store
from tabinet.agent.doctor.settings import check_settings
from tabinet.dataplane.tunnels.plan import TunnelOptions
from tabinet.kernel import netns
from tabinet.kernel.nftchains import BaseChain, list_base_chains
from tabinet.kernel.rtnetlink import Link
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.model.report import SessionReport
from tabinet.store.memory import MemoryStore

PREFIXES = ("cali", "tap")


def firewalls_with(*rules: str) -> list[Check]:
    """What is found in a namespace that has these rules."""

    def look() -> list[BaseChain]:
        subprocess.run(["nft", "-f", "-"], input="\n".join(rules), text=True, check=True)
        return list_base_chains((*PREFIXES, FELIX))

    return check_firewalls(netns.run_in_new(look), PREFIXES)


def ill(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.well]


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
class TestFirewalls:
    def test_a_chain_that_drops_what_it_does_not_know(self) -> None:
        checks = firewalls_with("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
        assert ill(checks) == ["firewall: ip filter FORWARD"]
        assert "iptables -P FORWARD ACCEPT" in checks[0].advice

    def test_one_that_knows_workloads_is_meant_so(self) -> None:
        rules = 'table inet mine { chain f { type filter hook forward priority 0; policy drop; iifname "cali*" accept; }; }'
        assert ill(firewalls_with(rules)) == []

    def test_input_and_our_own_table_are_no_concern(self) -> None:
        own = "table inet tabinet { chain forward { type filter hook forward priority 0; policy drop; }; }"
        guarded = "table inet guard { chain i { type filter hook input priority 0; policy drop; }; }"
        assert ill(firewalls_with(own, guarded)) == []

    def test_firewalld(self) -> None:
        rules = "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; }; }"
        assert ill(firewalls_with(rules)) == ["firewall: firewalld"]

    def test_rules_of_felix(self) -> None:
        jump = "chain FORWARD { type filter hook forward priority 0; policy drop; jump cali-FORWARD; };"
        rules = f"table ip filter {{ chain cali-FORWARD {{ }}; {jump} }}"
        assert ill(firewalls_with(rules)) == ["firewall: Felix"]


def test_tables_of_the_older_iptables(tmp_path: Path) -> None:
    (tmp_path / "ip6_tables_names").write_text("filter\nnat\n")
    names = read_legacy([str(tmp_path / "ip_tables_names"), str(tmp_path / "ip6_tables_names")])
    assert names == ["ip6 filter", "ip6 nat"]
    assert [(check.well, check.remark) for check in check_firewalls([], PREFIXES, names)] == [(False, True)] * 2


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., list[str]]:
    """The checks of settings that are not well, with these sysctls and a clock that is (not) synchronized."""

    def look(synchronized: bool = True, **values: str) -> list[str]:
        keys = {"count": "net/netfilter/nf_conntrack_count", "most": "net/netfilter/nf_conntrack_max"}
        sysctl = FakeSysctl({keys[name]: value for name, value in values.items()})
        run = tmp_path / "netif"
        return ill(check_settings(sysctl, synchronized=lambda: synchronized, networkd=run, roots=(tmp_path / "systemd",)))

    return look


def test_a_clock_that_nobody_sets(settings: Callable[..., list[str]]) -> None:
    assert settings() == []
    assert settings(synchronized=False) == ["clock"]


def test_connection_tracking_that_fills_up(settings: Callable[..., list[str]]) -> None:
    assert settings(count="799", most="1000") == []
    assert settings(count="800", most="1000") == ["connection tracking"]


def test_networkd_that_removes_routes(settings: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "netif").touch()
    assert settings() == ["systemd-networkd"]
    directory = tmp_path / "systemd" / "networkd.conf.d"
    directory.mkdir(parents=True)
    (directory / "tabinet.conf").write_text("[Network]\nManageForeignRoutes = no\n")
    assert settings() == []


def test_interfaces_larger_than_the_uplinks() -> None:
    uplink = Link(index=2, name="eth0", mtu=1500, up=True)
    small, large = Link(index=3, name="tap1", mtu=1450), Link(index=4, name="tap2", mtu=9000)
    assert check_mtu([uplink, small], (), None, TunnelOptions()).well
    found = check_mtu([uplink, small, large], (), None, TunnelOptions())
    assert not found.well
    assert "1500 bytes, and larger interfaces have tap2" in found.advice


async def test_a_store_that_answers() -> None:
    store = MemoryStore()
    assert (await check_store(store, "here", "/a")).well


async def test_peers_that_are_down_are_tried() -> None:
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    up = SessionReport(name="a", peer="a", state="up", address="127.0.0.1")
    down = SessionReport(name="b", peer="b", state="down", reason="Connect", address="127.0.0.1", resource="BGPPeer/b")
    unknown = SessionReport(name="c", peer="c", state="down")
    async with server:
        checks = await check_peers([up, down, unknown], port)
        assert [check.name for check in checks] == ["BGP to b (BGPPeer/b)", "BGP to c"]
        assert "the way is free" in checks[0].advice
        assert "address is not known" in checks[1].advice
    for writer in taken:
        writer.close()
    assert [(check.name, check.well) for check in await check_peers([up], port)] == [("BGP: 1 sessions are up", True)]
    refused = await check_peers([down], port)
    assert "nothing listens there" in refused[0].advice
