"""What this machine needs to run a lab, looked at before anything is made.

In: a plan. Out: nothing, or ``SetupError`` that names everything that is missing and what to do about it. Leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil

from tabinet.errors import LabError, SetupError
from tabinet.lab.build import remove_namespaces, run
from tabinet.lab.kinds.known import kinds_in
from tabinet.lab.launches import programs_needed
from tabinet.lab.plan import Plan

PACKAGES = {"bird": "bird2", "etcd": "etcd-server", "nft": "nftables", "ip": "iproute2", "nsenter": "util-linux"}
"""Debian packages of programs; those of FRR are in ``frr``."""

_FEATURES = (
    ("veth interfaces (CONFIG_VETH)", "link add name a type veth peer name b"),
    ("bridges (CONFIG_BRIDGE)", "link add name c type bridge"),
    ("IPv6 (CONFIG_IPV6)", "-6 addr add fd00::1/64 dev lo"),
)


async def preflight(plan: Plan) -> None:
    """The lab can be made on this machine.

    Raises:
        SetupError: it cannot; one line for each reason.
    """
    if os.geteuid() != 0:
        raise SetupError("a lab is made of network namespaces, which only root may make: run it again with sudo")
    lacking = [line for kind in kinds_in(plan.topology).values() for line in kind.missing()]
    if lacking:
        raise SetupError("\n".join(lacking))
    missing = [program for program in programs_needed(plan) if shutil.which(program) is None]
    if missing:
        packages = sorted({_package(program) for program in missing})
        raise SetupError(f"missing: {', '.join(missing)}; install them with: apt-get install {' '.join(packages)}")
    await _features()


def _package(program: str) -> str:
    return "frr" if "/frr/" in program else PACKAGES.get(os.path.basename(program), os.path.basename(program))


async def _features() -> None:
    """The kernel has what the lab is made of: tried in a namespace that is removed again."""
    namespace = f"tabinet-preflight-{os.getpid()}"
    try:
        await run(["ip", "netns", "add", namespace])
    except LabError as error:
        raise SetupError(f"network namespaces do not work here ({error}): the lab needs CONFIG_NET_NS and CAP_SYS_ADMIN") from error
    try:
        for feature, command in _FEATURES:
            try:
                await run(["ip", "-n", namespace, *command.split()])
            except LabError as error:
                raise SetupError(f"this kernel has no {feature}: {error}") from error
    finally:
        await remove_namespaces([namespace])
