"""``run_guest``: the guest service of this host from the agent's parameters: its wiring, signals and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import tabinet
from tabinet.agent.felixspec import read_felix
from tabinet.agent.guestface import GuestFace
from tabinet.agent.hostname import host_name
from tabinet.agent.http import serve
from tabinet.agent.log import Logger, open_log
from tabinet.agent.notify import notify
from tabinet.agent.parameters import Parameters, store_config
from tabinet.agent.tableoptions import metadata_of
from tabinet.errors import SetupError
from tabinet.guest.dhcp6responder import Dhcp6Responder
from tabinet.guest.directory import PREFIXES, Directory
from tabinet.guest.framesocket import DHCP6, NEIGHBOURS, open_frames, receive_frame
from tabinet.guest.inbox import Inbox
from tabinet.guest.lease4 import lease4_of
from tabinet.guest.lease6 import lease6_of
from tabinet.guest.leases import Leases
from tabinet.guest.limiter import Limiter
from tabinet.guest.memory import Memory, Remembered, read_memory
from tabinet.guest.neighbourresponder import BURST, RATE, NeighbourResponder
from tabinet.guest.options import GuestOptions
from tabinet.guest.proxy import MetadataProxy, open_listener
from tabinet.guest.responder4 import Responder4
from tabinet.guest.responder6 import Responder6
from tabinet.guest.service import GuestService, Notes, Responder
from tabinet.guest.sockets import open_dhcp4, open_solicitations, receive4, receive6
from tabinet.lib.ip import parse_address
from tabinet.store.api import Datastore
from tabinet.store.open import open_store
from tabinet.store.syncer import Syncer

MEMORY = "guest.memory"
"""File in ``run_dir``."""
STORE_WAIT_S = 3.0
"""For the store, before what is remembered is believed."""


def run_guest(parameters: Parameters) -> int:
    """Answers guests until a signal ends it; 0 then.

    Raises:
        SetupError: not root, or another server is here.
    """
    if os.geteuid() != 0:
        raise SetupError("the guest service uses ports below 1024: run it as root")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(parameters))
    return 0


async def _run(parameters: Parameters) -> None:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    async with build_guest(parameters) as service:
        notify("READY=1")
        await service.run()


@contextlib.asynccontextmanager
async def build_guest(parameters: Parameters) -> AsyncIterator[GuestService]:
    """A service that is ready to run; everything it opened is closed at the end.

    Raises:
        SetupError: another server is here, or an address cannot be served at.
        StoreError: the store's address makes no sense. A store that is merely away is waited for.
    """
    host = host_name(parameters)
    log = open_log(parameters.text("agent", "log_level"), parameters.text("agent", "log_format"), host)
    options = guest_options(parameters)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_claim_namespace())
        face = GuestFace()
        address = parameters.text("guest", "http_address")
        if address:
            server = await serve(address, face.routes())
            stack.callback(server.close)
        sock = open_dhcp4()
        stack.callback(sock.close)
        solicitations = open_solicitations() if parameters.switch("felix", "ipv6_support") and socket.has_ipv6 else None
        if solicitations is not None:
            stack.callback(solicitations.close)
        store = await open_store(store_config(parameters))
        stack.push_async_callback(store.close)
        directory, notes = Directory(host), Notes(log, time.monotonic)
        memory = Memory(Path(parameters.text("agent", "run_dir")) / MEMORY, directory.concerns)
        remembered = read_memory(memory.path)
        memory.felix = await _felix(store, host, log, remembered)
        parameters = parameters.under(memory.felix)
        leases = Leases(directory, options, lease4_of)
        responders: dict[str, Responder] = {"dhcp4": Responder4(Inbox(sock, receive4, time.monotonic), leases, notes)}
        routers = None
        if solicitations is not None:
            routers = Responder6(Inbox(solicitations, receive6, time.monotonic), directory, options, notes)
            responders |= {"router": routers, **_open_frame_responders(stack, directory, options, notes)}
        log.info("started", version=tabinet.__version__, pid=os.getpid(), store=parameters.text("store", "kind"))
        service = GuestService(Syncer(store, list(PREFIXES)), directory, responders, routers, notes, log, time.monotonic, memory)
        if remembered is not None:
            service.remember(remembered)
            log.info("remembered", ports=directory.count())
        proxy = _open_proxy(parameters, directory, notes)
        if proxy is not None:
            stack.callback(proxy.listener.close)
            service.others = (proxy.run,)
            face.metadata = proxy.counts
        face.service = service
        yield service


async def _felix(store: Datastore, host: str, log: Logger, remembered: Remembered | None) -> dict[str, object]:
    """What the store says for this host; if it does not answer for a while, what is remembered of that."""
    try:
        async with asyncio.timeout(STORE_WAIT_S if remembered is not None else None):
            return await read_felix(store, host, log, lambda why: None)
    except TimeoutError:
        assert remembered is not None  # otherwise there is no limit
        log.warning("the store is away: guests are answered as before")
        return remembered.felix


def _open_frame_responders(
    stack: contextlib.AsyncExitStack, directory: Directory, options: GuestOptions, notes: Notes
) -> dict[str, Responder]:
    """What answers IPv6 guests over packet sockets; the stack closes these."""
    dhcp6, neighbours = open_frames(DHCP6), open_frames(NEIGHBOURS)
    stack.callback(dhcp6.close)
    stack.callback(neighbours.close)
    limiter = Limiter(rate=RATE, burst=BURST)
    return {
        "dhcp6": Dhcp6Responder(Inbox(dhcp6, receive_frame, time.monotonic, before=DHCP6), Leases(directory, options, lease6_of), notes),
        "neighbour": NeighbourResponder(Inbox(neighbours, receive_frame, time.monotonic, limiter, before=NEIGHBOURS), directory),
    }


def _open_proxy(parameters: Parameters, directory: Directory, notes: Notes) -> MetadataProxy | None:
    """What listens where the agent's rules lead requests for metadata; None: nothing of ours."""
    service, file = parameters.text("guest", "metadata_service"), parameters.text("guest", "metadata_secret_file")
    local = parameters.switch("guest", "local_metadata")
    if not service and not local:
        return None
    metadata = metadata_of(parameters)
    if metadata is None or (service and not service.rpartition(":")[2].isdigit()):
        raise SetupError("guest.metadata_service is a host and a port, and felix.metadata_addr must not be none where metadata is served")
    try:
        secret = Path(file).read_bytes().strip() if file else b""
    except OSError as error:
        raise SetupError(f"cannot read guest.metadata_secret_file {file}: {error.strerror}") from error
    return MetadataProxy(open_listener(metadata.address.address, metadata.port), directory, service, secret, notes, local)


def guest_options(parameters: Parameters) -> GuestOptions:
    """The part of the parameters that the answers depend on."""
    return GuestOptions(
        lease_s=int(parameters.seconds("guest", "lease_s")),
        on_link=parameters.text("guest", "netmask") == "subnet",
        dns_servers=tuple(map(parse_address, parameters.items("guest", "dns_servers"))),
    )


@contextlib.contextmanager
def _claim_namespace() -> Iterator[None]:
    """While inside, this is the only guest service of the network namespace (an abstract unix socket, which ends with the process).

    Raises:
        SetupError: another one runs here.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as claim:
        try:
            claim.bind("\0tabinet-guest")
        except OSError as error:
            raise SetupError("another tabinet guest runs in this network namespace: there can be only one, stop it first") from error
        yield
