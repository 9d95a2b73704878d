"""How many neighbours the machine's kernel keeps: as many as a host with many workloads needs.

``net.ipv4.neigh.default.gc_thresh3`` and its like for IPv6 bound the entries of all network namespaces together, but for permanent ones,
which those of workloads are (arp(7)); 1,024 by default. What is beyond the bound finds no neighbour, also not on the uplinks. The
parameters exist in the first namespace only. They are raised, never lowered: the machine's other users may need more. O(1).
"""

from __future__ import annotations

import errno

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.sysctl import Sysctl, dotted

_SHARES = {"gc_thresh3": 1, "gc_thresh2": 2, "gc_thresh1": 8}
"""The kernel's own proportions (net/ipv4/arp.c): beyond the second the oldest go at once, below the first nothing is collected."""


class Raised(msgspec.Struct, frozen=True):
    """What came of it."""

    changed: tuple[str, ...]
    """As in ``net.ipv4.neigh.default.gc_thresh3=16384``."""
    refused: str = ""
    """What the kernel said to the first that it refused; empty when it refused none."""


def raise_neighbour_limits(sysctl: Sysctl, entries: int, *, ipv6: bool = True) -> Raised:
    """The machine keeps at least ``entries`` neighbours of each family, where it lets us say so."""
    changed: list[str] = []
    refused = ""
    for family in ("ipv4", "ipv6") if ipv6 else ("ipv4",):
        for name, share in _SHARES.items():
            key, wanted = f"net/{family}/neigh/default/{name}", entries // share
            try:
                if int(sysctl.read(key)) < wanted:
                    sysctl.write(key, str(wanted))
                    changed.append(f"{dotted(key)}={wanted}")
            except KernelError as error:
                if error.errno != errno.ENOENT:  # in the first namespace
                    refused = refused or str(error)
            except ValueError:
                refused = refused or f"{dotted(key)} is no number"
    return Raised(tuple(changed), refused)
