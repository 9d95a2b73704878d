"""What Docker's daemon says about its networks and containers: what driver calls leave out.

In: the daemon's API socket. Out: names and options of networks, whose an endpoint is, labels of containers. Only questions that take no
lock of a container are asked, because the daemon holds the lock of the one that it is starting while it waits for its driver (``GET
/containers/ID/json`` would wait until it gives up). ``Docker`` is the seam, ``fakedocker`` its fake. Source: Docker Engine API.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from tabinet.attach.docker.translate import Container
from tabinet.errors import AttachError

T = TypeVar("T")

API_TIMEOUT_S = 10.0
NOT_ATTACHED = "ep-"
"""What stands in place of a container where an endpoint is in none, followed by the endpoint."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of a network, as the daemon knows it."""

    id: str = msgspec.field(name="EndpointID")
    address: str = msgspec.field(default="", name="IPv4Address")
    address6: str = msgspec.field(default="", name="IPv6Address")


class DockerNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network of ours."""

    id: str = msgspec.field(name="Id")
    name: str = msgspec.field(name="Name")
    driver: str = msgspec.field(default="", name="Driver")
    options: dict[str, Any] | None = msgspec.field(default=None, name="Options")
    containers: dict[str, Endpoint] | None = msgspec.field(default=None, name="Containers")
    """Endpoints by container."""

    def container_of(self, endpoint: str) -> str:
        """The container that the endpoint is in; empty: none, or the daemon does not say so yet."""
        found = next((container for container, each in (self.containers or {}).items() if each.id == endpoint), "")
        return "" if found.startswith(NOT_ATTACHED) else found


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network."""

    network: str = msgspec.field(default="", name="NetworkID")
    """Empty before its first start."""


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    networks: dict[str, Attached | None] | None = msgspec.field(default=None, name="Networks")


class ListedContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container, as a listing shows it."""

    id: str = msgspec.field(name="Id")
    names: tuple[str, ...] = msgspec.field(default=(), name="Names")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    state: str = msgspec.field(default="", name="State")
    settings: _Settings | None = msgspec.field(default=None, name="NetworkSettings")

    def may_join(self, network: DockerNetwork) -> bool:
        """It does not run, and is in the network once it starts."""
        found = (self.settings.networks if self.settings else None) or {}
        return self.state != "running" and any(
            name in (network.name, network.id) or (each is not None and each.network == network.id) for name, each in found.items()
        )

    def described(self) -> Container:
        """What an attachment wants to know of it."""
        return Container(id=self.id, name=self.names[0].lstrip("/") if self.names else "", labels=self.labels or {})


class Docker(Protocol):
    """The daemon of this host. Every method raises ``AttachError`` when it does not answer."""

    async def network(self, network: str) -> DockerNetwork:
        """The network with this identifier."""
        ...

    async def networks(self, driver: str) -> tuple[DockerNetwork, ...]:
        """All networks of a driver, with their endpoints."""
        ...

    async def containers(self, identifier: str = "") -> tuple[ListedContainer, ...]:
        """All containers, or the one with this identifier."""
        ...

    async def started_s(self, container: str) -> float:
        """When the container was made ready to start last, in seconds since the epoch; 0: nobody knows."""
        ...


@dataclass(slots=True)
class DockerSocket:
    """Implements ``Docker`` over the daemon's socket."""

    path: str
    _root: str = ""

    async def network(self, network: str) -> DockerNetwork:
        return await self._get(f"/networks/{quote(network, safe='')}", DockerNetwork)

    async def networks(self, driver: str) -> tuple[DockerNetwork, ...]:
        listed = await self._get(f"/networks?filters={_filters(driver=driver)}", tuple[DockerNetwork, ...])
        return tuple([await self.network(each.id) for each in listed if each.driver == driver])

    async def containers(self, identifier: str = "") -> tuple[ListedContainer, ...]:
        chosen = f"&filters={_filters(id=identifier)}" if identifier else ""
        return await self._get(f"/containers/json?all=1{chosen}", tuple[ListedContainer, ...])

    async def started_s(self, container: str) -> float:
        """The daemon writes the container's file of host names each time that it makes its network namespace."""
        if not self._root:
            self._root = str((await self._get("/info", dict[str, Any])).get("DockerRootDir", ""))
        with contextlib.suppress(OSError):
            return os.stat(f"{self._root}/containers/{container}/hosts").st_mtime
        return 0.0

    async def _get(self, target: str, kind: type[T]) -> T:
        """What the daemon answers.

        Raises:
            AttachError: nothing, or something else.
        """
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self.path)
                try:
                    # In HTTP/1.0 the body ends with the connection, in one piece.
                    writer.write(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
                    await writer.drain()
                    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise AttachError(f"Docker does not answer at {self.path}: {error or 'not in time'}") from error
        status = head.split(b" ", 2)[1:2]
        try:
            if status != [b"200"]:
                told = msgspec.json.decode(body, type=dict[str, Any]).get("message")
                raise AttachError(f"Docker says to GET {target}: {told}")
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise AttachError(f"Docker's answer to GET {target} cannot be understood: {error}") from None


def _filters(**wanted: str) -> str:
    return quote(msgspec.json.encode({name: [value] for name, value in wanted.items()}).decode())


def starting(
    network: DockerNetwork, containers: tuple[ListedContainer, ...], started_s: Mapping[str, float], begin_s: float, end_s: float
) -> list[Container]:
    """The containers that may be the one whose endpoint is made between the two times (seconds since the epoch). Pure."""
    return [each.described() for each in containers if each.may_join(network) and begin_s <= started_s.get(each.id, 0.0) <= end_s]
