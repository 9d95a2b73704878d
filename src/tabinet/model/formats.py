"""Formats of single values: the vocabulary in which ``resources`` says what a text or number must look like.

A ``Format`` judges one value and names what is allowed. It stands in a record's annotation (``Cidr``, ``SelectorText``, ...), from
where ``shapes`` reads it; so the record is the one place that says what a field is. Each format has two degrees: ``check`` is what an
operator's document must pass; ``stored`` is what a value that is already in the store must pass, which is less: only what would be
dangerous to act on (or impossible to understand) is refused there, so that values of newer or laxer writers are not dropped.

In a field whose default is the empty text, an empty text means that the field is absent, and nobody judges it.
"""

from __future__ import annotations

import base64
import functools
import re
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from tabinet import selector
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model import asn, ports, protocols

Judge = Callable[[Any], str]
"""Returns what is allowed, in words, when the value is not; empty when it is fine. Never raises for values of the field's type."""


class Format(msgspec.Struct, frozen=True):
    """How a value must look."""

    name: str
    """One or two words, for the reference."""
    check: Judge
    stored: Judge | None = None
    """For values in the store; ``None``: anything passes."""
    choices: tuple[str, ...] = ()
    """All legal values, where they can be counted."""


def _meta(form: Format) -> msgspec.Meta:
    return msgspec.Meta(extra={"format": form})


def _same(name: str, check: Judge) -> msgspec.Meta:
    return _meta(Format(name, check, check))


def _parses(parse: Callable[[Any], object], allowed: str) -> Judge:
    def judge(value: Any) -> str:
        try:
            parse(value)
        except ValueError:
            return allowed
        return ""

    return judge


def _fits(pattern: str, allowed: str) -> Judge:
    compiled = re.compile(pattern)
    return lambda value: "" if compiled.fullmatch(value) else allowed


def _between(low: int, high: int) -> Judge:
    return lambda value: "" if low <= value <= high else f"allowed: {low} to {high}"


def one_of(*choices: str, stored: bool = False) -> msgspec.Meta:
    """One of these texts. ``stored``: other texts are refused in the store too."""
    allowed = "allowed: " + ", ".join(choices)
    members = frozenset(choices)

    def judge(value: Any) -> str:
        return "" if value in members else allowed

    return _meta(Format("one of", judge, judge if stored else None, choices))


def any_case(*choices: str) -> msgspec.Meta:
    """One of these texts, in capital or small letters."""
    allowed = "allowed: " + ", ".join(choices)
    members = frozenset(choice.lower() for choice in choices)
    return _meta(Format("one of", lambda value: "" if value.lower() in members else allowed, None, choices))


def within(low: int, high: int, *, stored: bool = False) -> msgspec.Meta:
    """A number from ``low`` to ``high``, both included."""
    judge = _between(low, high)
    return _meta(Format("number", judge, judge if stored else None))


def within_or_zero(low: int, high: int) -> msgspec.Meta:
    """As ``within``, or 0 for none."""
    return _meta(Format("number", lambda value: "" if value == 0 or low <= value <= high else f"allowed: {low} to {high}, or 0 for none"))


def pattern(name: str, expression: str, allowed: str, *, stored: bool = False) -> msgspec.Meta:
    """A text that the regular expression matches as a whole."""
    judge = _fits(expression, allowed)
    return _meta(Format(name, judge, judge if stored else None))


# --- addresses ------------------------------------------------------------------------------------------------------

prefix_of = functools.lru_cache(maxsize=4096)(parse_prefix)
"""As ``parse_prefix``. One value is judged, compared and compared again, and gateways are the same in many documents."""
address_of = functools.lru_cache(maxsize=4096)(parse_address)

_CIDR_ALLOWED = "allowed: an IPv4 or IPv6 prefix or address"
_cidr = _parses(prefix_of, _CIDR_ALLOWED)


def _judge_net(value: str) -> str:
    try:
        prefix = prefix_of(value)
        parse_prefix(value, strict=True)
    except ValueError:
        return _cidr(value) or f"allowed: the prefix without host bits, {prefix}"
    return ""


def _judge_host_prefix(value: str) -> str:
    try:
        return "" if prefix_of(value).is_host else "allowed: a single address, /32 or /128"
    except ValueError:
        return "allowed: an IPv4 or IPv6 address, with or without /32 or /128"


def _family(family: int, *, bare: bool) -> Judge:
    parse = address_of if bare else prefix_of
    allowed = f"allowed: an IPv{family} address" + ("" if bare else ", with or without a prefix length")

    def judge(value: str) -> str:
        try:
            return "" if parse(value).family == family else allowed
        except ValueError:
            return allowed

    return judge


_PEER = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})")


