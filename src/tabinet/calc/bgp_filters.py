"""BGPFilter resources and communities as intents.

In: the spec of a BGPFilter, the parts of a BGPConfiguration about communities and services. Out: records of ``intents``, and what is wrong.
A filter with a rule that cannot be understood is wrong as a whole: what is left of it would let through what it should not. Pure;
linear in the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tabinet.calc.intents import (
    AddCommunity,
    Advertisement,
    FilterIntent,
    FilterRule,
    MatchOperator,
    Operation,
    Prepend,
    SetPriority,
)
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix
from tabinet.model.asn import parse_as_number
from tabinet.model.formats import parse_community
from tabinet.model.resources import BGPConfigurationSpec, BGPFilterSpec, FilterOperation, FilterRuleV4, FilterRuleV6

Report = Callable[[str, object, str], None]
"""Told path, value and what is allowed."""

_BIRD_PATTERN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+:*?")


def filter_intent(name: str, spec: BGPFilterSpec, report: Report) -> FilterIntent | None:
    """The filter, or None after what is wrong with it was reported."""
    wrong: list[str] = []

    def note(path: str, value: object, allowed: str) -> None:
        wrong.append(path)
        report(path, value, allowed)

    def rules(direction: str, given4: Sequence[FilterRuleV4], given6: Sequence[FilterRuleV6]) -> tuple[tuple[int, FilterRule], ...]:
        four = [(IPV4, _rule(rule, IPV4, f"spec.{direction}V4[{index}]", note)) for index, rule in enumerate(given4)]
        six = [(IPV6, _rule(rule, IPV6, f"spec.{direction}V6[{index}]", note)) for index, rule in enumerate(given6)]
        return (*four, *six)

    found = FilterIntent(
        name=name,
        export_rules=rules("export", spec.export_v4, spec.export_v6),
        import_rules=rules("import", spec.import_v4, spec.import_v6),
    )
    return None if wrong else found


def _rule(rule: FilterRuleV4 | FilterRuleV6, family: int, path: str, report: Report) -> FilterRule:
    if rule.interface and not _BIRD_PATTERN.issuperset(rule.interface):
        report(f"{path}.interface", rule.interface, "a name of an interface, with * for anything")
    net, operator, lengths = _match(rule, family, path, report)
    return FilterRule(
        accept=rule.action == "Accept",
        net=net,
        operator=operator,
        lengths=lengths,
        remote_only=rule.source == "RemotePeers",
        interface="" if rule.interface == "*" else rule.interface,
        external={"eBGP": True, "iBGP": False}.get(rule.peer_type),
        community=_community(rule.communities.values[0], f"{path}.communities", report) if rule.communities else (),
        as_path=tuple(_as_number(value, f"{path}.asPathPrefix", report) for value in rule.as_path_prefix),
        priority=rule.priority,
        operations=tuple(_operations(rule.operations, path, report)),
    )


def _match(
    rule: FilterRuleV4 | FilterRuleV6, family: int, path: str, report: Report
) -> tuple[Prefix | None, MatchOperator, tuple[int, int] | None]:
    if not rule.cidr:
        return None, MatchOperator.IN, None
    try:
        net = parse_prefix(rule.cidr)
    except ValueError:
        net = None
    if net is None or net.family != family:
        report(f"{path}.cidr", rule.cidr, f"an IPv{family} prefix")
        return None, MatchOperator.IN, None
    try:
        operator = MatchOperator(rule.match_operator)
    except ValueError:
        report(f"{path}.matchOperator", rule.match_operator, "Equal, NotEqual, In or NotIn")
        return None, MatchOperator.IN, None
    if rule.prefix_length is None:
        return net, operator, None
    shortest = max(net.length, rule.prefix_length.min or 0)
    longest = net.bits if rule.prefix_length.max is None else rule.prefix_length.max
    if shortest > longest:
        report(f"{path}.prefixLength", longest, f"a longest length of at least {shortest}")
        return None, operator, None
    return net, operator, (shortest, longest)


def _operations(given: tuple[FilterOperation, ...], path: str, report: Report) -> Iterator[Operation]:
    for index, operation in enumerate(given):
        here = f"{path}.operations[{index}]"
        if operation.add_community is not None:
            yield AddCommunity(_community(operation.add_community.value, here, report))
        elif operation.prepend_as_path is not None:
            yield Prepend(tuple(_as_number(value, here, report) for value in operation.prepend_as_path.prefix))
        elif operation.set_priority is not None:
            yield SetPriority(operation.set_priority.value)
        else:
            report(here, "", "addCommunity, prependASPath or setPriority")


def _community(text: str, path: str, report: Report) -> tuple[int, ...]:
    try:
        return parse_community(text)
    except ValueError:
        report(path, text, "two numbers up to 65535 or three up to 4294967295, with ':' between them")
        return ()


def _as_number(value: int | str, path: str, report: Report) -> int:
    try:
        return parse_as_number(value)
    except ValueError as error:
        report(path, value, str(error))
        return 0


def advertisements(spec: BGPConfigurationSpec, report: Report) -> tuple[Advertisement, ...]:
    """``prefixAdvertisements`` with the names of communities replaced by their values; what is wrong is left out."""
    named = {community.name: community.value for community in spec.communities}
    found = []
    for index, item in enumerate(spec.prefix_advertisements):
        path = f"spec.prefixAdvertisements[{index}]"
        net = _net(item.cidr, f"{path}.cidr", report)
        communities = [_community(named.get(text, text), f"{path}.communities", report) for text in item.communities]
        if net is not None:
            found.append(Advertisement(net, tuple(community for community in communities if community)))
    return tuple(found)


def services(spec: BGPConfigurationSpec, report: Report) -> tuple[Prefix, ...]:
    """The prefixes of services' addresses that every host tells to its peers as a whole, sorted.

    Single addresses are told only by hosts that serve them, so by whoever knows the services; with aggregation off that includes those of
    load balancers.
    """
    given = [("serviceClusterIPs", spec.service_cluster_ips), ("serviceExternalIPs", spec.service_external_ips)]
    if spec.service_load_balancer_aggregation != "Disabled":
        given.append(("serviceLoadBalancerIPs", spec.service_load_balancer_ips))
    found = {_net(block.cidr, f"spec.{name}[{index}].cidr", report) for name, blocks in given for index, block in enumerate(blocks)}
    return tuple(sorted(net for net in found if net is not None and not net.is_host))


def _net(text: str, path: str, report: Report) -> Prefix | None:
    try:
        return parse_prefix(text)
    except ValueError:
        report(path, text, "a prefix, as in 10.96.0.0/12")
        return None
