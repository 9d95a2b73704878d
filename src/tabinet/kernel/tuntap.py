"""TAP interfaces that stay when nobody holds them, for hypervisors to open.

In: a name. Out: the interface, down, in the network namespace of the calling thread; it is removed like any other. Netlink cannot make
them. Sources: tun(4), linux/if_tun.h, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct

from tabinet.errors import KernelError

DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000


def create_tap(name: str, multi_queue: bool = False) -> None:
    """There is a TAP of this name. ``multi_queue``: who opens it may do so several times, and says so; both must agree.

    Raises:
        KernelError: the kernel refused it, or there is another interface of this name.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if multi_queue else 0)
    operation = f"make TAP {name}"
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError(error.errno or 0, operation) from error
