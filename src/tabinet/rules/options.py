"""What a table is made for besides policy: interface names, what workloads may ask of their host, logging."""

from __future__ import annotations

import enum

import msgspec


class HostAction(enum.Enum):
    """What happens to traffic from a workload to its own host after the workload's egress policy allowed it."""

    DROP = "Drop"
    ACCEPT = "Accept"
    RETURN = "Return"
    """As Accept: an nftables table cannot overrule the others, so the host's own firewall is asked in any case."""


class TableOptions(msgspec.Struct, frozen=True):
    """A table depends on these and on policy, on nothing else."""

    interface_prefixes: tuple[str, ...] = ("cali", "tap")
    """Interfaces whose names begin so are workloads' (FelixConfiguration ``interfacePrefix``). Never empty, none is empty."""
    endpoint_to_host: HostAction = HostAction.DROP
    protect_local_sources: bool = True
    """Drop what comes in through any other interface with the source address of a workload of this host."""
    log_group: int = 1
    """nfnetlink_log group of Log rules."""
    log_per_second: int = 10
    log_burst: int = 20
