"""Rules as written to rules as enforced: selectors become set ids, names become numbers, texts become prefixes.

In: rules of a policy or profile. Out: the ``Policy`` message, the sets that it names, and what could not be enforced. Pure;
O(size of the rules).

Fails closed. What cannot be understood among things of which *any* may match (nets, ports) is left out, and a rule that has nothing
left there matches nothing, so it is dropped. What cannot be understood among things that must *not* match is left out of a Deny
rule, which then denies more, and drops any other rule. So does a match on HTTP, which a packet filter cannot see. A rule with
``services`` is dropped: services are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabinet.calc.messages import ANY, Action, Icmp, Policy, PortRange, Rule, SetKind, Side
from tabinet.calc.scopes import side_scope
from tabinet.calc.specs import SetSpec
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model import resources as written
from tabinet.model.ports import NamedPort, parse_port
from tabinet.model.protocols import TCP, WITH_PORTS, parse_protocol
from tabinet.selector import Selector, SelectorError, from_tree, parse


class Translation(msgspec.Struct, frozen=True):
    """A policy or profile as it can be enforced."""

    policy: Policy
    specs: dict[str, SetSpec]
    """By set id: the sets that the rules name."""
    problems: tuple[Problem, ...]


class _Unmatchable(Exception):
    """The rule can match nothing, or must not: it is dropped."""


def translate(ingress: Sequence[written.Rule], egress: Sequence[written.Rule], namespace: str, source: str) -> Translation:
    """The rules as messages. ``namespace`` is that of a NetworkPolicy, else empty; ``source`` names the resource in problems."""
    translator = _Translator(namespace, source)
    policy = Policy(translator.rules("ingress", ingress), translator.rules("egress", egress))
    return Translation(policy, translator.specs, tuple(translator.problems))


class _Translator:
    """Collects sets and problems while the rules of one policy are gone through."""

    def __init__(self, namespace: str, source: str) -> None:
        self.namespace = namespace
        self.source = source
        self.specs: dict[str, SetSpec] = {}
        self.problems: list[Problem] = []

    def rules(self, direction: str, rules: Sequence[written.Rule]) -> tuple[Rule, ...]:
        done = []
        for index, rule in enumerate(rules):
            specs: dict[str, SetSpec] = {}
            try:
                done.append(self.rule(f"spec.{direction}[{index}]", rule, specs))
            except _Unmatchable:
                continue
            # Only now: a dropped rule needs no sets.
            self.specs |= specs
        return tuple(done)

    def rule(self, path: str, rule: written.Rule, specs: dict[str, SetSpec]) -> Rule:
        try:
            action = Action(rule.action)
        except ValueError:
            raise self.drop(f"{path}.action", rule.action, "Allow, Deny, Log or Pass") from None
        broad = action is Action.DENY
        if rule.http is not None:
            self.report(f"{path}.http", "an HTTP match", "matches on addresses, protocols and ports; HTTP is not enforced")
            if not broad:
                raise _Unmatchable
        if rule.ip_version not in (None, 4, 6):
            raise self.drop(f"{path}.ipVersion", rule.ip_version, "4 or 6")
        protocol = self.protocol(f"{path}.protocol", rule.protocol)
        return Rule(
            action=action,
            ip_version=rule.ip_version,
            protocol=protocol,
            not_protocol=self.not_protocol(f"{path}.notProtocol", rule.not_protocol, broad),
            icmp=self.icmp(f"{path}.icmp", rule.icmp),
            not_icmp=self.not_icmp(f"{path}.notICMP", rule.not_icmp, broad),
            source=self.side(f"{path}.source", rule.source, protocol, broad, specs),
            destination=self.side(f"{path}.destination", rule.destination, protocol, broad, specs),
        )

    def protocol(self, path: str, value: int | str | None) -> int | None:
        if value is None:
            return None
        try:
            return parse_protocol(value)
        except ValueError:
            raise self.drop(path, value, "a protocol's name or number, 1 to 255") from None

    def not_protocol(self, path: str, value: int | str | None, broad: bool) -> int | None:
        try:
            return self.protocol(path, value)
        except _Unmatchable:
            if broad:
                return None
            raise

    def icmp(self, path: str, match: written.IcmpMatch | None) -> Icmp | None:
        if match is None or (match.type is None and match.code is None):
            return None
        if match.type is None:
            raise self.drop(path, f"code {match.code} without a type", "a type with the code")
        return Icmp(match.type, match.code)

    def not_icmp(self, path: str, match: written.IcmpMatch | None, broad: bool) -> Icmp | None:
        try:
            return self.icmp(path, match)
        except _Unmatchable:
            if broad:
                return None
            raise

    def side(self, path: str, side: written.EntityRule, protocol: int | None, broad: bool, specs: dict[str, SetSpec]) -> Side:
        if side == written.EntityRule():
            return ANY
        if side.services is not None:
            raise self.drop(f"{path}.services", side.services.name, "a selector, nets or ports; services are not enforced")
        try:
            scope = side_scope(side, self.namespace)
        except SelectorError as error:
            raise self.drop(f"{path} selectors", error.text, str(error)) from None
        selected = None if scope is None else from_tree(scope)
        owners = parse("all()") if selected is None else selected
        ports, port_sets = self.ports(f"{path}.ports", side.ports, protocol, owners, specs, broad=None)
        not_ports, not_port_sets = self.ports(f"{path}.notPorts", side.not_ports, protocol, owners, specs, broad=broad)
        return Side(
            nets=self.nets(f"{path}.nets", side.nets, broad=None),
            not_nets=self.nets(f"{path}.notNets", side.not_nets, broad=broad),
            sets=() if selected is None else (_named(SetSpec(SetKind.NETS, selected), specs),),
            not_sets=self.not_sets(f"{path}.notSelector", side.not_selector, broad, specs),
            ports=ports,
            port_sets=port_sets,
            not_ports=not_ports,
            not_port_sets=not_port_sets,
        )

    def not_sets(self, path: str, text: str, broad: bool, specs: dict[str, SetSpec]) -> tuple[str, ...]:
        if not text:
            return ()
        try:
            return (_named(SetSpec(SetKind.NETS, parse(text)), specs),)
        except SelectorError as error:
            self.report(path, text, str(error))
            if broad:
                return ()
            raise _Unmatchable from None

    def nets(self, path: str, texts: tuple[str, ...], broad: bool | None) -> tuple[Prefix, ...]:
        """The prefixes; ``broad`` is None for those of which any may match, else whether a bad one may be left out."""
        nets: dict[Prefix, None] = {}
        for index, text in enumerate(texts):
            try:
                nets[parse_prefix(text)] = None
            except ValueError:
                self.report(f"{path}[{index}]", text, "an address or prefix, as in 10.0.0.0/8 or fd00::/64")
                if broad is False:
                    raise _Unmatchable from None
        if texts and not nets and broad is None:
            raise _Unmatchable
        return tuple(nets)

    def ports(
        self,
        path: str,
        entries: tuple[int | str, ...],
        protocol: int | None,
        owners: Selector,
        specs: dict[str, SetSpec],
        broad: bool | None,
    ) -> tuple[tuple[PortRange, ...], tuple[str, ...]]:
        """Ranges and set ids; ``broad`` as in ``nets``."""
        ranges: dict[PortRange, None] = {}
        sets: dict[str, None] = {}
        for index, entry in enumerate(entries):
            try:
                found = parse_port(entry)
                if isinstance(found, NamedPort):
                    sets[_named(_port_spec(found.name, protocol, owners), specs)] = None
                else:
                    ranges[PortRange(found.first, found.last)] = None
            except ValueError as error:
                self.report(f"{path}[{index}]", entry, str(error))
                if broad is False:
                    raise _Unmatchable from None
        if entries and not ranges and not sets and broad is None:
            raise _Unmatchable
        return tuple(ranges), tuple(sets)

    def report(self, path: str, value: object, allowed: str) -> None:
        self.problems.append(Problem(path=path, value=repr(value)[:80], allowed=allowed, source=self.source))

    def drop(self, path: str, value: object, allowed: str) -> _Unmatchable:
        self.report(path, value, allowed)
        return _Unmatchable()


def _named(spec: SetSpec, specs: dict[str, SetSpec]) -> str:
    set_id = spec.set_id
    specs[set_id] = spec
    return set_id


def _port_spec(name: str, protocol: int | None, owners: Selector) -> SetSpec:
    """The set of a named port. Raises ``ValueError`` where the rule's protocol has no named ports."""
    wanted = TCP if protocol is None else protocol
    if wanted not in WITH_PORTS:
        raise ValueError("a named port only with protocol TCP, UDP or SCTP")
    return SetSpec(SetKind.PORTS, owners, name, wanted)
