"""Reads everything that the takeover of this host is about: the store, the kernel, processes, our agent.

In: parameters, a store. Out: a ``Sighting``. Changes nothing. The store is read first, so that what is attached meanwhile is seen in the
kernel without an endpoint, never the other way round. O(everything about addresses in the store + what is on the host).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tabinet.agent.doctor.firewalls import FELIX, read_legacy
from tabinet.agent.felixspec import felix_spec
from tabinet.agent.hostname import host_name
from tabinet.agent.http import fetch
from tabinet.agent.parameters import Parameters
from tabinet.agent.takeover.guard import NFT_TABLE
from tabinet.agent.takeover.iptables import FelixTable, find_felix
from tabinet.agent.takeover.processes import find_processes
from tabinet.agent.takeover.programs import programs_for, save
from tabinet.agent.takeover.records import WIREGUARD, AgentSight, Sighting, Traces
from tabinet.bgp.leftovers import metrics_in
from tabinet.errors import DataError, SetupError
from tabinet.ipam.inventory import read_fabric, read_inventory
from tabinet.kernel.ipset import list_sets
from tabinet.kernel.nftchains import BaseChain, list_base_chains
from tabinet.kernel.routingrules import RoutingRule, list_rules
from tabinet.kernel.rtnetlink import Link, Route
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix
from tabinet.model.report import HostReport
from tabinet.model.resources import WorkloadEndpoint
from tabinet.store.api import Datastore

WIREGUARD_PRIORITY = 99
"""Of the rules that Felix makes for WireGuard, unless wireguardRoutingRulePriority says otherwise."""
_IPSET = re.compile(r"cali[46][0t-]")


async def look(parameters: Parameters, store: Datastore) -> Sighting:
    """The host as it is now.

    Raises:
        StoreUnavailable, StoreDenied, DataError: the store cannot be read.
        KernelError: the kernel did not answer.
        InputError: the parameters are wrong.
    """
    host = host_name(parameters)
    spec = await felix_spec(store, host)
    parameters = parameters.under(spec)
    inventory = await read_inventory(store)
    fabric = await read_fabric(store)
    endpoints = await _endpoints(store, host)
    links, routes = _network()
    prefixes = tuple(parameters.items("felix", "interface_prefix"))
    return Sighting(
        host=host,
        prefixes=prefixes,
        endpoints=endpoints,
        inventory=inventory,
        fabric=fabric,
        links=links,
        routes=routes,
        bird_metrics=_bird_metrics(parameters),
        traces=_traces(prefixes, spec, {link.name for link in links}),
        processes=tuple(find_processes()),
        agent=await _agent(parameters.text("agent", "http_address")),
    )


async def _endpoints(store: Datastore, host: str) -> dict[ResourceKey, WorkloadEndpoint]:
    found = {}
    async for page in store.list(kind_prefix("WorkloadEndpoint")):
        for item in page.items:
            try:
                decoded = decode_stored(item.key, item.value)
            except DataError:  # told by read_fabric
                continue
            match decoded:
                case (ResourceKey() as key, WorkloadEndpoint() as record) if record.spec.node == host:
                    found[key] = record
    return found


def _network() -> tuple[tuple[Link, ...], tuple[Route, ...]]:
    rtnetlink = open_rtnetlink()
    try:
        return tuple(rtnetlink.links()), tuple(rtnetlink.routes())
    finally:
        rtnetlink.close()


def _bird_metrics(parameters: Parameters) -> frozenset[tuple[int, int]]:
    """From the configuration that the agent last wrote: also while the agent does not run."""
    if not parameters.switch("bird", "enabled"):
        return frozenset()
    try:
        return metrics_in(Path(parameters.text("bird", "config")).read_text())
    except OSError:
        return frozenset()


def _traces(prefixes: tuple[str, ...], spec: dict[str, object], interfaces: set[str]) -> Traces:
    chains = list_base_chains((FELIX,))
    tables: list[FelixTable] = []
    unread: list[str] = []
    for program in programs_for(read_legacy()):
        try:
            tables += find_felix(save(program), program, prefixes)
        except SetupError as error:
            if "legacy" in program or _concerns(chains, program):
                unread.append(str(error))
    nft_tables = sorted({chain.family for chain in chains if chain.table == NFT_TABLE})
    priority = spec.get("wireguardRoutingRulePriority", WIREGUARD_PRIORITY)
    rules = tuple(rule for rule in list_rules() if _is_felix(rule, priority) and not interfaces & set(WIREGUARD))
    ipsets = tuple(name for name in list_sets() if _IPSET.match(name))
    return Traces(tables=tuple(tables), nft_tables=tuple(nft_tables), ipsets=ipsets, rules=rules, unread=tuple(unread))


def _concerns(chains: list[BaseChain], program: str) -> bool:
    """There is something of Felix's that this iptables would have shown."""
    family = "ip6" if program.startswith("ip6") else "ip"
    return any(chain.family == family and FELIX in chain.mentions for chain in chains)


def _is_felix(rule: RoutingRule, priority: object) -> bool:
    """The rule sends what is not encrypted yet to WireGuard's table."""
    return rule.priority == priority and rule.inverted and bool(rule.mask) and rule.protocol == 0


async def _agent(address: str) -> AgentSight:
    if not address:
        return AgentSight(error="[agent] http_address is empty, so it serves nothing")
    try:
        answer = await fetch(address, "/report")
        if answer.status != 200:
            return AgentSight(error=f"it is not ready: {answer.body.decode(errors='replace')[:200]}")
        return AgentSight(report=msgspec.json.decode(answer.body, type=HostReport))
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return AgentSight(error=f"the agent does not answer at {address}: {error or 'no answer in time'}")
