"""Steady UDP traffic between workloads, to count what an event costs.

In: which workload sends to which, in which family. ``start_traffic`` returns once all senders send; ``stop`` ends them and says, for each
flow, how many packets were sent and lost. At 1,000 packets/s a lost packet stands for one millisecond. Losses are counted from sequence
numbers, so that a busy machine cannot make any up. One process for each sending and each receiving namespace; about 15 us of CPU a packet
and end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tabinet.lab.probe.client import Program, start_program

DEFAULT_RATE = 1000
_FIRST_SOURCE_PORT = 40_000
_ANSWER_S = 30.0


class FlowSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One flow: ``source`` sends to an address of ``destination``. Names are the workloads'; namespaces are where they live."""

    source: str
    source_namespace: str
    destination: str
    destination_namespace: str
    family: int
    address: str
    port: int


class LossReport(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What became of one flow."""

    flow: FlowSpec
    sent: int
    lost: int
    lost_ms: float
    """The lost packets as time at the flow's rate."""
    longest_gap_ms: float
    """The longest time, by the sender's clock, in which nothing that was sent arrived."""
    first_ns: int
    last_ns: int
    """When the first and the last packet that arrived were sent, by the machine's monotonic clock; 0 when none arrived."""


@dataclass(slots=True)
class Traffic:
    """Traffic that is running; use ``start_traffic``."""

    flows: list[FlowSpec]
    rate: int
    senders: dict[str, Program]
    receivers: dict[str, Program]

    async def stop(self) -> list[LossReport]:
        """Nothing is sent any more; the reports are in the order of the flows.

        Raises:
            LabError: a sender or receiver ended by itself.
        """
        try:
            counts = await asyncio.gather(*(self._ask(program, {"stop": True}) for program in self.senders.values()))
            sent = {int(number): count for answer in counts for number, count in msgspec.convert(answer["sent"], dict[str, int]).items()}
            interval_ns = 10**9 // self.rate
            answers = await asyncio.gather(
                *(
                    self._ask(program, {"sent": self._sent_to(namespace, sent), "interval_ns": interval_ns})
                    for namespace, program in self.receivers.items()
                )
            )
        finally:
            await self.close()
        found = {int(number): row for answer in answers for number, row in msgspec.convert(answer, dict[str, dict[str, float]]).items()}
        return [
            LossReport(
                flow=flow,
                sent=sent[index],
                lost=int(found[index]["lost"]),
                lost_ms=found[index]["lost"] * 1000 / self.rate,
                longest_gap_ms=found[index]["longest_gap_ms"],
                first_ns=int(found[index]["first_ns"]),
                last_ns=int(found[index]["last_ns"]),
            )
            for index, flow in enumerate(self.flows)
        ]

    async def close(self) -> None:
        """All programs have ended."""
        await asyncio.gather(*(program.close() for program in (*self.senders.values(), *self.receivers.values())))

    def _sent_to(self, namespace: str, sent: dict[int, int]) -> dict[int, int]:
        return {index: sent[index] for index, flow in enumerate(self.flows) if flow.destination_namespace == namespace}

    async def _ask(self, program: Program, message: object) -> dict[str, object]:
        await program.write(message)
        return await program.read(_ANSWER_S)


async def start_traffic(flows: Sequence[FlowSpec], rate: int = DEFAULT_RATE) -> Traffic:
    """All flows run at ``rate`` packets/s each; each has a source port of its own, so that they spread over equal paths.

    Raises:
        LabError: a sender or receiver could not start.
    """
    traffic = Traffic(list(flows), rate, {}, {})
    try:
        for namespace in dict.fromkeys(flow.destination_namespace for flow in flows):
            ports = sorted({(flow.family, flow.port) for flow in flows if flow.destination_namespace == namespace})
            listeners = [{"family": family, "port": port} for family, port in ports]
            traffic.receivers[namespace] = await start_program(namespace, "flow.py", "receive", json.dumps(listeners))
        for namespace in dict.fromkeys(flow.source_namespace for flow in flows):
            own = [_sender(index, flow, rate) for index, flow in enumerate(flows) if flow.source_namespace == namespace]
            traffic.senders[namespace] = await start_program(namespace, "flow.py", "send", json.dumps(own))
    except BaseException:
        await traffic.close()
        raise
    return traffic


def _sender(index: int, flow: FlowSpec, rate: int) -> dict[str, object]:
    return {
        "id": index,
        "family": flow.family,
        "address": flow.address,
        "port": flow.port,
        "source_port": _FIRST_SOURCE_PORT + index,
        "rate": rate,
    }
