"""A virtual machine as Nova would run it: QEMU on the port's TAP, with Debian's kernel and busybox, which gets its address by DHCP.

Nothing is told to it but the hardware address. A port of virtio-serial takes lines for its shell.
"""

from __future__ import annotations

import contextlib
import socket
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabinet.lab import vm

MEMORY_MIB = 128
BOOTED_WITHIN_S = 300.0
_INIT = """#!/bin/busybox sh
{start}
udhcpc -i eth0 -s /lease -T 1 -t 1000 -O 121 -O mtu >/dev/null 2>&1
until [ -c /dev/vport*p1 ]; do sleep 0.1; done
exec 3<>$(echo /dev/vport*p1)
while :; do
    if read -r line <&3; then
        sh -c "$line" >/tmp/out 2>&1 </dev/null
        echo "== $? $(wc -c </tmp/out)" >&3
        cat /tmp/out >&3
    else
        sleep 0.1
    fi
done
"""


def make_image(path: Path) -> None:
    """What machines boot is in the file."""
    init = vm.Entry("init", stat.S_IFREG | 0o755, _INIT.format(start=vm.START).encode())
    path.write_bytes(vm.render_cpio([init, *vm.base_entries()]))


@dataclass
class Machine:
    """A machine on a host; ``stop`` it."""

    namespace: str
    """The host's."""
    port: dict[str, Any]
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    shell: socket.socket | None = field(default=None, repr=False)

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
        assert self.process is not None
        deadline = time.monotonic() + BOOTED_WITHIN_S
        self.shell = socket.socket(socket.AF_UNIX)
        while self.shell.connect_ex(str(self._file("shell"))):
            assert self.process.poll() is None, self._file("qemu").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.shell.settimeout(BOOTED_WITHIN_S)
        self.run("true")

    def run(self, line: str) -> tuple[int, str]:
        """A line of shell: its exit code, and what it said."""
        assert self.shell is not None
        self.shell.sendall(line.encode() + b"\n")
        data = b""
        while b"\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\n")
        _, code, size = head.split()
        while len(rest) < int(size):
            rest += self._receive()
        return int(code), rest.decode()

    def fetch(self, address: str, path: str, port: int = 80, within_s: int = 1) -> str:
        """What an HTTP server answers, headers and body; empty: nothing. (busybox's wget needs libraries that a guest has not.)"""
        return self.run(f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w {within_s} {address} {port}")[1]

    def _receive(self) -> bytes:
        assert self.shell is not None
        data = self.shell.recv(65536)
        assert data, "the machine has ended"
        return data

    def stop(self) -> None:
        """It is off, and its TAP gone."""
        if self.shell is not None:
            self.shell.close()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
        subprocess.run(["ip", "-n", self.namespace, "link", "del", "dev", self.tap], check=False, capture_output=True)

    def _file(self, name: str) -> Path:
        """A socket's path must be short."""
        return self.directory / f"{self.tap}.{name}"
