"""Kernel parameters: /proc/sys, read and written, with interface names that contain dots.

A key is a path of components joined by ``/`` (``net/ipv4/conf/eth0.100/proxy_arp``), which needs no escaping: only sysctl(8)'s dotted
form is ambiguous. Network parameters are those of the calling thread's namespace. Values are text without surrounding white space.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from tabinet.errors import KernelError

_READ_BYTES = 4096


class Sysctl(Protocol):
    """The kernel's parameters in one network namespace."""

    def read(self, key: str) -> str:
        """The value.

        Raises:
            KernelError: ENOENT when the kernel has no such parameter (or no such interface).
        """
        ...

    def write(self, key: str, value: str) -> None:
        """The parameter has this value.

        Raises:
            KernelError: ENOENT, EINVAL, EACCES.
        """
        ...


def interface_key(family: str, table: str, interface: str, name: str) -> str:
    """``net/<ipv4|ipv6>/<conf|neigh>/<interface>/<name>``.

    Raises:
        ValueError: the interface name would lead elsewhere.
    """
    if "/" in interface or interface in ("", ".", ".."):
        raise ValueError(f"{interface!r} is not an interface name")
    return f"net/{family}/{table}/{interface}/{name}"


def dotted(key: str) -> str:
    """The key as sysctl(8) wants it: dots between components, ``/`` for a dot within one."""
    return key.translate(str.maketrans("./", "/."))


def ensure(sysctl: Sysctl, key: str, value: str) -> bool:
    """The parameter has the value; True when it had another, so that nothing is written that is there already.

    Raises:
        KernelError: it cannot be read or written.
    """
    if sysctl.read(key) == value:
        return False
    sysctl.write(key, value)
    return True


class ProcSysctl:
    """The real one. Every interface takes a dozen reads and writes, so they are no more than a system call or two each."""

    __slots__ = ("_root",)

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = str(root)

    def read(self, key: str) -> str:
        try:
            descriptor = os.open(f"{self._root}/{key}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                value = b""
                while part := os.read(descriptor, _READ_BYTES):
                    value += part
                    if len(part) < _READ_BYTES:  # the kernel gives what there is
                        break
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"read {dotted(key)}") from error
        return value.decode().strip()

    def write(self, key: str, value: str) -> None:
        try:
            descriptor = os.open(f"{self._root}/{key}", os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"set {dotted(key)} to {value}") from error


class FakeSysctl:
    """In memory. Parameters of an interface exist from the first write, or where ``values`` has them; ``absent`` ones never."""

    def __init__(self, values: dict[str, str] | None = None, absent: frozenset[str] = frozenset()) -> None:
        self.values = dict(values or {})
        self.absent = absent
        self.writes: list[tuple[str, str]] = []

    def read(self, key: str) -> str:
        self._check(key, f"read {dotted(key)}")
        return self.values.get(key, "0")

    def write(self, key: str, value: str) -> None:
        self._check(key, f"set {dotted(key)} to {value}")
        self.values[key] = value
        self.writes.append((key, value))

    def _check(self, key: str, operation: str) -> None:
        if any(key == absent or key.startswith(absent + "/") for absent in self.absent):
            raise KernelError(errno.ENOENT, operation)
