"""The routers of a lab (spines and top-of-rack switches): their configuration as text, and how their daemons are run.

In: a ``RouterSpec``. Out: files to write into a directory of the router's own (``render_router``), and the command lines to run in its
network namespace (``daemons``). Both are pure; ``is_ready`` knocks at a socket.

The routers speak eBGP as RFC 7938 describes it: spines share one AS number, every top-of-rack router has one of its own, so that
AS-path loop detection keeps routes from going down and up again. Sessions run over the addresses of the links, one for each family;
equal-cost routes of up to 16 neighbours are all used. A dead link is seen by its carrier or else by BFD (RFC 5880); graceful restart
(RFC 4724) and GRACEFUL_SHUTDOWN (RFC 8326) are honoured.

Two implementations: ``bird`` (one small process) and ``frr`` (zebra, bfdd and bgpd). They differ where a host's BIRD restarts, and BFD goes
with it: FRR keeps the stale routes of a neighbour that announced graceful restart, unless BFD fails while the session is up. BIRD cannot
tell the two apart, so it keeps a host's routes in any case, but as the last resort (long-lived graceful restart, RFC 9494): whatever other
way there is wins at once. The host has to want the same (``tabinet.io/long-lived``).

The caller puts the addresses on the interfaces and on ``lo`` and sets the sysctls (forwarding, ``fib_multipath_hash_policy``,
``ignore_routes_with_linkdown``, ``keep_addr_on_down``), starts the daemons in the order given, each when the one before is ready. Cost:
linear in the neighbours.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import PurePath

from tabinet.lab.frr import frr_daemons, render_frr
from tabinet.lab.routerspec import Command, NeighbourSpec, RouterFile, RouterSpec, Software
from tabinet.lib.ip import IPV4, IPV6

BIRD_PROGRAM = "/usr/sbin/bird"

__all__ = ["Command", "NeighbourSpec", "RouterFile", "RouterSpec", "Software", "daemons", "is_ready", "render_router"]


def render_router(spec: RouterSpec) -> tuple[RouterFile, ...]:
    """The configuration files of a router, to be written into its directory before ``daemons`` are started."""
    if spec.software is Software.FRR:
        return render_frr(spec)
    return (RouterFile("bird.conf", "\n".join(_render_bird(spec)) + "\n"),)


def daemons(spec: RouterSpec, directory: PurePath) -> tuple[Command, ...]:
    """What to run for a router, in start order. ``directory`` holds its files, is writable and belongs to this router alone."""
    if spec.software is Software.FRR:
        return frr_daemons(spec, directory)
    control = str(directory / "bird.ctl")
    argv = (BIRD_PROGRAM, "-f", "-c", str(directory / "bird.conf"), "-s", control, "-P", str(directory / "bird.pid"))
    return (Command(name="bird", argv=argv, restart_argv=(*argv, "-R"), socket=control),)


def is_ready(command: Command, timeout_s: float = 0.2) -> bool:
    """True when the daemon accepts connections on its socket; its path must not be longer than 107 bytes (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(command.socket)
        except OSError:
            return False
    return True


def _render_bird(spec: RouterSpec) -> Iterator[str]:
    yield "log stderr { info, remote, warning, error, auth, fatal, bug };"
    yield f"router id {spec.router_id};"
    yield "timeformat protocol iso long ms;"
    yield f"graceful restart wait {spec.recovery_time_s};"
    # Never established, so a recovery lasts that long: FRRs that started lately tell BIRD not to wait for them (RFC 4724 section 3).
    yield f"protocol bgp recovery {{ local as {spec.as_number}; neighbor 192.0.2.1 as {spec.as_number}; multihop; passive;"
    yield "  graceful restart on; ipv4 { import none; export none; }; ipv6 { import none; export none; };"
    yield "}"
    yield "protocol device { scan time 10; }"
    yield 'protocol direct loopbacks { ipv4; ipv6; interface "lo"; }'
    if spec.bfd_interval_ms:
        yield "protocol bfd {"
        yield f'  accept direct; interface "*" {{ interval {spec.bfd_interval_ms} ms; multiplier {spec.bfd_multiplier}; }};'
        yield "}"
    for family in (IPV4, IPV6):
        yield f"protocol kernel kernel{family} {{"
        yield "  persist; graceful restart; merge paths yes limit 16; scan time 20;"
        # The netlink socket belongs to both kernel protocols; the option may be given once only.
        if family == IPV4:
            yield "  netlink rx buffer 16000000;"
        yield f"  ipv{family} {{ import none; export where source = RTS_BGP; }};"
        yield "}"
        yield from _render_import_filters(spec, family)
    for index, neighbour in enumerate(spec.neighbours):
        yield from _render_bird_sessions(spec, neighbour, index)


def _render_import_filters(spec: RouterSpec, family: int) -> Iterator[str]:
    """``from_router4`` and ``from_host4`` (or 6). RFC 8326: routes of a neighbour that announces its leave are the last choice."""
    leaving = "if (65535, 0) ~ bgp_community then bgp_local_pref = 0;"
    yield f"filter from_router{family} {{ {leaving} accept; }}"
    allowed = ", ".join(f"{prefix}+" for prefix in spec.host_prefixes if prefix.family == family)
    if allowed:
        yield f"filter from_host{family} {{ if net !~ [ {allowed} ] then reject; {leaving} accept; }}"
    else:
        yield f"filter from_host{family} {{ reject; }}"


def _render_bird_sessions(spec: RouterSpec, neighbour: NeighbourSpec, index: int) -> Iterator[str]:
    kind = "host" if neighbour.is_host else "router"
    for family, local, peer in ((IPV4, neighbour.local4, neighbour.peer4), (IPV6, neighbour.local6, neighbour.peer6)):
        if local is None or peer is None:
            continue
        yield f"protocol bgp peer{index}_v{family} {{"
        yield f'  description "{neighbour.peer_name}"; interface "{neighbour.interface}"; direct;'
        yield f"  local {local.address} as {spec.as_number}; neighbor {peer.address} as {neighbour.peer_as};"
        yield f"  hold time {spec.hold_time_s}; keepalive time {spec.keepalive_time_s};"
        yield "  connect delay time 1; connect retry time 2; error wait time 1, 5;"
        if neighbour.is_host:
            yield "  graceful restart on; graceful restart time 0; long lived graceful restart on;"
            yield f"  long lived stale time {spec.restart_time_s};"
        else:
            yield f"  graceful restart on; graceful restart time {spec.restart_time_s};"
        if spec.bfd_interval_ms:
            yield f"  bfd {'graceful' if neighbour.is_host else 'on'};"
        yield f"  ipv{family} {{"
        yield f"    import filter from_{kind}{family}; export where source = RTS_BGP || source = RTS_DEVICE; next hop self;"
        yield f"    import limit {spec.route_limit} action restart;"
        yield "  };"
        yield "}"
