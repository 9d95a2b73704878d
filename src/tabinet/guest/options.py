"""What DHCP of both families shares: what an operator decides about the answers, and values of options of unknown form. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tabinet.lib.ip import Prefix


class GuestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The same for all ports of a host."""

    lease_s: int = 86_400
    """Of DHCP, in seconds. A guest asks again after half of it, whether or not anything changed."""
    on_link: bool = True
    """IPv4 guests get their subnet's mask, as OpenStack's users expect; else /32 and routes over the gateway."""
    dns_servers: tuple[Prefix, ...] = ()
    """For ports whose subnet names none."""
    advertise_s: int = 300
    """Seconds between unasked router advertisements to a guest; a router is believed in for three times as long."""


def encode_guess(text: str, addresses: Callable[[str], bytes]) -> bytes:
    """The value of an option whose form nobody told: addresses where they can be read, octets written as ``0a:ff``, else the text."""
    try:
        return addresses(text)
    except ValueError:
        pass
    parts = text.split(":")
    if len(parts) > 1 and all(len(part) == 2 for part in parts):
        try:
            return bytes.fromhex("".join(parts))
        except ValueError:
            pass
    return text.encode()
