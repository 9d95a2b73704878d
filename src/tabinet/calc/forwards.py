"""Forwarded ports of an endpoint, from the annotation ``tabinet.io/port-forwards`` (``model.forwards``).

In: the annotation. Out: a ``Forward`` for each port, what leads to other hosts, and what is wrong. What cannot be read is left out and
reported. Pure; linear in the number of ports.
"""

from __future__ import annotations

from tabinet.calc.messages import Forward, ForwardElsewhere
from tabinet.errors import DataError, Problem
from tabinet.lib.ip import parse_address
from tabinet.model.annotations import PORT_FORWARDS
from tabinet.model.forwards import PortForward, parse_forwards

FORWARDED = (6, 17, 132)
"""Protocols whose ports can be translated: TCP, UDP, SCTP."""
MOST_PORTS = 1024
"""Of one forward: each is a rule."""


def read_forwards(text: str | None, source: str, problems: list[Problem]) -> tuple[tuple[Forward, ...], tuple[ForwardElsewhere, ...]]:
    """What leads to the endpoint and, sorted, to others; ``source`` names the endpoint in problems, which are added to the list."""
    if text is None:
        return (), ()
    try:
        written = parse_forwards(text, source)
    except DataError as error:
        problems += error.problems
        return (), ()
    found: list[Forward] = []
    elsewhere: set[ForwardElsewhere] = set()
    for index, each in enumerate(written):
        try:
            forwards = _each_port(each)
            if each.node:
                ports = (each.external_port, each.external_port + each.count - 1)
                elsewhere.add(ForwardElsewhere(forwards[0].external, each.protocol, *ports, each.node))
            else:
                found += forwards
        except ValueError as error:
            path = f"metadata.annotations.{PORT_FORWARDS}[{index}]"
            problems.append(Problem(path=path, value=str(each)[:80], allowed=str(error), source=source))
    return tuple(found), tuple(sorted(elsewhere))


def _each_port(each: PortForward) -> list[Forward]:
    external, internal = parse_address(each.external_ip), parse_address(each.internal_ip)
    if each.protocol not in FORWARDED:
        raise ValueError("protocol 6, 17 or 132")
    if each.count > MOST_PORTS or max(each.external_port, each.internal_port) + each.count > 65536:
        raise ValueError(f"at most {MOST_PORTS} ports, none above 65535")
    return [
        Forward(external, each.protocol, each.external_port + step, internal, each.internal_port + step, each.home, each.host)
        for step in range(each.count)
    ]
