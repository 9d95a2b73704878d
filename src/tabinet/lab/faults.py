"""Cuts and heals cables.

Two ways to cut. At carrier level: the first end is set down, so that the other side sees its carrier go, as when a plug is pulled.
Silently: both ends drop everything that they receive, ARP and neighbour discovery included, as when a device in the middle dies; only BFD
or BGP timers find out. The silent cut is a table ``netdev tabinet-lab-<interface>`` of the lab's own, so nobody else's rules are touched.

What to run is rendered by pure functions; O(1).
"""

from __future__ import annotations

from tabinet.lab.build import in_namespace, run
from tabinet.lab.plan import Cable, End, namespace_of

# Before everything else that may look at packets.
_PRIORITY = -500


async def cut(lab: str, cable: Cable, *, silent: bool) -> None:
    """No packet passes the cable.

    Raises:
        LabError: the kernel refused it.
    """
    if not silent:
        await run(["ip", "-n", namespace_of(lab, cable.a.node), "link", "set", "dev", cable.a.interface, "down"])
        return
    for end in (cable.a, cable.b):
        await run(in_namespace(namespace_of(lab, end.node), ["nft", "-f", "-"]), render_silence(end))


async def heal(lab: str, cable: Cable) -> None:
    """The cable carries packets; nothing happens when it did.

    Raises:
        LabError: the kernel refused it.
    """
    for end in (cable.a, cable.b):
        await run(in_namespace(namespace_of(lab, end.node), ["nft", "-f", "-"]), render_end_of_silence(end))
    await run(["ip", "-n", namespace_of(lab, cable.a.node), "link", "set", "dev", cable.a.interface, "up"])


def table_of(end: End) -> str:
    """The nftables table of a silent cut."""
    return f"tabinet-lab-{end.interface}"


def render_silence(end: End) -> str:
    """An nft(8) text: whatever the end receives is dropped."""
    return (
        f"table netdev {table_of(end)} {{\n"
        f"  chain cut {{\n"
        f"    type filter hook ingress device {end.interface} priority {_PRIORITY}; policy drop;\n"
        f"  }}\n"
        f"}}\n"
    )


def render_end_of_silence(end: End) -> str:
    """An nft(8) text: there is no such table; it is declared first because deleting what is absent is an error."""
    return f"table netdev {table_of(end)}\ndelete table netdev {table_of(end)}\n"
