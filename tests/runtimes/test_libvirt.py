"""Two real libvirtd on two hosts of a lab, with real guests: docs/libvirt.md word for word, and what goes wrong. Skipped where it lacks.

Each libvirtd has mounts of its own and is none of the machine's. Guests are Debian's kernel and busybox, computed by QEMU (TCG).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from guest_shell import Shell, make_image
from libvirt_host import DEADLINE_S, MISSING, LibvirtHost, eventually
from moving_world import GUEST_ARGUMENTS, PORT, Pinger, Stream

from tabinet.attach.libvirt import hook
from tabinet.ipam.client import IpamClient
from tabinet.kernel import netns
from tabinet.lab import vm
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.launches import AGENT
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.up import lab_up
from tabinet.store.client import ResourceClient

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"no libvirt here, for want of {', '.join(MISSING)}: scripts/setup-vms, scripts/install-packages libvirt-packages.txt",
    ),
]

PAGE = Path(__file__).parents[2] / "docs" / "libvirt.md"
HOSTS = ("node1", "node2")
WEB, DB = "10.66.7.7", "10.66.7.8"
_BLOCK = re.compile(r"^```sh\n# on ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANNEL = "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/web.shell'/><target type='virtio' name='shell'/></channel>"
LIFECYCLES, AT_ONCE = int(os.environ.get("TABINET_LIFECYCLES", "4")), 10
LOST_S = 3.0
"""Far beyond what is lost on an idle machine; see docs/performance.md for that."""


@dataclass
class World:
    """A lab whose hosts have libvirt."""

    lab: Lab
    hosts: dict[str, LibvirtHost]
    shells: dict[str, Shell] = field(default_factory=dict)

    def run(self, host: str, commands: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.hosts[host].run(for_tests(commands), check=check)

    def shell(self, domain: str, host: str) -> Shell:
        """The guest has booted."""
        made = self.shells[domain] = Shell.open(self.hosts[host].shell_path(f"{domain}.shell"))
        return made

    async def stored(self, kind: str) -> list[dict[str, Any]]:
        async with self.lab.store() as store:
            return await ResourceClient(store).list(kind)

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """By the name of their interface and their host."""
        found = asyncio.run(self.stored("WorkloadEndpoint"))
        return {f"{each['spec']['interfaceName']}@{each['spec']['node']}": each for each in found}

    def assigned(self) -> int:
        async def count() -> int:
            async with self.lab.store() as store:
                return sum(pool.assigned for pool in await IpamClient(store).usage())

        return asyncio.run(count())


def blocks_of(title: str) -> list[tuple[list[str], str]]:
    """The blocks of commands below this heading of the page: the hosts, and what is to be given there."""
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    return [(where.split(" and "), commands) for where, commands in _BLOCK.findall(section)]


def for_tests(commands: str) -> str:
    """The page's commands, for guests that can be reached, and that boot fast without hardware support."""
    commands = commands.replace("    <memballoon", f"    {CHANNEL}\n    <memballoon")
    return commands.replace("console=ttyS0 quiet<", f"{GUEST_ARGUMENTS}<")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    loaded = load_topology(Path(__file__).parent / "libvirt_hosts.yaml")
    name = f"t{uuid.uuid4().hex[:6]}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    image = tmp_path_factory.mktemp("libvirt") / "initrd"
    make_image(image)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: asyncio.run(lab_down(name)))
        lab = asyncio.run(lab_up(loaded))
        hosts = {host: stack.enter_context(libvirt_host(lab, host, image, Path(f"/tmp/{name}-{host}"))) for host in HOSTS}
        stack.enter_context(guest_services(lab))
        made = World(lab, hosts)
        stack.callback(lambda: [shell.close() for shell in made.shells.values()])
        yield made


@contextlib.contextmanager
def libvirt_host(lab: Lab, node: str, image: Path, directory: Path) -> Iterator[LibvirtHost]:
    """A host's libvirt is ready to be started."""
    config = directory / "tabinet.toml"
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = LibvirtHost(namespace_of(lab.name, node), directory, {"TABINET_CONFIG": str(config), "PATH": tools}, image.parent / "cache")
    try:
        made.prepare()
        shutil.copy(vm.VM_FILES / "vmlinuz", made.boot / "vmlinuz")
        shutil.copy(image, made.boot / "initrd")
        address = next(host.addresses[0].address for host in lab.plan.hosts if host.name == node)
        with open(directory / "etc" / "qemu.conf", "a") as file:
            file.write(f'migration_host = "{address.address}"\n')
        agents = lab.directory.node(node) / "agent.toml"
        with open(agents, "a") as file:  # its last section is [felix]
            file.write(f'metadata_addr = "127.0.0.1"\n[guest]\nlocal_metadata = true\nhttp_address = ""\n[libvirt]\nuri = "{made.uri}"\n')
        shutil.copy(agents, config)
        asyncio.run(lab.restart(node, AGENT))
        eventually(lambda: netns.run_in(made.namespace, agent_is_there), "the agent")
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def agent_is_there() -> bool:
    """An agent of this network namespace takes calls of the hook."""
    try:
        return hook.ask(hook.render_request([b"none", b"stopped"], b"<domain/>"), hook.ADDRESS) == (0, b"")
    except hook.NoAgentError:
        return False


