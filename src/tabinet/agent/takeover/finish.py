"""Removes what Felix and Calico's BIRD left on a host that is ours by now: rules, sets, routes.

In: a ``Sighting`` that nothing in ``progress.refusals`` speaks against. Out: what was done, line by line. Each table goes as a whole; our
own policy is in the kernel all the time, so that at no moment a packet meets no policy. What fails is told, and the rest is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from tabinet.agent.takeover.guard import NFT_TABLE
from tabinet.agent.takeover.iptables import render_removal
from tabinet.agent.takeover.programs import delete_nft_tables, restore
from tabinet.agent.takeover.records import Sighting, describe_route
from tabinet.agent.takeover.routes import superseded_routes
from tabinet.errors import KernelError, SetupError
from tabinet.kernel.ipset import destroy_sets
from tabinet.kernel.routingrules import delete_rules
from tabinet.kernel.rtnetlink import DeleteRoute, Route
from tabinet.kernel.rtsocket import open_rtnetlink


class Removal(msgspec.Struct, frozen=True):
    """One thing to remove."""

    what: str
    """In words."""
    detail: str = ""
    """The text that is given to a program, where one does it."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of it."""

    what: str
    error: str = ""
    """Empty: it is gone."""


def plan_removals(sighting: Sighting) -> list[Removal]:
    """What ``remove`` would remove, in its order. Pure."""
    traces = sighting.traces
    found = [Removal(_describe_table(table.name, len(table.chains), len(table.rules)), render_removal(table)) for table in traces.tables]
    found += [Removal(f"nftables table {family} {NFT_TABLE}") for family in traces.nft_tables]
    found += [Removal(f"ipset {name}") for name in traces.ipsets]
    found += [Removal(f"rule {rule}") for rule in traces.rules]
    names = {link.index: link.name for link in sighting.links}
    return found + [Removal(_describe_route(route), describe_route(route, names)) for route in superseded_routes(sighting)]


def remove(sighting: Sighting) -> list[Outcome]:
    """What could be removed is; tells of each. Tables go before the sets that their rules name.

    Raises:
        KernelError: the kernel did not answer.
    """
    return [*_tables(sighting), *_sets(sighting), *_rules(sighting), *_routes(sighting)]


def _tables(sighting: Sighting) -> Iterator[Outcome]:
    for table in sighting.traces.tables:
        yield _tried(
            _describe_table(table.name, len(table.chains), len(table.rules)), partial(restore, table.program, render_removal(table))
        )
    if sighting.traces.nft_tables:
        tables = [(family, NFT_TABLE) for family in sighting.traces.nft_tables]
        yield _tried(", ".join(f"nftables table {family} {NFT_TABLE}" for family, _ in tables), lambda: delete_nft_tables(tables))


def _describe_table(name: str, chains: int, rules: int) -> str:
    return f"{name}: {chains} chain{'s' * (chains != 1)}, and {rules} rule{'s' * (rules != 1)} in others' chains"


def _describe_route(route: Route) -> str:
    return f"route {route.destination} of protocol {route.protocol}, which ours replaced"


def _tried(what: str, work: Callable[[], None]) -> Outcome:
    try:
        work()
    except SetupError as error:
        return Outcome(what, str(error))
    return Outcome(what)


def _sets(sighting: Sighting) -> Iterator[Outcome]:
    names = sighting.traces.ipsets
    errors = destroy_sets(names) if names else {}
    for name in names:
        yield Outcome(f"ipset {name}", str(errors.get(name, "")))


def _rules(sighting: Sighting) -> Iterator[Outcome]:
    rules = sighting.traces.rules
    for rule, error in zip(rules, delete_rules(rules) if rules else (), strict=True):
        yield Outcome(f"rule {rule}", "" if error is None else str(error))


def _routes(sighting: Sighting) -> Iterator[Outcome]:
    routes = superseded_routes(sighting)
    if not routes:
        return
    rtnetlink = open_rtnetlink()
    try:
        outcomes: list[KernelError | None] = rtnetlink.execute([DeleteRoute(route) for route in routes])
    finally:
        rtnetlink.close()
    for route, error in zip(routes, outcomes, strict=True):
        yield Outcome(_describe_route(route), "" if error is None else str(error))
