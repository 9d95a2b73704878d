"""Security groups to policies, address groups to network sets.

In: a group with its rules, as Neutron has them. Out: a document of the store, and what of the group could not be expressed. A rule that
cannot be expressed allows nothing: it is left out and named in the annotation ``openstack.tabinet/refused``. Rules only ever allow; what
no rule of any of an endpoint's groups allows is denied, because every policy is about both directions. Equal groups give equal documents:
rules are in the order of their identifiers. Pure; linear in the number of rules.

Meaning of a rule (Networking API v2.0, security group rules): ``remote_group_id`` means the addresses of that group's ports, allowed
address pairs included; protocol ``0``, ``any`` and ``ip`` mean every protocol, and ``hopopt`` number 0 itself; ICMP has its type in
``port_range_min`` and its code in ``port_range_max``.
"""

from __future__ import annotations

from typing import Any

from tabinet.attach.openstack.names import (
    OPEN_LABEL,
    OPEN_VALUE,
    Region,
    address_group_key,
    address_group_label,
    group_key,
    group_label,
    open_key,
    sanitize_label,
)
from tabinet.attach.openstack.neutron import AddressGroup, SecurityGroup, SecurityGroupRule
from tabinet.lib.ip import IPV4, IPV6, parse_prefix
from tabinet.model import protocols
from tabinet.model.annotations import PROTOCOL
from tabinet.model.extended import NOBODY, PORTED, ProtocolMatch, render_protocol
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.openstack import REFUSED_ANNOTATION, REVISION_ANNOTATION
from tabinet.model.records.base import API_VERSION

Document = dict[str, Any]

RULE_ANNOTATION = "openstack.tabinet/rule"
"""The identifier of the security group rule that a policy rule stands for."""
PROTOCOL_NUMBERS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
"""Names of protocols that the API takes, by the number that each means (IANA protocol numbers)."""
ANY_PROTOCOL = (None, "", "any", "ip", "0")
_VERSIONS = {"IPv4": IPV4, "IPv6": IPV6}
_LAST_ICMP_TYPE = 254
"""Of the field; there is one more type."""
_SHOWN = 20
"""So many refusals are told in an annotation."""


class Inexpressible(Exception):
    """A rule has no counterpart; the text says what of it."""


def translate_group(group: SecurityGroup, region: Region) -> Document:
    """The policy that stands for the group."""
    rules: dict[str, list[Document]] = {"ingress": [], "egress": []}
    refused = []
    for rule in sorted(group.security_group_rules, key=lambda rule: rule.id):
        try:
            rules[_direction(rule)].append(translate_rule(rule))
        except Inexpressible as reason:
            refused.append(f"rule {rule.id}: {reason}")
    annotations = {REVISION_ANNOTATION: str(group.revision_number)} | refusals(refused)
    spec = {"selector": f"has({group_label(group.id)})", "types": ["Ingress", "Egress"], **rules}
    return _document(group_key(region, group.id), {"annotations": annotations}, spec)


def open_policy(region: Region) -> Document:
    """The policy of ports whose port security is off: everything is allowed."""
    allow = [{"action": "Allow"}]
    spec = {"selector": f"{OPEN_LABEL} == '{OPEN_VALUE}'", "types": ["Ingress", "Egress"], "ingress": allow, "egress": allow}
    return _document(open_key(region), {}, spec)


def translate_address_group(group: AddressGroup, region: Region) -> Document:
    """The network set that stands for the address group. What is no prefix in it is left out and told."""
    nets, refused = set(), []
    for text in group.addresses:
        try:
            nets.add(parse_prefix(text))
        except ValueError as error:
            refused.append(f"address {text}: {error}")
    annotations = {REVISION_ANNOTATION: str(group.revision_number)} | refusals(refused)
    labels = {address_group_label(group.id): sanitize_label(group.name)}
    metadata = {"annotations": annotations, "labels": labels}
    return _document(address_group_key(region, group.id), metadata, {"nets": [str(net) for net in sorted(nets)]})


def refusals(lines: list[str]) -> dict[str, str]:
    """The annotation that tells what could not be expressed; empty when everything could."""
    if not lines:
        return {}
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return {REFUSED_ANNOTATION: "\n".join([*lines[:_SHOWN], *more])}


