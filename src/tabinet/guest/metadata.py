"""What a guest's request for metadata becomes before Nova gets it (RFC 9112; Nova: ``service_metadata_proxy``).

In: the head of an HTTP request and whose it is. Out: the head that Nova gets: with the server's identifier, the project, the guest's
address and a signature over the identifier by a secret that Nova shares (HMAC-SHA256); whatever the guest wrote in these fields is left
out. Any bytes give a ``RequestHead`` or a ``PacketError``; ``parse_head(render_head(head)) == head``. Pure; linear in the bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec

from tabinet.errors import PacketError
from tabinet.guest.directory import Port

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"/[!-~]*")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_OURS = frozenset((b"x-instance-id", b"x-instance-id-signature", b"x-tenant-id", b"x-forwarded-for", b"x-metadata-provider", b"forwarded"))
_ONE_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"content-length")
)
METHODS = (b"GET", b"HEAD", b"POST", b"PUT")
MOST_BODY_BYTES = 64 << 10


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """Request line and fields."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """Names in lower case, values without blanks around them, in order."""

    @property
    def body_bytes(self) -> int:
        """How long the body is.

        Raises:
            PacketError: longer than we pass on, or in a form that we do not.
        """
        lengths = {value for name, value in self.fields if name == b"content-length"}
        if any(name == b"transfer-encoding" for name, _ in self.fields) or len(lengths) > 1:
            raise PacketError("a body of unknown length")
        length = lengths.pop() if lengths else b"0"
        if not length.isdigit() or len(length) > 9 or int(length) > MOST_BODY_BYTES:
            raise PacketError("a body that is too long")
        return int(length)


def parse_head(data: bytes) -> RequestHead:
    """The head, which ends with an empty line.

    Raises:
        PacketError: it is none of HTTP/1.
    """
    lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise PacketError("not a request of HTTP/1")
    method, target = parts[:2]
    if method not in METHODS or not _TARGET.fullmatch(target):
        raise PacketError("a request that nobody makes for metadata")
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise PacketError("a field that is none of HTTP")
        fields.append((name.lower(), value))
    return RequestHead(method, target, tuple(fields))


def render_head(head: RequestHead) -> bytes:
    """The head as bytes."""
    lines = [head.method + b" " + head.target + b" HTTP/1.1", *(name + b": " + value for name, value in head.fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def sign(instance: str, secret: bytes) -> str:
    """The signature that Nova expects beside an instance's identifier."""
    return hmac.new(secret, instance.encode(), hashlib.sha256).hexdigest()


def forwarded_head(head: RequestHead, port: Port, source: str, service: str, secret: bytes) -> RequestHead:
    """The head that Nova gets. ``service``: its host and port; an empty secret: without a signature."""
    kept = [(name, value) for name, value in head.fields if name not in _OURS and name not in _ONE_HOP and name != b"host"]
    told = {"host": service, "x-forwarded-for": source, "x-instance-id": port.instance, "x-tenant-id": port.project, "connection": "close"}
    if secret:
        told["x-instance-id-signature"] = sign(port.instance, secret)
    if head.body_bytes or head.method in (b"POST", b"PUT"):
        told["content-length"] = str(head.body_bytes)
    added = [(name.encode(), value.encode()) for name, value in told.items()]
    return RequestHead(head.method, head.target, (*added, *kept))
