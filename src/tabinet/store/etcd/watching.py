"""One watch of etcd: a stream of responses becomes batches of changes, whole transactions, each change once.

In: a ``Connection``, a prefix, a revision. Out: ``WatchBatch``. What etcd does and what is done about it:

- A response may come in fragments (of its ``--max-request-bytes``): they are put together again.
- The header of a response that catches up carries the store's revision, not that of the changes in it: ours is that of the last change.
- A watch of what is still to come begins at once; one that has to catch up, if only by the change that we know already, waits for etcd's
  next round, up to 100 ms later. So the stream starts right above the revision that we know. A watch that starts right above a compacted
  revision may miss a deletion (its tombstone went with the compaction): so etcd is asked whether it still has the revision that we know.
- The answer to a progress *request* (watch_id -1) may overtake changes in etcd before 3.4.25: it counts as a sign of life and nothing
  else. The progress that etcd sends by itself (every 10 minutes) is in order, and moves the revision of a quiet watch.
- A member restored from a backup accepts a revision that it has not reached, and stays silent. That is asked for and reported.

A member that is silent for two heartbeats although it was asked, while we read, counts as gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc.aio

from tabinet.errors import Compacted, StoreDenied, StoreUnavailable
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent, WatchBatch
from tabinet.store.etcd import rpc_pb2 as pb
from tabinet.store.etcd.connection import Connection, Member, stream_metadata
from tabinet.store.etcd.failures import token_refused, translate
from tabinet.store.semantics import key_bytes, key_text, prefix_end

_Call = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]
_OUR_WATCH = 0
"""The number that etcd gives to the first watch of a stream."""


@dataclass(slots=True)
class _Stream:
    """An open stream, and what the heartbeat knows of it."""

    member: Member
    call: _Call
    token: str | None
    heard: int = 0
    reading: bool = False
    hung: bool = False

    async def read(self) -> pb.WatchResponse:
        """The next response. It may take for ever: the heartbeat cancels the call when the member is gone."""
        self.reading = True
        response = await self.call.read()
        self.reading = False
        self.heard += 1
        if not isinstance(response, pb.WatchResponse):
            raise StoreUnavailable(f"etcd at {self.member.endpoint.text} ended the watch")
        return response


class _TokenRefused(Exception):
    """etcd does not take the token of this stream."""


async def watch_prefix(connection: Connection, prefix: str, after_revision: int, *, heartbeat_s: float) -> AsyncGenerator[WatchBatch, None]:
    """``Datastore.watch``; the second try is for a token that has run out."""
    for may_refresh in (True, False):
        member = await connection.member()
        token = await connection.token(member)
        stream = _Stream(member, member.methods.watch(None, metadata=stream_metadata(token)), token)
        # A task and no TaskGroup: a generator may not hold one across its yields. It ends in the `finally` below.
        heartbeat = asyncio.create_task(_keep_asking(stream, heartbeat_s))
        try:
            async with aclosing(_batches(connection, stream, prefix, after_revision)) as batches:
                async for batch in batches:
                    may_refresh = False
                    yield batch
        except _TokenRefused:
            connection.forget_token(token)
            if not may_refresh or not token:
                raise StoreDenied(
                    f"etcd at {member.endpoint.text} refuses to watch {prefix!r}: check the roles of user {connection.username!r}"
                ) from None
        except grpc.aio.AioRpcError as error:
            if token and token_refused(error) and may_refresh:
                connection.forget_token(token)
                continue
            failure = translate(error, member.endpoint.text)
            if isinstance(failure, StoreUnavailable):
                connection.pass_over(member)
            raise failure from error
        except StoreUnavailable:
            connection.pass_over(member)
            raise
        except (asyncio.CancelledError, grpc.aio.UsageError):
            connection.raise_if_closed()
            if stream.hung:
                connection.pass_over(member)
                raise StoreUnavailable(
                    f"etcd at {member.endpoint.text} has been silent for {2 * heartbeat_s:g} s; check its load and the network"
                ) from None
            raise
        finally:
            heartbeat.cancel()
            stream.call.cancel()


async def _batches(connection: Connection, stream: _Stream, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
    key = key_bytes(prefix)
    create = pb.WatchCreateRequest(
        key=key or b"\0",
        range_end=prefix_end(key) or b"\0",
        start_revision=after_revision + 1,
        progress_notify=True,
        fragment=True,
    )
    await stream.call.write(pb.WatchRequest(create_request=create))
    response = await stream.read()
    _raise_if_cancelled(response)
    if after_revision:
        await _check_history(connection, create, after_revision)
    last = after_revision
    yield WatchBatch(events=[], revision=last)
    events: list[PutEvent | DeleteEvent] = []
    while True:
        response = await stream.read()
        _raise_if_cancelled(response)
        events += [_event(event) for event in response.events if event.kv.mod_revision > last]
        if response.fragment:
            continue
        if events:
            last = response.events[-1].kv.mod_revision
            yield WatchBatch(events=events, revision=last)
            events = []
        elif not response.events and response.watch_id == _OUR_WATCH and response.header.revision > last:
            last = response.header.revision
            yield WatchBatch(events=[], revision=last)


def _raise_if_cancelled(response: pb.WatchResponse) -> None:
    if not response.canceled:
        return
    if response.compact_revision:
        raise Compacted(response.compact_revision)
    if "permission denied" in response.cancel_reason or "auth" in response.cancel_reason:
        raise _TokenRefused  # etcd 3.4 says "permission denied" for a token that has run out as well
    raise StoreUnavailable(f"etcd ended the watch: {response.cancel_reason or 'no reason given'}")


async def _check_history(connection: Connection, create: pb.WatchCreateRequest, revision: int) -> None:
    """Returns when the cluster still has ``revision`` of what is watched.

    Raises:
        Compacted: it was compacted away; or the cluster has not reached it, so it is not the one that told us this revision, but one
            restored or made anew.
    """
    request = pb.RangeRequest(key=create.key, range_end=create.range_end, limit=1, keys_only=True, revision=revision)
    try:
        await connection.call(lambda methods: methods.range, request, timeout_s=5.0, read_only=True)
    except Compacted:
        raise Compacted(revision + 1) from None


async def _keep_asking(stream: _Stream, heartbeat_s: float) -> None:
    """Asks for a sign of life when a whole heartbeat brought none; the next silent one ends the call."""
    last_heard = -1
    asked = False
    while True:
        await asyncio.sleep(heartbeat_s)
        heard_before, last_heard = last_heard, stream.heard  # now: the answer may come while the question is still being written
        if not stream.reading or last_heard != heard_before:
            asked = False
        elif asked:
            stream.hung = True
            stream.call.cancel()
            return
        else:
            asked = True
            try:
                await stream.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                return  # the stream has ended, as its reader learns too


def _event(event: pb.Event) -> PutEvent | DeleteEvent:
    kv = event.kv
    if event.type == pb.Event.DELETE:
        return DeleteEvent(key_text(kv.key), kv.mod_revision)
    return PutEvent(KeyValue(key_text(kv.key), kv.value, kv.mod_revision, kv.create_revision, kv.lease))