def parse_peer(text: str) -> tuple[str, int]:
    """Address and port of ``10.0.0.1``, ``10.0.0.1:1179``, ``fd00::1`` or ``[fd00::1]:1179``; port 0 when none is given.

    Raises:
        ValueError: none of these.
    """
    match = _PEER.fullmatch(text)
    if match is None:
        return parse_address(text).address, 0
    address = parse_address(match["v6"] or match["v4"] or "")
    port = int(match["port"])
    if not 1 <= port <= 65535 or (match["v6"] is None) != (address.family == 4):
        raise ValueError(f"{text!r} is not an address with a port")
    return address.address, port


def _net_of(family: int) -> Judge:
    any_host_bits = _family(family, bare=False)
    return lambda value: any_host_bits(value) or _judge_net(value)


Cidr = Annotated[str, _same("prefix", _cidr)]
"""A prefix or address; host bits may be set."""
Net = Annotated[str, _meta(Format("prefix", _judge_net, _cidr))]
"""A prefix without host bits, or an address."""
Net4 = Annotated[str, _meta(Format("IPv4 prefix", _net_of(4), _family(4, bare=False)))]
Net6 = Annotated[str, _meta(Format("IPv6 prefix", _net_of(6), _family(6, bare=False)))]
HostPrefix = Annotated[str, _same("address", _judge_host_prefix)]
"""A single address, with or without its full length."""
Address = Annotated[str, _same("address", _parses(address_of, "allowed: an IPv4 or IPv6 address"))]
Address4 = Annotated[str, _same("IPv4 address", _family(4, bare=True))]
Address6 = Annotated[str, _same("IPv6 address", _family(6, bare=True))]
Cidr4 = Annotated[str, _same("IPv4 address", _family(4, bare=False))]
Cidr6 = Annotated[str, _same("IPv6 address", _family(6, bare=False))]
Peer = Annotated[str, _same("address and port", _parses(parse_peer, "allowed: an address, 10.0.0.1:1179 or [fd00::1]:1179"))]
Mac = Annotated[
    str, pattern("MAC", r"(?i:[0-9a-f]{2}([:-][0-9a-f]{2}){5})", "allowed: six pairs of hex digits, as in 02:00:5e:10:00:01", stored=True)
]

# --- policy ---------------------------------------------------------------------------------------------------------


def _judge_selector(value: str) -> str:
    try:
        selector.parse(value)
    except selector.SelectorError as error:
        return f"not a selector: {error}"
    return ""


def _judge_plain_selector(value: str) -> str:
    reason = _judge_selector(value)
    if not reason and any(isinstance(leaf, selector.Global) for leaf in selector.leaves(selector.parse(value).root)):
        return "global() is allowed only in the namespaceSelector of a rule"
    return reason


def _judge_rule_namespace_selector(value: str) -> str:
    reason = _judge_selector(value)
    root = selector.All() if reason else selector.parse(value).root
    if not isinstance(root, selector.Global) and any(isinstance(leaf, selector.Global) for leaf in selector.leaves(root)):
        return "global() cannot be combined with other terms"
    return reason


def _not_a_name(value: int | str) -> str:
    try:
        fine = value == 0 or isinstance(ports.parse_port(value), ports.Ports)
    except ValueError:
        fine = False
    return "" if fine else "allowed: a number from 1 to 65535, or a range such as 1000:2000"


_port = _parses(ports.parse_port, ports.ALLOWED)


def _judge_one_port(value: int | str) -> str:
    return "allowed: one number, or the name of a port" if isinstance(value, str) and ":" in value else _port(value)


SelectorText = Annotated[str, _meta(Format("selector", _judge_plain_selector, _judge_selector))]
NamespaceSelectorText = Annotated[str, _meta(Format("selector", _judge_rule_namespace_selector, _judge_selector))]
"""As it stands in a rule, where ``global()`` alone means "not in a namespace"."""
Action = Annotated[str, one_of("Allow", "Deny", "Log", "Pass", stored=True)]
TierAction = Annotated[str, one_of("Deny", "Pass", stored=True)]
StagedAction = Annotated[str, one_of("Set", "Delete", "Learn", "Ignore")]
PolicyType = Annotated[str, one_of("Ingress", "Egress", stored=True)]
_family_number: Judge = lambda value: "" if value in (4, 6) else "allowed: 4 or 6"  # noqa: E731
IpVersion = Annotated[int, _same("IP version", _family_number)]
Protocol = Annotated[int | str, _same("protocol", _parses(protocols.parse_protocol, protocols.ALLOWED))]
Port = Annotated[int | str, _same("port", _port)]
PortOrName = Annotated[int | str, _same("port", _judge_one_port)]
NumericPort = Annotated[int | str, _meta(Format("port", _not_a_name))]
"""A number or a range; no name."""
PortNumber = Annotated[int, within(1, 65535, stored=True)]
PortOrNone = Annotated[int, within(0, 65535, stored=True)]
PortName = Annotated[str, pattern("port name", r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "allowed: lower-case letters, digits and '-' inside")]
IcmpType = Annotated[int, within(0, 254, stored=True)]
IcmpCode = Annotated[int, within(0, 255, stored=True)]

