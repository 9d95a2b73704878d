"""Proofs and plans whose time is over at any moment: what they say is true, and what they do not know they say."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis_twins import INVARIANTS, fabrics, stored
from test_rules_against_naive import EXAMPLES

from tabinet.analysis.plan import make_plan
from tabinet.analysis.situation import calculate
from tabinet.analysis.verify import verify
from tabinet.rules.options import TableOptions


def after(questions: int):
    """The time is over when that has been asked for so many times."""
    asked = itertools.count()
    return lambda: next(asked) >= questions


@settings(max_examples=EXAMPLES)
@given(fabrics, st.integers(0, 60))
def test_what_is_proven_in_time_is_true(values, questions):
    situation = calculate(stored(values)).situation
    for known, full in zip(verify(situation, INVARIANTS, after(questions)), verify(situation, INVARIANTS), strict=True):
        if known.unknown:
            assert not known.holds
            assert not known.breaches
        else:
            assert known.holds == full.holds
            assert known.has_more or known.breaches == full.breaches


@settings(max_examples=EXAMPLES)
@given(fabrics, fabrics, st.integers(0, 60))
def test_a_plan_in_time_is_the_whole_plan(values, new, questions):
    changes = {key: value for key, value in new.items() if values.get(key) != value}
    known, full = (
        make_plan(calculate(stored(values), changes), changes, lambda _: TableOptions(), expired)
        for expired in (after(questions), after(1 << 30))
    )
    if known.not_enumerated:
        assert not (known.opened or known.closed)
    else:
        assert (known.opened, known.closed) == (full.opened, full.closed)
    assert (known.hosts, known.changed_endpoints) == (full.hosts, full.changed_endpoints)
