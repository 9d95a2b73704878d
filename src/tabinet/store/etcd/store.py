"""``EtcdStore``: the ``Datastore`` protocol over an etcd cluster (3.4 or later), and ``open_etcd``.

In: endpoints, files with certificates, user and password. Out: the protocol; every method raises our errors only, and has a time limit.
Lists come in pages at one revision, the next page being fetched while the reader works on the last one. Reads are linearizable: what a
writer was told is stored, every later reader sees.

What it does not do: manage the cluster (members, users, quota, automatic compaction: see etcd's own ``etcdctl``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import grpc
import grpc.aio
import msgspec

from tabinet.errors import Compacted, InputError, NotFound, Problem, SetupError, StoreUnavailable
from tabinet.store.api import Compare, DeleteOp, GetOp, KeyValue, Op, Page, PutOp, TxnResult, WatchBatch
from tabinet.store.etcd import rpc_pb2 as pb
from tabinet.store.etcd.connection import Connection, Member, stream_metadata
from tabinet.store.etcd.endpoints import parse_endpoint
from tabinet.store.etcd.failures import token_refused, translate
from tabinet.store.etcd.watching import watch_prefix
from tabinet.store.semantics import check_txn, key_bytes, key_text, prefix_end

PAGE_TIMEOUT_S = 20.0
"""For a page of a list: 5,000 values of up to 1 MB may take that long."""


class EtcdStatus(msgspec.Struct, frozen=True, gc=False):
    """How a member is."""

    endpoint: str
    version: str
    revision: int
    size_bytes: int
    has_leader: bool


class EtcdStore:
    """The ``Datastore`` protocol over a ``Connection``. Make it with ``open_etcd``."""

    def __init__(self, connection: Connection, *, timeout_s: float, heartbeat_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s

    async def get(self, key: str) -> KeyValue | None:
        request = pb.RangeRequest(key=key_bytes(key))
        answer = await self._connection.call(lambda methods: methods.range, request, timeout_s=self._timeout_s, read_only=True)
        return _item(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        start = key_bytes(prefix)
        end = prefix_end(start) or b"\0"
        answer = await self._page(start or b"\0", end, page_size, 0)
        revision = answer.header.revision
        following: asyncio.Task[pb.RangeResponse] | None = None
        try:
            while True:
                if answer.more:
                    # A task and no TaskGroup: a generator may not hold one across its yields. It ends in the `finally` below.
                    following = asyncio.create_task(self._page(answer.kvs[-1].key + b"\0", end, page_size, revision))
                yield Page(items=[_item(kv) for kv in answer.kvs], revision=revision)
                if following is None:
                    return
                answer, following = await following, None
        finally:
            if following is not None:
                following.cancel()

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        check_txn(compares, then, otherwise)
        request = pb.TxnRequest(
            compare=[_compare(compare) for compare in compares],
            success=[_request_op(op) for op in then],
            failure=[_request_op(op) for op in otherwise],
        )
        read_only = all(isinstance(op, GetOp) for op in (*then, *otherwise))
        answer = await self._connection.call(lambda methods: methods.txn, request, timeout_s=self._timeout_s, read_only=read_only)
        values: list[KeyValue | None] = []
        for response in answer.responses:
            if response.HasField("response_range"):
                found = response.response_range.kvs
                values.append(_item(found[0]) if found else None)
        return TxnResult(succeeded=answer.succeeded, revision=answer.header.revision, values=tuple(values))

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        return watch_prefix(self._connection, prefix, after_revision, heartbeat_s=self._heartbeat_s)

    async def grant(self, ttl_s: int) -> int:
        request = pb.LeaseGrantRequest(TTL=ttl_s)
        answer = await self._connection.call(lambda methods: methods.lease_grant, request, timeout_s=self._timeout_s, read_only=False)
        return answer.ID

    async def keep_alive(self, lease: int) -> None:
        for may_refresh in (True, False):
            member = await self._connection.member()
            token = await self._connection.token(member)
            try:
                left_s = await self._renew(member, token, lease)
            except grpc.aio.AioRpcError as error:
                if token and may_refresh and token_refused(error):
                    self._connection.forget_token(token)
                    continue
                failure = translate(error, member.endpoint.text)
                if isinstance(failure, StoreUnavailable):
                    self._connection.pass_over(member)
                raise failure from error
            if left_s <= 0:
                raise NotFound(f"lease {lease} has ended")
            return

    async def _renew(self, member: Member, token: str | None, lease: int) -> int:
        """Seconds that the lease has now; 0 when it has ended."""
        call = member.methods.lease_keep_alive(None, timeout=self._timeout_s, metadata=stream_metadata(token))
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            answer = await call.read()
        except (asyncio.CancelledError, grpc.aio.UsageError):
            self._connection.raise_if_closed()
            raise
        finally:
            call.cancel()
        if not isinstance(answer, pb.LeaseKeepAliveResponse):
            raise StoreUnavailable(f"etcd at {member.endpoint.text} ended the renewal of lease {lease}")
        return answer.TTL

    async def revoke(self, lease: int) -> None:
        request = pb.LeaseRevokeRequest(ID=lease)
        try:
            await self._connection.call(lambda methods: methods.lease_revoke, request, timeout_s=self._timeout_s, read_only=False)
        except NotFound:
            return

    async def compact(self, revision: int) -> None:
        """History up to ``revision`` is gone; nothing happens when it is gone already."""
        request = pb.CompactionRequest(revision=revision)
        try:
            await self._connection.call(lambda methods: methods.compact, request, timeout_s=self._timeout_s, read_only=False)
        except Compacted:
            return

    async def status(self) -> EtcdStatus:
        """Version and size of the member that answers; not part of the protocol."""
        member = await self._connection.member()
        answer = await self._connection.call(lambda methods: methods.status, pb.StatusRequest(), timeout_s=self._timeout_s, read_only=True)
        return EtcdStatus(member.endpoint.text, answer.version, answer.header.revision, answer.dbSize, answer.leader != 0)

    async def close(self) -> None:
        await self._connection.close()

    async def _page(self, start: bytes, end: bytes, limit: int, revision: int) -> pb.RangeResponse:
        request = pb.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
        try:
            return await self._connection.call(lambda methods: methods.range, request, timeout_s=PAGE_TIMEOUT_S, read_only=True)
        except Compacted:
            raise Compacted(revision + 1) from None  # etcd does not say which it is; later than ours


async def open_etcd(
    endpoints: Sequence[str],
    *,
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    username: str = "",
    password: str = "",
    timeout_s: float = 5.0,
    heartbeat_s: float = 5.0,
) -> EtcdStore:
    """A store over these members; nothing has been sent yet. Must be called in the event loop that uses it.

    With certificates, an endpoint without a scheme speaks TLS. Without ``ca_file`` the system's authorities are trusted.

    Raises:
        InputError: no endpoint, or one that is malformed; a certificate without key.
        SetupError: a file cannot be read.
    """
    if not endpoints:
        raise InputError([Problem(path="endpoints", value="nothing", allowed="at least one endpoint of etcd is needed")])
    if bool(cert_file) != bool(key_file):
        raise InputError([Problem(path="cert_file", value=repr(cert_file), allowed="cert_file and key_file go together")])
    credentials = None
    if ca_file or cert_file:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read_file("ca_file", ca_file),
            private_key=_read_file("key_file", key_file),
            certificate_chain=_read_file("cert_file", cert_file),
        )
    parsed = [parse_endpoint(endpoint, tls_default=credentials is not None) for endpoint in endpoints]
    connection = Connection(parsed, credentials, username, password)
    return EtcdStore(connection, timeout_s=timeout_s, heartbeat_s=heartbeat_s)


def _read_file(name: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SetupError(f"store: {name} {path} cannot be read: {error.strerror}; check the path and its permissions") from error


def _item(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(key_text(kv.key), kv.value, kv.mod_revision, kv.create_revision, kv.lease)


def _compare(compare: Compare) -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key_bytes(compare.key), mod_revision=compare.revision)


def _request_op(op: Op) -> pb.RequestOp:
    match op:
        case PutOp(key, value, lease):
            return pb.RequestOp(request_put=pb.PutRequest(key=key_bytes(key), value=value, lease=lease))
        case DeleteOp(key):
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key_bytes(key)))
        case GetOp(key):
            return pb.RequestOp(request_range=pb.RangeRequest(key=key_bytes(key)))
