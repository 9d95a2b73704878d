"""State files, locks, and processes that are known by id and start time."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from tabinet.errors import LabError
from tabinet.lab.parse import parse_topology
from tabinet.lab.processes import alive, ended, foreign, kill, send, start_ticks
from tabinet.lab.state import Fault, LabDirectory, LabState, ProcessRecord, exclusive, running_labs

TEXT = """
name: tiny
hosts: {a: {}, b: {}}
segments: {lan: {subnet4: 172.20.0.0/24, subnet6: "fd00:20::/64", members: [a, b]}}
workloads: {w: {host: a, labels: {app: web}}}
resources: [file.yaml, {kind: Tier, metadata: {name: x}}]
"""


def state() -> LabState:
    record = ProcessRecord(node="a", component="bird", pid=os.getpid(), start_ticks=start_ticks(os.getpid()) or 0)
    fault = Fault(cable="lan:a", silent=True)
    return LabState(topology=parse_topology(TEXT), source="tiny.yaml", stage="up", processes=(record,), faults=(fault,))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    directory = LabDirectory("tiny", tmp_path)
    directory.write(state())
    assert directory.read() == state()
    assert running_labs(tmp_path) == ["tiny"]
    assert [path.name for path in directory.path.iterdir()] == ["state.json"]
    directory.remove()
    assert directory.read() is None
    assert running_labs(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff"])
def test_a_state_file_that_cannot_be_read_is_the_same_as_none(tmp_path: Path, content: bytes) -> None:
    directory = LabDirectory("tiny", tmp_path)
    directory.path.mkdir()
    directory.state_file.write_bytes(content)
    assert directory.read() is None


async def test_two_commands_do_not_change_a_lab_at_the_same_time(tmp_path: Path) -> None:
    directory = LabDirectory("tiny", tmp_path)
    directory.write(state())
    order: list[str] = []

    async def command(name: str) -> None:
        async with exclusive(directory):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(*(command(name) for name in "abc"))
    assert [order[i].split()[0] for i in range(0, 6, 2)] == [order[i].split()[0] for i in range(1, 6, 2)]


async def test_who_waits_too_long_for_the_lock_is_told_why(tmp_path: Path) -> None:
    directory = LabDirectory("tiny", tmp_path)
    async with exclusive(directory):
        with pytest.raises(LabError, match="another command is at work on lab tiny"):
            async with exclusive(directory, wait_s=0):
                pytest.fail("both hold the lock")


async def test_the_lock_file_goes_with_the_lab(tmp_path: Path) -> None:
    directory = LabDirectory("tiny", tmp_path)
    async with exclusive(directory):
        directory.write(state())
    assert directory.lock_file.exists()
    async with exclusive(directory):
        directory.remove()
    assert os.listdir(tmp_path) == []


async def test_a_process_is_known_by_its_start_time_too() -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    ticks = start_ticks(child.pid)
    assert ticks is not None
    mine = ProcessRecord(node="n", component="c", pid=child.pid, start_ticks=ticks)
    other = msgspec.structs.replace(mine, start_ticks=ticks - 1)
    try:
        assert (alive(mine), alive(other)) == (True, False)
        assert send(other, signal.SIGKILL) is False
        assert alive(mine)
        assert foreign([child.pid, 2**22 + 1]) == [ProcessRecord(node="", component="process", pid=child.pid, start_ticks=ticks)]
        await kill([mine, other])
        assert await ended([mine], 5)
        assert send(mine, signal.SIGTERM) is False
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def test_a_process_that_never_was_is_not_alive() -> None:
    assert start_ticks(2**22 + 1) is None
    assert not alive(ProcessRecord(node="n", component="c", pid=2**22 + 1, start_ticks=1))
