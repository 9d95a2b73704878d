"""One policy rule as IR rules.

In: a ``calc.messages.Rule`` and what is known of the sets that it names. Out: IR rules and the constant sets that they look up.
One rule becomes one for each family (where the family matters) and one for each way to satisfy an "or" that a single lookup cannot
express: addresses and nets of one set, port ranges and named ports, protocols when ports are given without one.

What must hold: a rule never matches more than it says. Nets of the other family only, an empty set, a set that holds nothing of this
family match nothing; negated, they exclude nothing. A rule with an unknown set makes its whole policy deny (``compile_policy`` returns
None). A rule about ICMP (1) is for IPv4 only, about ICMPv6 (58) for IPv6 only; ICMP types without a protocol mean the family's own
ICMP, with another protocol nothing. Ports with a protocol that has none match nothing.

Cost: linear in the rules; the constant sets hold the nets and port ranges of one rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.calc import messages
from tabinet.calc.messages import Action, PortRange, SetKind
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.extended import DCCP
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir, names
from tabinet.rules.merge import merge
from tabinet.rules.options import TableOptions
from tabinet.rules.roles import DENY

ICMP, ICMPV6 = 1, 58
_OWN_ICMP = {IPV4: ICMP, IPV6: ICMPV6}
PORT_PROTOCOLS = (6, 17, 132, 136)
"""TCP, UDP, SCTP, UDP-Lite: what ports may be asked of."""

Matches = tuple[ir.Match, ...]
Alternatives = list[Matches]
"""Any of these; each is a conjunction."""


class SetShape(msgspec.Struct, frozen=True, gc=False):
    """What a rule has to know of a set: its kind, and in which families it has nets besides addresses."""

    kind: SetKind
    net_families: frozenset[int] = frozenset()


class Constant(msgspec.Struct, frozen=True):
    """A set whose elements are a rule's own."""

    definition: ir.SetDef
    elements: frozenset[ir.Range]


@dataclass(slots=True)
class Program:
    """IR rules of a policy in one direction, and what they need."""

    rules: list[ir.Rule] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    lists: dict[str, tuple[ir.Rule, ...]] = field(default_factory=dict)
    """Chains that others with the same need share."""
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """PORT_CHAINS maps of this program's own."""


class Targets(msgspec.Struct, frozen=True):
    """Where the actions lead."""

    allow: ir.Verdict
    passing: ir.Verdict
    deny: str = DENY


ShapeOf = Callable[[str], SetShape | None]
"""The shape of an announced set; None for any other."""


def rules_of(policy: messages.Policy, ingress: bool) -> tuple[messages.Rule, ...]:
    """The rules of one direction."""
    return policy.ingress if ingress else policy.egress


def set_ids(rule: messages.Rule) -> Iterator[tuple[str, SetKind, bool]]:
    """Every set that a rule names: id, the kind that it must have, and True when the rule wants non-members."""
    for side in (rule.source, rule.destination):
        for ids, kind, negated in (
            (side.sets, SetKind.NETS, False),
            (side.not_sets, SetKind.NETS, True),
            (side.port_sets, SetKind.PORTS, False),
            (side.not_port_sets, SetKind.PORTS, True),
        ):
            for set_id in ids:
                yield set_id, kind, negated


def asks_dccp(rule: messages.Rule) -> tuple[int, ...]:
    """DCCP, where a rule asks for it and its ports. Kernels that do not track them know none of a flow: then such a rule never matches,
    and one that excludes ports would always, so there is none."""
    negated = any(side.not_ports or side.not_port_sets for side in (rule.source, rule.destination))
    return (DCCP,) if rule.protocol == DCCP and not negated else ()


def has_pass(rules: Iterable[messages.Rule]) -> bool:
    """True when one of the rules passes on to the next tier."""
    return any(rule.action is Action.PASS for rule in rules)


def is_complete(rules: Iterable[messages.Rule], shape_of: ShapeOf) -> bool:
    """True when every set that the rules name is announced and of the right kind."""
    return all((shape := shape_of(set_id)) is not None and shape.kind is kind for rule in rules for set_id, kind, _ in set_ids(rule))


def compile_policy(
    key: ResourceKey, ingress: bool, rules: tuple[messages.Rule, ...], shape_of: ShapeOf, targets: Targets, options: TableOptions
) -> Program | None:
    """The program of one policy in one direction; None when a set is missing, which has to deny."""
    if not is_complete(rules, shape_of):
        return None
    program = Program()
    for run in merge(rules):
        action, last = run.rule.action, run.last if run.last > run.first else -1
        origin = ir.Origin(owner=str(key), ingress=ingress, index=run.first, action=action.value, last=last)
        verdict, log = _outcome(action, key, targets, options)
        comment = rule_comment(origin)
        for matches in _Compiler(run.rule, shape_of, program.constants).conjunctions():
            program.rules.append(ir.Rule(verdict, matches, counter=True, log=log, comment=comment, origin=origin))
    return program


