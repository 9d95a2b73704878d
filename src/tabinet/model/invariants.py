"""``Invariant``: a statement about the fabric that must hold whatever policies say. Our own kind, of files.

In: a document (a dict). Out: a typed record, or every problem with path and value. Pure; O(size of the document).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.ports import NamedPort, Ports, parse_port
from tabinet.model.protocols import ICMP, ICMPV6, WITH_PORTS, parse_protocol
from tabinet.selector import Selector, SelectorError, parse

API_VERSION = "tabinet/v1"
KIND = "Invariant"


class Packets(msgspec.Struct, frozen=True):
    """Some packets."""

    protocol: int
    ports: tuple[Ports, ...] = ()
    """Destination ports; none: all."""
    icmp_type: int | None = None


class Party(msgspec.Struct, frozen=True):
    """One end of flows: endpoints that ``selector`` selects, addresses in ``nets``, or both kinds."""

    selector: Selector | None = None
    """Over the labels of endpoints, inherited ones too; namespaces as ``projectcalico.org/namespace`` and ``pcns.LABEL``."""
    nets: tuple[Prefix, ...] = ()
    not_nets: tuple[Prefix, ...] = ()
    outside: bool = False
    """Addresses that no endpoint has; with ``nets`` those in them, with ``notNets`` those not in them."""


class Isolation(msgspec.Struct, frozen=True):
    """Endpoints with different values of the label never talk."""

    label: str
    unless_policies: Selector | None = None
    """What policies with such labels allow is no breach."""
    packets: tuple[Packets, ...] = ()
    """May pass all the same."""


class Passage(msgspec.Struct, frozen=True):
    """Flows from one party to another."""

    source: Party
    destination: Party
    packets: tuple[Packets, ...] = ()
    """Of ``never``: what may pass all the same. Of ``always``: what must pass; none: everything."""


class Invariant(msgspec.Struct, frozen=True):
    """One of ``never``, ``always`` and ``isolated`` is given."""

    name: str
    description: str = ""
    never: Passage | None = None
    always: Passage | None = None
    isolated: Isolation | None = None


def read_invariant(data: dict[str, Any]) -> Invariant:
    """The invariant that a document says.

    Raises:
        InputError: with everything that is wrong with it.
    """
    reader = _Reader()
    found = reader.invariant(data)
    if reader.problems:
        raise InputError(reader.problems)
    return found


class _Reader:
    """Collects problems while it reads; what is wrong is replaced by something harmless."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def invariant(self, data: dict[str, Any]) -> Invariant:
        self.only(data, "", ("apiVersion", "kind", "metadata", "spec"))
        if (data.get("apiVersion"), data.get("kind")) != (API_VERSION, KIND):
            self.report("apiVersion, kind", f"{data.get('apiVersion')}, {data.get('kind')}", f"must be {API_VERSION}, {KIND}")
        metadata, spec = self.mapping(data, "", "metadata"), self.mapping(data, "", "spec")
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            self.report("metadata.name", name, "must be a text")
        said = [word for word in ("never", "always", "isolated") if word in spec]
        if len(said) != 1:
            self.report("spec", ", ".join(said) or "none of them", "must have one of never, always, isolated")
        self.only(spec, "spec", ("description", "never", "always", "isolated"))
        return Invariant(
            name=str(name),
            description=str(spec.get("description", "")),
            never=self.passage(self.mapping(spec, "spec", "never"), "spec.never", "except") if "never" in spec else None,
            always=self.passage(self.mapping(spec, "spec", "always"), "spec.always", "packets") if "always" in spec else None,
            isolated=self.isolation(self.mapping(spec, "spec", "isolated")) if "isolated" in spec else None,
        )

    def passage(self, data: dict[str, Any], path: str, packets: str) -> Passage:
        self.only(data, path, ("from", "to", packets))
        ends = [self.party(self.mapping(data, path, end), f"{path}.{end}") for end in ("from", "to")]
        return Passage(ends[0], ends[1], tuple(self.packets(data.get(packets, []), f"{path}.{packets}")))

    def isolation(self, data: dict[str, Any]) -> Isolation:
        path = "spec.isolated"
        self.only(data, path, ("label", "unlessPolicies", "except"))
        label = data.get("label")
        if not isinstance(label, str) or not label:
            self.report(f"{path}.label", label, "must be the name of a label, such as tenant")
        packets = tuple(self.packets(data.get("except", []), f"{path}.except"))
        return Isolation(str(label), self.selector(data, path, "unlessPolicies"), packets)

    def party(self, data: dict[str, Any], path: str) -> Party:
        self.only(data, path, ("selector", "nets", "notNets", "outside"))
        outside = data.get("outside", False)
        if not isinstance(outside, bool):
            self.report(f"{path}.outside", outside, "must be true or false")
        party = Party(
            self.selector(data, path, "selector"), self.nets(data, path, "nets"), self.nets(data, path, "notNets"), outside is True
        )
        if party.selector is None and not party.nets and not party.outside:
            self.report(path, data, "must have a selector, nets, or outside: true")
        return party

    def packets(self, data: Any, path: str) -> Iterator[Packets]:
        if not isinstance(data, list):
            self.report(path, data, "must be a list of packets, as in {protocol: TCP, ports: [443]}")
            return
        for index, item in enumerate(data):
            here = f"{path}[{index}]"
            if not isinstance(item, dict):
                self.report(here, item, "must be packets, as in {protocol: TCP, ports: [443]}")
                continue
            self.only(item, here, ("protocol", "ports", "icmpType"))
            protocol = self.protocol(item.get("protocol"), f"{here}.protocol")
            ports = tuple(self.ports(item.get("ports", []), f"{here}.ports"))
            if ports and protocol not in WITH_PORTS:
                self.report(f"{here}.ports", item["ports"], "only with TCP, UDP or SCTP")
            icmp_type = item.get("icmpType")
            if icmp_type is not None and (not isinstance(icmp_type, int) or not 0 <= icmp_type <= 255 or protocol not in (ICMP, ICMPV6)):
                self.report(f"{here}.icmpType", icmp_type, "a number from 0 to 255, with ICMP or ICMPv6 only")
                icmp_type = None
            yield Packets(protocol, ports, icmp_type)

    def protocol(self, value: Any, path: str) -> int:
        try:
            return parse_protocol(value)
        except (ValueError, TypeError) as error:
            self.report(path, value, str(error))
            return 0

    def ports(self, data: Any, path: str) -> Iterator[Ports]:
        for index, item in enumerate(data if isinstance(data, list) else [data]):
            try:
                found = parse_port(item)
            except (ValueError, TypeError) as error:
                self.report(f"{path}[{index}]", item, str(error))
                continue
            if isinstance(found, NamedPort):
                self.report(f"{path}[{index}]", item, "must be a number or a range")
            else:
                yield found

    def selector(self, data: dict[str, Any], path: str, name: str) -> Selector | None:
        text = data.get(name)
        if text is None:
            return None
        try:
            return parse(text if isinstance(text, str) else str(text))
        except SelectorError as error:
            self.report(f"{path}.{name}", text, str(error))
            return None

    def nets(self, data: dict[str, Any], path: str, name: str) -> tuple[Prefix, ...]:
        found = []
        for index, text in enumerate(data.get(name, []) if isinstance(data.get(name, []), list) else [data[name]]):
            try:
                found.append(parse_prefix(str(text)))
            except ValueError:
                self.report(f"{path}.{name}[{index}]", text, "must be an address or prefix, as in 10.0.0.0/8")
        return tuple(found)

    def mapping(self, data: dict[str, Any], path: str, name: str) -> dict[str, Any]:
        value = data.get(name)
        if isinstance(value, dict):
            return value
        self.report(f"{path}.{name}".lstrip("."), value, "must be a mapping")
        return {}

    def only(self, data: dict[str, Any], path: str, known: tuple[str, ...]) -> None:
        for name in data:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self.report(f"{path}.{name}".lstrip("."), name, f"must be one of {', '.join(known)}{hint}")

    def report(self, path: str, value: object, allowed: str) -> None:
        self.problems.append(Problem(path=path, value=repr(value)[:80], allowed=allowed))
