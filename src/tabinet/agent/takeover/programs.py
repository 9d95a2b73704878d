"""Runs the programs of iptables and nftables, which alone know how other programs' rules are to be read and removed.

In: names, texts. Out: what they print. Both kinds of iptables are asked: the one over nf_tables always, the older one only where the kernel
holds tables of it, because asking it makes them. Nothing here decides anything.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence

from tabinet.errors import SetupError

TIMEOUT_S = 60.0
LOCK_WAIT_S = 30
"""How long another iptables may hold the lock of the older kind."""
NFT_PROGRAMS = ("iptables-nft", "ip6tables-nft")
LEGACY_PROGRAMS = {"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}


def programs_for(legacy_tables: Iterable[str]) -> list[str]:
    """Which iptables are to be asked. ``legacy_tables``: as ``doctor.firewalls.read_legacy`` tells."""
    families = {name.split()[0] for name in legacy_tables}
    return [*NFT_PROGRAMS, *(program for family, program in LEGACY_PROGRAMS.items() if family in families)]


def save(program: str) -> str:
    """All tables of this iptables.

    Raises:
        SetupError: the program is not there, or fails.
    """
    return _run([_find(program, "save")], "")


def restore(program: str, text: str) -> None:
    """The table is as the text says: wholly, or not at all.

    Raises:
        SetupError: the program is not there, or refuses.
    """
    wait = ["-w", str(LOCK_WAIT_S)] if "legacy" in program else []
    _run([_find(program, "restore"), "--noflush", *wait], text)


def delete_nft_tables(tables: Sequence[tuple[str, str]]) -> None:
    """These tables (family, name) are gone, all at once.

    Raises:
        SetupError: the program is not there, or refuses.
    """
    if tables:
        _run(["nft", "-f", "-"], "".join(f"delete table {family} {name}\n" for family, name in tables))


def _find(program: str, verb: str) -> str:
    """Distributions with one kind of iptables call it by the plain name."""
    exact, plain = f"{program}-{verb}", f"{program.partition('-')[0]}-{verb}"
    return exact if shutil.which(exact) or not shutil.which(plain) else plain


def _run(command: Sequence[str], text: str) -> str:
    try:
        run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise SetupError(f"there is no program {command[0]}: apt-get install {'nftables' if command[0] == 'nft' else 'iptables'}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{command[0]} cannot be run: {error}") from error
    if run.returncode != 0:
        raise SetupError(f"{' '.join(command)}: {' '.join((run.stderr or run.stdout).split())[:400]}")
    return run.stdout
