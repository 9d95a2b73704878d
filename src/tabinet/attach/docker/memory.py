"""Names and options of Docker's networks, remembered in a file.

When Docker starts it starts containers (``--restart``) before it answers anybody, so that nobody can be asked then what network a container
joins; and after a reboot nothing else remembers. In: networks, as Docker told them; they never change. Out: the same, by identifier. A file
that cannot be read is an empty one, one that cannot be written is told once it is tried. O(networks of the host) for each new one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tabinet.attach.docker.daemon import DockerNetwork
from tabinet.errors import AttachError


@dataclass(slots=True)
class KnownNetworks:
    """Of one host. ``path`` None: remembered as long as this is."""

    path: Path | None = None
    _known: dict[str, DockerNetwork] = field(default_factory=dict)
    _read: bool = False

    def get(self, identifier: str) -> DockerNetwork | None:
        if not self._read and self.path is not None:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                found = msgspec.json.decode(self.path.read_bytes(), type=tuple[DockerNetwork, ...])
                self._known = {each.id: each for each in found} | self._known
            self._read = True
        return self._known.get(identifier)

    def remember(self, network: DockerNetwork) -> None:
        """The network is known from now on.

        Raises:
            AttachError: the file cannot be written.
        """
        if self.get(network.id) is None:
            self._known[network.id] = msgspec.structs.replace(network, containers=None)
            self._write()

    def forget(self, identifier: str) -> None:
        """The network is not known any more.

        Raises:
            AttachError: the file cannot be written.
        """
        if self.get(identifier) is not None:
            del self._known[identifier]
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_name(f".{self.path.name}.new")
            fresh.write_bytes(msgspec.json.encode(list(self._known.values())))
            fresh.replace(self.path)
        except OSError as error:
            raise AttachError(f"{self.path} cannot be written: {error.strerror}; see [docker] networks") from error
