"""What the guest service remembers: the file, and what is forgotten once the store has spoken."""

import json
from pathlib import Path

import pytest
import structlog

from tabinet.guest.directory import Directory
from tabinet.guest.memory import Memory, Remembered, read_memory, write_memory
from tabinet.guest.service import GuestService, Notes
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent, WatchBatch
from tabinet.store.memory import MemoryStore
from tabinet.store.syncer import Syncer, SyncState, SyncStatus

SUBNET = "/calico/dhcp/v2/no-region/subnet/"
VALUE = json.dumps({"cidr": "10.0.0.0/24"}).encode()
THEIRS = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/other-host-x"


def put(key: str, value: bytes = VALUE) -> PutEvent:
    return PutEvent(KeyValue(key, value, 2, 2))


def test_what_concerns_the_host_is_in_the_file(tmp_path: Path):
    directory = Directory("h1")
    memory = Memory(tmp_path / "deeper" / "file", directory.concerns, felix={"interfacePrefix": "tap"})
    memory.on_events([put(SUBNET + "a"), put(SUBNET + "b"), put(THEIRS), DeleteEvent(SUBNET + "b", 3)])
    memory.write()
    assert read_memory(memory.path) == Remembered(felix={"interfacePrefix": "tap"}, items={SUBNET + "a": VALUE})
    assert memory.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("data", [b"", b"\xff" * 10, b"\x81\xa5items\x01"])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, data: bytes):
    path = tmp_path / "file"
    assert read_memory(path) is None
    path.write_bytes(data)
    assert read_memory(path) is None
    write_memory(path, Remembered())
    assert read_memory(path) == Remembered()


async def test_what_the_store_has_no_more_is_forgotten_once_it_has_said_everything(tmp_path: Path):
    directory, log = Directory("h1"), structlog.stdlib.get_logger()
    memory = Memory(tmp_path / "file", directory.concerns)
    service = GuestService(Syncer(MemoryStore(), []), directory, {}, None, Notes(log, lambda: 0.0), log, lambda: 0.0, memory)
    assert not service.knows
    service.remember(Remembered(items={SUBNET + "a": VALUE, SUBNET + "b": VALUE}))
    assert service.knows
    await service.on_sync_event(WatchBatch(events=[put(SUBNET + "a")], revision=2))
    await service.on_sync_event(SyncStatus(SyncState.NOT_READY, "away"))
    assert set(memory.items) == {SUBNET + "a", SUBNET + "b"}
    await service.on_sync_event(SyncStatus(SyncState.IN_SYNC))
    assert set(memory.items) == {SUBNET + "a"}
