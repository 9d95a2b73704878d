"""The self-test of checksums: what it concludes from who answers, and what it does then."""

from __future__ import annotations

import asyncio

import pytest
from agent_world import until

from tabinet.agent.checksum import ATTEMPTS, CONFIRMED, ChecksumTest, Verdict, suspect
from tabinet.agent.log import open_log
from tabinet.agent.parameters import parse_parameters
from tabinet.agent.tunneloptions import is_checksum_tested, tunnel_options
from tabinet.calc.messages import LocalTunnel, Tunnel, TunnelPeer, TunnelPeerUpdate, TunnelUpdate
from tabinet.lib.ip import Prefix, parse_prefix

OWN, ONE, TWO = (parse_prefix(text) for text in ("10.65.0.1", "10.65.1.1", "10.65.2.1"))


class Card:
    """A network card between two hosts; ``broken`` ones lose what they have computed the checksum of."""

    def __init__(self, *, broken: bool = False, away: tuple[Prefix, ...] = (), kernel_too: bool = False) -> None:
        self.broken, self.away, self.kernel_too = broken, away, kernel_too
        self.offload = True
        self.history: list[bool] = []
        self.asked = 0

    def probe(self, source: Prefix, destination: Prefix, checksum: bool) -> bool:
        self.asked += 1
        lost = checksum and (self.kernel_too or (self.broken and self.offload))
        return destination not in self.away and not lost

    async def set_offload(self, on: bool) -> None:
        self.offload = on
        self.history.append(on)


def test_one_answer_is_enough_and_silence_concludes_nothing() -> None:
    card = Card()
    assert suspect(OWN, [ONE, TWO], card.probe, 0.0) == (Verdict.GOOD, ONE)
    assert card.asked == 1
    assert suspect(OWN, [ONE, TWO], Card(away=(ONE,)).probe, 0.0) == (Verdict.GOOD, TWO)
    card = Card(away=(ONE, TWO))
    assert suspect(OWN, [ONE, TWO], card.probe, 0.0) == (Verdict.UNKNOWN, None)
    assert card.asked == 4 * ATTEMPTS
    assert suspect(OWN, [ONE, TWO], Card(broken=True, away=(ONE,)).probe, 0.0) == (Verdict.BROKEN, TWO)


async def run(card: Card, *, enabled: bool = True) -> tuple[ChecksumTest, asyncio.Task[None]]:
    log = open_log("error", "text", "h1")
    test = ChecksumTest(card.set_offload, log, enabled=enabled, probe=card.probe, again_s=0.01, pause_s=0.0)
    task = asyncio.create_task(test.run(lambda: None))
    test.on_update(TunnelPeerUpdate("h1", Tunnel.VXLAN4, "h2", TunnelPeer(parse_prefix("172.16.0.2"), ONE, "66:00:00:00:00:02")))
    await asyncio.sleep(0)
    assert card.asked == 0  # our own end has no address yet
    test.on_update(TunnelUpdate("h1", Tunnel.VXLAN4, LocalTunnel(None, OWN, "", ())))
    return test, task


async def test_a_good_card_is_left_alone() -> None:
    card = Card()
    test, task = await run(card)
    await task
    assert (test.verdict, card.history, list(test.problems())) == (Verdict.GOOD, [], [])


async def test_a_broken_card_computes_no_checksums_any_more() -> None:
    card = Card(broken=True)
    test, task = await run(card)
    await task
    assert (test.verdict, card.history, list(test.problems())) == (Verdict.BROKEN, [False, True, False], [CONFIRMED])


async def test_a_busy_moment_is_not_taken_for_a_broken_card() -> None:
    card = Card(broken=True)

    async def set_offload(on: bool) -> None:
        await Card.set_offload(card, on)
        card.broken = False  # it was something else, and is over

    test = ChecksumTest(set_offload, open_log("error", "text", "h1"), probe=card.probe, again_s=0.01, pause_s=0.0)
    test.on_update(TunnelPeerUpdate("h1", Tunnel.VXLAN4, "h2", TunnelPeer(parse_prefix("172.16.0.2"), ONE, "66:00:00:00:00:02")))
    test.on_update(TunnelUpdate("h1", Tunnel.VXLAN4, LocalTunnel(None, OWN, "", ())))
    await asyncio.wait_for(test.run(lambda: None), 5.0)
    assert (test.verdict, card.history, card.offload) == (Verdict.GOOD, [False, True, True], True)


async def test_where_it_does_not_help_it_is_as_before_and_tried_again() -> None:
    card = Card(kernel_too=True)  # something on the way does not let datagrams with checksums pass
    test, task = await run(card)
    await until(lambda: len(card.history) >= 4)
    assert card.history[:4] == [False, True, False, True]
    card.kernel_too = False
    await task
    assert (test.verdict, card.offload) == (Verdict.GOOD, True)


async def test_an_operator_who_knows_is_not_doubted() -> None:
    card = Card(broken=True)
    _, task = await run(card, enabled=False)
    await task
    assert card.asked == 0


@pytest.mark.parametrize(
    ("text", "broken", "tested"),
    [
        ("", None, True),
        ("ChecksumOffloadBroken=true", True, False),
        ("RestoreSupportsLock=true, ChecksumOffloadBroken=false", False, False),
    ],
)
def test_the_operators_word_is_calicos(text: str, broken: bool | None, tested: bool) -> None:
    parameters = parse_parameters("", {"FELIX_FEATUREDETECTOVERRIDE": text})
    assert (tunnel_options(parameters).checksum_broken, is_checksum_tested(parameters)) == (broken, tested)
    off = parse_parameters("", {"FELIX_VXLANENABLED": "false", "FELIX_IPIPENABLED": "true", "FELIX_VXLANMTU": "1400"})
    assert tunnel_options(off).disabled == {Tunnel.VXLAN4, Tunnel.VXLAN6}
    assert tunnel_options(off).mtus[Tunnel.VXLAN4] == 1400
    assert not is_checksum_tested(off)
