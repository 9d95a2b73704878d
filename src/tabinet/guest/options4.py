"""DHCPv4 options: their codes, and their values from texts (RFC 2132, RFC 3397, RFC 3442).

In: names and values as operators write them (Neutron's ``extra_dhcp_opts`` have dnsmasq's names). Out: code and bytes, or ``ValueError``
with what is allowed. Pure; linear in the text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tabinet.guest.options import encode_guess
from tabinet.lib.ip import IPV4, Prefix, parse_address, parse_prefix

SUBNET_MASK = 1
ROUTER = 3
DNS_SERVERS = 6
HOST_NAME = 12
DOMAIN_NAME = 15
MTU = 26
REQUESTED_ADDRESS = 50
LEASE_TIME = 51
SERVER_IDENTIFIER = 54
PARAMETER_LIST = 55
REASON = 56
LONGEST_MESSAGE = 57
RENEWAL_TIME = 58
REBINDING_TIME = 59
TFTP_SERVER = 66
BOOT_FILE = 67
DOMAIN_SEARCH = 119
CLASSLESS_ROUTES = 121

OURS = frozenset((0, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 82, 255))
"""Options that belong to the exchange itself: nobody can set them."""

_LABEL = 63
_NAME_BYTES = 255
Encoder = Callable[[str], bytes]


def _addresses(text: str) -> bytes:
    found = [parse_address(part) for part in text.replace(",", " ").split()]
    if not found or any(address.family != IPV4 for address in found):
        raise ValueError(f"{text!r} are no IPv4 addresses")
    return b"".join(address.packed for address in found)


def _text(text: str) -> bytes:
    return text.encode()


def _number(size: int) -> Encoder:
    def encode(text: str) -> bytes:
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
        if not 0 <= value < 1 << (8 * size):
            raise ValueError(f"{text!r} is not a number from 0 to {(1 << (8 * size)) - 1}")
        return value.to_bytes(size, "big")

    return encode


def _switch(text: str) -> bytes:
    values = {"0": b"\0", "false": b"\0", "1": b"\1", "true": b"\1"}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return values[text.lower()]


def encode_search(text: str) -> bytes:
    """Domains, without compression (RFC 3397; RFC 1035 section 3.1).

    Raises:
        ValueError: one of them is no domain.
    """
    return b"".join(_encode_domain(name) for name in text.replace(",", " ").split())


def _encode_domain(name: str) -> bytes:
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    data = b"".join(bytes((len(label) & 0xFF,)) + label for label in labels) + b"\0"
    if any(not 0 < len(label) <= _LABEL for label in labels) or len(data) > _NAME_BYTES:
        raise ValueError(f"{name!r} is not a domain")
    return data


def _routes(text: str) -> bytes:
    """``destination,next hop`` pairs, separated by commas or blanks, as dnsmasq has them."""
    words = text.replace(",", " ").split()
    if not words or len(words) % 2:
        raise ValueError(f"{text!r} are no pairs of destination and next hop")
    return encode_routes([(parse_prefix(net), parse_address(hop)) for net, hop in zip(words[::2], words[1::2], strict=True)])


def encode_routes(routes: Sequence[tuple[Prefix, Prefix]]) -> bytes:
    """Destinations and next hops; 0.0.0.0 as next hop: on the link (RFC 3442).

    Raises:
        ValueError: one is not IPv4.
    """
    data = b""
    for net, hop in routes:
        if net.family != IPV4 or hop.family != IPV4:
            raise ValueError(f"{net} via {hop.address} is not IPv4")
        data += bytes((net.length,)) + net.packed[: (net.length + 7) // 8] + hop.packed
    return data


_NAMED: dict[str, tuple[int, Encoder]] = {
    "netmask": (1, _addresses),
    "router": (3, _addresses),
    "dns-server": (6, _addresses),
    "log-server": (7, _addresses),
    "lps-server": (9, _addresses),
    "hostname": (12, _text),
    "boot-file-size": (13, _number(2)),
    "domain-name": (15, _text),
    "swap-server": (16, _addresses),
    "root-path": (17, _text),
    "extension-path": (18, _text),
    "ip-forward-enable": (19, _switch),
    "default-ttl": (23, _number(1)),
    "mtu": (26, _number(2)),
    "broadcast": (28, _addresses),
    "router-discovery": (31, _switch),
    "static-route": (33, _addresses),
    "tcp-ttl": (37, _number(1)),
    "tcp-keepalive": (38, _number(4)),
    "nis-domain": (40, _text),
    "nis-server": (41, _addresses),
    "ntp-server": (42, _addresses),
    "netbios-ns": (44, _addresses),
    "netbios-dd": (45, _addresses),
    "netbios-nodetype": (46, _number(1)),
    "netbios-scope": (47, _text),
    "vendor-class": (60, _text),
    "nis+-domain": (64, _text),
    "nis+-server": (65, _addresses),
    "tftp-server": (66, _text),
    "bootfile-name": (67, _text),
    "mobile-ip-home": (68, _addresses),
    "smtp-server": (69, _addresses),
    "pop3-server": (70, _addresses),
    "nntp-server": (71, _addresses),
    "irc-server": (74, _addresses),
    "user-class": (77, _text),
    "posix-timezone": (100, _text),
    "tzdb-timezone": (101, _text),
    "domain-search": (119, encode_search),
    "classless-static-route": (121, _routes),
    "tftp-server-address": (150, _addresses),
    "wpad": (252, _text),
}
_ALIASES = {
    "subnet-mask": "netmask",
    "routers": "router",
    "domain-name-servers": "dns-server",
    "host-name": "hostname",
    "interface-mtu": "mtu",
    "ntp-servers": "ntp-server",
    "bootfile": "bootfile-name",
    "tftp-server-name": "tftp-server",
}
"""As other programs call them."""
_ENCODERS = dict(_NAMED.values())


def option_code(name: str) -> int:
    """The code of an option by its name or number.

    Raises:
        ValueError: there is no such option, or it cannot be set.
    """
    name = name.strip().lower().removeprefix("option:")
    if name.isascii() and name.isdigit() and len(name) <= 3:
        code = int(name)
        if code in OURS or code > 254:
            raise ValueError(f"option {code} cannot be set")
        return code
    known = _NAMED.get(_ALIASES.get(name, name))
    if known is None:
        raise ValueError(f"there is no DHCPv4 option {name!r}")
    return known[0]


def encode_option(name: str, value: str) -> tuple[int, bytes]:
    """Code and value of an option by its name or number; a value by what it looks like where the number has no type that we know:
    addresses, bytes (``01:ab``), else text.

    Raises:
        ValueError: there is no such option, it cannot be set, or its value is not one of it.
    """
    code = option_code(name)
    encode = _ENCODERS.get(code)
    return code, encode(value) if encode is not None else encode_guess(value, _addresses)


def encode_seconds(value: int) -> bytes:
    """A time."""
    return struct.pack(">I", min(value, 0xFFFFFFFF))
