"""Probers and flows between two real namespaces: what they say is what the packets did."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator

import pytest

from tabinet.errors import LabError
from tabinet.lab.build import in_namespace, remove_namespaces, run
from tabinet.lab.probe.client import ProbeSpec, run_probes, start_prober
from tabinet.lab.traffic import FlowSpec, start_traffic

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

A4, B4, A6, B6 = "10.9.0.1", "10.9.0.2", "fd00:9::1", "fd00:9::2"


@pytest.fixture
async def pair() -> AsyncIterator[tuple[str, str]]:
    """Two namespaces with one cable and both families."""
    tag = uuid.uuid4().hex[:8]
    a, b = f"tt-{tag}-a", f"tt-{tag}-b"
    try:
        await run(["ip", "-batch", "-"], f"netns add {a}\nnetns add {b}\nlink add name x netns {a} type veth peer name x netns {b}\n")
        for name, four, six in ((a, A4, A6), (b, B4, B6)):
            await run(
                ["ip", "-n", name, "-batch", "-"],
                f"link set dev lo up\naddr add {four}/24 dev x\naddr add {six}/64 dev x nodad\nlink set dev x up\n",
            )
        await meet(a)
        yield a, b
    finally:
        await remove_namespaces([a, b])


async def meet(namespace: str) -> None:
    """Both sides know each other's hardware addresses: a link that has just come up takes up to a second for that."""
    prober = await start_prober(namespace, "first", [], [])
    try:
        async with asyncio.timeout(10):
            while any(
                r.outcome != "answered" for r in await run_probes(prober, [ProbeSpec(4, "icmp", B4, 0), ProbeSpec(6, "icmp", B6, 0)], 200)
            ):
                pass
    finally:
        await prober.close()


async def drop(namespace: str, *matches: str) -> None:
    rules = "".join(f"{match} drop\n" for match in matches)
    await run(
        in_namespace(namespace, ["nft", "-f", "-"]), f"table inet t {{\nchain c {{\ntype filter hook input priority 0\n{rules}}}\n}}\n"
    )


async def pass_again(namespace: str) -> None:
    await run(in_namespace(namespace, ["nft", "delete table inet t"]))


async def test_answers_refusals_and_silence_are_told_apart(pair: tuple[str, str]) -> None:
    a, b = pair
    await drop(b, "tcp dport 81", "udp dport 54")
    here = await start_prober(a, "alice", [80], [53])
    there = await start_prober(b, "bob", [80, 81], [53, 54])
    try:
        probes = [
            ProbeSpec(family, protocol, address, port)
            for family, address in ((4, B4), (6, B6))
            for protocol, port in (("icmp", 0), ("tcp", 80), ("tcp", 81), ("tcp", 82), ("udp", 53), ("udp", 54), ("udp", 55))
        ]
        results = await run_probes(here, [*probes, ProbeSpec(4, "tcp", "192.0.2.1", 80)], 600)
    finally:
        await here.close()
        await there.close()
    seen = [(result.outcome, result.who) for result in results]
    expected = [("answered", "bob"), ("timeout", ""), ("refused", ""), ("answered", "bob"), ("timeout", ""), ("refused", "")]
    assert seen == [("answered", B4), *expected, ("answered", B6), *expected, ("unreachable", "")]


async def test_a_chosen_source_is_answered_from_the_address_that_was_asked(pair: tuple[str, str]) -> None:
    """Both ends have more addresses than the kernel would choose by itself."""
    a, b = pair
    other = {(a, 4): "10.9.0.11", (b, 4): "10.9.0.12", (a, 6): "fd00:9::11", (b, 6): "fd00:9::12"}
    for namespace in pair:
        await run(
            ["ip", "-n", namespace, "-batch", "-"],
            f"addr add {other[namespace, 4]}/24 dev x\naddr add {other[namespace, 6]}/64 dev x nodad\n",
        )
    here = await start_prober(a, "alice", [], [])
    there = await start_prober(b, "bob", [80], [53])
    try:
        kinds = (("icmp", 0), ("tcp", 80), ("udp", 53))
        probes = [ProbeSpec(family, kind, other[b, family], port, other[a, family]) for family in (4, 6) for kind, port in kinds]
        results = await run_probes(here, probes, 2500)
        await run(in_namespace(b, ["nft", "-f", "-"]), only_from(other[a, 4], other[a, 6]))
        again = await run_probes(here, probes, 2500)
        await drop_sent(a)
        forbidden = await run_probes(here, [probe for probe in probes if probe.protocol != "tcp"], 2500)
    finally:
        await here.close()
        await there.close()
    expected = [("answered", other[b, 4]), *[("answered", "bob")] * 2, ("answered", other[b, 6]), *[("answered", "bob")] * 2]
    assert [(result.outcome, result.who) for result in results] == expected
    assert [(result.outcome, result.who) for result in again] == expected, "they come from the chosen source"
    assert {result.outcome for result in forbidden} == {"forbidden"}