@contextlib.contextmanager
def guest_services(lab: Lab) -> Iterator[None]:
    started = []
    try:
        for host in HOSTS:
            argv = [sys.executable, "-m", "tabinet.cli.main", "guest", "--config", str(lab.directory.node(host) / "agent.toml")]
            with open(lab.directory.node(host) / "guest.log", "wb") as log:
                started.append(subprocess.Popen(lab.exec_argv(host, argv), stdout=log, stderr=log))
        yield
    finally:
        for process in started:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def running(world: World) -> World:
    """The page as far as two domains that run: ``web`` on node1, ``db`` on node2."""
    for hosts, commands in blocks_of("Two domains"):
        for host in hosts:
            world.run(host, commands)
            if "libvirt install" in commands:
                world.hosts[host].start()
        if "virsh start web" in commands:
            shutil.copy(world.hosts["node1"].boot / "web.xml", world.hosts["node2"].boot)
    for domain, host in (("web", "node1"), ("db", "node2")):
        world.shell(domain, host)
    return world


def test_the_page_from_nothing_to_two_domains_that_reach_each_other(running: World) -> None:
    web, db = running.shells["web"], running.shells["db"]
    assert f"inet {WEB}/32 " in web.run("ip -4 addr show dev eth0")[1]
    assert web.run(f"ping -c 1 -W 5 {DB}")[0] == 0, web.run("ip addr; ip route")
    assert db.run(f"ping -c 1 -W 5 {WEB}")[0] == 0
    said = web.fetch("169.254.169.254", "/latest/meta-data/instance-id", within_s=10)
    assert said.endswith("6c1a1a0e-7a52-4c0e-8d34-1d1e6b1f0001"), said
    assert web.fetch("169.254.169.254", "/user-data", within_s=10).endswith("#cloud-config")
    endpoint = running.endpoints()["tapweb@node1"]
    assert endpoint["metadata"]["labels"]["app"] == "web"
    assert endpoint["spec"]["qosControls"] == {"egressBandwidth": 100_000_000}


def test_a_libvirtd_that_is_killed_and_a_migration_that_fails_change_nothing(running: World) -> None:
    source, target = (running.hosts[host] for host in HOSTS)
    before = running.endpoints()
    source.stop(signal.SIGKILL)
    source.start()
    nowhere = f"virsh migrate --live --migrateuri tcp://192.0.2.1:49152 web '{target.uri}'"
    assert "unreachable" in source.run(nowhere, check=False).stderr
    eventually(lambda: "tapweb" not in target.taps() and running.endpoints() == before, "node2 has nothing of it", target.log)
    assert asyncio.run(running.stored("LiveMigration")) == []
    assert running.shells["web"].run(f"ping -c 1 -W 5 {DB}")[0] == 0
    assert running.assigned() == 2


@contextlib.contextmanager
def workload(world: World, host: str) -> Iterator[str]:
    """A network namespace on the host, attached with the guests' profile."""
    name = f"{world.lab.name}-{host}-peer"
    netns.create(name)
    argv = [sys.executable, "-m", "tabinet.cli.main", "workload"]
    environment = os.environ | world.lab.exec_environment(host)
    try:
        for words in (["add", "--netns", name, "--profile", "guests"], ["delete", name]):
            subprocess.run(world.lab.exec_argv(host, [*argv, *words]), check=True, capture_output=True, timeout=120, env=environment)
            if words[0] == "add":
                yield name
    finally:
        netns.delete(name)


def address_in(namespace: str) -> str:
    shown = subprocess.run(["ip", "-n", namespace, "-4", "-o", "addr", "show", "dev", "eth0"], check=True, capture_output=True, text=True)
    return shown.stdout.split()[3].partition("/")[0]


def test_a_domain_moves_while_others_speak_with_it(running: World) -> None:
    source, target = (running.hosts[host] for host in HOSTS)
    source.environment["NODE2"] = target.uri
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(workload(running, host)) for host in HOSTS)
        assert running.shells["web"].run(f"(sleep 1; nc {address_in(far)} {PORT} -e cat) >/dev/null 2>&1 &")[0] == 0
        stream = stack.enter_context(Stream(far))
        pingers = [stack.enter_context(Pinger(namespace, WEB)) for namespace in (near, far)]
        for pinger in pingers:
            pinger.wait_answers()
        stream.wait_more()
        ((_, commands),) = blocks_of("Moving")
        running.run("node1", commands)
        for pinger in pingers:
            pinger.wait_answers()
        stream.wait_more()
    print({"lost": [pinger.lost() for pinger in pingers], "gap_s": [pinger.gap_s() for pinger in pingers], "stream_gap_s": stream.gap_s()})
    assert all(pinger.lost() * 0.01 < LOST_S for pinger in pingers)
    assert "tapweb" not in source.taps()
    assert {"tapweb@node2", "tapdb@node2"} == set(running.endpoints())
    assert asyncio.run(running.stored("LiveMigration")) == []
    assert running.endpoints()["tapweb@node2"]["spec"]["ipNetworks"] == [f"{WEB}/32"]
    assert source.run("virsh list --all --name").stdout.split() == []
    running.shells.pop("web").close()
    assert running.shell("web", "node2").run(f"ping -c 1 -W 5 {DB}")[0] == 0


