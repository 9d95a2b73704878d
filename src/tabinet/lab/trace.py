"""One real packet of a flow, traced by nftables on the hosts of a lab.

In: a lab, and the question that a calculation answered. Out: what each host's rules did with the packet. For the time of the trace each
host has a table of its own (``inet tabinet_trace``) that marks packets of this flow only, before all other chains; it is removed
whatever happens. The packet is sent by the workload itself. ``nft monitor`` does not say when it listens, so the packet is sent again
until a host drops it or all have seen it. nft(8), section "Ruleset debug/VM tracing".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from tabinet.analysis.way import Question
from tabinet.errors import LabError
from tabinet.kernel.netns import run_in
from tabinet.lab.build import in_namespace, run
from tabinet.lab.lab import Lab
from tabinet.lab.plan import namespace_of
from tabinet.lib.ip import IPV4
from tabinet.model.protocols import ICMP, ICMPV6, TCP, UDP

TABLE = "tabinet_trace"
FIRST = -450
"""Priority: before defragmentation (-400) and raw (-300)."""
SEEN_WITHIN_S = 10.0
QUIET_S = 0.4
"""When nothing more is told for so long, the packet's way is over."""
_LINE = re.compile(r"trace id (?P<id>[0-9a-f]+) inet tabinet (?P<chain>\S+) (?P<what>.*)")
_DROP = re.compile(r"(verdict|policy) drop\b")


class HostTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's rules did with the packet."""

    host: str
    dropped: bool
    lines: tuple[str, ...]
    """As nft says them: chain, rule, verdict; of our table."""


async def trace(lab: Lab, question: Question) -> list[HostTrace]:
    """The way of the packet, host by host; a host that it did not reach is not in it.

    Raises:
        LabError: the source is no workload of the lab, or no host saw the packet.
    """
    targets = await lab.targets()
    sender = next((target for target in targets if question.source.address in target.addresses), None)
    if sender is None:
        raise LabError("only packets of a workload of the lab can be traced: it has to send one")
    hosts = list(dict.fromkeys(place.host for place in (question.source, question.destination) if place.host))
    async with contextlib.AsyncExitStack() as stack:
        monitors = [await stack.enter_async_context(_monitored(lab, host, question)) for host in hosts]
        deadline = asyncio.get_running_loop().time() + SEEN_WITHIN_S
        while True:
            for monitor in monitors:
                monitor.forget()
            await asyncio.to_thread(run_in, sender.namespace, lambda: send(question))
            await _quiet(monitors)
            found = [monitor.result() for monitor in monitors if monitor.lines]
            if any(each.dropped for each in found) or len(found) == len(hosts):
                return found
            if asyncio.get_running_loop().time() > deadline:
                if not found:
                    raise LabError(f"{', '.join(hosts)} saw no packet within {SEEN_WITHIN_S:g} s")
                return found


@dataclass(slots=True)
class _Monitor:
    host: str
    lines: list[str] = field(default_factory=list)
    packet: str = ""
    """The identifier of the first packet that was seen; others are not looked at."""

    def forget(self) -> None:
        """The next packet is looked at."""
        self.lines, self.packet = [], ""

    def take(self, line: str) -> None:
        """A line of ``nft monitor trace``."""
        found = _LINE.search(line)
        if found is None or found["id"] != (self.packet or found["id"]):
            return
        self.packet = found["id"]
        if not found["what"].startswith("packet:"):
            self.lines.append(f"{found['chain']} {found['what']}".strip())

    def result(self) -> HostTrace:
        """What is known of the packet."""
        return HostTrace(host=self.host, dropped=any(_DROP.search(line) for line in self.lines), lines=tuple(self.lines))


@contextlib.asynccontextmanager
async def _monitored(lab: Lab, host: str, question: Question) -> AsyncIterator[_Monitor]:
    """Packets of the flow are marked and told as long as this is open."""
    namespace = namespace_of(lab.name, host)
    await run(in_namespace(namespace, ["nft", "-f", "-"]), stdin=_marking(question))
    monitor = _Monitor(host)
    try:
        argv = in_namespace(namespace, ["stdbuf", "-oL", "nft", "monitor", "trace"])
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
        reading = asyncio.create_task(_read(process, monitor))
        try:
            yield monitor
        finally:
            process.kill()
            await process.wait()
            await reading
    finally:
        await run(in_namespace(namespace, ["nft", "delete", "table", "inet", TABLE]))


async def _read(process: asyncio.subprocess.Process, monitor: _Monitor) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        monitor.take(line.decode(errors="replace").rstrip())


async def _quiet(monitors: list[_Monitor]) -> None:
    """Nothing new was told for a while."""
    before = -1
    while before != sum(len(monitor.lines) for monitor in monitors):
        before = sum(len(monitor.lines) for monitor in monitors)
        await asyncio.sleep(QUIET_S)


def _marking(question: Question) -> str:
    """The table, for nft -f."""
    family = "ip" if question.source.address.family == IPV4 else "ip6"
    target = question.destination.external or question.destination.address
    match = (
        f"{family} saddr {question.source.address.address} {family} daddr {{ {target.address}, {question.destination.address.address} }}"
    )
    match += f" meta l4proto {question.protocol}"
    if question.protocol in (TCP, UDP):
        match += f" th dport {question.destination_port}"
    hook = f"type filter hook prerouting priority {FIRST}; policy accept;"
    return f"table inet {TABLE} {{\n  chain before_all {{\n    {hook}\n    {match} meta nftrace set 1\n  }}\n}}\n"


def send(question: Question) -> None:
    """One packet leaves the namespace that this runs in; of TCP the first of a connection, which is then given up."""
    source, target = question.source.address.address, (question.destination.external or question.destination.address).address
    family = socket.AF_INET if question.source.address.family == IPV4 else socket.AF_INET6
    kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}.get(question.protocol, socket.SOCK_RAW)
    with socket.socket(family, kind, question.protocol) as end:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind is socket.SOCK_RAW:
            end.bind((source, 0))
            end.sendto(_payload(question), (target, 0))
            return
        end.bind((source, question.source_port))
        if kind is socket.SOCK_STREAM:
            end.connect_ex((target, question.destination_port))
        else:
            end.sendto(b"", (target, question.destination_port))


def _payload(question: Question) -> bytes:
    """Of an ICMP the message (RFC 792, RFC 4443: the kernel sums up ICMPv6), of other protocols anything."""
    if question.protocol not in (ICMP, ICMPV6):
        return bytes(16)
    message = struct.pack("!BBHHH", question.icmp_type, question.icmp_code, 0, 1, 1)
    total = sum(struct.unpack("!4H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
