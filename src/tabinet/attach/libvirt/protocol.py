"""Calls of the hook, as they come over the agent's socket; see ``hook`` for their form. Pure."""

from __future__ import annotations

import msgspec

from tabinet.attach.libvirt.hook import XML_BYTES
from tabinet.errors import InputError, Problem

_HEAD_BYTES = 40
_ARGUMENTS_BYTES = 4096


class HookCall(msgspec.Struct, frozen=True):
    """What libvirt runs its hook with."""

    domain: str
    """Its name."""
    operation: str
    """``prepare``, ``release``...; ``sync``: ours."""
    part: str = ""
    """``begin`` or ``end``."""
    extra: str = ""
    xml: bytes = b""


def request_length(data: bytes) -> int | None:
    """How long the request is that begins so, in bytes; None: that cannot be said yet.

    Raises:
        InputError: it is none, or too long.
    """
    head, found, _ = data[:_HEAD_BYTES].partition(b"\n")
    if not found and len(data) < _HEAD_BYTES:
        return None
    words = head.split()
    if not found or len(words) != 2 or not all(word.isdigit() for word in words):
        raise _wrong(repr(bytes(head)), "<bytes of arguments> <bytes of XML>")
    arguments, xml = map(int, words)
    if arguments > _ARGUMENTS_BYTES or xml > XML_BYTES:
        raise _wrong(head.decode(), f"at most {_ARGUMENTS_BYTES} and {XML_BYTES} bytes")
    return len(head) + 1 + arguments + xml


def parse_request(data: bytes) -> HookCall:
    """The call.

    Raises:
        InputError: it is none.
    """
    length = request_length(data)
    if length is None or length != len(data):
        raise _wrong(f"{len(data)} bytes", "as many as it says")
    head, _, rest = data.partition(b"\n")
    size = int(head.split()[0])
    arguments = rest[:size].decode(errors="replace").split("\0")
    if len(arguments) < 3 or arguments[-1]:
        raise _wrong(repr(arguments), "domain, operation, part, extra, each ended by a zero byte")
    domain, operation, part, extra = [*arguments[:-1], "", ""][:4]
    return HookCall(domain, operation, part, extra, rest[size:])


def _wrong(value: str, allowed: str) -> InputError:
    return InputError([Problem(path="request of the hook", value=value, allowed=allowed)])
