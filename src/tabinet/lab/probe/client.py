"""Runs the programs of this package inside namespaces and talks to them: one line of JSON in, one line out.

In: a namespace and what to do there. Out: what the program said. A program ends when its standard input does, so none outlives the command
that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tabinet.errors import LabError
from tabinet.lab.build import in_namespace

_START_TIMEOUT_S = 30.0
_MACHINE_START_TIMEOUT_S = 90.0
"""In a machine whose every instruction is computed, Python takes seconds to start."""
_LINE_LIMIT_BYTES = 1 << 24
_EXTRA_S = 15.0
"""What an answer may take longer than it should on a busy machine."""


@dataclass(slots=True)
class Program:
    """A running program; use ``start_program``."""

    name: str
    process: asyncio.subprocess.Process

    async def read(self, timeout_s: float) -> dict[str, object]:
        """The next line that it says.

        Raises:
            LabError: it ended, or said nothing for ``timeout_s``.
        """
        stdout = self.process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await stdout.readline()
        except TimeoutError:
            raise LabError(f"{self.name} does not answer within {timeout_s:g} s") from None
        if not line:
            assert self.process.stderr is not None
            errors = (await self.process.stderr.read()).decode(errors="replace").strip().splitlines()
            raise LabError(f"{self.name} ended: {errors[-1] if errors else 'without a word'}")
        answer: dict[str, object] = json.loads(line)
        return answer

    async def write(self, message: object) -> None:
        """It has been told ``message``."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(json.dumps(message).encode() + b"\n")
        await stdin.drain()

    async def close(self) -> None:
        """It has ended."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.close()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def start_program(namespace: str, script: str, *arguments: str) -> Program:
    """``script`` of this package runs in the namespace and is ready.

    Raises:
        LabError: it could not start, for instance because a port is taken.
    """
    return await _start(f"{script} in {namespace}", in_namespace(namespace, _argv(script, *arguments)), _START_TIMEOUT_S)


async def start_relay(socket: str, name: str, tcp: Sequence[int], udp: Sequence[int]) -> Program:
    """The prober in a virtual machine runs and listens on these ports.

    Raises:
        LabError: the machine is not there, or does not answer.
    """
    arguments = (socket, name, ",".join(map(str, tcp)), ",".join(map(str, udp)))
    return await _start(f"virtual machine {name}", _argv("relay.py", *arguments), _MACHINE_START_TIMEOUT_S)


def _argv(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name(script)), *arguments]


async def _start(name: str, argv: Sequence[str], timeout_s: float) -> Program:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=_LINE_LIMIT_BYTES)
    program = Program(name, process)
    try:
        await program.read(timeout_s)
    except LabError:
        await program.close()
        raise
    return program


class ProbeSpec(msgspec.Struct, frozen=True, gc=False):
    """One thing to try from a workload."""

    family: int
    protocol: str
    """``icmp``, ``tcp`` or ``udp``."""
    address: str
    port: int
    """0 for ICMP."""
    source: str = ""
    """The address to send from; empty: the kernel chooses."""


class ProbeResult(msgspec.Struct, frozen=True, gc=False):
    """What happened."""

    outcome: str
    """``answered``, ``refused``, ``forbidden`` (its own host denied it), ``unreachable`` or ``timeout``."""
    who: str
    """The name (ICMP: the address) that answered; empty when none did."""
    took_ms: float


async def start_prober(namespace: str, name: str, tcp: Sequence[int], udp: Sequence[int]) -> Program:
    """A prober runs in the namespace and listens on these ports."""
    return await start_program(namespace, "prober.py", name, ",".join(map(str, tcp)), ",".join(map(str, udp)))


async def run_probes(program: Program, probes: Sequence[ProbeSpec], timeout_ms: int, at_once: int = 400) -> list[ProbeResult]:
    """What happened to each probe, in order; ``at_once`` of them run in parallel."""
    results: list[ProbeResult] = []
    for start in range(0, len(probes), at_once):
        chunk = probes[start : start + at_once]
        rows = [[probe.family, probe.protocol, probe.address, probe.port, probe.source] for probe in chunk]
        await program.write({"timeout_ms": timeout_ms, "probes": rows})
        answer = await program.read(timeout_ms / 1000 + _EXTRA_S)
        results += msgspec.convert([dict(zip(("outcome", "who", "took_ms"), row, strict=True)) for row in _rows(answer)], list[ProbeResult])
    return results


def _rows(answer: dict[str, object]) -> list[list[object]]:
    rows = answer["results"]
    assert isinstance(rows, list)
    return rows
