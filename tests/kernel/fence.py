"""When every packet that was sent has arrived or is gone, without waiting for a time to pass.

Between namespaces of one machine a packet goes from veth to veth in the queue of the processor that sent it, and so do the answers that the
kernel gives to it (netif_rx(9), net/core/dev.c: enqueue_to_backlog). A datagram over the loopback interface goes through the same queue,
behind what is in it. So once ``HOPS`` of them came back, one after the other, on every processor, whatever was on its way has made as many
hops. That a packet does not come is then known after less than a millisecond, however slow the machine is.

Does not cover what a timer delays: retransmissions, shaped interfaces, a neighbour that does not answer.
"""

from __future__ import annotations

import os
import socket

HOPS = 24
"""More than the longest way here and back again has, with a handshake and neighbour discovery on each link."""
LOST_S = 30.0
"""A datagram over the loopback interface that takes longer is a bug of ours."""


def settle() -> None:
    """Every packet that was sent before has arrived or is gone."""
    before = os.sched_getaffinity(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loop:
        loop.settimeout(LOST_S)
        loop.bind(("127.0.0.1", 0))
        loop.connect(loop.getsockname())
        try:
            for processor in before:
                os.sched_setaffinity(0, {processor})
                for _ in range(HOPS):
                    loop.send(b"?")
                    loop.recv(1)
        finally:
            os.sched_setaffinity(0, before)
