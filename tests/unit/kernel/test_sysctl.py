"""Kernel parameters: keys, the file system, and the fake."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tabinet.errors import KernelError
from tabinet.kernel.sysctl import FakeSysctl, ProcSysctl, Sysctl, dotted, ensure, interface_key

KEY = "net/ipv4/conf/eth0.100/proxy_arp"


@pytest.fixture(params=["fake", "files"])
def sysctl(request: pytest.FixtureRequest, tmp_path: Path) -> Sysctl:
    if request.param == "fake":
        return FakeSysctl({KEY: "0"}, absent=frozenset({"net/ipv6"}))
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    return ProcSysctl(tmp_path)


def test_reads_what_was_written(sysctl: Sysctl) -> None:
    assert sysctl.read(KEY) == "0"
    sysctl.write(KEY, "1")
    assert sysctl.read(KEY) == "1"


def test_ensure_says_whether_it_changed_something(sysctl: Sysctl) -> None:
    assert ensure(sysctl, KEY, "1")
    assert not ensure(sysctl, KEY, "1")


def test_absent_parameters_are_named(sysctl: Sysctl) -> None:
    for attempt in (lambda: sysctl.read("net/ipv6/conf/all/forwarding"), lambda: sysctl.write("net/ipv6/conf/all/forwarding", "1")):
        with pytest.raises(KernelError, match=r"net\.ipv6\.conf\.all\.forwarding") as caught:
            attempt()
        assert caught.value.errno == errno.ENOENT


def test_interface_names_with_dots() -> None:
    assert interface_key("ipv4", "conf", "eth0.100", "proxy_arp") == KEY
    assert dotted(KEY) == "net.ipv4.conf.eth0/100.proxy_arp"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../kernel"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="interface name"):
        interface_key("ipv4", "conf", name, "proxy_arp")
