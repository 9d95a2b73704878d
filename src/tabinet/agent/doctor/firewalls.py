"""Rules of other programs that workloads' packets meet.

In: base chains, prefixes of workloads' interface names. Out: checks. A packet passes when every base chain on its way accepts it, so that
one program's "drop what is not accepted" counts whatever ours says. Whether a rule accepts workloads is not computed: a table whose rules
name the prefix of their interfaces is taken to be meant so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tabinet.agent.checksystem import Check
from tabinet.kernel.nftables import FAMILY_NAMES
from tabinet.kernel.nftchains import BaseChain

FORWARD, INPUT = 2, 1
OURS = "tabinet"
FELIX = "cali-FORWARD"
"""A chain that Calico's Felix makes, and jumps to from those of iptables."""
LEGACY = ("/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")


def check_firewalls(chains: Iterable[BaseChain], prefixes: tuple[str, ...], legacy: Iterable[str] = ()) -> list[Check]:
    """What other programs' chains may do to packets that pass through the host.

    Args:
        legacy: tables of the older iptables that are loaded, as in ``ip filter``.
    """
    others = [chain for chain in chains if not (chain.table.startswith(OURS) and chain.family in FAMILY_NAMES.values())]
    checks = [
        _closed(chain)
        for chain in others
        if chain.hook.hook == FORWARD
        and not chain.hook.policy_accept
        and chain.family in ("inet", "ip", "ip6")
        and not chain.mentions & set(prefixes)
    ]
    if any(chain.table == "firewalld" for chain in others):
        checks.append(_firewalld(any(chain.table == "firewalld" and chain.mentions & set(prefixes) for chain in others)))
    if any(FELIX in chain.mentions for chain in others):
        removal = "once Felix is stopped and ours is ready, `tabinet import --finish` removes them"
        advice = f"rules of Calico's Felix are loaded: two agents must not share a host; {removal}"
        checks.append(Check(name="firewall: Felix", well=False, advice=advice))
    for name in legacy:
        advice = (
            f"the older iptables has the table {name!r}, which nft does not show: look with iptables-legacy-save or ip6tables-legacy-save"
        )
        checks.append(Check(name=f"firewall: iptables {name}", well=False, advice=advice, remark=True))
    return checks or [Check(name="firewall: no other rules in the way", well=True)]


def read_legacy(paths: Iterable[str] = LEGACY) -> list[str]:
    """Tables of the older iptables that the kernel holds."""
    found = []
    for path in map(Path, paths):
        family = "ip6" if "ip6" in path.name else "ip"
        try:
            found += [f"{family} {name}" for name in path.read_text().split()]
        except OSError:
            continue
    return found


def _closed(chain: BaseChain) -> Check:
    where = f"{chain.family} {chain.table} {chain.name}"
    program = "ip6tables" if chain.family == "ip6" else "iptables"
    docker = chain.table == "filter" and chain.name == "FORWARD"
    remedy = (
        f"Docker sets this: start dockerd with --iptables=false, or `{program} -P FORWARD ACCEPT` after it"
        if docker
        else f"`nft chain {where} '{{ policy accept; }}'`, or rules there that accept the interfaces of workloads"
    )
    return Check(
        name=f"firewall: {where}",
        well=False,
        advice=f"forwarded packets that no rule there accepts are dropped, those of workloads too: {remedy}",
    )


def _firewalld(meant: bool) -> Check:
    advice = (
        "firewalld rejects what is forwarded for interfaces in no zone: `systemctl disable --now firewalld`, or put them into zone trusted"
    )
    return Check(name="firewall: firewalld", well=meant, advice=advice)