def translate_rule(rule: SecurityGroupRule) -> Document:
    """The policy rule that allows what the group's rule allows. What a policy rule has no field for is in its annotation
    ``tabinet.io/protocol``; to those who do not know that, such a rule is about nobody.

    Raises:
        Inexpressible: there is none.
    """
    made: Document = {"action": "Allow", "metadata": {"annotations": {RULE_ANNOTATION: rule.id}}}
    version = _version(rule)
    if version:
        made["ipVersion"] = version
    number = parse_protocol(rule.protocol, version)
    if number:
        made["protocol"] = protocols.NAMES.get(number, number)
    match, near, ports = _match(rule, number), {}, {}
    if _is_beyond_fields(number, match):
        made["metadata"]["annotations"][PROTOCOL] = render_protocol(match)
        near = {"selector": NOBODY}
    elif match.ports is not None:
        first, last = match.ports
        ports = {"ports": [first if first == last else f"{first}:{last}"]}
    elif match.icmp is not None:
        kind, code = match.icmp
        made["icmp"] = {"type": kind} if code is None else {"type": kind, "code": code}
    remote = _remote(rule, version)
    source, destination = (remote, {**near, **ports}) if rule.direction == "ingress" else (near, {**remote, **ports})
    made |= {name: entity for name, entity in (("source", source), ("destination", destination)) if entity}
    return made


def parse_protocol(name: str | None, version: int) -> int | None:
    """The number of a protocol as the API has it; None for every protocol.

    Raises:
        Inexpressible: a name or number that means nothing to a rule.
    """
    if name in ANY_PROTOCOL:
        return None
    text = str(name).lower()
    number = PROTOCOL_NUMBERS.get(text, -1)
    if number < 0 and text.isascii() and text.isdigit():
        number = int(text)
    if not 0 <= number <= 255:
        raise Inexpressible(f"protocol {name}")
    if version == IPV6 and number == protocols.ICMP:
        return protocols.ICMPV6  # as Neutron itself reads such rules
    if (version or IPV4) == IPV4 and number == protocols.ICMPV6:
        raise Inexpressible("ICMPv6 in IPv4")
    return number


def _direction(rule: SecurityGroupRule) -> str:
    if rule.direction not in ("ingress", "egress"):
        raise Inexpressible(f"direction {rule.direction}")
    return rule.direction


def _version(rule: SecurityGroupRule) -> int:
    """0: both."""
    if rule.ethertype is None:
        return 0
    if rule.ethertype not in _VERSIONS:
        raise Inexpressible(f"ethertype {rule.ethertype}")
    return _VERSIONS[rule.ethertype]


def _match(rule: SecurityGroupRule, number: int | None) -> ProtocolMatch:
    """Protocol, ports, ICMP type and code; without a protocol, only its number 0 says something."""
    low, high = rule.port_range_min, rule.port_range_max
    if low is None and high is None:
        return ProtocolMatch(number or 0)
    if number in (protocols.ICMP, protocols.ICMPV6):
        if low is None or not 0 <= low <= 255 or (high is not None and not 0 <= high <= 255):
            raise Inexpressible(f"ICMP type {low}, code {high}")
        return ProtocolMatch(number, icmp=(low, high))
    if number not in PORTED:
        raise Inexpressible(f"ports of protocol {rule.protocol}")
    if low is None or high is None or not 1 <= low <= high <= 65535:
        raise Inexpressible(f"ports {low} to {high}")
    return ProtocolMatch(number, ports=(low, high))


def _is_beyond_fields(number: int | None, match: ProtocolMatch) -> bool:
    """True: a policy rule has no field for it."""
    ported = match.ports is not None and match.number not in protocols.WITH_PORTS
    return number == 0 or ported or (match.icmp is not None and match.icmp[0] > _LAST_ICMP_TYPE)


def _remote(rule: SecurityGroupRule, version: int) -> Document:
    """Who is at the other end; empty for everybody."""
    if rule.remote_group_id:
        return {"selector": f"has({group_label(rule.remote_group_id)})"}
    if rule.remote_address_group_id:
        return {"selector": f"has({address_group_label(rule.remote_address_group_id)})"}
    if rule.remote_ip_prefix:
        try:
            net = parse_prefix(rule.remote_ip_prefix)
        except ValueError as error:
            raise Inexpressible(f"remote prefix {rule.remote_ip_prefix}") from error
        if version and net.family != version:
            raise Inexpressible(f"remote prefix {net} in IPv{version}")
        return {"nets": [str(net)]}
    return {}


def _document(key: ResourceKey, metadata: Document, spec: Document) -> Document:
    metadata = {"name": key.name, "namespace": key.namespace} | {name: value for name, value in metadata.items() if value}
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}


def path_of_document(document: Document) -> str:
    """Where a resource of this region is stored."""
    metadata = document["metadata"]
    return path_of(ResourceKey(document["kind"], metadata["name"], metadata["namespace"]))
