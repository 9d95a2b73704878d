"""FRR 8.4 as a lab router: text for zebra, bfdd and bgpd, and their command lines.

Each daemon has a file with what concerns it only. All sockets and the PID files stay in the router's directory, so that many FRRs live on
one machine; no daemon listens on TCP for vty (``-P 0``). Start order: zebra, bfdd, bgpd, each when the one before accepts connections.
Source: https://docs.frrouting.org/en/frr-8.4/ (basic, zebra, bgp, bfd). Pure; linear in the neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import msgspec

from tabinet.lab.routerspec import Command, NeighbourSpec, RouterFile, RouterSpec
from tabinet.lib.ip import IPV4, IPV6, Prefix

FRR_DIRECTORY = "/usr/lib/frr"
NETLINK_BUFFER_BYTES = 4_194_304
PRIVATE = ("/usr/bin/unshare", "--mount", "/bin/sh", "-c", 'mount -t tmpfs -o size=4m tmpfs /var/tmp && exec "$@"', "frr")
"""Runs the rest of the line with a /var/tmp of its own: FRR keeps a directory there for each process, which a killed one would leave."""


def render_frr(spec: RouterSpec) -> tuple[RouterFile, ...]:
    """The files ``zebra.conf``, ``bfdd.conf`` and ``bgpd.conf`` of a router."""
    return (
        RouterFile("zebra.conf", _text(_render_zebra(spec))),
        RouterFile("bfdd.conf", _text(_render_bfdd(spec))),
        RouterFile("bgpd.conf", _text(_render_bgpd(spec))),
    )


def frr_daemons(spec: RouterSpec, directory: PurePath) -> tuple[Command, ...]:
    """The three daemons in start order; ``directory`` holds the files of ``render_frr``, and is writable and the router's own."""

    def command(daemon: str, *extra: str) -> Command:
        argv = (
            *PRIVATE,
            f"{FRR_DIRECTORY}/{daemon}",
            # Debian's FRR wants to be in the group of its vty sockets; as root it can write where no other user comes.
            *("-u", "root", "-g", "frrvty", "-P", "0", "--log", "stdout"),
            *("--vty_socket", str(directory), "-z", str(directory / "zserv.api")),
            *("-f", str(directory / f"{daemon}.conf"), "-i", str(directory / f"{daemon}.pid")),
            *extra,
        )
        return Command(name=daemon, argv=argv, restart_argv=argv, socket=str(directory / f"{daemon}.vty"))

    # -r: a zebra that ends leaves its routes. -K: one that starts keeps those it finds until its clients have told theirs.
    zebra = command("zebra", "-s", str(NETLINK_BUFFER_BYTES), "-r", "-K", str(spec.restart_time_s))
    bfdd = command("bfdd", "--bfdctl", str(directory / "bfdd.sock"))
    return zebra, bfdd, command("bgpd")


def _text(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _render_preamble(spec: RouterSpec) -> Iterator[str]:
    yield "frr defaults datacenter"
    yield f"hostname {spec.name}"


def _render_zebra(spec: RouterSpec) -> Iterator[str]:
    yield from _render_preamble(spec)
    # The kernel gets a route this many ms after the neighbours heard of it; in between their packets come back to them. The default is 10.
    # ("bgp suppress-fib-pending" turns the order round, but also holds bad news back: a cut link then costs twice as much.)
    yield "zebra work-queue 1"


def _render_bfdd(spec: RouterSpec) -> Iterator[str]:
    yield from _render_preamble(spec)
    if spec.bfd_interval_ms:
        yield "bfd"
        yield " profile fabric"
        yield f"  receive-interval {spec.bfd_interval_ms}"
        yield f"  transmit-interval {spec.bfd_interval_ms}"
        yield f"  detect-multiplier {spec.bfd_multiplier}"


def _render_bgpd(spec: RouterSpec) -> Iterator[str]:
    yield from _render_preamble(spec)
    for family, word, name in ((IPV4, "ip", "HOSTS4"), (IPV6, "ipv6", "HOSTS6")):
        prefixes = [prefix for prefix in spec.host_prefixes if prefix.family == family]
        for index, prefix in enumerate(prefixes, 1):
            reach = "" if prefix.is_host else f" le {prefix.bits}"
            yield f"{word} prefix-list {name} seq {index * 5} permit {prefix}{reach}"
        if not prefixes:
            yield f"{word} prefix-list {name} seq 5 deny any"
    # RFC 8326: routes of a neighbour that announces its leave are the last choice, in both families.
    yield "bgp community-list standard LEAVING seq 5 permit graceful-shutdown"
    yield "route-map IN permit 10"
    yield " match community LEAVING"
    yield " set local-preference 0"
    yield "route-map IN permit 20"
    yield f"router bgp {spec.as_number}"
    yield f" bgp router-id {spec.router_id}"
    # RFC 8212 wants a policy on every eBGP session; towards other routers of the fabric ours is "everything".
    yield " no bgp ebgp-requires-policy"
    yield " no bgp default ipv4-unicast"
    yield " bgp bestpath as-path multipath-relax"
    yield " bgp graceful-restart"
    yield " bgp graceful-restart preserve-fw-state"
    yield f" bgp graceful-restart restart-time {spec.restart_time_s}"
    for neighbour in spec.neighbours:
        for session in _sessions(neighbour):
            yield from _render_neighbour(spec, neighbour, session)
    for family, word in ((IPV4, "ipv4"), (IPV6, "ipv6")):
        yield f" address-family {word} unicast"
        yield from (f"  network {prefix}" for prefix in spec.loopbacks if prefix.family == family)
        yield "  maximum-paths 16"
        for neighbour in spec.neighbours:
            yield from _render_activation(spec, neighbour, family)
        yield " exit-address-family"


class _Session(msgspec.Struct, frozen=True, gc=False):
    """A neighbour as FRR names it, our address in the session (None: FRR finds it), and the families of routes."""

    name: str
    source: Prefix | None
    families: tuple[int, ...]


def _sessions(neighbour: NeighbourSpec) -> Iterator[_Session]:
    if neighbour.unnumbered:
        yield _Session(neighbour.interface, None, (IPV4, IPV6))
        return
    for family, local, peer in ((IPV4, neighbour.local4, neighbour.peer4), (IPV6, neighbour.local6, neighbour.peer6)):
        if local is not None and peer is not None:
            yield _Session(peer.address, local, (family,))


def _render_neighbour(spec: RouterSpec, neighbour: NeighbourSpec, session: _Session) -> Iterator[str]:
    head = f" neighbor {session.name}"
    yield f"{head} interface remote-as {neighbour.peer_as}" if session.source is None else f"{head} remote-as {neighbour.peer_as}"
    yield f"{head} description {neighbour.peer_name}"
    if spec.bfd_interval_ms:
        yield f"{head} bfd"
        yield f"{head} bfd profile fabric"
    yield f"{head} timers {spec.keepalive_time_s} {spec.hold_time_s}"
    yield f"{head} timers connect 1"
    if session.source is not None:
        yield f"{head} update-source {session.source.address}"


def _render_activation(spec: RouterSpec, neighbour: NeighbourSpec, family: int) -> Iterator[str]:
    for session in _sessions(neighbour):
        if family not in session.families:
            continue
        head = f"  neighbor {session.name}"
        yield f"{head} activate"
        yield f"{head} route-map IN in"
        if neighbour.is_host:
            yield f"{head} prefix-list HOSTS{family} in"
        yield f"{head} maximum-prefix {spec.route_limit}"
