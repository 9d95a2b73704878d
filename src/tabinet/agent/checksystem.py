"""Whether this machine can be a host: kernel features, programs, directories, settings.

In: the parameters. Out: ``Check`` records, in the order of importance. Kernel features are tried (see ``kernel.probe``), programs are
asked for their version; nothing is changed. Under a second.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec

from tabinet.agent.parameters import Parameters
from tabinet.bgp.driver import BIRD_PROGRAM
from tabinet.errors import KernelError
from tabinet.kernel.probe import probe
from tabinet.kernel.sysctl import ProcSysctl, Sysctl

PROGRAM_TIMEOUT_S = 10.0
OLDEST_BIRD = (2, 0, 12)
"""Configurations are written for this and later 2.x."""


class Check(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One thing that was looked at."""

    name: str
    well: bool
    advice: str = ""
    """What to do when it is not well, and why."""
    remark: bool = False
    """Worth knowing, and no reason not to begin."""


def check_system(parameters: Parameters, sysctl: Sysctl | None = None, program: str = BIRD_PROGRAM) -> list[Check]:
    """Everything that a host needs, and what could be in its way."""
    checks = [
        Check(
            name=f"kernel: {feature.name}",
            well=feature.present,
            advice=f"{feature.what_to_do} ({feature.why_needed}; {feature.error})",
            remark=feature.optional,
        )
        for feature in probe()
    ]
    if parameters.switch("bird", "enabled"):
        checks += [_bird(program), _directory(Path(parameters.text("bird", "config")).parent)]
    return checks + _settings(sysctl if sysctl is not None else ProcSysctl())


def _bird(program: str) -> Check:
    name = "BIRD"
    try:
        run = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=name, well=False, advice=f"{program} cannot be run ({error}): apt-get install bird2")
    said = (run.stdout + run.stderr).strip()
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", said)
    version = tuple(int(part or 0) for part in match.groups()) if match else ()
    well = bool(version) and OLDEST_BIRD <= version < (3,)
    oldest = ".".join(map(str, OLDEST_BIRD))
    return Check(name=name, well=well, advice=f"{program} says {said[:80]!r}: {oldest} or a later 2.x is needed")


def _directory(path: Path) -> Check:
    advice = f"{path} does not exist: BIRD's configuration is written there ([bird] config)"
    return Check(name="directory of BIRD's configuration", well=path.is_dir(), advice=advice)


def _settings(sysctl: Sysctl) -> list[Check]:
    """Settings of the operator's that the agent leaves alone, and that can be in the way."""

    def value(key: str) -> str:
        try:
            return sysctl.read(key)
        except KernelError:
            return ""

    strict = "net.ipv4.conf.all.rp_filter=1 drops what comes in on another uplink than the answer leaves by: set it to 0 or 2"
    no_default = "with forwarding on, uplinks take their default route from router advertisements only with accept_ra=2"
    return [
        Check(name="reverse path filter", well=value("net/ipv4/conf/all/rp_filter") != "1", advice=strict, remark=True),
        Check(name="router advertisements", well=value("net/ipv6/conf/default/accept_ra") != "1", advice=no_default, remark=True),
    ]
