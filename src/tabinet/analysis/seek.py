"""Whom a name or an address on the command line means.

A text is an address; or the name of a workload (as its orchestrator has it), of its endpoint, of a host or of a host endpoint, with or
without ``namespace/`` before it. Pure; O(endpoints).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import msgspec

from tabinet.analysis.fabric import Fabric, Place
from tabinet.analysis.way import Question
from tabinet.analysis.words import workload_name
from tabinet.calc.autohosts import host_addresses
from tabinet.calc.endpoints import readable
from tabinet.errors import InputError, Problem
from tabinet.lib.ip import Prefix, parse_address

SHOWN = 8
"""So many candidates are told."""


def find_ends(fabric: Fabric, source: str, destination: str, family: int | None) -> tuple[Place, Place]:
    """The two ends, in one family: the one asked for, else the first of IPv4 and IPv6 that both have.

    Raises:
        InputError: a text means nobody or several, or the two have no address of one family.
    """
    starts, ends = _places(fabric, source, "SRC"), _places(fabric, destination, "DST")
    for wanted in (family,) if family else (4, 6):
        start = [place for place in starts if place.address.family == wanted]
        end = [place for place in ends if place.address.family == wanted]
        if start and end:
            return start[0], _other_than(start[0], end)
    what = f"no IPv{family} address" if family else "no address of the same family"
    raise InputError([Problem(path="DST", value=destination, allowed=f"{source} and {destination} have {what}")])


def follow_forward(fabric: Fabric, question: Question) -> Question:
    """The question, about the endpoint that the port leads to where it is a forwarded one of an address that is nobody's as a whole."""
    asked = question.destination
    found = fabric.forwards.get((asked.address, question.protocol, question.destination_port)) if asked.kind == "outside" else None
    return question if found is None else msgspec.structs.replace(question, destination=found)


def _other_than(start: Place, ends: list[Place]) -> Place:
    return next((place for place in ends if place.address != start.address), ends[0])


def _places(fabric: Fabric, text: str, argument: str) -> list[Place]:
    try:
        return _at_address(fabric, parse_address(text), argument)
    except ValueError:
        found = {name: places for name, _, places in _named(fabric, text)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        choices = ", ".join(sorted(found)[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        raise InputError([Problem(path=argument, value=text, allowed=f"several have this name: {choices}")])
    known = {alias for name, aliases, _ in _all(fabric) for alias in (name, *aliases)}
    close = difflib.get_close_matches(text, known, n=SHOWN, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise InputError([Problem(path=argument, value=text, allowed=f"an address, or the name of a workload, endpoint or host{hint}")])


def _at_address(fabric: Fabric, address: Prefix, argument: str) -> list[Place]:
    places = fabric.places_of(address)
    hosts = {place.host for place in places}
    if len(hosts) > 1 and argument == "SRC":
        choices = ", ".join(sorted(f"{place.endpoint} on {place.host}" for place in places)[:SHOWN])
        raise InputError([Problem(path=argument, value=address.address, allowed=f"several have this address, so name one: {choices}")])
    return places


def _named(fabric: Fabric, text: str) -> Iterator[tuple[str, tuple[str, ...], list[Place]]]:
    for name, aliases, places in _all(fabric):
        if text == name or text in aliases:
            yield name, aliases, places


def _all(fabric: Fabric) -> Iterator[tuple[str, tuple[str, ...], list[Place]]]:
    """Everyone: a name that is only theirs, the other names, and where they are."""
    for key, endpoint in fabric.workloads.items():
        spec, short = endpoint.spec, workload_name(endpoint)
        places = [Place(address, "workload", spec.node, spec.interface_name, key) for address in sorted(readable(spec.ip_networks))]
        yield f"{key.namespace}/{key.name}", (short, f"{key.namespace}/{short}", key.name), places
    for name, node in fabric.nodes.items():
        yield name, (), [Place(address, "host", name) for address in host_addresses(node)]
