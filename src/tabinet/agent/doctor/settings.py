"""Settings and tables of the host: what breaks a fabric that has worked for days.

In: sysctls, directories, the kernel's clock. Out: checks. Reads only files and one system call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from tabinet.agent.checksystem import Check
from tabinet.errors import KernelError
from tabinet.kernel.sysctl import ProcSysctl, Sysctl

FULL = 0.8
"""A table that is so full is told of."""
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronized."""
_TIMEX_SIZE = 512
"""More than a struct timex has on any machine."""
NETWORKD = Path("/run/systemd/netif/state")
"""Is there while it runs."""
NETWORKD_CONFIG = (Path("/etc/systemd"), Path("/run/systemd"), Path("/usr/lib/systemd"))


def check_settings(
    sysctl: Sysctl | None = None,
    *,
    synchronized: Callable[[], bool] | None = None,
    networkd: Path = NETWORKD,
    roots: tuple[Path, ...] = NETWORKD_CONFIG,
) -> list[Check]:
    """Clock, connection tracking, neighbours, reverse path filters, systemd-networkd; the parameters are there for tests."""
    sysctl = sysctl if sysctl is not None else ProcSysctl()
    return [
        _clock((synchronized or clock_is_synchronized)()),
        _tracking(sysctl),
        _neighbours(sysctl, 4),
        _neighbours(sysctl, 6),
        _networkd(networkd, roots),
    ]


def clock_is_synchronized() -> bool:
    """What the kernel says of its clock (adjtimex(2)); true where it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    return adjtimex is None or adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE)) != TIME_ERROR


def _clock(well: bool) -> Check:
    advice = "the clock is not synchronized: times in logs, reports and histories of hosts do not agree; apt-get install chrony"
    return Check(name="clock", well=well, advice=advice, remark=True)


def _number(sysctl: Sysctl, key: str) -> int:
    """0 where there is no such setting."""
    try:
        return int(sysctl.read(key))
    except (KernelError, ValueError):
        return 0


def _tracking(sysctl: Sysctl) -> Check:
    count, most = _number(sysctl, "net/netfilter/nf_conntrack_count"), _number(sysctl, "net/netfilter/nf_conntrack_max")
    advice = f"{count} of {most} connections are tracked; the next after the last is dropped: raise net.netfilter.nf_conntrack_max"
    return Check(name="connection tracking", well=most == 0 or count < FULL * most, advice=advice)


def _neighbours(sysctl: Sysctl, family: int) -> Check:
    most = _number(sysctl, f"net/ipv{family}/neigh/default/gc_thresh3")
    there = _neighbour_entries(family)
    advice = f"{there} of {most} neighbours are known; beyond them packets are dropped: raise net.ipv{family}.neigh.default.gc_thresh1 to 3"
    return Check(name=f"IPv{family} neighbours", well=most == 0 or there < FULL * most, advice=advice)


def _neighbour_entries(family: int, directory: Path = Path("/proc/net/stat")) -> int:
    """Entries of the neighbour table, from its first line of statistics (hexadecimal)."""
    try:
        lines = (directory / ("arp_cache" if family == 4 else "ndisc_cache")).read_text().splitlines()
        return int(lines[1].split()[0], 16)
    except (OSError, IndexError, ValueError):
        return 0


def _networkd(running: Path, roots: tuple[Path, ...]) -> Check:
    """systemd-networkd removes routes and rules that it did not make, unless told not to (networkd.conf(5), ManageForeignRoutes=)."""
    kept = not running.exists() or any(_keeps_foreign_routes(root) for root in roots)
    advice = "systemd-networkd removes others' routes when it starts: set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no"
    return Check(name="systemd-networkd", well=kept, advice=f"{advice} under [Network] (/etc/systemd/networkd.conf.d/tabinet.conf)")


def _keeps_foreign_routes(root: Path) -> bool:
    for path in [root / "networkd.conf", *sorted((root / "networkd.conf.d").glob("*.conf"))]:
        try:
            lines = path.read_text().lower().replace(" ", "").splitlines()
        except OSError:
            continue
        if any(line in ("manageforeignroutes=no", "manageforeignroutes=false", "manageforeignroutes=0") for line in lines):
            return True
    return False
