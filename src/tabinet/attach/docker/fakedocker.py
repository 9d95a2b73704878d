"""``FakeDocker``: a daemon in memory, for tests. Keeps the promises of ``Docker``."""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.attach.docker.daemon import DockerNetwork, ListedContainer
from tabinet.errors import AttachError


@dataclass(slots=True)
class FakeDocker:
    """Implements ``Docker``; what it knows is put in by the test."""

    known: dict[str, DockerNetwork] = field(default_factory=dict)
    """Networks by identifier."""
    listed: list[ListedContainer] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    away: bool = False

    async def network(self, network: str) -> DockerNetwork:
        self._answer()
        if network not in self.known:
            raise AttachError(f"Docker says: network {network} not found")
        return self.known[network]

    async def networks(self, driver: str) -> tuple[DockerNetwork, ...]:
        self._answer()
        return tuple(each for each in self.known.values() if each.driver == driver)

    async def containers(self, identifier: str = "") -> tuple[ListedContainer, ...]:
        self._answer()
        return tuple(each for each in self.listed if identifier in ("", each.id))

    async def started_s(self, container: str) -> float:
        self._answer()
        return self.started.get(container, 0.0)

    def _answer(self) -> None:
        if self.away:
            raise AttachError("Docker does not answer")
