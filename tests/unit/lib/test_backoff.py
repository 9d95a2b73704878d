"""Waits grow, within limits, with jitter."""

import pytest

from tabinet.lib.backoff import Backoff


def test_limits_grow_by_the_factor_up_to_the_limit() -> None:
    backoff = Backoff(first_s=1.0, limit_s=10.0, factor=3.0)
    assert [backoff.limit_after(failures) for failures in (1, 2, 3, 4, 10_000_000)] == [1.0, 3.0, 9.0, 10.0, 10.0]


def test_a_factor_of_one_never_grows() -> None:
    assert Backoff(first_s=1.0, factor=1.0).limit_after(10**9) == 1.0


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 0.0), (0.5, 2.0), (1.0, 4.0)])
def test_chance_scales_the_wait(chance: float, wait_s: float) -> None:
    assert Backoff(first_s=2.0, limit_s=10.0).delay_s(2, lambda: chance) == wait_s
