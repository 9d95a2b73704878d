"""Waits: for programs to answer, for BGP to converge.

Everything here polls with a deadline and says what was still missing when it passed; nothing is changed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tabinet.attach.mtu import reported_mtu
from tabinet.bgp.control import BirdControl
from tabinet.bgp.records import SessionState
from tabinet.errors import BirdError, LabError, StoreError
from tabinet.kernel.netns import run_in
from tabinet.kernel.rtnetlink import Route, RouteKind
from tabinet.kernel.rtsocket import RtSocket, open_rtnetlink
from tabinet.lab.component import Component
from tabinet.lab.kinds.kind import last_words
from tabinet.lab.processes import alive
from tabinet.lab.state import ProcessRecord
from tabinet.lib.ip import Prefix
from tabinet.store.api import Datastore

_POLL_S = 0.02
_CONVERGENCE_POLL_S = 0.1
_CONNECT_S = 0.5
START_TIMEOUT_S = 60.0
"""Far beyond what any program takes but on a machine that is busy with much else; one that ends is noticed at once."""


def accepts(path: str) -> bool:
    """True when something accepts connections on the unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_S)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


async def wait_started(component: Component, record: ProcessRecord, timeout_s: float = START_TIMEOUT_S) -> None:
    """The component accepts connections.

    Raises:
        LabError: it ended, or did not within ``timeout_s``; with the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while component.socket and not accepts(component.socket):
        what = "ended" if not alive(record) else f"does not answer within {timeout_s:g} s" if time.monotonic() > deadline else ""
        if what:
            raise LabError(f"{component.name} of {component.node} {what}{last_words(component.launch.log)}")
        await asyncio.sleep(_POLL_S)


async def wait_store(store: Datastore, timeout_s: float = START_TIMEOUT_S) -> None:
    """The store answers.

    Raises:
        LabError: not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            await store.get("/calico/")
        except StoreError as error:
            if time.monotonic() > deadline:
                raise LabError(f"the lab's etcd does not answer: {error}") from error
            await asyncio.sleep(_POLL_S)
        else:
            return


async def wait_tunnels(store: Datastore, hosts: Sequence[str], timeout_s: float = START_TIMEOUT_S) -> None:
    """Every host's agent says how large packets through its tunnels can be: workloads are made to fit.

    Raises:
        LabError: one does not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while missing := [host for host in hosts if not await reported_mtu(store, host)]:
        if time.monotonic() > deadline:
            raise LabError(f"no tunnel after {timeout_s:g} s on {', '.join(missing)}")
        await asyncio.sleep(_POLL_S)


async def wait_sessions(sockets: Mapping[str, str], wanted: Mapping[str, int], timeout_s: float) -> None:
    """Every host's BIRD has as many established sessions as ``wanted`` says.

    ``sockets`` maps names to control sockets.

    Raises:
        LabError: some are missing after ``timeout_s``; with the reasons that BIRD gives.
    """
    deadline = time.monotonic() + timeout_s
    while missing := {host: text for host, path in sockets.items() if (text := await asyncio.to_thread(_down, path, wanted[host]))}:
        if time.monotonic() > deadline:
            raise LabError(f"BGP after {timeout_s:g} s: " + "; ".join(f"{host}: {text}" for host, text in missing.items()))
        await asyncio.sleep(_CONVERGENCE_POLL_S)


def _down(path: str, wanted: int) -> str:
    """What keeps a BIRD from having all its sessions; empty when it has."""
    try:
        sessions = BirdControl(Path(path)).sessions()
    except BirdError as error:
        return str(error)
    up = [session for session in sessions if session.state is SessionState.ESTABLISHED]
    if len(up) >= wanted:
        return ""
    reasons = [f"{session.peer} {session.reason or session.state.value}" for session in sessions if session not in up]
    return f"{len(up)} of {wanted} sessions up" + (f" ({', '.join(reasons[:3])})" if reasons else "")


async def wait_routes(hosts: Mapping[str, str], wanted: Mapping[str, Sequence[Prefix]], timeout_s: float) -> None:
    """Every host has a route to each of the addresses that it should reach.

    ``hosts`` maps names to network namespaces, ``wanted`` names to addresses.

    Raises:
        LabError: some are missing after ``timeout_s``.
    """
    sockets = {host: await asyncio.to_thread(_open, namespace) for host, namespace in hosts.items()}
    deadline = time.monotonic() + timeout_s
    try:
        while missing := {host: gone for host in hosts if (gone := missing_routes(sockets[host].routes(), wanted[host]))}:
            if time.monotonic() > deadline:
                texts = [f"{host} to {', '.join(prefix.address for prefix in gone[:3])}" for host, gone in missing.items()]
                raise LabError(f"no route after {timeout_s:g} s from {'; '.join(texts)}")
            await asyncio.sleep(_CONVERGENCE_POLL_S)
    finally:
        for rtnetlink in sockets.values():
            rtnetlink.close()


def _open(namespace: str) -> RtSocket:
    return run_in(namespace, open_rtnetlink)


def missing_routes(routes: Iterable[Route], addresses: Sequence[Prefix]) -> list[Prefix]:
    """The addresses whose longest match is no way to anywhere."""
    table = list(routes)
    found = []
    for address in addresses:
        matching = [route for route in table if route.destination.contains(address)]
        best = max(matching, key=lambda route: (route.destination.length, -route.metric), default=None)
        if best is None or best.kind is not RouteKind.UNICAST:
            found.append(address)
    return found
