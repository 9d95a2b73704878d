"""A virtual machine as Nova would run it: QEMU on the port's TAP, with Debian's kernel and busybox, which gets its address by DHCP.

Nothing is told to it but the hardware address. A port of virtio-serial takes lines for its shell.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest_shell import Shell

from tabinet.lab import vm

MEMORY_MIB = 128


@dataclass
class Machine:
    """A machine on a host; ``stop`` it."""

    namespace: str
    """The host's."""
    port: dict[str, Any]
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _shell: Shell | None = field(default=None, repr=False)

    @property
    def tap(self) -> str:
        return f"tap{self.port['id']}"[:14]

    @property
    def address(self) -> str:
        return str(self.port["fixed_ips"][0]["ip_address"])

    def start(self, image: Path) -> None:
        """QEMU runs; the guest boots."""
        subprocess.run(["ip", "-n", self.namespace, "tuntap", "add", "dev", self.tap, "mode", "tap"], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "dev", self.tap, "up"], check=True)
        argv = [vm.QEMU, "-accel", "tcg", "-M", "pc,hpet=off", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-no-reboot"]
        argv += ["-display", "none", "-serial", f"file:{self._file('console')}"]
        argv += ["-kernel", str(vm.VM_FILES / "vmlinuz"), "-initrd", str(image), "-append", vm.KERNEL_ARGUMENTS]
        argv += ["-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net,mac={self.port['mac_address']},romfile="]
        argv += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=shell,path={self._file('shell')},server=on,wait=off"]
        argv += ["-device", "virtserialport,chardev=shell"]
        with open(self._file("qemu"), "wb") as log:
            self.process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.namespace}", *argv], stdout=log, stderr=log)

    def wait_booted(self) -> None:
        """The guest has an address, and takes commands."""
        self._shell = Shell.open(str(self._file("shell")))

    @property
    def shell(self) -> Shell:
        """Of the guest, once it has booted."""
        assert self._shell is not None
        return self._shell

    def stop(self) -> None:
        """It is off, and its TAP gone."""
        if self._shell is not None:
            self._shell.close()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
        subprocess.run(["ip", "-n", self.namespace, "link", "del", "dev", self.tap], check=False, capture_output=True)

    def _file(self, name: str) -> Path:
        """A socket's path must be short."""
        return self.directory / f"{self.tap}.{name}"
