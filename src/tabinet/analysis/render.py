"""An explanation as text for people: the verdict first, then why, then everything that was asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tabinet.analysis.explain import Explanation, PlaceLine, PolicyLine, StageLine

INHERITED = ("projectcalico.org/", "pcns.", "pcsa.")
"""Labels that every endpoint has, or has from its namespace or service account."""
SHOWN_RULES = 6
"""So many rules that do not match are shown for a policy; the others are counted."""


def render_explanation(found: Explanation) -> Iterator[str]:
    """The lines."""
    yield f"{'ALLOWED' if found.allowed else 'DENIED'}  {found.packet}"
    yield f"  by    {found.reason}"
    yield f"  from  {_place(found.source)}"
    yield f"  to    {_place(found.destination)}"
    yield f"  reply {found.reply}"
    for line in found.translations:
        yield f"  nat   {line}"
    for hop in found.route:
        yield f"  route {hop.host}: {hop.prefix} via {hop.via} ({hop.why})"
    for stage in found.stages:
        yield ""
        yield from _stage(stage)


def _place(place: PlaceLine) -> str:
    text = f"{place.name} {place.address}"
    if place.floating:
        text += f" (floating {place.floating})"
    if place.kind == "workload":
        text += f" on {place.host}, {place.interface}"
    elif place.kind == "host":
        text += " (host)"
    shown = [f"{key}={value}" for key, value in sorted(place.labels.items()) if not key.startswith(INHERITED)]
    labels = " ".join(shown)
    return f"{text}  {labels}".rstrip()


def _stage(stage: StageLine) -> Iterator[str]:
    whose = f" {stage.endpoint}" if stage.endpoint else ""
    yield f"{stage.host} {stage.hook}: {stage.subject}{whose}: {stage.verdict} ({stage.reason})"
    for tier in stage.tiers:
        verdict = f"{tier.verdict} by default" if tier.by_default else tier.verdict
        yield f"  tier {tier.tier}: {verdict}"
        for policy in tier.policies:
            yield from _policy(policy, "    ")
    for profile in stage.profiles:
        yield from _policy(profile, "  ")


def _policy(policy: PolicyLine, indent: str) -> Iterator[str]:
    yield f"{indent}{policy.policy}: {policy.verdict}{f' ({policy.trouble})' if policy.trouble else ''}"
    missed = [rule for rule in policy.rules if not rule.matches]
    for rule in [rule for rule in policy.rules if rule.matches or rule in missed[:SHOWN_RULES]]:
        yield f"{indent}  {'=>' if rule.matches else '  '} {rule.path} {rule.rule}"
        if rule.why_not:
            yield f"{indent}       {rule.why_not}"
    if len(missed) > SHOWN_RULES:
        yield f"{indent}     and {len(missed) - SHOWN_RULES} more that do not match (-o json has them)"
