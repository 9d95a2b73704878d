"""``Memory``: what the guest service knew, in a file of the host, for when it starts and the store does not answer.

In: changes of the store, and the host's FelixConfiguration. Out: a file, written whole and at most every few seconds; and what is in one.
The values are kept as the store had them. Only root can read the file. A file that cannot be read is as if there were none: it says
nothing that the store would not say later. Linear in the ports of the host for each time that something changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tabinet.store.api import DeleteEvent, PutEvent

WRITE_EVERY_S = 5.0


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file."""

    felix: dict[str, object] = {}
    """The spec of the host's FelixConfiguration."""
    items: dict[str, bytes] = {}
    """Values by key."""


_decoder = msgspec.msgpack.Decoder(Remembered)


def read_memory(path: Path) -> Remembered | None:
    """What was known; None: nothing that can be read."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def write_memory(path: Path, remembered: Remembered) -> None:
    """The file has it, or what it had before.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.msgpack.encode(remembered))
    beside.replace(path)


@dataclass(slots=True)
class Memory:
    """Keeps the file as the store is."""

    path: Path
    concerns: Callable[[str], bool]
    """True for keys that the host needs."""
    felix: dict[str, object] = field(default_factory=dict)
    items: dict[str, bytes] = field(default_factory=dict)
    _is_new: bool = False

    def on_events(self, events: Iterable[PutEvent | DeleteEvent]) -> None:
        """The changes will be in the file."""
        for event in events:
            key = event.item.key if isinstance(event, PutEvent) else event.key
            if self.concerns(key):
                self._is_new = True
                if isinstance(event, PutEvent):
                    self.items[key] = event.item.value
                else:
                    self.items.pop(key, None)

    def write(self) -> None:
        """The file is as it should be; a file system that does not take it is of no importance to guests."""
        if self._is_new:
            self._is_new = False
            with contextlib.suppress(OSError):
                write_memory(self.path, Remembered(felix=self.felix, items=self.items))

    async def run(self) -> None:
        """Writes until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                if self._is_new:
                    self._is_new = False
                    remembered = Remembered(felix=self.felix, items=dict(self.items))
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(write_memory, self.path, remembered)
        finally:
            self.write()
