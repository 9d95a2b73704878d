"""Two real libvirtd on two hosts of a lab, with real guests: docs/libvirt.md word for word, and what goes wrong. Skipped where it lacks.

Each libvirtd has mounts of its own and is none of the machine's. Guests are Debian's kernel and busybox, computed by QEMU (TCG).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from guest_shell import Shell, make_image
from libvirt_host import MISSING, LibvirtHost

from tabinet.ipam.client import IpamClient
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
CHANNEL = "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/{}.shell'/><target type='virtio' name='shell'/></channel>"


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
    commands = commands.replace("    <memballoon", f"    {CHANNEL.format('web')}\n    <memballoon")
    return commands.replace("console=ttyS0 quiet<", f"{vm.KERNEL_ARGUMENTS.replace(' acpi=off', '')}<")


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
    made = LibvirtHost(namespace_of(lab.name, node), directory, {"TABINET_CONFIG": str(config), "PATH": tools})
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
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


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


def test_the_page_from_nothing_to_two_domains_that_reach_each_other(world: World) -> None:
    for hosts, commands in blocks_of("Two domains"):
        for host in hosts:
            world.run(host, commands)
            if "libvirt install" in commands:
                world.hosts[host].start()
        if "virsh start web" in commands:
            shutil.copy(world.hosts["node1"].boot / "web.xml", world.hosts["node2"].boot)
    web, db = world.shell("web", "node1"), world.shell("db", "node2")
    assert f"inet {WEB}/32 " in web.run("ip -4 addr show dev eth0")[1]
    assert web.run(f"ping -c 1 -W 5 {DB}")[0] == 0, web.run("ip addr; ip route")
    assert db.run(f"ping -c 1 -W 5 {WEB}")[0] == 0
    said = web.fetch("169.254.169.254", "/latest/meta-data/instance-id", within_s=10)
    assert said.endswith("6c1a1a0e-7a52-4c0e-8d34-1d1e6b1f0001"), said
    assert web.fetch("169.254.169.254", "/user-data", within_s=10).endswith("#cloud-config")
    endpoint = world.endpoints()["tapweb@node1"]
    assert endpoint["metadata"]["labels"]["app"] == "web"
    assert endpoint["spec"]["qosControls"] == {"egressBandwidth": 100_000_000}
