"""Calls to delete that could not be done when they came: because there was no agent, or no store. They are done later, by themselves.

In: requests in a directory, a file each, which ``shim`` and ``server`` put down. Out: nothing of them is left, in the store, the kernel
or the directory. What cannot be done yet stays and is tried again; what is no call to delete is taken away, and told. The directory is
looked at every few seconds, because the shim writes there exactly when nobody can be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tabinet.attach.cni.protocol import Code, Request, parse_request
from tabinet.attach.cni.service import CniService
from tabinet.attach.cni.shim import put_down
from tabinet.errors import CniError

LOOK_EVERY_S = 5.0
_LATER = (Code.TRY_AGAIN, Code.IO)


@dataclass(slots=True)
class Deletions:
    """The calls that wait in one directory."""

    directory: Path
    service: CniService
    note: Callable[..., object]
    """Takes the name of an event and its values, for the log."""

    async def run(self) -> None:
        """Never returns: does what can be done, again and again."""
        while True:
            await self.settle()
            await asyncio.sleep(LOOK_EVERY_S)

    def put_down(self, data: bytes) -> None:
        """The request will be done.

        Raises:
            CniError: it could not be written.
        """
        try:
            put_down(data, str(self.directory))
        except OSError as error:
            raise CniError(Code.IO, f"the deletion cannot be put down in {self.directory}: {error.strerror}") from error

    async def settle(self, container: str = "", interface: str = "") -> None:
        """All that wait, or those of one attachment, have been tried once.

        Raises:
            CniError: one of the attachment cannot be done yet.
        """
        for path, request in self._waiting():
            mine = (request.environ.get("CNI_CONTAINERID"), request.environ.get("CNI_IFNAME")) == (container, interface)
            if container and not mine:
                continue
            code, output = await self.service.answer(request, "")
            told = json.loads(output) if code else {}
            if code == 0 or told["code"] not in _LATER:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                self.note("late deletion", container=request.environ.get("CNI_CONTAINERID"), error=told.get("msg"))
            elif container:
                raise CniError(Code.TRY_AGAIN, f"an earlier deletion of container {container} is not done yet: {told['msg']}")

    def _waiting(self) -> list[tuple[Path, Request]]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.directory) if "." not in entry.name)
        except OSError:
            return []
        return [(path, request) for name in names if (request := self._read(path := self.directory / name)) is not None]

    def _read(self, path: Path) -> Request | None:
        try:
            request = parse_request(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, CniError) as error:
            self.note("late deletion cannot be read", path=str(path), error=str(error))
            path.unlink(missing_ok=True)
            return None
        return request if request.environ.get("CNI_COMMAND") == "DEL" else None
