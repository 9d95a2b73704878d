"""What gRPC and etcd report, in our words: an ``AioRpcError`` becomes a ``StoreError`` that says which endpoint and what to check. Pure.

In: the error and the endpoint's text. Out: the exception to raise. The texts of etcd are those of its ``rpctypes`` package (3.4 to 3.6),
which has no codes fine enough to tell, say, a wrong password from a malformed request.
"""

from __future__ import annotations

import re

import grpc
import grpc.aio

from tabinet.errors import Compacted, NotFound, StoreDenied, StoreError, StoreUnavailable

_CERTIFICATE = re.compile(r"handshake failed|certificate|ssl_error|tls", re.IGNORECASE)
_DENIED = (
    "user name is empty",
    "authentication failed",
    "invalid user ID or password",
    "authentication is not enabled",
    "permission denied",
)


def token_refused(error: grpc.aio.AioRpcError) -> bool:
    """True when etcd no longer takes the token: it ran out, etcd was restarted, or users have changed. A new one helps."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or "invalid auth token" in details or "revision of auth store is old" in details


def translate(error: grpc.aio.AioRpcError, endpoint: str) -> StoreError:
    """The error of ours that says the same."""
    code, details = error.code(), error.details() or ""
    if "required revision has been compacted" in details or "required revision is a future revision" in details:
        return Compacted(0)
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(f"etcd at {endpoint}: {_plain(details)}")
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED) or any(text in details for text in _DENIED):
        return StoreDenied(f"etcd at {endpoint} refuses: {_plain(details)}; check user, password and the roles of that user")
    if code is grpc.StatusCode.UNAVAILABLE and _CERTIFICATE.search(details):
        return StoreDenied(f"no TLS connection to etcd at {endpoint}: {_plain(details)}; check ca_file, cert_file, key_file and the name")
    if code is grpc.StatusCode.UNAVAILABLE:
        return StoreUnavailable(
            f"etcd at {endpoint} does not answer: {_plain(details)}; check that etcd runs there, and that this machine may reach it"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return StoreUnavailable(f"etcd at {endpoint} does not answer in time; check its load, its disk, and that its cluster has a quorum")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return StoreUnavailable(f"etcd at {endpoint} is out of room: {_plain(details)}; compact and defragment it, or raise its quota")
    if code is grpc.StatusCode.CANCELLED:
        return StoreUnavailable(f"the connection to etcd at {endpoint} was closed")
    return StoreError(f"etcd at {endpoint}: {code.name}: {_plain(details)}")


def _plain(details: str) -> str:
    """The part of gRPC's text that tells a reader something."""
    text = details.rsplit("last error: ", 1)[-1]
    text = re.sub(r"^(UNKNOWN|UNAVAILABLE|INTERNAL): ", "", text)
    return text.removeprefix("etcdserver: ").strip() or "no reason given"
