"""A wire between a TAP of this network namespace and one of another: what is sent into one comes out of the other.

Run as ``python3 -m tabinet.lab.kinds.wire TAP NAMESPACE INNER``, in the namespace of TAP; both TAPs exist. Their carriers are there as long
as this runs. A frame that does not fit into the other's queue, or is for one that is not up, is lost. O(1) for each frame. See
Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import sys

from tabinet.kernel.netns import run_in

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME_BYTES = 1 << 16


def open_tap(name: str) -> int:
    """The other side of a TAP of this namespace, which exists; not blocking.

    Raises:
        OSError: there is no such TAP, or somebody else has it.
    """
    descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def carry(one: int, other: int) -> None:
    """Carries frames until an end is gone.

    Raises:
        OSError: an end is gone.
    """
    poller = select.poll()
    for end in (one, other):
        poller.register(end, select.POLLIN)
    while True:
        for end, _ in poller.poll():
            with contextlib.suppress(BlockingIOError):
                send(other if end == one else one, os.read(end, _FRAME_BYTES))


def send(end: int, frame: bytes) -> None:
    """The frame is in the queue of the TAP, or lost, as where the TAP is not up.

    Raises:
        OSError: the TAP is gone.
    """
    try:
        os.write(end, frame)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def main(arguments: list[str]) -> None:
    """Is a wire until one of its ends is removed."""
    tap, namespace, inner = arguments
    carry(open_tap(tap), run_in(namespace, lambda: open_tap(inner)))


if __name__ == "__main__":
    main(sys.argv[1:])
