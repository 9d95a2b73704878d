"""Addresses of etcd members as operators write them, read into gRPC targets. Pure.

In: ``http://host:port``, ``https://host:port``, ``host:port``, ``unix:///path/name:0`` or ``unix:/path/name:0`` (etcd 3.4 listens on
``unix://name:0`` in its working directory). Out: ``Endpoint``. IPv6 addresses stand in brackets; the port may be left out (2379).
"""

from __future__ import annotations

import re

import msgspec

from tabinet.errors import InputError, Problem

DEFAULT_PORT = 2379
_ALLOWED = "an etcd endpoint is https://host:port, http://host:port, host:port or unix:///path/of/socket:0"
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+)(:(?P<port>\d{1,5}))?/?")


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One member of the cluster."""

    text: str
    """As the operator wrote it, for messages."""
    target: str
    """gRPC's name for it (https://grpc.github.io/grpc/core/md_doc_naming.html)."""
    tls: bool


def parse_endpoint(text: str, *, tls_default: bool) -> Endpoint:
    """The endpoint that ``text`` names; without a scheme it speaks TLS when ``tls_default``.

    Raises:
        InputError: ``text`` names no endpoint.
    """
    scheme, separator, rest = text.partition("://")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if path.startswith("/"):
            return Endpoint(text=text, target=f"unix:{path}", tls=False)
    elif not separator or scheme in ("http", "https"):
        match = _HOST_PORT.fullmatch(rest if separator else text)
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match and 0 < port < 65536:
            tls = scheme == "https" if separator else tls_default
            return Endpoint(text=text, target=f"{match['host']}:{port}", tls=tls)
    raise InputError([Problem(path="endpoints", value=repr(text), allowed=_ALLOWED)])
