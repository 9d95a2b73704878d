"""Guests with Debian's kernel and busybox: what they boot, and a shell in them over a port of virtio-serial.

A guest gets its address by DHCP before it takes commands; nothing else is told to it.
"""

from __future__ import annotations

import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from tabinet.lab import vm

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
    """What guests boot is in the file."""
    init = vm.Entry("init", stat.S_IFREG | 0o755, _INIT.format(start=vm.START).encode())
    path.write_bytes(vm.render_cpio([init, *vm.base_entries()]))


@dataclass
class Shell:
    """Of one guest; close it."""

    connection: socket.socket

    @classmethod
    def open(cls, path: str) -> Shell:
        """The guest has an address, and takes commands. ``path``: of QEMU's socket, at most 107 bytes."""
        deadline = time.monotonic() + BOOTED_WITHIN_S
        connection = socket.socket(socket.AF_UNIX)
        while connection.connect_ex(path):
            assert time.monotonic() < deadline, path
            time.sleep(0.05)
        connection.settimeout(BOOTED_WITHIN_S)
        made = cls(connection)
        made.run("true")
        return made

    def begin(self, line: str) -> None:
        """A line of shell has been sent; ``finish`` it."""
        self.connection.sendall(line.encode() + b"\n")

    def finish(self) -> tuple[int, str]:
        """The line's exit code, and what it said."""
        data = b""
        while b"\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\n")
        _, code, size = head.split()
        while len(rest) < int(size):
            rest += self._receive()
        return int(code), rest.decode()

    def run(self, line: str) -> tuple[int, str]:
        """The same at once."""
        self.begin(line)
        return self.finish()

    def fetch(self, address: str, path: str, port: int = 80, within_s: int = 1) -> str:
        """What an HTTP server answers, headers and body; empty: nothing. (busybox's wget needs libraries that a guest has not.)"""
        return self.run(f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w {within_s} {address} {port}")[1]

    def close(self) -> None:
        self.connection.close()

    def _receive(self) -> bytes:
        data = self.connection.recv(65536)
        assert data, "the guest has ended"
        return data
