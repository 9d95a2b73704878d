"""Names and texts as bird.conf may have them. Pure; linear in the text.

BIRD's strings know no escapes, and quoted symbols are at most 63 characters of a few kinds, so names of peers and filters are rewritten;
what was rewritten gets a digest of the name, so that two names never meet.
"""

from __future__ import annotations

import hashlib
import re

from tabinet.calc.intents import PeerIntent

WORKLOAD = "tb_workload_"
"""How names of sessions with workloads begin: filters know their routes by it."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,48}")
_PLAIN_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]{0,14}")
_PATTERN = re.compile(r"[A-Za-z0-9_.:@+*?-]{1,16}")
LONGEST_PASSWORD = 80
"""TCP_MD5SIG_MAXKEYLEN of tcp(7)."""


def symbol(prefix: str, name: str) -> str:
    """A legal quoted symbol that differs for different names and depends on nothing else. ``prefix``: at most 15 characters."""
    if _PLAIN_NAME.fullmatch(name) and "__" not in name:
        return f"{prefix}{name}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{prefix}{re.sub('[^A-Za-z0-9]+', '_', name)[:34]}__{digest}"


def protocol_name(peer: PeerIntent) -> str:
    """The name of a peer's protocol in BIRD."""
    return symbol(WORKLOAD if peer.workload is not None else "tb_peer_", peer.name)


def filter_name(name: str, direction: str, family: int) -> str:
    """The name of a BGPFilter's function in BIRD: ``direction`` is export or import."""
    return symbol(f"tb_{direction[:2]}{family}_", name)


def description(text: str) -> str:
    """``text`` as it may stand in a string of bird.conf."""
    return "".join(character if character.isascii() and character.isprintable() and character != '"' else "_" for character in text)


def is_interface(name: str) -> bool:
    """True for a name of an interface that BIRD takes for itself, not for a pattern."""
    return _PLAIN_INTERFACE.fullmatch(name) is not None


def is_pattern(text: str) -> bool:
    """True for a pattern of interface names that can stand in bird.conf."""
    return _PATTERN.fullmatch(text) is not None


def password_problem(password: str) -> str:
    """Why BIRD cannot have this password; empty when it can."""
    if not password:
        return "it is empty"
    if len(password) > LONGEST_PASSWORD:
        return f"it has {len(password)} characters, and TCP MD5 takes {LONGEST_PASSWORD}"
    if not all(character.isascii() and character.isprintable() and character != '"' for character in password):
        return "it has characters that BIRD's configuration cannot have (allowed: printable ASCII without quotation marks)"
    return ""
