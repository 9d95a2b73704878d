"""The inside of a container that has several interfaces of ours, which Docker cannot make by itself.

Docker gives an interface its addresses; a default route it gives to one interface only, and routes by source it does not know. So what a
second interface needs is done here, as for every other attachment, once Docker has put it into the container: what is sent from its address
leaves by it. The namespace is looked for in the mounts of Docker's process, whatever is mounted where in ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tabinet.attach.inside import GATEWAYS
from tabinet.attach.network import Network
from tabinet.attach.plug import configure
from tabinet.kernel.rtnetlink import Link, Route, Rtnetlink
from tabinet.kernel.sysctl import Sysctl
from tabinet.lib.ip import IPV4, Prefix


def has_default_route(network: Network, sandbox: str, process: int) -> bool:
    """An interface of ours is in the container already, and has the default route. ``process``: Docker's; 0: its mounts are ours."""

    def work(rtnetlink: Rtnetlink, _: Sysctl) -> bool:
        return any(_is_default(route) for route in rtnetlink.routes())

    with opened(sandbox, process) as netns:
        return bool(netns) and network.inside(netns, work)


def complete(network: Network, sandbox: str, process: int, mac: str, addresses: tuple[Prefix, ...]) -> bool:
    """The interface with this hardware address has its routes; False: Docker has not put it there yet.

    Raises:
        AttachError, KernelError: the kernel refused, or the namespace went away.
    """

    def find(rtnetlink: Rtnetlink, _: Sysctl) -> Link | None:
        return next((link for link in rtnetlink.links() if link.mac == mac and link.up), None)

    with opened(sandbox, process) as netns:
        link = network.inside(netns, find) if netns else None
        if link is None:
            return False
        configure(network, netns, link.name, addresses)
        return True


@contextlib.contextmanager
def opened(sandbox: str, process: int) -> Iterator[str]:
    """Where the namespace can be opened as long as this is entered; empty: there is none yet."""
    # Absolute links lead into our mounts, not into those of a process: /var/run is one.
    path = f"/run/{sandbox.removeprefix('/var/run/')}" if sandbox.startswith("/var/run/") else sandbox
    descriptor = -1
    for place in ([f"/proc/{process}/root{path}"] if process else []) + [path]:
        with contextlib.suppress(OSError):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            break
    try:
        yield f"/proc/self/fd/{descriptor}" if descriptor >= 0 else ""
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _is_default(route: Route) -> bool:
    gateway = any(hop.gateway == GATEWAYS[IPV4] for hop in route.hops)
    return route.destination.length == 0 and gateway