def missing_rule(key: ResourceKey, ingress: bool, deny: str = DENY) -> ir.Rule:
    """What stands for a policy that is not known, or not completely: everything is denied."""
    origin = ir.Origin(owner=str(key), ingress=ingress, index=-1, action=Action.DENY.value)
    return ir.Rule(ir.Goto(deny), counter=True, comment=shortened(f"{key} {_word(ingress)} is not known", names.digest(key)), origin=origin)


def rule_comment(origin: ir.Origin) -> str:
    """``NetworkPolicy/default/web ingress 0 Allow``, or ``... 0-7 Allow``, within 120 bytes."""
    place = f"{origin.index}" if origin.last < 0 else f"{origin.index}-{origin.last}"
    return shortened(f"{origin.owner} {_word(origin.ingress)} {place} {origin.action}", names.digest(origin.owner))


def _word(ingress: bool) -> str:
    return "ingress" if ingress else "egress"


def shortened(text: str, token: str, limit: int = 120) -> str:
    """The text with what nft(8) could not quote replaced, at most ``limit`` bytes: the first word gives way to ``token``."""
    text = "".join(character if character.isascii() and character.isprintable() and character not in '"\\' else "?" for character in text)
    if len(text) <= limit:
        return text
    head, _, tail = text.partition(" ")
    keep = max(limit - len(tail) - len(token) - 2, 0)
    return f"{head[:keep]}~{token} {tail}"[:limit]


def _outcome(action: Action, key: ResourceKey, targets: Targets, options: TableOptions) -> tuple[ir.Verdict, ir.Log | None]:
    match action:
        case Action.ALLOW:
            return targets.allow, None
        case Action.DENY:
            return ir.Goto(targets.deny), None
        case Action.PASS:
            return targets.passing, None
        case Action.LOG:
            prefix = shortened(str(key), names.digest(key))
            return ir.Next(), ir.Log(prefix, options.log_group, options.log_per_second, options.log_burst)


def collapse(nets: Iterable[Prefix]) -> frozenset[ir.Range]:
    """The same addresses as disjoint ranges that do not touch; the order of ``nets`` is of no effect. All of one family. O(n log n)."""
    return frozenset(merge_ranges((net.value, net.last) for net in nets))


def merge_ranges(pairs: Iterable[tuple[int, int]]) -> Iterator[ir.Range]:
    """Disjoint ranges that do not touch, ascending."""
    first = last = -2
    for low, high in sorted(pairs):
        if low > last + 1:
            if first >= 0:
                yield ir.Range(first, last)
            first, last = low, high
        else:
            last = max(last, high)
    if first >= 0:
        yield ir.Range(first, last)


def _dearness(match: ir.Match) -> int:
    """Orders matches so that what is cheap to ask, and true of few packets, is asked first; a port after its protocol."""
    match match:
        case ir.Protocol():
            return 0
        case ir.Port() | ir.Icmp():
            return 1
        case ir.PortIn():
            return 2
        case ir.Address():
            return 3
        case _:
            return 4


