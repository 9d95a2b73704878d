"""A domain of libvirt as a workload: ``kind: libvirt``.

Each host with such has a libvirtd with our hook; the guest is that of ``kind: vm``.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tabinet.attach.libvirt.install import render_hook
from tabinet.lab import vm
from tabinet.lab.build import run
from tabinet.lab.component import Component
from tabinet.lab.kinds.facts import LIBVIRT
from tabinet.lab.kinds.kind import NAME_LABEL, START_TIMEOUT_S, Endpoint, Session, Site, has_name
from tabinet.lab.kinds.machine import HINT, prober_socket, wait_console
from tabinet.lab.kinds.mounts import holder, inside
from tabinet.lab.routers import RouterFile
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey

LIBVIRTD = "libvirtd"
_OWN = ("/run", "/var/lib", "/var/cache", "/var/log")
_IDENTITY = uuid.UUID("a8a1e7a4-52f0-4f0e-9d57-5b6f0c1b7c33")
"""Namespace of the UUIDs of hosts and domains (RFC 4122 section 4.3)."""
_QEMU_CONF = 'security_driver = "none"\nuser = "root"\ngroup = "root"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\n'
_PREPARE = """\
mkdir -p {directory}/run /run/libvirt /var/cache/libvirt /var/lib/libvirt
chmod 755 {directory}/etc/hooks/qemu
# libvirtd looks for these users, whatever its configuration says; Debian's libvirt-daemon-system makes them.
(grep -v ^libvirt-qemu: /etc/passwd; echo libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin) >{directory}/passwd
(grep -Ev '^(libvirt-qemu|kvm):' /etc/group; echo libvirt-qemu:x:64055:; echo kvm:x:64056:) >{directory}/group
mount --bind {directory}/passwd /etc/passwd
mount --bind {directory}/group /etc/group
mount --bind {directory}/etc /etc/libvirt
mount --bind {directory}/run /run/libvirt
mount -t sysfs sysfs /sys
"""
_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>
    <tabinet:workload xmlns:tabinet='https://tabinet.io/xmlns/libvirt/1' namespace={namespace}>
{elements}
    </tabinet:workload>
  </metadata>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{image}</initrd>
    <cmdline>{arguments}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <devices>
    <controller type='usb' model='none'/>
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='{tap}' managed='no'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <channel type='unix'><source mode='bind' path='{prober}'/><target type='virtio' name='prober'/></channel>
    <serial type='file'><source path='{console}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


@dataclass(frozen=True, slots=True)
class LibvirtKind:
    """What a domain of ours needs is in its metadata; the rest is the hook's."""

    def missing(self) -> list[str]:
        programs = [name for name in ("libvirtd", "virsh") if shutil.which(name) is None]
        found = [f"domains of libvirt need {', '.join(programs)}: run 'scripts/install-packages libvirt-packages.txt'"] if programs else []
        machines = vm.missing()
        return [*found, f"domains of libvirt need {', '.join(machines)}: run '{HINT}'"] if machines else found

    def settings(self, site: Site) -> str:
        return f'\n[libvirt]\nuri = "{_uri(site)}"\n' if site.workloads(LIBVIRT) else ""

    def components(self, site: Site) -> Sequence[Component]:
        if not site.workloads(LIBVIRT):
            return ()
        daemon = inside(site, LIBVIRT, "libvirtd", "--pid-file", "/run/libvirtd.pid")
        return [
            holder(site, LIBVIRT, _OWN, _PREPARE.format(directory=_directory(site)), _files(site)),
            site.component(LIBVIRTD, daemon, socket=str(_socket(site)), group=LIBVIRT),
        ]

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        kernel, definition = _kernel(site), _directory(site) / f"{workload.name}.xml"
        if not kernel.exists():
            await asyncio.to_thread(shutil.copyfile, vm.VM_FILES / "vmlinuz", kernel)
        definition.write_text(render_domain(site, workload))
        await _virsh(site, "define", str(definition))
        await _virsh(site, "start", workload.name)

    async def wait(self, site: Site, workload: Workload) -> None:
        await wait_console(workload, _console(site, workload))

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return has_name(workload, endpoint)

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return str(prober_socket(site, workload))


def render_domain(site: Site, workload: Workload) -> str:
    """The domain's definition."""
    labels = (workload.labels | {NAME_LABEL: workload.name}).items()
    elements = [f"      <tabinet:label name={quoteattr(name)} value={quoteattr(value)}/>" for name, value in labels]
    elements += [f"      <tabinet:profile>{escape(profile)}</tabinet:profile>" for profile in workload.profiles]
    return _DOMAIN.format(
        name=workload.name,
        uuid=uuid.uuid5(_IDENTITY, f"{site.plan.name}/{workload.name}"),
        namespace=quoteattr(workload.namespace),
        elements="\n".join(elements),
        memory=vm.MEMORY_MIB,
        kernel=_kernel(site),
        image=vm.image_of(site.directory),
        arguments=vm.KERNEL_ARGUMENTS.replace(" acpi=off noapic", ""),
        mac=vm.mac_of(site.plan.name, workload.name),
        tap=vm.tap_of(workload.name),
        prober=prober_socket(site, workload),
        console=_console(site, workload),
    )


def _directory(site: Site) -> Path:
    return site.node / LIBVIRT


def _socket(site: Site) -> Path:
    return _directory(site) / "run" / "libvirt-sock"


def _kernel(site: Site) -> Path:
    """A copy: what is in /var/lib is not seen in the daemon's mounts."""
    return _directory(site) / "vmlinuz"


def _console(site: Site, workload: Workload) -> Path:
    return site.directory.log(site.host, f"domain-{workload.name}")


def _uri(site: Site) -> str:
    """libvirtd as it is reached from outside of its mounts."""
    return f"qemu:///system?socket={_socket(site)}"


def _files(site: Site) -> list[RouterFile]:
    log = f'log_outputs = "3:file:{site.node}/libvirt.log"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
    # Hosts with the same identity would take a migration for one to themselves.
    daemon = f'{log}host_uuid = "{uuid.uuid5(_IDENTITY, f"{site.plan.name}/{site.host}")}"\n'
    return [
        RouterFile(f"{LIBVIRT}/etc/qemu.conf", _QEMU_CONF),
        RouterFile(f"{LIBVIRT}/etc/libvirtd.conf", daemon),
        RouterFile(f"{LIBVIRT}/etc/hooks/qemu", render_hook()),
    ]


async def _virsh(site: Site, *arguments: str) -> str:
    return await run(["virsh", "-c", _uri(site), *arguments], timeout_s=START_TIMEOUT_S)
