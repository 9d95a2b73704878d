"""From a change of policy to the kernel holding it, on top of a large table, against ``nft -f`` doing the same.

The table: 5,000 endpoints in 850 classes, 1,700 policies of two rules in each direction (about 20,000 rules in the kernel), and a set of
100,000 addresses. Measured, as medians in ms: one member more and one less; a new endpoint of a known class, one that needs a new class;
an edited policy. ``nft -f``
makes the same kinds of change in a table of the same size. Then the full load, and a restart: a driver with an empty memory reads the
table and must find nothing to do. Everything happens in a namespace of its own. Needs root and nft(8).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

from tabinet.calc.messages import (
    Action,
    Endpoint,
    EndpointUpdate,
    Policy,
    PolicyUpdate,
    PortRange,
    Rule,
    SetDelta,
    SetKind,
    SetUpdate,
    Side,
    TierPolicies,
    Update,
)
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftsocket import open_nftables
from tabinet.lib.ip import IPV4, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder

NONE: frozenset[Prefix] = frozenset()
BIG = "s-big"
MEMBERS = 100_000


def address(number: int) -> Prefix:
    return Prefix(IPV4, (10 << 24) + number, 32)


def policy_key(number: int) -> ResourceKey:
    return ResourceKey("GlobalNetworkPolicy", f"policy-{number}")


def policy(number: int, port: int = 0) -> PolicyUpdate:
    """Two rules in each direction; another ``port`` makes it another policy."""
    ports = (PortRange(port or 1000 + number % 5000, port or 1000 + number % 5000),)
    allow = Rule(Action.ALLOW, protocol=6, source=Side(sets=(BIG,)), destination=Side(ports=ports))
    out = Rule(Action.ALLOW, protocol=6, destination=Side(sets=(BIG,), ports=ports))
    deny = Rule(Action.DENY, protocol=17, source=Side(sets=(BIG,)))
    deny_out = Rule(Action.DENY, protocol=17, destination=Side(sets=(BIG,)))
    return PolicyUpdate(policy_key(number), Policy((allow, deny), (out, deny_out)))


def endpoint(number: int, policies: tuple[int, ...]) -> EndpointUpdate:
    tiers = (TierPolicies("default", Action.DENY, tuple(policy_key(each) for each in policies)),)
    what = Endpoint(
        host="h",
        interface=f"cali{number}",
        mac="",
        nets=(address(number + 1),),
        spoof_nets=(),
        ingress=tiers,
        egress=tiers,
        profiles=(),
    )
    return EndpointUpdate(ResourceKey("WorkloadEndpoint", f"e{number}", "default"), 1, what)


def initial(endpoints: int, policies: int) -> Iterator[Update]:
    yield SetUpdate(BIG, SetKind.NETS, frozenset(map(address, range(MEMBERS))))
    for number in range(policies):
        yield policy(number)
    for number in range(endpoints):
        yield endpoint(number, two(number, policies))


def two(number: int, policies: int) -> tuple[int, int]:
    """The policies of an endpoint's class."""
    first = number % (policies // 2) * 2
    return first, first + 1


def median_ms(runs: int, change: Callable[[int], None]) -> float:
    """The median time of ``change``, called with 0 to ``runs`` - 1."""
    samples = []
    for run in range(runs):
        begin = time.perf_counter()
        change(run)
        samples.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(samples), 3)


def measure(endpoints: int, policies: int, runs: int) -> dict[str, object]:
    """All figures. Runs inside the namespace."""
    nftables = open_nftables()
    builder, driver = TableBuilder(), NftDriver(nftables)
    begin = time.perf_counter()
    for update in initial(endpoints, policies):
        builder.on_update(update)
    builder.flush()
    built_s = time.perf_counter() - begin
    driver.resync(builder.table)
    loaded_s = time.perf_counter() - begin - built_s

    def send(*updates: Update) -> None:
        for update in updates:
            builder.on_update(update)
        driver.apply(builder.flush())

    def new_endpoint(run: int) -> None:
        send(endpoint(endpoints + run, (run, run + 7, run + 13)))

    def known_class(run: int) -> None:
        send(endpoint(endpoints + runs + run, two(run, policies)))

    def nft(text: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)

    def nft_policy(run: int) -> None:
        chain = chains[run]
        nft(f"flush chain inet tabinet {chain}\nadd rule inet tabinet {chain} meta l4proto tcp counter accept\n")

    chains = [name for name in builder.table.chains if name.startswith("pi-")]
    rules = sum(len(chain.rules) for chain in builder.table.chains.values())
    results: dict[str, object] = {
        "rules": rules,
        "chains": len(builder.table.chains),
        "elements": sum(map(len, builder.table.elements.values())),
        "load: build s": round(built_s, 3),
        "load: kernel s": round(loaded_s, 3),
        "member added ms": median_ms(runs, lambda run: send(SetDelta(BIG, frozenset((address(9_000_000 + run),)), NONE))),
        "member removed ms": median_ms(runs, lambda run: send(SetDelta(BIG, NONE, frozenset((address(9_000_000 + run),))))),
        "endpoint of a known class ms": median_ms(runs, known_class),
        "endpoint with a new class ms": median_ms(runs, new_endpoint),
        "policy edited ms": median_ms(runs, lambda run: send(policy(run, port=60_000))),
    }
    begin = time.perf_counter()
    again = NftDriver(nftables).resync(builder.table)
    results["restart: verified s"] = round(time.perf_counter() - begin, 3)
    results["restart: operations sent"] = again.operations
    info = nftables.read_table()
    big = next(name for name in info.sets if name.startswith("a4-s-big")) if info is not None else ""
    few = max(3, runs // 10)
    results["nft -f: member added ms"] = median_ms(few, lambda run: nft(f"add element inet tabinet {big} {{ 10.200.0.{run} }}\n"))
    results["nft -f: policy edited ms"] = median_ms(few, nft_policy)
    nftables.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument("--policies", type=int, default=1700, help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="of each change (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    name = f"tbp-{uuid.uuid4().hex[:6]}"
    netns.create(name)
    try:
        results = netns.run_in(name, lambda: measure(arguments.endpoints, arguments.policies, arguments.runs))
    finally:
        netns.delete(name)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, value in results.items():
        print(f"{what:32} {value}")


if __name__ == "__main__":
    main()
