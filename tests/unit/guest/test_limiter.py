"""How many messages a port may send."""

import struct

from tabinet.guest.limiter import MOST_SHUT, Limiter
from tabinet.guest.sockets import render_filter


def test_a_burst_then_a_rate_then_silence():
    limiter = Limiter(rate=1, burst=3)
    assert [limiter.allows(7, 0.0) for _ in range(4)] == [True, True, True, False]
    assert limiter.shut() == {7}
    assert limiter.allows(8, 0.0)
    assert not limiter.allows(7, 1.0), "it is shut off, whatever it would have by now"
    assert limiter.open_s(1.5) == 0.5
    assert limiter.open_s(2.0) is None
    assert limiter.shut() == frozenset()
    assert [limiter.allows(7, 2.0) for _ in range(3)] == [True, True, False]


def test_full_buckets_are_forgotten():
    limiter = Limiter(rate=1, burst=3)
    limiter.allows(7, 0.0)
    limiter.forget(0.5)
    assert limiter != Limiter(rate=1, burst=3)
    limiter.forget(1.0)
    assert limiter == Limiter(rate=1, burst=3)


def test_only_so_many_are_shut_off():
    limiter = Limiter(rate=1, burst=0)
    assert not any(limiter.allows(index, 0.0) for index in range(MOST_SHUT + 5))
    assert len(limiter.shut()) == MOST_SHUT
    assert len(render_filter(limiter.shut())) // 8 < 4096, "as long as a program may be (BPF_MAXINSNS)"


def run(program: bytes, index: int) -> int:
    """What a classic BPF program of loads of the interface, comparisons and returns gives."""
    place = loaded = 0
    while True:
        code, yes, no, value = struct.unpack_from("@HBBI", program, place * 8)
        place += 1
        match code:
            case 0x20:
                loaded = index
            case 0x15:
                place += yes if loaded == value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(hex(code))


def test_the_filter_drops_what_is_shut_off():
    program = render_filter({5, 300, 70000})
    assert [run(program, index) > 0 for index in (5, 6, 300, 301, 70000)] == [False, True, False, True, False]
