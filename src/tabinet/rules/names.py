"""Names of chains and sets: functions of what they mean, never of when they were made.

Readable where the kernel's limits allow it, otherwise a digest. Letters, digits and ``. - _ /`` are what nft(8) accepts in a name.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from tabinet.model.keys import ResourceKey

NAME_LIMIT = 100
"""Longest readable name, in bytes. The kernel allows 255 (NFT_NAME_MAXLEN); shorter is kinder to whoever reads a listing."""

_READABLE = re.compile(r"[A-Za-z0-9._-]+")
_KINDS = {"GlobalNetworkPolicy": "gnp", "NetworkPolicy": "np", "Profile": "profile"}


def digest(value: object) -> str:
    """16 hexadecimal digits that stand for the content of a msgspec value (integers up to 64 bits)."""
    return hashlib.blake2b(msgspec.msgpack.encode(value, order="deterministic"), digest_size=8).hexdigest()


def direction_letter(ingress: bool) -> str:
    """``i`` or ``e``."""
    return "i" if ingress else "e"


def policy_chain(key: ResourceKey, ingress: bool, form: str = "") -> str:
    """The chain of a policy or profile in a form."""
    parts = [part for part in (key.namespace, key.name) if part]
    kind = _KINDS.get(key.kind)
    name = "/".join((kind or "", *parts))
    if kind is None or len(name) > NAME_LIMIT or not all(_READABLE.fullmatch(part) for part in parts):
        name = f"x/{digest(key)}"
    variant = f"-{form}" if form else ""
    return f"p{direction_letter(ingress)}{variant}-{name}"


def stage_chain(stage: object, prefix: str) -> str:
    """The chain of an endpoint class or of a tier."""
    return f"{prefix}-{digest(stage)}"


def list_chain(ingress: bool, content: object) -> str:
    """A chain that asks some policies of a tier: the name is a function of what it asks."""
    return f"l{direction_letter(ingress)}-{digest(content)}"


def port_map(protocol: int, owner: object) -> str:
    """The map from a protocol's ports to chains that belongs to a part of a tier."""
    return f"port{protocol}-{digest(owner)}"


def member_set(set_id: str, kind: str, family: int) -> str:
    """The set of one family's members: kind ``a`` addresses, ``n`` nets, ``p`` (address, protocol, port)."""
    return f"{kind}{family}-{set_id}"


def constant_set(kind: str, content: object) -> str:
    """A set whose members are written in a rule: the name is a function of them."""
    return f"{kind}-{digest(content)}"
