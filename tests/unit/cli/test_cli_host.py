"""``tabinet host protect``: nobody locks himself out, and what is not confirmed goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import Tabinet, resource

from tabinet.cli.session import SshSession, find_session

NODE = resource("Node", "h1", labels={"role": "gateway"}, bgp={"ipv4Address": "203.0.113.1/24"})
ALLOW_2222 = resource(
    "GlobalNetworkPolicy",
    "ssh",
    selector="role == 'gateway'",
    types=["Ingress"],
    ingress=[{"action": "Allow", "protocol": "TCP", "source": {"nets": ["198.51.100.0/24"]}, "destination": {"ports": [2222]}}],
)
PROTECT = ("host", "protect", "h1", "--interface", "eth0")


@pytest.fixture
def filled(tabinet: Tabinet, monkeypatch: pytest.MonkeyPatch) -> Tabinet:
    monkeypatch.setenv("TABINET_AGENT_HTTP_ADDRESS", "")
    assert tabinet("apply", "-f", "-", given=[NODE]).code == 0
    return tabinet


def over_ssh(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("SSH_CONNECTION", f"198.51.100.7 50000 203.0.113.1 {port}")


def test_a_session_that_would_end_is_a_reason_to_refuse(filled: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    over_ssh(monkeypatch, 2222)
    said = filled(*PROTECT)
    assert said.code == 1
    assert "would be denied: your SSH session from 198.51.100.7 (TCP 198.51.100.7 -> 203.0.113.1 port 2222)" in said.err
    assert filled("get", "hep", "-o", "json").json["items"] == []


def test_a_policy_that_allows_the_session_is_enough(filled: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    over_ssh(monkeypatch, 2222)
    assert filled("apply", "-f", "-", given=[ALLOW_2222]).code == 0
    assert filled(*PROTECT, "--dry-run").code == 0
    assert filled(*PROTECT, "--confirm", "1h").code == 0
    (endpoint,) = filled("get", "hep", "-o", "json").json["items"]
    assert (endpoint["metadata"]["name"], endpoint["metadata"]["labels"]) == ("h1-eth0", {"role": "gateway"})
    assert endpoint["spec"] == {"node": "h1", "interfaceName": "eth0", "expectedIPs": ["203.0.113.1"]}
    assert filled("confirm", "--roll-back").code == 0
    assert filled("get", "hep", "-o", "json").json["items"] == []


def test_a_failsafe_port_is_enough(filled: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    over_ssh(monkeypatch, 22)
    said = filled(*PROTECT, "--dry-run", "--label", "zone=a")
    assert (said.code, "denied" in said.err) == (0, False)
    assert "zone: a" in said.out
    assert filled("get", "hep", "-o", "json").json["items"] == []


def test_force(filled: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    over_ssh(monkeypatch, 2222)
    assert filled(*PROTECT, "--force", "--confirm", "1h").code == 0
    assert filled("confirm").code == 0
    assert len(filled("get", "hep", "-o", "json").json["items"]) == 1


def test_whoever_is_no_host(filled: Tabinet) -> None:
    said = filled("host", "protect", "h9")
    assert (said.code, "tabinet node init" in said.err) == (2, True)
    elsewhere = filled("host", "protect", "h1")
    assert (elsewhere.code, "run it on the host, or name an interface" in elsewhere.err) == (2, True)


def test_the_session_is_found_behind_sudo() -> None:
    """A shell has the variable, its child has not, and the child's child asks."""
    ask = "from tabinet.cli.session import find_session; print(find_session({}).client)"
    hidden = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], env={{'PYTHONPATH': sys.argv[1]}}, check=True)"
    middle = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hidden!r}, sys.argv[1]], env={{}}, check=True)"
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "SSH_CONNECTION": "192.0.2.9 50000 203.0.113.1 22"}
    run = subprocess.run([sys.executable, "-c", middle, source], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "192.0.2.9\n"


def test_no_session(tmp_path: Path) -> None:
    assert find_session({}, 7, tmp_path) is None
    assert find_session({"SSH_CONNECTION": "garbage"}, 7, tmp_path) is None
    assert find_session({"SSH_CONNECTION": "fd00::9 1 fd00::1 22"}, 7, tmp_path) == SshSession("fd00::9", "fd00::1", 22)