def only_from(four: str, six: str) -> str:
    """Rules that drop all probes with other sources."""
    dropped = ""
    for source, echo in ((f"ip saddr != {four}", "icmp type echo-request"), (f"ip6 saddr != {six}", "icmpv6 type echo-request")):
        dropped += f"{source} {echo} drop\n{source} tcp dport 80 drop\n{source} udp dport 53 drop\n"
    return f"table inet s {{\nchain c {{\ntype filter hook input priority 0\n{dropped}}}\n}}\n"


async def drop_sent(namespace: str) -> None:
    """What it sends is dropped before it leaves."""
    rules = "table inet t {\nchain c {\ntype filter hook output priority 0; policy drop;\n}\n}\n"
    await run(in_namespace(namespace, ["nft", "-f", "-"]), rules)


async def test_a_batch_larger_than_at_once_keeps_its_order(pair: tuple[str, str]) -> None:
    a, b = pair
    here = await start_prober(a, "alice", [], [])
    there = await start_prober(b, "bob", [80], [53])
    try:
        results = await run_probes(here, [ProbeSpec(4, "tcp", B4, 80 + index % 2) for index in range(25)], 600, at_once=7)
    finally:
        await here.close()
        await there.close()
    assert [result.outcome for result in results] == ["answered" if index % 2 == 0 else "refused" for index in range(25)]


async def test_a_prober_whose_port_is_taken_says_so(pair: tuple[str, str]) -> None:
    first = await start_prober(pair[0], "one", [80], [])
    try:
        with pytest.raises(LabError, match="Address already in use"):
            await start_prober(pair[0], "two", [80], [])
    finally:
        await first.close()


def flows(pair: tuple[str, str]) -> list[FlowSpec]:
    a, b = pair
    return [
        FlowSpec(source=s, source_namespace=sn, destination=d, destination_namespace=dn, family=family, address=address, port=8125)
        for s, sn, d, dn, addresses in (("a", a, "b", b, (B4, B6)), ("b", b, "a", a, (A4, A6)))
        for family, address in zip((4, 6), addresses, strict=True)
    ]


async def test_undisturbed_traffic_loses_nothing(pair: tuple[str, str]) -> None:
    traffic = await start_traffic(flows(pair))
    await asyncio.sleep(0.5)  # how long the traffic runs is what is being varied here, not a wait for something
    reports = await traffic.stop()
    assert [(report.lost, report.longest_gap_ms) for report in reports] == [(0, 0)] * 4
    assert all(report.sent > 100 for report in reports)


async def test_an_outage_is_counted_in_the_direction_and_family_that_had_it(pair: tuple[str, str]) -> None:
    traffic = await start_traffic(flows(pair))
    await asyncio.sleep(0.3)
    await drop(pair[1], "meta nfproto ipv4 udp dport 8125")
    await asyncio.sleep(0.2)
    await pass_again(pair[1])
    await asyncio.sleep(0.3)
    hit, *others = await traffic.stop()
    assert [report.lost for report in others] == [0, 0, 0]
    assert 50 < hit.lost < hit.sent
    # What is lost in one piece cannot have taken less time than its packets took to send, within one interval.
    assert hit.longest_gap_ms >= hit.lost_ms - 1


async def test_a_receiver_that_never_hears_anything_reports_everything_lost(pair: tuple[str, str]) -> None:
    await drop(pair[1], "udp dport 8125")
    traffic = await start_traffic(flows(pair)[:1], rate=200)
    await asyncio.sleep(0.2)
    (report,) = await traffic.stop()
    assert report.sent == report.lost > 0
    assert report.longest_gap_ms == report.lost_ms
