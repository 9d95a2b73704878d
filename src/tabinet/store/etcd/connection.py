"""Connections to the members of one etcd cluster: which member to ask, the token to show, and one way to make a call.

In: endpoints, TLS credentials, user and password. Out: ``call`` for single requests, ``open_stream`` for streams; both raise our errors
only. There is one channel for each member, made on first use; the member that answered last is asked first, the next one after a failure.
A request that may have changed something is never sent twice. gRPC's keepalive notices a dead peer after 15 s even when nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio

from tabinet.errors import StoreDenied, StoreUnavailable
from tabinet.store.etcd import rpc_pb2 as pb
from tabinet.store.etcd.endpoints import Endpoint
from tabinet.store.etcd.failures import token_refused, translate
from tabinet.store.etcd.methods import Methods, bind_methods

Request = TypeVar("Request")
Response = TypeVar("Response")
Pick = Callable[[Methods], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]
Metadata = tuple[tuple[str, str], ...]

CONNECT_TIMEOUT_S = 3.0
PATIENCE_S = 0.7
"""Longer than the pause between two attempts to connect, so that a call right after etcd's restart is answered."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),  # etcd takes offence below 5 s (--grpc-keepalive-min-time)
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3000),  # how long a connection attempt may take
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),  # the control plane goes straight to its store, whatever http_proxy says
    ("grpc.use_local_subchannel_pool", 1),  # two stores of one process share no back-off
)


@dataclass(slots=True)
class Member:
    """One member of the cluster and the channel to it."""

    endpoint: Endpoint
    channel: grpc.aio.Channel
    methods: Methods


@dataclass(slots=True)
class Connection:
    """Calls to a cluster. Make it inside the event loop that uses it."""

    endpoints: Sequence[Endpoint]
    credentials: grpc.ChannelCredentials | None
    username: str = ""
    password: str = ""
    closed: bool = False
    _members: dict[int, Member] = field(default_factory=dict)
    _current: int = 0
    _token: str | None = None
    _token_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(self, pick: Pick[Request, Response], request: Request, *, timeout_s: float, read_only: bool) -> Response:
        """The answer to ``request``; a ``read_only`` one is tried with every member, others with one.

        Raises:
            StoreError: as ``translate`` says.
        """
        tries = len(self.endpoints) if read_only else 1
        refreshed = False
        while True:
            member = await self.member()
            token = await self.token(member)
            try:
                return await pick(member.methods)(request, timeout=timeout_s, metadata=_metadata(token))
            except grpc.aio.AioRpcError as error:
                if token and token_refused(error) and not refreshed:
                    # Refused means not executed, so this is no second execution.
                    refreshed = True
                    self.forget_token(token)
                    continue
                failure = translate(error, member.endpoint.text)
                if isinstance(failure, StoreUnavailable):
                    self.pass_over(member)
                    tries -= 1
                    if tries > 0:
                        continue
                raise failure from error
            except (asyncio.CancelledError, grpc.aio.UsageError):
                self.raise_if_closed()
                raise

    async def member(self) -> Member:
        """A connected member; if none is, one whose error the next call will show.

        Raises:
            StoreUnavailable: the store is closed.
        """
        count = len(self.endpoints)
        for step in range(count):
            index = (self._current + step) % count
            self.raise_if_closed()
            if await self._connected(self._member(index), patient=count == 1):
                self._current = index
                break
        self.raise_if_closed()
        return self._member(self._current)

    def pass_over(self, member: Member) -> None:
        """The next call begins with the member after this one."""
        if self._member(self._current) is member:
            self._current = (self._current + 1) % len(self.endpoints)

    async def token(self, member: Member) -> str | None:
        """The token of our user, asked for when we have none; None without user, or when the cluster wants none.

        Raises:
            StoreDenied: user or password are wrong.
            StoreUnavailable: no answer.
        """
        if not self.username:
            return None
        async with self._token_lock:
            if self._token is None:
                self._token = await self._authenticate(member)
            return self._token

    def forget_token(self, token: str | None) -> None:
        """The next call asks for a new token, unless that has happened already."""
        if self._token == token:
            self._token = None

    def raise_if_closed(self) -> None:
        if self.closed and not _being_cancelled():
            raise StoreUnavailable("the connection to etcd is closed")

    async def close(self) -> None:
        """Ends all calls and streams."""
        self.closed = True
        for member in self._members.values():
            await member.channel.close(None)

    def _member(self, index: int) -> Member:
        member = self._members.get(index)
        if member is None:
            endpoint = self.endpoints[index]
            channel = _open_channel(endpoint, self.credentials)
            member = self._members[index] = Member(endpoint, channel, bind_methods(channel))
        return member

    async def _connected(self, member: Member, *, patient: bool) -> bool:
        """True when the channel stands, False when an attempt failed; a patient one gives a member that was away ``PATIENCE_S`` more."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S) as limit:
                while (state := member.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.SHUTDOWN:
                        return False
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        if not patient:
                            return False
                        # The channel tries again by itself, but may not say so: it goes from here straight to READY.
                        limit.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
                    patient = False
                    await member.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        except grpc.aio.UsageError:  # closed while we waited
            self.raise_if_closed()
            raise
        return True

    async def _authenticate(self, member: Member) -> str:
        request = pb.AuthenticateRequest(name=self.username, password=self.password)
        try:
            answer = await member.methods.authenticate(request, timeout=CONNECT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ""
            failure = translate(error, member.endpoint.text)
            if isinstance(failure, StoreUnavailable):
                self.pass_over(member)
            elif isinstance(failure, StoreDenied) and error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                failure = StoreDenied(f"etcd at {member.endpoint.text} refuses user {self.username!r}: wrong user or password")
            raise failure from error
        return answer.token


def stream_metadata(token: str | None) -> Metadata:
    """For streams: a member that has lost its cluster ends them, instead of staying silent for ever."""
    return (("hasleader", "true"), *_metadata(token))


def _metadata(token: str | None) -> Metadata:
    return (("token", token),) if token else ()


def _being_cancelled() -> bool:
    """True when somebody cancels this task; gRPC raises CancelledError also for a call that it has cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _open_channel(endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options: list[tuple[str, int | str]] = list(_OPTIONS)
    if endpoint.target.startswith("unix:"):
        options.append(("grpc.default_authority", "localhost"))  # gRPC's own choice, the escaped path, is no host name
    if endpoint.tls:
        return grpc.aio.secure_channel(endpoint.target, credentials or grpc.ssl_channel_credentials(), options=options)
    return grpc.aio.insecure_channel(endpoint.target, options=options)
