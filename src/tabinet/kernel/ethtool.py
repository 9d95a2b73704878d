"""Checksum offload of interfaces: whether the network card is left to compute the checksums of what is sent.

``Offloads`` is the seam: ``EthtoolSocket`` is the kernel, ``FakeOffloads`` behaves like it. Sources: linux/ethtool.h (ETHTOOL_GTXCSUM,
ETHTOOL_STXCSUM), netdevice(7), ethtool(8) ``-K DEVICE tx off``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from typing import Protocol

from tabinet.errors import KernelError

_SIOCETHTOOL = 0x8946
_GET_TX_CHECKSUM, _SET_TX_CHECKSUM = 0x16, 0x17
_IFNAMSIZ = 16


class Offloads(Protocol):
    """Offloads of the interfaces of one network namespace."""

    def tx_checksum(self, name: str) -> bool:
        """True when checksums of what is sent are left to the card.

        Raises:
            KernelError: ENODEV without such an interface, EOPNOTSUPP where it has no such thing.
        """
        ...

    def set_tx_checksum(self, name: str, on: bool) -> None:
        """Checksums of what is sent are, or are not, left to the card.

        Raises:
            KernelError: as ``tx_checksum``.
        """
        ...

    def close(self) -> None: ...


class EthtoolSocket:
    """The kernel, in the network namespace of the thread that makes it."""

    __slots__ = ("_socket",)

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def tx_checksum(self, name: str) -> bool:
        return bool(self._ask(name, _GET_TX_CHECKSUM, 0))

    def set_tx_checksum(self, name: str, on: bool) -> None:
        self._ask(name, _SET_TX_CHECKSUM, int(on))

    def close(self) -> None:
        self._socket.close()

    def _ask(self, name: str, command: int, data: int) -> int:
        """struct ethtool_value behind the pointer of a struct ifreq."""
        value = (ctypes.c_uint32 * 2)(command, data)
        encoded = name.encode()
        if not 0 < len(encoded) < _IFNAMSIZ:
            raise KernelError(errno.ENODEV, f"checksum offload of {name}")
        request = struct.pack(f"{_IFNAMSIZ}sP16x", encoded, ctypes.addressof(value))
        try:
            fcntl.ioctl(self._socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"checksum offload of {name}") from error
        return value[1]


class FakeOffloads:
    """In memory: interfaces that were named have offload until it is turned off."""

    def __init__(self, *names: str) -> None:
        self.on = dict.fromkeys(names, True)

    def tx_checksum(self, name: str) -> bool:
        self._check(name)
        return self.on[name]

    def set_tx_checksum(self, name: str, on: bool) -> None:
        self._check(name)
        self.on[name] = on

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, name: str) -> None:
        if name not in self.on:
            raise KernelError(errno.ENODEV, f"checksum offload of {name}")
