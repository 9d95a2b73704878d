"""Whether Felix's rules guard this host's workloads: then an agent that starts here need not close them before it knows any policy.

On a host without anybody's rules the agent begins with a table that passes nothing. Where Felix has left its own, that would interrupt what
they let pass; so they guard on, until our whole policy comes into the kernel at once. Reads chains and the words of rules; O(rules).
"""

from __future__ import annotations

from tabinet.agent.doctor.firewalls import FELIX, FORWARD, read_legacy
from tabinet.agent.takeover.iptables import find_felix
from tabinet.agent.takeover.programs import NFT_PROGRAMS, programs_for, save
from tabinet.errors import SetupError
from tabinet.kernel.nftchains import list_base_chains

NFT_TABLE = "calico"
"""The table in which Felix works with nftables."""


def is_guarded_by_felix() -> bool:
    """Forwarded packets meet rules of Felix's, of whichever kind. What cannot be looked at guards nothing.

    Raises:
        KernelError: the kernel did not answer.
    """
    chains = [chain for chain in list_base_chains((FELIX,)) if chain.hook.hook == FORWARD]
    if any(chain.table == NFT_TABLE or FELIX in chain.mentions for chain in chains):
        return True
    return any(_has_felix(program) for program in programs_for(read_legacy()) if program not in NFT_PROGRAMS)


def _has_felix(program: str) -> bool:
    try:
        return any(FELIX in table.chains for table in find_felix(save(program), program, ()))
    except SetupError:
        return False
