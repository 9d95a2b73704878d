"""Rules as written to rules as enforced: selectors become set ids, names become numbers, texts become prefixes.

In: rules of a policy or profile. Out: the ``Policy`` message, the sets that it names, and what could not be enforced. Pure;
O(size of the rules).

Fails closed, and reports every case:

- A Deny rule goes without what cannot be understood, so that it denies *more*: the whole match on protocol, nets, ports, selector or
  whatever it is.
- Any other rule with something that cannot be understood is dropped, so that it neither allows nor passes. Only of things of which any may
  match (nets, ports) a bad one is left out, as long as a good one is left.

Two matches are never understood here. HTTP: a packet filter does not see it. Services: Services are resources of Kubernetes' API, of which
this store holds none, so that nobody knows their addresses. So an Allow, Pass or Log rule with ``services`` matches nothing, as
if the service had no endpoints, and a Deny rule with ``services`` denies what the rest of the rule matches, *whatever the address*: a rule
that shall keep traffic away must not let it through because it could not be read. That is drastic, and meant to be noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tabinet.calc.messages import ANY, Action, Icmp, Policy, PortRange, Rule, SetKind, Side
from tabinet.calc.scopes import side_scope
from tabinet.calc.specs import SetSpec
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model import resources as written
from tabinet.model.annotations import PROTOCOL
from tabinet.model.extended import NOBODY, ProtocolMatch, parse_extended
from tabinet.model.ports import NamedPort, parse_port
from tabinet.model.protocols import TCP, WITH_PORTS, parse_protocol
from tabinet.selector import Selector, SelectorError, parse

T = TypeVar("T")


class Translation(msgspec.Struct, frozen=True):
    """A policy or profile as it can be enforced."""

    policy: Policy
    specs: dict[str, SetSpec]
    """By set id: the sets that the rules name."""
    problems: tuple[Problem, ...]


class _Unmatchable(Exception):
    """Part of a rule cannot be understood, and was reported."""


def translate(ingress: Sequence[written.Rule], egress: Sequence[written.Rule], namespace: str, source: str) -> Translation:
    """The rules as messages. ``namespace`` is that of a NetworkPolicy, else empty; ``source`` names the resource in problems."""
    specs: dict[str, SetSpec] = {}
    problems: list[Problem] = []

    def translated(direction: str, rules: Sequence[written.Rule]) -> tuple[Rule, ...]:
        done = []
        for index, rule in enumerate(rules):
            translator = _Translator(rule, f"spec.{direction}[{index}]", namespace, source)
            try:
                done.append(translator.rule())
                # Only now: a dropped rule needs no sets.
                specs.update(translator.specs)
            except _Unmatchable:
                pass
            problems.extend(translator.problems)
        return tuple(done)

    policy = Policy(translated("ingress", ingress), translated("egress", egress))
    return Translation(policy, specs, tuple(problems))


class _Translator:
    """Collects sets and problems while one rule is gone through."""

    def __init__(self, rule: written.Rule, path: str, namespace: str, source: str) -> None:
        self.written = rule
        self.path = path
        self.namespace = namespace
        self.source = source
        self.specs: dict[str, SetSpec] = {}
        self.problems: list[Problem] = []
        self.denies = False

    def rule(self) -> Rule:
        rule = self.written
        action = self.action(rule.action)
        self.denies = action is Action.DENY
        if rule.http is not None:
            self.without("", lambda: self.drop("http", "an HTTP match", "matches on addresses, protocols and ports"))
        extended = self.extended()
        if extended is not None:
            rule = _extended_rule(rule, extended)
        protocol: int | None = None
        try:
            protocol = self.protocol("protocol", rule.protocol) if extended is None else extended.number
        except _Unmatchable:
            if not self.denies:
                raise
            # Ports and ICMP types mean nothing without the protocol.
            rule = _without_protocol(rule)
        return Rule(
            action=action,
            ip_version=self.without(None, self.ip_version),
            protocol=protocol,
            not_protocol=self.without(None, lambda: self.protocol("notProtocol", rule.not_protocol)),
            icmp=self.without(None, lambda: self.icmp("icmp", rule.icmp)),
            not_icmp=self.without(None, lambda: self.icmp("notICMP", rule.not_icmp)),
            source=self.side("source", rule.source, protocol),
            destination=self.side("destination", rule.destination, protocol),
        )

    def extended(self) -> ProtocolMatch | None:
        """What the rule matches by annotation, which only an Allow rule can."""
        metadata = self.written.metadata
        text = None if metadata is None else metadata.annotations.get(PROTOCOL)
        if text is None:
            return None
        path = f"metadata.annotations.{PROTOCOL}"
        if self.written.action != Action.ALLOW.value:
            self.report(path, text, "only in Allow rules; it is not heeded")
            return None
        try:
            return parse_extended(text)
        except ValueError as error:
            raise self.unmatchable(path, text, str(error)) from None

    def without(self, default: T, read: Callable[[], T]) -> T:
        """What is read; where that is impossible, the default for a Deny rule."""
        try:
            return read()
        except _Unmatchable:
            if self.denies:
                return default
            raise

    def action(self, text: str) -> Action:
        try:
            return Action(text)
        except ValueError:
            self.report("action", text, "Allow, Deny, Log or Pass; it is taken for Deny")
            return Action.DENY

    def ip_version(self) -> int | None:
        version = self.written.ip_version
        if version not in (None, 4, 6):
            raise self.unmatchable("ipVersion", version, "4 or 6")
        return version

    def protocol(self, path: str, value: int | str | None) -> int | None:
        if value is None:
            return None
        try:
            return parse_protocol(value)
        except ValueError:
            raise self.unmatchable(path, value, "a protocol's name or number, 1 to 255") from None

    def icmp(self, path: str, match: written.IcmpMatch | None) -> Icmp | None:
        if match is None or (match.type is None and match.code is None):
            return None
        if match.type is None:
            raise self.unmatchable(path, f"code {match.code} without a type", "a type with the code")
        return Icmp(match.type, match.code)

    def side(self, path: str, side: written.EntityRule, protocol: int | None) -> Side:
        if side == _ANYTHING:
            return ANY
        services = side.services
        if services is not None:
            allowed = "a selector, nets or ports: services are not known here, so "
            allowed += "this rule denies every address in their place" if self.denies else "this rule matches nothing"
            self.without("", lambda: self.drop(f"{path}.services", services.name, allowed))
        selected = self.without(None, lambda: self.selected(f"{path} selectors", side))
        owners = parse("all()") if selected is None else selected
        ports, port_sets = self.ports(f"{path}.ports", side.ports, protocol, owners, any_of=True)
        not_ports, not_port_sets = self.ports(f"{path}.notPorts", side.not_ports, protocol, owners, any_of=False)
        return Side(
            nets=self.nets(f"{path}.nets", side.nets, any_of=True),
            not_nets=self.nets(f"{path}.notNets", side.not_nets, any_of=False),
            sets=() if selected is None else (self.named(SetSpec(SetKind.NETS, selected)),),
            not_sets=self.without((), lambda: self.not_selected(f"{path}.notSelector", side.not_selector)),
            ports=ports,
            port_sets=port_sets,
            not_ports=not_ports,
            not_port_sets=not_port_sets,
        )

    def selected(self, path: str, side: written.EntityRule) -> Selector | None:
        try:
            return side_scope(side, self.namespace)
        except SelectorError as error:
            raise self.unmatchable(path, error.text, str(error)) from None

    def not_selected(self, path: str, text: str) -> tuple[str, ...]:
        if not text:
            return ()
        try:
            return (self.named(SetSpec(SetKind.NETS, parse(text))),)
        except SelectorError as error:
            raise self.unmatchable(path, text, str(error)) from None

    def nets(self, path: str, texts: tuple[str, ...], any_of: bool) -> tuple[Prefix, ...]:
        """The prefixes; ``any_of`` says that one of them is enough for a match, else none of them may match."""
        nets: dict[Prefix, None] = {}
        bad = False
        for index, text in enumerate(texts):
            try:
                nets[parse_prefix(text)] = None
            except ValueError:
                bad = True
                self.report(f"{path}[{index}]", text, "an address or prefix, as in 10.0.0.0/8 or fd00::/64")
        return () if bad and not self.goes_on(any_of, bool(nets)) else tuple(nets)

    def ports(
        self, path: str, entries: tuple[int | str, ...], protocol: int | None, owners: Selector, any_of: bool
    ) -> tuple[tuple[PortRange, ...], tuple[str, ...]]:
        """Ranges and set ids; ``any_of`` as for ``nets``."""
        ranges: dict[PortRange, None] = {}
        named: dict[SetSpec, None] = {}
        bad = False
        for index, entry in enumerate(entries):
            try:
                found = parse_port(entry)
                if isinstance(found, NamedPort):
                    named[_port_spec(found.name, protocol, owners)] = None
                else:
                    ranges[PortRange(found.first, found.last)] = None
            except ValueError as error:
                bad = True
                self.report(f"{path}[{index}]", entry, str(error))
        if bad and not self.goes_on(any_of, bool(ranges or named)):
            return (), ()
        return tuple(ranges), tuple([self.named(spec) for spec in named])

    def goes_on(self, any_of: bool, some_left: bool) -> bool:
        """After something bad in a list: True when the rule goes on with what is left of it, False when with nothing of it."""
        if self.denies:
            # With part of a list that must not match it denies more than written; with part of one that may, less.
            return not any_of
        if any_of and some_left:
            return True
        raise _Unmatchable

    def named(self, spec: SetSpec) -> str:
        set_id = spec.set_id
        self.specs[set_id] = spec
        return set_id

    def report(self, path: str, value: object, allowed: str) -> None:
        self.problems.append(Problem(path=f"{self.path}.{path}", value=repr(value)[:80], allowed=allowed, source=self.source))

    def unmatchable(self, path: str, value: object, allowed: str) -> _Unmatchable:
        self.report(path, value, allowed)
        return _Unmatchable()

    def drop(self, path: str, value: object, allowed: str) -> str:
        raise self.unmatchable(path, value, allowed)


_ANYTHING = written.EntityRule()


def _extended_rule(rule: written.Rule, match: ProtocolMatch) -> written.Rule:
    """The rule with what it matches by annotation, and without what keeps others from taking it for more."""
    replace = msgspec.structs.replace
    source, destination = (
        replace(side, selector="" if side.selector == NOBODY else side.selector, ports=(), not_ports=())
        for side in (rule.source, rule.destination)
    )
    if match.ports is not None:
        destination = replace(destination, ports=(f"{match.ports[0]}:{match.ports[1]}",))
    icmp = None if match.icmp is None else written.IcmpMatch(type=match.icmp[0], code=match.icmp[1])
    return replace(rule, icmp=icmp, not_protocol=None, not_icmp=None, source=source, destination=destination)


def _without_protocol(rule: written.Rule) -> written.Rule:
    replace = msgspec.structs.replace
    source, destination = (replace(side, ports=(), not_ports=()) for side in (rule.source, rule.destination))
    return replace(rule, protocol=None, icmp=None, not_icmp=None, source=source, destination=destination)


def _port_spec(name: str, protocol: int | None, owners: Selector) -> SetSpec:
    """The set of a named port. Raises ``ValueError`` where the rule's protocol has no named ports."""
    wanted = TCP if protocol is None else protocol
    if wanted not in WITH_PORTS:
        raise ValueError("a named port only with protocol TCP, UDP or SCTP")
    return SetSpec(SetKind.PORTS, owners, name, wanted)