def gone(world: World, device: str, host: str, assigned: int) -> bool:
    """Nothing is left of a domain's interface, and so many addresses are assigned."""
    return device not in world.hosts[host].taps() and f"{device}@{host}" not in world.endpoints() and world.assigned() == assigned


def test_what_makes_no_sense_does_not_start_and_is_named(running: World) -> None:
    host, assigned = running.hosts["node2"], running.assigned()
    host.run("sed -e 's/100M/fast/' -e 's/web/odd/g' -e s/f0001/f0009/ /var/lib/libvirt/boot/web.xml >/var/lib/libvirt/boot/odd.xml")
    done = host.run("virsh create /var/lib/libvirt/boot/odd.xml", check=False)
    assert done.returncode != 0
    assert "workload/limit egressBandwidth: got 'fast'; a number" in done.stderr
    assert gone(running, "tapodd", "node2", assigned)


def test_a_domain_whose_machine_is_killed_leaves_nothing(running: World) -> None:
    place = next(host for host in HOSTS if f"tapweb@{host}" in running.endpoints())
    host, assigned = running.hosts[place], running.assigned()
    os.kill(host.machine("web"), signal.SIGKILL)
    eventually(lambda: gone(running, "tapweb", place, assigned - 1), "web is gone", host.log)


def test_after_a_reboot_nothing_is_left_of_domains_that_do_not_run(running: World) -> None:
    """libvirtd and QEMU are killed, the interface and what libvirtd knew in /run are gone; nobody was told."""
    host, assigned = running.hosts["node2"], running.assigned()
    asyncio.run(running.lab.stop("node2", AGENT, kill_it=True))
    number = host.machine("db")
    host.stop(signal.SIGKILL)
    os.kill(number, signal.SIGKILL)
    host.run("rm -f /run/libvirt/qemu/*.xml /run/libvirt/qemu/*.pid; ip link delete tapdb")
    asyncio.run(running.lab.start("node2", AGENT))
    assert "tapdb@node2" in running.endpoints(), "libvirt does not say yet what runs"
    host.start()
    eventually(lambda: host.run("tabinet libvirt sync", check=False).returncode == 0, "the agent is there", host.log)
    eventually(lambda: gone(running, "tapdb", "node2", assigned - 1), "db is gone", host.log)


def test_domains_that_start_and_end_at_once_leave_nothing(running: World) -> None:
    """Several at a time, paused, while the agent, a domain's QEMU and libvirtd are killed; and once more without."""
    host, assigned, endpoints = running.hosts["node2"], running.assigned(), set(running.endpoints())
    chance = random.Random(3)
    for turn in range(0, LIFECYCLES, AT_ONCE):
        names = [f"l{index}" for index in range(turn, min(turn + AT_ONCE, LIFECYCLES))]
        for index, name in enumerate(names, turn + 1000):
            words = f"-e s/web/{name}/g -e s/f0001/f{index}/ -e /address/d"
            host.run(f"sed {words} /var/lib/libvirt/boot/web.xml >/var/lib/libvirt/boot/{name}.xml")
        starting = [host.begin(f"virsh create --paused /var/lib/libvirt/boot/{name}.xml") for name in names]
        time.sleep(chance.random())
        asyncio.run(running.lab.stop("node2", AGENT, kill_it=True))
        asyncio.run(running.lab.start("node2", AGENT))
        for process in starting:
            process.communicate(timeout=DEADLINE_S)
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(host.machine(chance.choice(names)), signal.SIGKILL)
        ending = [host.begin(f"virsh destroy {name}") for name in names]
        if turn % (2 * AT_ONCE) == 0:
            host.stop(signal.SIGKILL)
            host.start()
        for process in ending:
            process.communicate(timeout=DEADLINE_S)
        for name in set(host.run("virsh list --name").stdout.split()) & set(names):
            host.run(f"virsh destroy {name}", check=False)
    host.run("rm /var/lib/libvirt/boot/l*.xml")
    eventually(
        lambda: not [tap for tap in host.taps() if tap.startswith("tapl")] and set(running.endpoints()) == endpoints, "all gone", host.log
    )
    eventually(lambda: running.assigned() == assigned, "addresses", host.log)
