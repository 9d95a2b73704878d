"""Two hosts with systemd, brought up as deploy.md says: units that start, are restarted, killed and switched off under the real one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from page_hosts import DOCS, PageHosts, eventually, overlay_is_there, page_hosts
from systemd_host import SYSTEMD, SystemdHost, cgroups

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not overlay_is_there(), reason="this kernel has no overlayfs"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed"),
    pytest.mark.skipif(cgroups() is None, reason="no cgroups of the second version are mounted"),
]
INSTALL = re.search(r"^apt-get install [^\n]*\n(.*?)^```$", (DOCS / "deploy.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def fabric() -> Iterator[PageHosts[SystemdHost]]:
    """Two hosts as deploy.md has them, but for apt-get."""
    with page_hosts(SystemdHost) as hosts:
        assert INSTALL is not None
        one, two = hosts.hosts.values()
        one.run(INSTALL[1], network=False)
        subprocess.run(["cp", "-a", f"/proc/{one.number}/root/opt/tabinet", f"/proc/{two.number}/root/opt/"], check=True)
        hosts.follow("deploy.md", "Two hosts from nothing")
        yield hosts


def state(host: SystemdHost, unit: str, name: str = "ActiveState") -> str:
    return host.run(f"systemctl show --property {name} --value {unit}").stdout.strip()


def attach(host: SystemdHost, name: str, address: str) -> None:
    host.run(f"ip netns add {name}; tabinet workload add --netns {name} --address {address} --profile open")


def pings(host: SystemdHost, name: str, count: int) -> int:
    """How many of the workload's pings to web, 50 a second, are answered."""
    said = host.run(f"ip netns exec {name} ping -q -i 0.02 -W 1 -c {count} 10.65.7.7", check=False).stdout
    found = re.search(r"(\d+) received", said)
    return int(found[1]) if found is not None else 0


@pytest.fixture(scope="module")
def workloads(fabric: PageHosts[SystemdHost]) -> PageHosts[SystemdHost]:
    """``web`` on the one host and ``db`` on the other, which reach each other."""
    one, two = fabric.hosts.values()
    attach(one, "web", "10.65.7.7")
    attach(two, "db", "10.65.7.8")
    eventually(lambda: pings(two, "db", 1) == 1, "db reaches web", two.logs)
    return fabric


def all_is_well(host: SystemdHost) -> bool:
    return host.run("tabinet status", check=False).returncode == 0


def test_two_hosts_from_nothing(fabric: PageHosts[SystemdHost]) -> None:
    for host in fabric.hosts.values():
        host.run("systemctl enable --now tabinet-guest tabinet-ipam-gc")
        for unit in ("agent", "bird", "guest", "ipam-gc"):
            assert state(host, f"tabinet-{unit}") == "active"
        assert state(host, "bird") in ("inactive", "failed")
        assert not host.run("journalctl --quiet --boot --priority warning --unit 'tabinet-*'").stdout


def test_the_agent_may_enter_containers_whose_namespaces_have_no_name(fabric: PageHosts[SystemdHost]) -> None:
    host = fabric["node1"]
    host.run("tabinet cni install --network fabric")
    host.run("unshare --net sleep infinity </dev/null >/dev/null 2>&1 & echo $! >/run/holder")
    other = "[ $(readlink /proc/$(cat /run/holder)/ns/net) != $(readlink /proc/self/ns/net) ]"
    eventually(lambda: host.run(other, check=False).returncode == 0, "a namespace")
    network = '{{"cniVersion": "1.0.0", "name": "fabric", "type": "tabinet-cni", "ipam": {{"type": "tabinet-ipam"}}}}'
    call = f"""export CNI_COMMAND={{}} CNI_CONTAINERID=box CNI_NETNS=/proc/$(cat /run/holder)/ns/net CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
        echo '{network}' | /opt/cni/bin/tabinet-cni"""
    host.run(call.format("ADD"))
    assert "box" in host.run("tabinet get wep -A").stdout
    host.run(call.format("DEL"))
    assert "box" not in host.run("tabinet get wep -A").stdout
    host.run("kill $(cat /run/holder)")


def test_restarts_and_kills_lose_nothing(workloads: PageHosts[SystemdHost]) -> None:
    host, other = workloads.hosts.values()
    numbers = "$(systemctl show --property MainPID --value tabinet-agent tabinet-bird)"
    for commands in ("systemctl restart tabinet-agent tabinet-bird", f"kill -KILL {numbers}", "systemctl stop tabinet-agent"):
        host.run(f"(sleep 0.5; {commands}) </dev/null >/dev/null 2>&1 &")
        assert pings(other, "db", 150) == 150, commands
        host.run("systemctl start tabinet-agent tabinet-bird")
        eventually(lambda: all_is_well(other), commands, host.logs)
    journal = host.run("journalctl --boot --unit tabinet-agent --unit tabinet-bird --priority notice").stdout
    assert journal.count("code=killed, status=9/KILL") == 2


def test_an_agent_that_hangs_is_restarted(workloads: PageHosts[SystemdHost]) -> None:
    host = workloads["node1"]
    place = "/run/systemd/system/tabinet-agent.service.d"
    restarted = "systemctl daemon-reload; systemctl restart tabinet-agent"
    host.run(f"mkdir -p {place}; printf '[Service]\\nWatchdogSec=2\\n' >{place}/soon.conf; {restarted}")
    number = state(host, "tabinet-agent", "MainPID")
    host.run(f"kill -STOP {number}")
    eventually(lambda: state(host, "tabinet-agent", "MainPID") not in ("0", number), "another agent", host.logs)
    assert "Watchdog timeout" in host.run("journalctl --boot --unit tabinet-agent --priority warning").stdout
    host.run(f"rm -r {place}; {restarted}")


def test_a_host_that_was_switched_off_comes_back(workloads: PageHosts[SystemdHost]) -> None:
    one, two = workloads.hosts.values()
    two.switch_off()
    two.boot()
    for unit in ("agent", "bird"):
        eventually(lambda unit=unit: state(two, f"tabinet-{unit}") == "active", f"{unit} is back", two.logs)
    eventually(lambda: "db" in one.run("tabinet status", check=False).stdout, "what has gone is told", two.logs)
    two.run("tabinet workload delete db")
    attach(two, "db", "10.65.7.8")
    eventually(lambda: pings(two, "db", 1) == 1, "db reaches web", two.logs)
    eventually(lambda: all_is_well(one), "all is well", two.logs)
