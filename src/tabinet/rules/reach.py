"""May a flow begin between two addresses of the fabric? The oracle of connectivity checks.

Each host on the way asks its own table: on one host in one pass, across hosts first the source's, then the destination's. An address
that is no known endpoint is outside: only the other end's host decides.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tabinet.lib.ip import Prefix
from tabinet.rules.evaluate import Packet, Verdict, evaluate
from tabinet.rules.ir import Table

FABRIC = "fabric"
"""Stands for the interface between hosts; must have none of the tables' prefixes."""


class Flow(msgspec.Struct, frozen=True, gc=False):
    """The first packet of a flow between two addresses of one family."""

    source: Prefix
    destination: Prefix
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


class Location(msgspec.Struct, frozen=True, gc=False):
    """Where an address is attached."""

    host: str
    interface: str


def expected(tables: Mapping[str, Table], endpoints: Mapping[Prefix, Location], flow: Flow) -> Verdict:
    """What the hosts' tables together say of the flow; trace entries of two hosts are prefixed with the host's name.

    Raises:
        KeyError: a host of one of the endpoints has no table.
        ValueError: neither address is an endpoint's.
    """
    source = endpoints.get(flow.source)
    destination = endpoints.get(flow.destination)
    if source is None and destination is None:
        raise ValueError(f"neither {flow.source} nor {flow.destination} is an endpoint")
    if source is not None and destination is not None and source.host == destination.host:
        return evaluate(tables[source.host], _packet(flow, source.interface, destination.interface))
    passes = []
    if source is not None:
        passes.append((source.host, _packet(flow, source.interface, FABRIC)))
    if destination is not None:
        passes.append((destination.host, _packet(flow, FABRIC, destination.interface)))
    trace: list[str] = []
    verdict = Verdict(True, "", ())
    for host, packet in passes:
        verdict = evaluate(tables[host], packet)
        trace += [f"{host} {step}" for step in verdict.trace]
        if not verdict.accepted:
            break
    return Verdict(verdict.accepted, verdict.reason, tuple(trace))


def _packet(flow: Flow, in_interface: str, out_interface: str) -> Packet:
    return Packet(
        in_interface=in_interface,
        out_interface=out_interface,
        source=flow.source,
        destination=flow.destination,
        protocol=flow.protocol,
        source_port=flow.source_port,
        destination_port=flow.destination_port,
        icmp_type=flow.icmp_type,
        icmp_code=flow.icmp_code,
    )
