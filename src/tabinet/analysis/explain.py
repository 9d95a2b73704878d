"""``explain``: what becomes of the first packet of a flow, and everything that has to do with it.

In: a fabric, two places, what kind of packet. Out: an ``Explanation`` that says what each host on the way asks and answers, in terms of
the resources. The verdict is that of the tables that the kernels get; the story must agree with it, or it is a bug, which is raised.

Not modelled: the state of connection tracking (rates, numbers of connections), firewalls that are not ours, routers between hosts.
"""

from __future__ import annotations

import msgspec

from tabinet.analysis.fabric import Fabric, Place
from tabinet.analysis.mismatch import protocol_text
from tabinet.analysis.routes import Hop, find_route, is_outside_pools
from tabinet.analysis.story import Outcome, PolicyLook, Stage, Subject, TierLook, allows, tell, tell_answer
from tabinet.analysis.way import Question, find_way
from tabinet.analysis.words import Words, address_text, workload_name
from tabinet.calc.messages import Action
from tabinet.errors import InputError, Problem
from tabinet.lib.ip import IPV4
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.evaluate import begins_flow, evaluate
from tabinet.rules.reach import Pass


class PlaceLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One end of the flow."""

    address: str
    kind: str
    """``workload``, ``host`` or ``outside``."""
    name: str = ""
    endpoint: str = ""
    """Kind and name of the resource."""
    host: str = ""
    interface: str = ""
    floating: str = ""
    """The floating address that was asked for."""
    labels: dict[str, str] = {}


class RuleLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule that was looked at."""

    path: str
    """In the resource, as in ``spec.ingress[2]``."""
    rule: str
    """In one line."""
    matches: bool
    why_not: str = ""


class PolicyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A policy or profile that was looked at."""

    policy: str
    """Kind and name."""
    verdict: str
    """``Allow``, ``Deny``, ``Pass``, or ``no match``."""
    trouble: str = ""
    rules: tuple[RuleLine, ...] = ()


class TierLine(msgspec.Struct, frozen=True, kw_only=True):
    """A tier that was looked at."""

    tier: str
    verdict: str
    by_default: bool
    policies: tuple[PolicyLine, ...]


class StageLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a host asks."""

    host: str
    hook: str
    """``forward``, ``input`` or ``output``."""
    subject: str
    endpoint: str
    verdict: str
    """``allow`` or ``deny``."""
    reason: str
    tiers: tuple[TierLine, ...] = ()
    profiles: tuple[PolicyLine, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the packet."""

    source: PlaceLine
    destination: PlaceLine
    packet: str
    """In one line."""
    allowed: bool
    reason: str
    """What decided, in one line."""
    stages: tuple[StageLine, ...]
    """In order; the last one decided."""
    route: tuple[Hop, ...]
    """From the source's host to the destination's."""
    translations: tuple[str, ...]
    reply: str
    """What becomes of the answer."""


def explain(fabric: Fabric, question: Question) -> Explanation:
    """What becomes of the packet.

    Raises:
        InputError: neither end is in the fabric, or no flow begins with such a packet.
    """
    source, destination = question.source, question.destination
    if not source.host and not destination.host:
        ends = f"{source.address.address}, {destination.address.address}"
        raise InputError([Problem(path="SRC, DST", value=ends, allowed="one of them at least must be a workload or host of the fabric")])
    if not begins_flow(question.protocol, question.icmp_type):
        hint = "a request: errors and answers pass with the flow that they belong to, so ask about that flow"
        raise InputError([Problem(path="icmp type", value=str(question.icmp_type), allowed=hint)])
    views = fabric.view(place.host for place in (source, destination) if place.host)
    way = find_way(fabric, views, question)
    words = Words(fabric)
    stages: list[StageLine] = []
    answers: list[StageLine] = []
    allowed = True
    for one in way.passes:
        view = views[one.host]
        told = tell(view.world, one.packet, one.hook)
        allowed = allows(told)
        verdict = evaluate(view.table, one.packet, one.hook)
        if verdict.accepted != allowed:
            raise AssertionError(f"the table of {one.host} says {verdict}, the story {told[-1:]}")
        stages += [_stage_line(words, one, stage) for stage in told]
        if one.hook == "forward":
            answers += [_stage_line(words, one, stage) for stage in tell_answer(view.world, one.packet)]
        if not allowed:
            break
    return Explanation(
        source=_place_line(fabric, words, source),
        destination=_place_line(fabric, words, destination),
        packet=packet_text(question),
        allowed=allowed,
        reason=_headline(stages, allowed),
        stages=tuple(stages),
        route=find_route(fabric, source, destination),
        translations=way.translations,
        reply=_reply_text(stages, answers, allowed),
    )


# --- words ----------------------------------------------------------------------------------------------------------


def packet_text(question: Question) -> str:
    """The packet in one line."""
    name = protocol_text(question.protocol)
    target = question.destination.external or question.destination.address
    ends = f"{question.source.address.address} -> {target.address}"
    if question.protocol in (ICMP, ICMPV6):
        return f"{name} type {question.icmp_type} code {question.icmp_code} {ends}"
    return f"{name} {ends} port {question.destination_port}" if question.destination_port else f"{name} {ends}"


def _place_line(fabric: Fabric, words: Words, place: Place) -> PlaceLine:
    address = address_text(place.address)
    floating = address_text(place.external) if place.external is not None else ""
    if place.endpoint is None:
        name = place.host or ("outside, in no pool" if is_outside_pools(fabric, place.address) else "an address of a pool that nobody has")
        return PlaceLine(address=address, kind=place.kind, name=name, host=place.host)
    return PlaceLine(
        address=address,
        kind=place.kind,
        name=workload_name(fabric.workloads[place.endpoint]),
        endpoint=str(place.endpoint),
        host=place.host,
        interface=place.interface,
        floating=floating,
        labels=words.labels(place.endpoint),
    )


def _stage_line(words: Words, one: Pass, stage: Stage) -> StageLine:
    return StageLine(
        host=one.host,
        hook=one.hook,
        subject=stage.subject.value,
        endpoint=_endpoint_text(words.fabric, stage.endpoint),
        verdict=stage.outcome.value,
        reason=stage.reason,
        tiers=tuple([_tier_line(words, tier) for tier in stage.tiers]),
        profiles=tuple([_policy_line(words, look) for look in stage.profiles]),
    )


def _endpoint_text(fabric: Fabric, key: ResourceKey | None) -> str:
    if key is None:
        return ""
    workload = fabric.workloads.get(key)
    return workload_name(workload) if workload is not None else key.name


def _tier_line(words: Words, look: TierLook) -> TierLine:
    policies = tuple([_policy_line(words, policy) for policy in look.policies])
    return TierLine(tier=look.tier, verdict=look.action.value, by_default=look.by_default, policies=policies)


def _policy_line(words: Words, look: PolicyLook) -> PolicyLine:
    lines = []
    for rule in look.rules:
        path, text = words.rule(look.key, look.ingress, rule.index)
        why = "" if rule.mismatch is None else words.mismatch(rule.mismatch)
        lines.append(RuleLine(path=path, rule=text, matches=rule.mismatch is None, why_not=why))
    verdict = look.action.value if look.action is not None else "no match"
    return PolicyLine(policy=str(look.key), verdict=verdict, trouble=look.trouble, rules=tuple(lines))


def _headline(stages: list[StageLine], allowed: bool) -> str:
    """The rule that decided; of a packet that is allowed, the last one that did."""
    if not stages:
        return "no policy has a say in it"
    deciding = [stage for stage in stages if stage.subject != Subject.SOURCE.value] or stages
    stage = stages[-1] if not allowed else deciding[-1]
    return f"{stage.subject}{f' {stage.endpoint}' if stage.endpoint else ''} on {stage.host}: {_decider(stage)}"


def _decider(stage: StageLine) -> str:
    looks = [*(policy for tier in stage.tiers for policy in tier.policies), *stage.profiles]
    for look in reversed(looks):
        if look.verdict in (Action.ALLOW.value, Action.DENY.value):
            rule = next((rule for rule in reversed(look.rules) if rule.matches and not rule.rule.startswith(Action.LOG.value)), None)
            where = f" {rule.path}: {rule.rule}" if rule is not None else f": {look.trouble}"
            return f"{look.policy}{where}"
    return stage.reason


def _reply_text(stages: list[StageLine], answers: list[StageLine], allowed: bool) -> str:
    if not allowed:
        return "there is none: the flow does not begin"
    if any(stage.subject == Subject.UNTRACKED.value and stage.verdict == Outcome.ALLOW.value for stage in stages):
        return "a doNotTrack policy let the packet pass without a connection: answers need a rule of their own, in both directions"
    denied = next((stage for stage in answers if stage.verdict == Outcome.DENY.value), None)
    if denied is not None:
        return f"is denied: {denied.subject}, {denied.endpoint} is stateless, so that answers need a rule of their own; {_decider(denied)}"
    if answers:
        return "passes: rules of the stateless endpoint allow it by itself"
    return "passes: every host judges it by the packet that the flow began with"


def icmp_of(family: int) -> int:
    """The family's ICMP."""
    return ICMP if family == IPV4 else ICMPV6
