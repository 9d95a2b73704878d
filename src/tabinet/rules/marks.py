"""The 32 bits of the conntrack mark and of the packet mark: who uses which.

::

    bit   31......24  23..............8  7......0
          reserved    generation         reserved        of the conntrack mark
    UD reserved reserved           reserved        of the packet mark

Generation: 16 bits; 0 means that the flow was never accepted by us. All bits outside ``GENERATION_MASK`` belong to others or to
later uses (a verdict identifier for flow logs, a bit against fast paths, a network number) and are kept as they are.
U: the packet was accepted without a connection (doNotTrack), which the filter chains have to know.
D: the policy that is being asked allowed the packet. Only while a packet is judged; cleared before and after.

Wrapping: generations count 1, 2, ... 65535, 1, ...; 0 is skipped. A flow that sends nothing for 65,535 revocations in a row would be
taken for current again. A busy host that makes one new generation a second needs more than 18 hours for that, longer than most
conntrack timeouts, but not than that of an established TCP flow (5 days). So twice in every round, before it goes on, all marks but those
of the current generation are cleared (``sweep_due``): every generation is over at one of these moments before it comes again.
"""

from __future__ import annotations

GENERATION_SHIFT = 8
GENERATION_BITS = 16
GENERATION_MASK = ((1 << GENERATION_BITS) - 1) << GENERATION_SHIFT
"""Bits of the conntrack mark that hold the generation."""
LAST_GENERATION = (1 << GENERATION_BITS) - 1
UNTRACKED_MARK = 0x80000000
"""Bit of the packet mark: accepted by a policy that wants no connections. Says so only for a packet that is in fact untracked."""
DECIDED_MARK = 0x40000000
"""Bit of the packet mark: the policy that is being asked allowed it."""


def generation_mark(generation: int) -> int:
    """The conntrack mark's bits for a generation from 1 to ``LAST_GENERATION``."""
    if not 1 <= generation <= LAST_GENERATION:
        raise ValueError(f"generation {generation} is out of range")
    return generation << GENERATION_SHIFT


def mark_generation(mark: int) -> int:
    """The generation in a conntrack mark; 0 when the flow was never accepted."""
    return (mark & GENERATION_MASK) >> GENERATION_SHIFT


def sweep_due(generation: int) -> bool:
    """True when the marks of all other generations must be cleared before the one after this begins."""
    return generation in (LAST_GENERATION // 2, LAST_GENERATION)


def next_generation(generation: int) -> tuple[int, bool]:
    """The generation after this one (from 0: the first), and True when the counter wrapped. Never 0."""
    if generation >= LAST_GENERATION:
        return 1, True
    return generation + 1, False