# --- names ----------------------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = _LABEL
DNS_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"

ObjectName = Annotated[
    str, pattern("name", DNS_SUBDOMAIN, "allowed: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit")
]
NodeName = Annotated[str, pattern("name", r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", "allowed: letters, digits, '-', '_' and '.' inside")]
Interface = Annotated[
    str, pattern("interface", r"(?!\.\.?$)[a-zA-Z0-9_.-]{1,15}", "allowed: 1 to 15 letters, digits, '_', '.' and '-'", stored=True)
]
InterfacePattern = Annotated[
    str,
    pattern(
        "interface pattern",
        r"(?!\*$)[a-zA-Z0-9_.*-]{1,15}",
        "allowed: 1 to 15 letters, digits, '_', '.', '-' and '*', not '*' alone",
        stored=True,
    ),
]

InterfaceOrAll = Annotated[
    str,
    pattern("interface", r"\*|(?!\.\.?$)[a-zA-Z0-9_.-]{1,15}", "allowed: 1 to 15 letters, digits, '_', '.' and '-', or '*'", stored=True),
]
InterfacePatternOrAll = Annotated[
    str, pattern("interface pattern", r"[a-zA-Z0-9_.*-]{1,15}", "allowed: 1 to 15 letters, digits, '_', '.', '-' and '*'", stored=True)
]
InterfaceFilter = Annotated[
    str, pattern("interface pattern", r"[a-zA-Z0-9:._+-]{1,15}", "allowed: 1 to 15 letters, digits, ':', '.', '_', '-' and '+' as wildcard")
]
ContainerId = Annotated[str, pattern("name", r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?", "allowed: letters, digits and '-' inside")]
Switch = Annotated[str, one_of("Enabled", "Disabled")]
ClusterRoutes = Annotated[str, one_of("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")]
"""Which of the routes between hosts of the cluster a program of Calico installs; Calico 3.32 knows the first two."""

# --- texts of other kinds ---------------------------------------------------------------------------------------------


def _judge_regex(value: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            return f"not a regular expression: {error}"
    return ""


def _judge_key(value: str) -> str:
    try:
        return "" if len(base64.b64decode(value, validate=True)) == 32 else _KEY_ALLOWED
    except ValueError:
        return _KEY_ALLOWED


_KEY_ALLOWED = "allowed: 32 bytes in base64"
_DSCP_NAME = re.compile(r"(?i:DF|LE|EF|VA|CS[0-7]|AF[1-4][1-3])")
_DSCP_NUMBER = re.compile(r"[0-9]{1,2}")


def _judge_dscp(value: int | str) -> str:
    if isinstance(value, str) and _DSCP_NUMBER.fullmatch(value):
        value = int(value)
    fine = 0 <= value <= 63 if isinstance(value, int) else _DSCP_NAME.fullmatch(value)
    return "" if fine else "allowed: 0 to 63, or a name such as EF, CS1 or AF11"


Regex = Annotated[str, _meta(Format("regular expression", _judge_regex))]
WireguardKey = Annotated[str, _meta(Format("key", _judge_key))]
Dscp = Annotated[int | str, _meta(Format("code point", _judge_dscp))]

# --- routing --------------------------------------------------------------------------------------------------------

AsNumber = Annotated[int | str, _same("AS number", _parses(asn.parse_as_number, asn.ALLOWED))]


def parse_community(text: str) -> tuple[int, ...]:
    """The two (RFC 1997) or three (RFC 8092) numbers of a BGP community.

    Raises:
        ValueError: not a standard or large community.
    """
    parts = text.split(":")
    limit = 65535 if len(parts) == 2 else 4294967295
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() and len(part) <= 10 and int(part) <= limit for part in parts):
        raise ValueError(f"{text!r} is not a community")
    return tuple(int(part) for part in parts)


CommunityValue = Annotated[
    str, _same("community", _parses(parse_community, "allowed: two numbers up to 65535 or three up to 4294967295, with ':' between them"))
]
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def parse_duration_s(text: str) -> float:
    """Seconds of a duration as Go writes it: ``90s``, ``1m30s``, ``1.5h``, ``500ms``; ``0`` is 0. None is negative.

    Raises:
        ValueError: not a duration.
    """
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


_judge_duration = _parses(parse_duration_s, "allowed: a duration such as 90s or 1m30s")
Duration = Annotated[str, _same("duration", _judge_duration)]
ConntrackTimeout = Annotated[str, _meta(Format("duration, or Auto", lambda value: "" if value == "Auto" else _judge_duration(value)))]
TransportProtocol = Annotated[str, any_case("TCP", "UDP", "SCTP")]
LogLevel = Annotated[str, any_case("Trace", "Debug", "Info", "Warning", "Error", "Fatal")]
ClusterId = Annotated[str, _same("IPv4 address", _family(4, bare=True))]
"""A BGP cluster identifier, written as an IPv4 address (RFC 4456)."""