@dataclass(slots=True)
class _Compiler:
    """Turns the conditions of one rule into conjunctions of matches."""

    rule: messages.Rule
    shape_of: ShapeOf
    constants: dict[str, Constant]

    def conjunctions(self) -> Iterator[Matches]:
        """Each way to satisfy the rule, in a fixed order."""
        if not self._depends_on_family():
            yield from self._for_protocols(0)
            return
        for family in (IPV4, IPV6):
            if self.rule.ip_version in (None, family):
                yield from self._for_protocols(family)

    def _depends_on_family(self) -> bool:
        rule = self.rule
        if rule.ip_version is not None or rule.icmp is not None or rule.not_icmp is not None or rule.protocol in (ICMP, ICMPV6):
            return True
        return any(
            side.nets or side.not_nets or side.sets or side.not_sets or side.port_sets or side.not_port_sets
            for side in (rule.source, rule.destination)
        )

    def _for_protocols(self, family: int) -> Iterator[Matches]:
        for protocol in self._protocols(family):
            head: list[ir.Match] = []
            if protocol is not None:
                head.append(ir.Protocol(protocol))
            elif self.rule.not_protocol is not None:
                head.append(ir.Protocol(self.rule.not_protocol, negated=True))
            for icmp, negated in ((self.rule.icmp, False), (self.rule.not_icmp, True)):
                if icmp is not None:
                    head.append(ir.Icmp(icmp.type, icmp.code, negated))
            sides = [self._side(which, side, family) for which, side in self._sides()]
            for parts in itertools.product(*sides):
                matches = sorted([*head, *itertools.chain.from_iterable(parts)], key=_dearness)
                if family and not any(isinstance(match, ir.Address | ir.AddressIn | ir.AddressPortIn) for match in matches):
                    matches.insert(0, ir.Family(family))
                yield tuple(matches)

    def _sides(self) -> tuple[tuple[ir.Side, messages.Side], ...]:
        return (ir.Side.SOURCE, self.rule.source), (ir.Side.DESTINATION, self.rule.destination)

    def _protocols(self, family: int) -> list[int | None]:
        """The protocols to name, one rule each; [None] when the rule does not care; [] when nothing can match."""
        rule = self.rule
        allowed: set[int] | None = None if rule.protocol is None else {rule.protocol}
        if rule.protocol in (ICMP, ICMPV6) and rule.protocol != _OWN_ICMP[family]:
            return []
        if rule.icmp is not None or rule.not_icmp is not None:
            own = {_OWN_ICMP[family]}
            allowed = own if allowed is None else allowed & own
        sides = (rule.source, rule.destination)
        numbers = any(side.ports or side.not_ports for side in sides)
        # Members of a port set carry their protocol, so that beside one no protocol need be named.
        if numbers or (any(side.not_port_sets for side in sides) and not any(side.port_sets for side in sides)):
            allowed = set(PORT_PROTOCOLS) if allowed is None else allowed & {*PORT_PROTOCOLS, *asks_dccp(rule)}
        if allowed is None:
            return [None]
        return [number for number in sorted(allowed) if number != rule.not_protocol]

    def _side(self, which: ir.Side, side: messages.Side, family: int) -> Alternatives:
        """Every way in which one side can match; [] when it cannot."""
        factors: list[Alternatives] = [self._ports(which, side, family)]
        if side.nets:
            factors.append(self._nets(which, side.nets, family))
        factors += [self._set(which, set_id, family) for set_id in side.sets]
        negative: list[ir.Match] = []
        for alternative in self._nets(which, side.not_nets, family, negated=True):
            negative += alternative
        for set_id in side.not_sets:
            for alternative in self._set(which, set_id, family, negated=True):
                negative += alternative
        for alternative in self._port_ranges(which, side.not_ports, negated=True):
            negative += alternative
        negative += [ir.AddressPortIn(which, family, names.member_set(set_id, "p", family), True) for set_id in side.not_port_sets]
        factors.append([tuple(negative)])
        return [tuple(itertools.chain.from_iterable(parts)) for parts in itertools.product(*factors)]

    def _ports(self, which: ir.Side, side: messages.Side, family: int) -> Alternatives:
        if not side.ports and not side.port_sets:
            return [()]
        found = self._port_ranges(which, side.ports)
        found += [(ir.AddressPortIn(which, family, names.member_set(set_id, "p", family)),) for set_id in side.port_sets]
        return found

    def _port_ranges(self, which: ir.Side, ports: tuple[PortRange, ...], *, negated: bool = False) -> Alternatives:
        ranges = frozenset(merge_ranges((port.first, port.last) for port in ports if port.first <= port.last))
        if not ranges:
            return []
        if len(ranges) == 1:
            (only,) = ranges
            return [(ir.Port(which, only.first, only.last, negated),)]
        name = self._constant("ports", ir.SetDef(ir.SetType.PORTS), ranges)
        return [(ir.PortIn(which, name, negated),)]

    def _nets(self, which: ir.Side, nets: tuple[Prefix, ...], family: int, *, negated: bool = False) -> Alternatives:
        ranges = collapse(net for net in nets if net.family == family)
        if not ranges:
            return []
        if len(ranges) == 1:
            (only,) = ranges
            return [(ir.Address(which, family, only.first, only.last, negated),)]
        name = self._constant(f"nets{family}", ir.SetDef(ir.SetType.NETS, family), ranges)
        return [(ir.AddressIn(which, family, name, negated),)]

    def _set(self, which: ir.Side, set_id: str, family: int, *, negated: bool = False) -> Alternatives:
        shape = self.shape_of(set_id)
        kinds = ["a", "n"] if shape is not None and family in shape.net_families else ["a"]
        return [(ir.AddressIn(which, family, names.member_set(set_id, kind, family), negated),) for kind in kinds]

    def _constant(self, kind: str, definition: ir.SetDef, ranges: frozenset[ir.Range]) -> str:
        name = names.constant_set(kind, [f"{item.first:x}-{item.last:x}" for item in sorted(ranges)])
        self.constants[name] = Constant(definition, ranges)
        return name
