"""A virtual machine as a workload: ``kind: vm``. QEMU runs on a TAP that the lab makes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabinet.attach.netns import attach
from tabinet.attach.network import LinuxNetwork
from tabinet.lab import vm
from tabinet.lab.component import Component
from tabinet.lab.kinds.facts import VM
from tabinet.lab.kinds.kind import Endpoint, Session, Site, until
from tabinet.lab.kinds.namespace import identity_of, request_of
from tabinet.lab.state import LabDirectory
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey

HINT = "make setup VMS=1"


@dataclass(frozen=True, slots=True)
class MachineKind:
    """A QEMU that is a program of its host; it gets its address by DHCP."""

    def missing(self) -> list[str]:
        lacking = vm.missing()
        return [f"virtual machines need {', '.join(lacking)}: run '{HINT}'"] if lacking else []

    def settings(self, site: Site) -> str:
        return ""

    def components(self, site: Site) -> Sequence[Component]:
        return [
            site.component(
                component_name(workload),
                vm.qemu_argv(site.plan.name, workload, vm.image_of(site.directory), prober_socket(site, workload)),
                late=True,
            )
            for workload in site.workloads(VM)
        ]

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        mac = vm.mac_of(site.plan.name, workload.name)
        request = request_of(site.plan.topology, workload, tap=vm.tap_of(workload.name), mac=mac)
        await attach(request, session.store, network=LinuxNetwork(site.namespace), ipam=session.ipam)

    async def wait(self, site: Site, workload: Workload) -> None:
        await wait_console(workload, site.directory.log(site.host, component_name(workload)))

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return key == identity_of(workload).key

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return str(prober_socket(site, workload))


def component_name(workload: Workload) -> str:
    """What the machine is called among the programs of its host."""
    return f"vm-{workload.name}"


def prober_socket(site: Site, workload: Workload) -> Path:
    """Where the prober in a machine is reached."""
    return site.node / f"{workload.name}.sock"


async def make_image(directory: LabDirectory) -> None:
    """What the lab's machines boot is in its directory."""
    image = await asyncio.to_thread(vm.make_image)
    await asyncio.to_thread(vm.image_of(directory).write_bytes, image)


async def wait_console(workload: Workload, console: Path) -> None:
    """The guest has its address and its prober can be reached.

    Raises:
        LabError: not in time; with the end of its console.
    """

    def said() -> str:
        return console.read_text(errors="replace") if console.exists() else ""

    async def is_ready() -> bool:
        return vm.READY in await asyncio.to_thread(said)

    await until(is_ready, f"{workload.name} has an address", console)
