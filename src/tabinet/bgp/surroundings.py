"""What BGP looks at on its host beside BIRD: passwords, neighbours at unnumbered links, the kernel's counters of dropped segments.

``Surroundings`` is the seam; ``HostSurroundings`` is the real one, ``NoSurroundings`` for hosts where nothing of it is asked for.
Blocking, short.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tabinet.bgp.discovery import LinkListener
from tabinet.bgp.leftovers import remove_routes
from tabinet.bgp.records import LinkPeer, Secret
from tabinet.bgp.secrets import read_secrets
from tabinet.bgp.tcpcounters import Drop, read_counters
from tabinet.calc.intents import SecretRef
from tabinet.kernel.rtsocket import open_rtnetlink

FIRST_WAIT_S = 0.1
"""For neighbours that were not asked before: they answer within a few ms."""


class Surroundings(Protocol):
    """What a driver asks about its host."""

    def secrets(self, references: Iterable[SecretRef]) -> tuple[Secret, ...]:
        """The passwords, sorted."""

    def neighbours(self, interfaces: Iterable[str], seeking: Iterable[str]) -> tuple[LinkPeer, ...]:
        """Who is at the other end of the interfaces, sorted; on those in ``seeking`` they are asked to speak up."""

    def counters(self) -> dict[Drop, int]:
        """Segments that the kernel dropped, since the host started."""

    def remove_routes(self, past: AbstractSet[tuple[int, int]]) -> None:
        """BIRD's routes of these families with these metrics are gone from the kernel.

        Raises:
            KernelError: the kernel refuses, or does not answer.
        """


@dataclass(slots=True)
class HostSurroundings:
    """Those of this host, in the network namespace of the calling thread."""

    secrets_dir: Path | None = None
    listener: LinkListener = field(default_factory=LinkListener)

    def secrets(self, references: Iterable[SecretRef]) -> tuple[Secret, ...]:
        """From files."""
        return read_secrets(self.secrets_dir, references)

    def neighbours(self, interfaces: Iterable[str], seeking: Iterable[str]) -> tuple[LinkPeer, ...]:
        """From what is heard on the links."""
        return self.listener.listen(interfaces, seeking, FIRST_WAIT_S)

    def counters(self) -> dict[Drop, int]:
        """From /proc."""
        return read_counters()

    def remove_routes(self, past: AbstractSet[tuple[int, int]]) -> None:
        """Through a socket for the occasion."""
        rtnetlink = open_rtnetlink()
        try:
            remove_routes(rtnetlink, past)
        finally:
            rtnetlink.close()


@dataclass(slots=True)
class NoSurroundings:
    """A host that has none of it; for tests one can put something in."""

    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    heard: dict[str, LinkPeer] = field(default_factory=dict)
    dropped: dict[Drop, int] = field(default_factory=dict)
    removed: list[set[tuple[int, int]]] = field(default_factory=list)

    def secrets(self, references: Iterable[SecretRef]) -> tuple[Secret, ...]:
        """Those in ``kept``."""
        names = sorted({(reference.name, reference.key) for reference in references})
        return tuple(
            Secret(*name, self.kept[name], found=True) if name in self.kept else Secret(*name, problem="no such file or directory")
            for name in names
        )

    def neighbours(self, interfaces: Iterable[str], seeking: Iterable[str]) -> tuple[LinkPeer, ...]:
        """Those in ``heard``."""
        return tuple(self.heard.get(name) or LinkPeer(name, None, f"no router was heard on {name} yet") for name in sorted(set(interfaces)))

    def counters(self) -> dict[Drop, int]:
        """``dropped``, as it is now."""
        return dict(self.dropped)

    def remove_routes(self, past: AbstractSet[tuple[int, int]]) -> None:
        """Written down in ``removed``."""
        self.removed.append(set(past))
