"""Each runtime starts and ends workloads in parallel while plugins, agent and the runtime's own helpers are killed; nothing is left behind.

On one of the hosts of ``page_hosts``, as its page has it. Compared with before are interfaces, routes, rules, neighbours, chains, network
namespaces, endpoints, addresses, and the files and sockets of Tabinet. ``TABINET_LIFECYCLES`` says how many of each runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import grpc
import pytest
from containerd_host import IMAGE, image_tar
from cri import Cri
from docker_host import busybox_tar
from page_hosts import PageHost, eventually, overlay_is_there, page_hosts
from test_pages import BUSYBOX, CONTAINERD, CONTAINERD_UNIT, DOCKER_UNIT, PODMAN, STORAGE, needs

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not overlay_is_there(), reason="this kernel has no overlayfs"),
]
LIFECYCLES = int(os.environ.get("TABINET_LIFECYCLES", "4"))
AT_ONCE, MANY = 10, 20
"""So many at the same time; from so many on helpers of runtimes are killed as well: not every runtime gets over that in time."""
LOOKS = 100
"""For a helper that is to be killed, which may live for some ms only."""
AGENT = "tabinet-agent"
_TRACES = """\
ip -o link | awk '{print $2}'
ip route show table all; ip -6 route show table all
ip rule; ip -6 rule
ip neigh show nud permanent; ip -6 neigh show nud permanent
nft list chains inet | grep chain
ls /run/netns 2>/dev/null
find /run/tabinet /run/docker/plugins /var/lib/tabinet/cni -not -type d 2>/dev/null
tabinet get wep -A -o name
"""


@dataclass(slots=True)
class Runtime:
    """How a runtime starts and ends a workload by its name."""

    host: PageHost
    begin: Callable[[str], bool]
    """Starts it; False: that failed."""
    end: Callable[[str], bool]
    """Ends it; False: to be repeated, as whoever runs it would."""
    helpers: tuple[str, ...]
    """Processes that are killed now and then, by their program's name."""
    killed: list[str] = field(default_factory=list)
    started: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(11))

    def until_gone(self, name: str) -> None:
        eventually(lambda: self.end(name), f"the end of {name}", self.host.logs)

    def kill(self, victim: str) -> None:
        """A helper, or the agent, which is started again."""
        if victim != AGENT and LIFECYCLES < MANY:
            return
        if victim == AGENT:
            self.host.run(f"kill -9 $(cat /run/units/{AGENT}) && systemctl start {AGENT}")
        else:
            number = next((found[0] for _ in range(LOOKS) if (found := self.host.named(victim))), 0)
            if not number:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.killed.append(victim)

    def live(self, count: int) -> None:
        """So many workloads have been started and ended, some at the same time, and some of that failed."""
        names = [f"life{index}" for index in range(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for place in range(0, count, AT_ONCE):
                wave = names[place : place + AT_ONCE]
                starting = [pool.submit(self.begin, name) for name in wave]
                wait(starting, return_when=FIRST_COMPLETED)
                self.kill(AGENT)
                for _ in range(len(wave) // 3 - 1):
                    time.sleep(self.chance.random() * 0.5)
                    self.kill(self.chance.choice(self.helpers))
                self.started += sum(each.result() for each in starting)
                ending = [pool.submit(self.until_gone, name) for name in wave]
                self.kill(self.chance.choice((AGENT, *self.helpers)))
                for each in ending:
                    each.result()


@pytest.fixture(scope="module")
def host() -> Iterator[PageHost]:
    with page_hosts(PageHost) as hosts:
        hosts.follow("deploy.md", "Two hosts from nothing")
        hosts["node1"].run("rm -f /etc/cni/net.d/*")  # networks of others
        yield hosts["node1"]


@contextlib.contextmanager
def nothing_left(host: PageHost) -> Iterator[None]:
    before = traces(host)
    try:
        yield
    finally:
        host.run("rm -f /etc/cni/net.d/*")  # for the next runtime
    eventually(lambda: traces(host) == before, "nothing is left", lambda: f"{sorted(traces(host) ^ before)}\n{host.logs()}")


def traces(host: PageHost) -> frozenset[str]:
    used = json.loads(host.run("tabinet ipam show --json").stdout)
    shown = host.run(_TRACES, check=False).stdout.splitlines()
    # Podman's bridge for a network of its own, which it makes when it likes, is not ours.
    return frozenset(line.strip() for line in shown if "cni-podman0" not in line) | {
        f"{sum(pool['assigned'] for pool in used['pools'])} addresses"
    }


def commands(host: PageHost, text: str) -> Callable[[str], bool]:
    """Whether these commands, with a workload's name for ``NAME``, succeed."""
    return lambda name: host.run(text.replace("NAME", name), check=False).returncode == 0


def report(runtime: Runtime) -> None:
    killed = {victim: runtime.killed.count(victim) for victim in sorted(set(runtime.killed))}
    print({"started": runtime.started, "of": LIFECYCLES, "killed": killed})


@needs("podman", "conmon", "runc", "busybox")
def test_podman(host: PageHost) -> None:
    host.write("/etc/containers/containers.conf.d/tests.conf", PODMAN)
    host.write("/etc/containers/storage.conf", STORAGE)
    host.write(
        "/etc/containers/containers.conf.d/fabric.conf",
        '[network]\nnetwork_backend = "cni"\ndefault_network = "fabric"\ncni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]\n',
    )
    host.write_bytes("/var/lib/busybox.tar", busybox_tar())
    host.run("tabinet cni install --network fabric; podman import -q /var/lib/busybox.tar busybox")
    host.run("podman run --rm --network fabric busybox sleep 0")
    runtime = Runtime(
        host,
        begin=commands(host, "podman run -d --name NAME --network fabric busybox sleep 600"),
        end=commands(host, "podman rm -f -i -t 0 NAME"),
        helpers=("tabinet-cni", "conmon"),
    )
    with nothing_left(host):
        runtime.live(LIFECYCLES)
        collect_garbage(host)
    report(runtime)


def collect_garbage(host: PageHost) -> None:
    """What CNI runtimes that support it do now and then: they say what is still there."""
    gone = '{"cniVersion": "1.1.0", "name": "fabric", "type": "tabinet-cni", "cni.dev/valid-attachments": []}'
    host.run(f"echo '{gone}' | CNI_COMMAND=GC CNI_PATH=/opt/cni/bin /opt/cni/bin/tabinet-cni")


@needs("containerd", "ctr", "runc", "busybox")
def test_ctr(host: PageHost) -> None:
    start_containerd(host)
    runtime = Runtime(
        host,
        begin=commands(host, f"ctr run -d --cni {BUSYBOX} NAME sleep 600"),
        end=commands(host, "ctr task rm -f NAME || :; ctr container rm NAME || :; ! ctr container info NAME"),
        helpers=("tabinet-cni", "containerd-shim"),
    )
    with nothing_left(host):
        runtime.live(LIFECYCLES)
        collect_garbage(host)
    report(runtime)


@needs("containerd", "ctr", "runc", "busybox")
def test_cri(host: PageHost) -> None:
    start_containerd(host)
    cri = Cri.open(f"/proc/{host.number}/root/run/containerd/containerd.sock", IMAGE, "/var/log/pods")

    def begin(name: str) -> bool:
        with contextlib.suppress(grpc.RpcError):
            cri.run_pod(name)
            return True
        return False

    runtime = Runtime(host, begin, cri.remove_named, helpers=("tabinet-cni", "containerd-shim"))
    with contextlib.closing(cri), nothing_left(host):
        runtime.live(LIFECYCLES)
    report(runtime)


def start_containerd(host: PageHost) -> None:
    host.environment["CONTAINERD_SNAPSHOTTER"] = "native"
    host.write("/etc/systemd/system/containerd.service", CONTAINERD_UNIT)
    host.write("/etc/containerd/config.toml", CONTAINERD)
    host.write_bytes("/var/lib/busybox.tar", image_tar(BUSYBOX, ()))
    host.write_bytes("/var/lib/box.tar", image_tar())
    host.run(
        "tabinet cni install --network fabric --no-portmap; tabinet cni install --bin-dir /usr/lib/cni; systemctl restart containerd"
        "; ctr images import --snapshotter native /var/lib/busybox.tar; ctr -n k8s.io images import --snapshotter native /var/lib/box.tar"
    )


@needs("dockerd", "docker", "containerd", "runc", "busybox")
def test_docker(host: PageHost) -> None:
    host.environment["DOCKER_API_VERSION"] = "1.41"
    host.write("/etc/systemd/system/docker.service", DOCKER_UNIT)
    host.write_bytes("/var/lib/busybox.tar", busybox_tar())
    host.write("/etc/docker/daemon.json", '{"iptables": false, "ip6tables": false, "bridge": "none"}')
    host.run("printf '\n[docker]\nenabled = true\n' >>/etc/tabinet/tabinet.toml; systemctl restart tabinet-agent docker")
    host.run("docker import /var/lib/busybox.tar busybox; docker network create -d tabinet --ipam-driver tabinet fabric")
    host.run("docker run --rm --network fabric busybox sleep 0")
    runtime = Runtime(
        host,
        begin=commands(host, "docker run -d --name NAME --network fabric busybox sleep 600"),
        end=commands(host, "docker rm -f NAME; ! docker container inspect NAME"),
        helpers=("containerd-shim",),
    )
    with nothing_left(host):
        runtime.live(LIFECYCLES)
    report(runtime)


def test_workloads_by_hand(host: PageHost) -> None:
    runtime = Runtime(
        host,
        begin=commands(host, "ip netns add NAME; tabinet workload add --netns NAME --profile open"),
        end=commands(host, "tabinet workload delete NAME; ip netns delete NAME || :; ! ip netns list | grep -qw NAME"),
        helpers=("tabinet workload",),
    )
    with nothing_left(host):
        runtime.live(LIFECYCLES)
    report(runtime)
