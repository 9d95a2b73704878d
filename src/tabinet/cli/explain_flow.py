"""``tabinet explain``: why a packet passes, or why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.analysis.fabric import Fabric
    from tabinet.analysis.fabric import Place as Spot
    from tabinet.analysis.way import Question
    from tabinet.lab.trace import HostTrace


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-p", "--protocol", default=None, help="tcp, udp, icmp, sctp, ... or a number (default: tcp with --port, else icmp).")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Destination port.")
@click.option("--source-port", type=click.IntRange(0, 65535), default=None, help="Source port (default: one that nothing listens on).")
@click.option("--icmp-type", type=click.IntRange(0, 255), default=None, help="Type of the ICMP message (default: echo request).")
@click.option("--icmp-code", type=click.IntRange(0, 255), default=0, help="Code of the ICMP message.")
@click.option("-4", "family", flag_value=4, type=int, help="IPv4 (default: what both have, IPv4 first).")
@click.option("-6", "family", flag_value=6, type=int, help="IPv6.")
@click.option("--trace", "traced", is_flag=True, help="In a lab: send such a packet, trace it on the hosts, and compare.")
@click.option(
    "--at", metavar="REVISION|TIME", default=None, help="As things were then (tabinet history): a revision, a time, or 15m, 2h, 3d ago."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to show it.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@STORE_OPTIONS
@click.pass_obj
def explain(
    place: Place,
    source: str,
    destination: str,
    protocol: str | None,
    port: int,
    source_port: int | None,
    icmp_type: int | None,
    icmp_code: int,
    family: int | None,
    traced: bool,
    at: str | None,
    output: str,
    as_json: bool,
) -> int:
    """Say whether a packet from SRC reaches DST, and why.

    Shows every policy and rule that was asked on the way.

    SRC and DST are addresses, inside or outside, or names: of workloads, endpoints or hosts.

    \b
    tabinet explain web1 db1 --port 5432        tabinet explain shop/web1 10.65.0.7 -p udp --port 53
    tabinet explain 192.0.2.1 web1 --port 443   tabinet explain web1 web2 -6

    Nothing is sent without --trace: the answer is calculated from what is in the store. Exit code 0: allowed, 1: denied, 3: the trace
    says something else.
    """
    import msgspec

    from tabinet.analysis.explain import explain as explain_packet
    from tabinet.analysis.render import render_explanation
    from tabinet.analysis.seek import find_ends, follow_forward
    from tabinet.cli.fabric_reading import read_fabric_around
    from tabinet.cli.output import printable, show_json

    if at is not None and traced:
        raise click.UsageError("--trace sends a packet now: it cannot be traced --at another time")
    fabric = read_fabric_around(place, (source, destination)) if at is None else read_past(place, at)
    start, end = find_ends(fabric, source, destination, family)
    question = follow_forward(fabric, ask(start, end, protocol, port, source_port, icmp_type, icmp_code))
    found = explain_packet(fabric, question)
    traces = trace_packet(place, question) if traced else []
    if as_json or output == "json":
        show_json(msgspec.to_builtins(found) | ({"trace": msgspec.to_builtins(traces)} if traced else {}))
    else:
        for line in (*render_explanation(found), *render_traces(traces)):
            click.echo(printable(line))
    if traced:
        check_agreement(found.allowed, question, traces)
    return 0 if found.allowed else 1


def read_past(place: Place, at: str) -> Fabric:
    """The fabric as it was; what is not known of it has been told."""
    from tabinet.analysis.fabric import survey
    from tabinet.cli.fabric_reading import options_reader, with_store
    from tabinet.cli.moments import read_moments, render_unsure
    from tabinet.cli.output import note

    _, (moment,) = with_store(place, lambda store: read_moments(store, (at,)))
    note(f"as it was at revision {moment.revision}")
    for line in render_unsure(moment):
        note(line)
    return survey(moment.resources, options_reader(place))


def trace_packet(place: Place, question: Question) -> list[HostTrace]:
    """What a real packet met.

    Raises:
        SetupError, LabError: there is no such lab, or the packet cannot be sent.
    """
    from tabinet.cli.labs import need_root
    from tabinet.lab.lab import open_lab
    from tabinet.lab.trace import trace

    need_root()
    return asyncio.run(trace(open_lab(place.chosen_lab()), question))


def render_traces(traces: Sequence[HostTrace]) -> Iterator[str]:
    """The lines of the text."""
    for each in traces:
        yield ""
        yield f"traced on {each.host}: {'dropped' if each.dropped else 'passed'}"
        yield from (f"  {line}" for line in each.lines)


def check_agreement(allowed: bool, question: Question, traces: Sequence[HostTrace]) -> None:
    """The packet did what was calculated.

    Raises:
        SetupError: it did not: the kernel does not hold what the store says (yet), or something else is wrong.
    """
    from tabinet.errors import SetupError

    reached = {each.host for each in traces}
    wanted = {place.host for place in (question.source, question.destination) if place.host}
    passed = reached == wanted and not any(each.dropped for each in traces)
    if passed is not allowed:
        said = "allowed" if allowed else "denied"
        where = ", ".join(f"{each.host} {'dropped' if each.dropped else 'passed'} it" for each in traces)
        raise SetupError(f"the store says that the packet is {said}, the trace says: {where}")


def ask(
    source: Spot, destination: Spot, protocol: str | None, port: int, source_port: int | None, icmp_type: int | None, icmp_code: int
) -> Question:
    """The question that the options ask.

    Raises:
        InputError: they do not fit together.
    """
    from tabinet.analysis.explain import icmp_of
    from tabinet.analysis.way import CLIENT_PORT, ECHO_REQUEST, Question
    from tabinet.errors import InputError, Problem
    from tabinet.model.protocols import ICMP, ICMPV6, WITH_PORTS, parse_protocol

    family = source.address.family
    if protocol is None:
        number = parse_protocol("tcp") if port else icmp_of(family)
    else:
        try:
            number = parse_protocol(protocol)
        except ValueError as error:
            raise InputError([Problem(path="--protocol", value=protocol, allowed=str(error))]) from None
    number = icmp_of(family) if number in (ICMP, ICMPV6) else number
    if port and number not in WITH_PORTS:
        raise InputError([Problem(path="--port", value=str(port), allowed="only with TCP, UDP or SCTP")])
    if icmp_type is not None and number not in (ICMP, ICMPV6):
        raise InputError([Problem(path="--icmp-type", value=str(icmp_type), allowed="only with ICMP")])
    return Question(
        source=source,
        destination=destination,
        protocol=number,
        source_port=CLIENT_PORT if source_port is None else source_port,
        destination_port=port,
        icmp_type=ECHO_REQUEST[family] if icmp_type is None else icmp_type,
        icmp_code=icmp_code,
    )
