"""Whether this machine can be a host: the machine of the tests can, and what is missing is said with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tabinet.agent.checksystem import Check, check_system
from tabinet.agent.parameters import Parameters, parse_parameters
from tabinet.kernel.sysctl import FakeSysctl

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

GOOD = {"net/ipv4/conf/all/rp_filter": "0", "net/ipv6/conf/default/accept_ra": "2"}


def parameters(directory: Path, **bird: str) -> Parameters:
    lines = "".join(f"{name} = {value}\n" for name, value in bird.items())
    return parse_parameters(f'[bird]\nconfig = "{directory}/bird.conf"\n{lines}', {})


def missing(checks: list[Check]) -> list[str]:
    """But for what this machine's kernel may lack."""
    return [check.name for check in checks if not check.well and check.name != "kernel: VLAN interfaces"]


def test_this_machine_can_be_a_host(tmp_path: Path) -> None:
    checks = check_system(parameters(tmp_path), FakeSysctl(GOOD))
    assert missing(checks) == []
    assert {"BIRD", "kernel: nf_tables"} <= {check.name for check in checks}
    vlans = next(check for check in checks if check.name == "kernel: VLAN interfaces")
    assert vlans.remark
    assert "8021q" in vlans.advice


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    old = tmp_path / "bird"
    old.write_text("#!/bin/sh\necho 'BIRD version 1.6.8' >&2\n")
    old.chmod(0o755)
    settings = FakeSysctl({"net/ipv4/conf/all/rp_filter": "1", "net/ipv6/conf/default/accept_ra": "1"})
    checks = check_system(parameters(tmp_path / "nowhere"), settings, str(old))
    assert missing(checks) == ["BIRD", "directory of BIRD's configuration", "reverse path filter", "router advertisements"]
    said = {check.name: check for check in checks}
    assert "says 'BIRD version 1.6.8': 2.0.12 or a later 2.x is needed" in said["BIRD"].advice
    assert [said[name].remark for name in missing(checks)] == [False, False, True, True]
    gone = check_system(parameters(tmp_path), FakeSysctl(GOOD), str(tmp_path / "gone"))
    assert "apt-get install bird2" in next(check.advice for check in gone if check.name == "BIRD")


def test_a_host_without_bgp_needs_no_bird(tmp_path: Path) -> None:
    checks = check_system(parameters(tmp_path / "nowhere", enabled="false"), FakeSysctl(GOOD), str(tmp_path / "gone"))
    assert missing(checks) == []
