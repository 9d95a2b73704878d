"""DHCPv6 options: their codes, and their values from texts (RFC 8415, RFC 3646, RFC 4704, RFC 5908, RFC 5970).

In: names and values as operators write them (Neutron's ``extra_dhcp_opts`` of IP version 6 have dnsmasq's names). Out: code and bytes, or
``ValueError`` with what is allowed. Pure; linear in the text.
"""

from __future__ import annotations

from tabinet.guest.options import encode_guess
from tabinet.guest.options4 import Encoder, encode_search
from tabinet.lib.ip import IPV6, parse_address

DNS_SERVERS, DOMAIN_SEARCH = 23, 24
REFRESH_TIME = 32
FQDN = 39
NTP_SERVER = 56
BOOTFILE_URL = 59

OURS = frozenset((*range(1, 20), 25, 26, FQDN))
"""Options that belong to the exchange itself: nobody can set them."""

_FQDN_OVERRIDE, _FQDN_NO_UPDATE, _FQDN_SERVER = 0x02, 0x04, 0x01
_NTP_ADDRESS, _NTP_NAME = 1, 3
_SHORTEST_REFRESH_S = 600


def _addresses(text: str) -> bytes:
    # dnsmasq has addresses in brackets, because colons mean something to it
    found = [parse_address(part.strip("[]")) for part in text.replace(",", " ").split()]
    if not found or any(address.family != IPV6 for address in found):
        raise ValueError(f"{text!r} are no IPv6 addresses")
    return b"".join(address.packed for address in found)


def _text(text: str) -> bytes:
    return text.encode()


def _number(text: str) -> bytes:
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{text!r} is not a number from 0 to {(1 << 32) - 1}")
    return value.to_bytes(4, "big")


def _refuse(text: str, allowed: str) -> bytes:
    raise ValueError(f"{text!r} is not {allowed}")


def _ntp(text: str) -> bytes:
    """Servers by address or name (RFC 5908)."""
    data = b""
    for word in text.replace(",", " ").split():
        try:
            kind, value = _NTP_ADDRESS, _addresses(word)
        except ValueError:
            kind, value = _NTP_NAME, encode_search(word)
        data += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    return data or _refuse(text, "an NTP server")


def _parameters(text: str) -> bytes:
    """Parameters of a boot file (RFC 5970 section 3.2)."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in text.encode().split(b","))


_NAMED: dict[str, tuple[int, Encoder]] = {
    "sip-server-domain": (21, encode_search),
    "sip-server": (22, _addresses),
    "dns-server": (23, _addresses),
    "domain-search": (24, encode_search),
    "nis-server": (27, _addresses),
    "nis+-server": (28, _addresses),
    "nis-domain": (29, encode_search),
    "nis+-domain": (30, encode_search),
    "sntp-server": (31, _addresses),
    "information-refresh-time": (32, _number),
    "posix-timezone": (41, _text),
    "tzdb-timezone": (42, _text),
    "ntp-server": (56, _ntp),
    "bootfile-url": (59, _text),
    "bootfile-param": (60, _parameters),
}
_ALIASES = {"domain-name-servers": "dns-server", "dns-servers": "dns-server", "domain-list": "domain-search", "ntp-servers": "ntp-server"}
_ENCODERS = dict(_NAMED.values())


def option_code(name: str) -> int:
    """The code of an option by its name or number.

    Raises:
        ValueError: there is no such option, or it cannot be set.
    """
    name = name.strip().lower().removeprefix("option6:")
    if name.isascii() and name.isdigit() and len(name) <= 5:
        code = int(name)
    else:
        known = _NAMED.get(_ALIASES.get(name, name))
        if known is None:
            raise ValueError(f"there is no DHCPv6 option {name!r}")
        code = known[0]
    if code in OURS or not 0 < code <= 0xFFFF:
        raise ValueError(f"option {code} cannot be set")
    return code


def encode_option(name: str, value: str) -> tuple[int, bytes]:
    """Code and value of an option by its name or number; a value by what it looks like where the number has no type that we know:
    addresses, bytes (``01:ab:cd``), else text.

    Raises:
        ValueError: there is no such option, it cannot be set, or its value is not one of it.
    """
    code = option_code(name)
    encode = _ENCODERS.get(code)
    encoded = encode(value) if encode is not None else encode_guess(value, _addresses)
    if len(encoded) > 0xFFFF:
        raise ValueError(f"a value of {len(encoded)} bytes is too long")
    return code, encoded


def encode_refresh(seconds: int) -> bytes:
    """When who keeps no state shall ask again (RFC 8415 section 21.23)."""
    return min(max(seconds, _SHORTEST_REFRESH_S), 0xFFFFFFFF).to_bytes(4, "big")


def encode_fqdn(name: str, asked: bytes) -> bytes:
    """The client's name, and that nobody here writes it into the DNS (RFC 4704 section 4). ``asked``: what the client sent, or nothing."""
    wanted = asked[0] & _FQDN_SERVER if asked else 0
    return bytes((_FQDN_NO_UPDATE | (_FQDN_OVERRIDE if wanted else 0),)) + encode_search(name)
