"""What the hosts on the way see of the first packet of a flow, and what their tables say of it together.

In: a flow between two ends, each a workload, a host, or something outside that only the other end's host judges. Out: one ``Pass`` for
each host that looks at the packet, in order: on one host one, across hosts first the source's, then the destination's. ``judge`` asks their
tables. Pure; what an end is, and which addresses are translated on the way, the caller knows.

Not modelled: what the routers between hosts do, and answers (they pass with the flow, except where no connection was kept).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from tabinet.lib.ip import Prefix
from tabinet.rules.evaluate import Packet, Verdict, evaluate
from tabinet.rules.ir import Table

UPLINK = "fabric"
"""Stands for an interface between hosts that nobody names; must have none of the tables' prefixes."""


class End(msgspec.Struct, frozen=True, gc=False):
    """One end of a flow."""

    address: Prefix
    """Behind the floating address, if it is asked for under one."""
    host: str = ""
    """Whose table judges it; empty: it is outside."""
    interface: str = ""
    """A workload's on its host; empty: it is the host itself."""
    floating: Prefix | None = None
    """The floating address that it is asked for under."""
    port: int = 0
    """Behind the forwarded port of that, if it is asked for under one."""

    @property
    def known_as(self) -> Prefix:
        """The address that others send to."""
        return self.floating or self.address


class Flow(msgspec.Struct, frozen=True, gc=False):
    """The first packet of a flow between two ends of one family."""

    source: End
    destination: End
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


class Pass(msgspec.Struct, frozen=True, gc=False):
    """What one host sees of the packet."""

    host: str
    hook: str
    """``forward``, ``input`` or ``output``."""
    packet: Packet


def passes(flow: Flow, uplink: Callable[[str], str] = lambda _: UPLINK, sent_as: Prefix | None = None) -> tuple[Pass, ...]:
    """What each host on the way sees; nothing where a host speaks to itself.

    ``uplink`` names the interface of a host towards the others; ``sent_as`` is the source address with which the packet leaves its host,
    where it is translated there.

    Raises:
        ValueError: both ends are outside.
    """
    source, destination = flow.source, flow.destination
    if not source.host and not destination.host:
        raise ValueError(f"neither {source.address} nor {destination.address} is in the fabric")
    found = []
    is_local = source.host == destination.host
    if source.host:
        out = destination.interface if is_local else uplink(source.host)
        # A floating address is translated on the destination's host, before its policy is asked.
        target = destination.address if is_local else destination.known_as
        if source.interface or out:
            hook = "output" if not source.interface else "forward" if out else "input"
            found.append(Pass(source.host, hook, _packet(flow, source.interface, out, source.address, target)))
    if destination.host and not is_local:
        hook = "forward" if destination.interface else "input"
        origin = sent_as or source.address
        packet = _packet(flow, uplink(destination.host), destination.interface, origin, destination.address)
        found.append(Pass(destination.host, hook, packet))
    return tuple(found)


def judge(tables: Mapping[str, Table], way: Iterable[Pass]) -> Verdict:
    """What the hosts' tables together say; each step of the trace begins with its host.

    Raises:
        KeyError: a host on the way has no table.
    """
    trace: list[str] = []
    verdict = Verdict(True, "", ())
    for one in way:
        verdict = evaluate(tables[one.host], one.packet, one.hook)
        trace += [f"{one.host} {step}" for step in verdict.trace]
        if not verdict.accepted:
            break
    return Verdict(verdict.accepted, verdict.reason, tuple(trace))


def _packet(flow: Flow, into: str, out: str, source: Prefix, destination: Prefix) -> Packet:
    sent_to = flow.destination.known_as
    behind = flow.destination.port if sent_to != destination else 0
    return Packet(
        in_interface=into,
        out_interface=out,
        source=source,
        destination=destination,
        protocol=flow.protocol,
        source_port=flow.source_port,
        destination_port=behind or flow.destination_port,
        icmp_type=flow.icmp_type,
        icmp_code=flow.icmp_code,
        original_destination=None if sent_to == destination else sent_to,
        original_destination_port=flow.destination_port if behind else None,
    )
