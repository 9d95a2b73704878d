"""What policies have counted on this host, as records for people: ``tabinet policy stats`` shows them.

Pure. A flow is judged at its first packet and again in each generation, so these are counts of judgements; of what is denied, of every
packet. Linear in the rules.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tabinet.calc.staged import StagedEffect
from tabinet.dataplane.nft.counters import Count, TableCounters
from tabinet.rules.ir import Origin

TextOf = Callable[[str, bool, int], str]
"""A rule as it was written, by its policy, direction (True: ingress) and position; empty when there is none."""


class RuleCount(msgspec.Struct, frozen=True, order=True):
    """One rule of a policy or profile."""

    policy: str
    direction: str
    """``ingress`` or ``egress``."""
    rule: int
    """Position in its direction, from 0; -1: the policy as a whole, which could not be compiled and therefore denies."""
    last: int
    """Where several rules are decided and counted as one: the position of the last of them. Else as ``rule``."""
    action: str
    text: str
    packets: int
    bytes: int


class Denied(msgspec.Struct, frozen=True, order=True):
    """What was dropped or refused for one reason."""

    reason: str
    packets: int
    bytes: int


class EndpointDenied(msgspec.Struct, frozen=True, order=True):
    """What was denied of one direction of an endpoint."""

    endpoint: str
    direction: str
    """``ingress``: what it would have received, ``egress``: what it sent; of a host endpoint, what came in and went out through it."""
    packets: int
    bytes: int


class StagedPolicy(msgspec.Struct, frozen=True, order=True):
    """A policy that is staged: it decides nothing and counts nothing yet."""

    policy: str
    action: str
    tier: str
    endpoints: int
    """Local endpoints that it would police."""
    rules: int
    problems: tuple[str, ...]


class Statistics(msgspec.Struct, frozen=True):
    """All of one host, or sums over several."""

    host: str = ""
    rules: tuple[RuleCount, ...] = ()
    """Sorted."""
    denied: tuple[Denied, ...] = ()
    staged: tuple[StagedPolicy, ...] = ()
    endpoints: tuple[EndpointDenied, ...] = ()
    """Those that nothing was denied of too."""


def make_statistics(host: str, counters: TableCounters, staged: list[StagedEffect], text_of: TextOf) -> Statistics:
    """The counts of one host."""
    rules = [_rule_count(origin, count, text_of) for origin, count in counters.rules.items()]
    denied = [Denied(reason, count.packets, count.octets) for reason, count in counters.denied.items()]
    policies = [
        StagedPolicy(str(effect.key), effect.action, effect.tier, len(effect.endpoints), effect.rules, tuple(map(str, effect.problems)))
        for effect in staged
    ]
    endpoints = [EndpointDenied(half.endpoint, _direction(half.ingress), n.packets, n.octets) for half, n in counters.endpoints.items()]
    return Statistics(host, tuple(sorted(rules)), tuple(sorted(denied)), tuple(sorted(policies)), tuple(sorted(endpoints)))


def _direction(ingress: bool) -> str:
    return "ingress" if ingress else "egress"


def _rule_count(origin: Origin, count: Count, text_of: TextOf) -> RuleCount:
    last = max(origin.index, origin.last)
    texts = [text_of(origin.owner, origin.ingress, index) for index in sorted({origin.index, last}) if index >= 0]
    text = " ... ".join(filter(None, texts)) if origin.index >= 0 else "cannot be compiled: denies"
    return RuleCount(origin.owner, _direction(origin.ingress), origin.index, last, origin.action, text, count.packets, count.octets)


def add_up(parts: list[Statistics]) -> Statistics:
    """Sums over hosts: rules and reasons by what they are, the endpoints of staged policies added."""
    rules: dict[tuple[str, str, int, int, str, str], Count] = {}
    denied: dict[str, Count] = {}
    staged: dict[str, StagedPolicy] = {}
    halves: dict[tuple[str, str], Count] = {}
    for part in parts:
        for rule in part.rules:
            place = (rule.policy, rule.direction, rule.rule, rule.last, rule.action, rule.text)
            rules[place] = rules.get(place, Count()).plus(rule.packets, rule.bytes)
        for item in part.denied:
            denied[item.reason] = denied.get(item.reason, Count()).plus(item.packets, item.bytes)
        for half in part.endpoints:  # of one that moves, two hosts may count
            where = (half.endpoint, half.direction)
            halves[where] = halves.get(where, Count()).plus(half.packets, half.bytes)
        for policy in part.staged:
            known = staged.get(policy.policy)
            endpoints = policy.endpoints + (known.endpoints if known is not None else 0)
            staged[policy.policy] = msgspec.structs.replace(policy, endpoints=endpoints)
    return Statistics(
        ", ".join(part.host for part in parts),
        tuple(sorted(RuleCount(*place, count.packets, count.octets) for place, count in rules.items())),
        tuple(sorted(Denied(reason, count.packets, count.octets) for reason, count in denied.items())),
        tuple(sorted(staged.values())),
        tuple(sorted(EndpointDenied(*where, count.packets, count.octets) for where, count in halves.items())),
    )


def of_name(statistics: Statistics, name: str) -> Statistics:
    """Only what is about the policy or endpoint of this name: whole (``NetworkPolicy/default/web``), or the last parts of it (``web``)."""

    def concerned(resource: str) -> bool:
        return resource == name or resource.endswith(f"/{name}")

    rules = tuple(rule for rule in statistics.rules if concerned(rule.policy))
    staged = tuple(item for item in statistics.staged if concerned(item.policy))
    return Statistics(statistics.host, rules, (), staged, tuple(item for item in statistics.endpoints if concerned(item.endpoint)))
