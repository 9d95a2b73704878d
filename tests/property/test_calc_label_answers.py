"""Answers of the label index against judging every class, with selectors answered by candidates and by set algebra."""

from __future__ import annotations

from random import Random

from calc_world import PROFILES, World
from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.calc.labels import LabelClass, LabelIndex
from tabinet.selector import parse


@settings(deadline=None, max_examples=150)
@given(random=st.integers(0, 2**32 - 1).map(Random), narrow=st.sampled_from((0, 2, 2_000)))
def test_answers_equal_judging_every_class(random: Random, narrow: int) -> None:
    world, index = World(random), LabelIndex(narrow)
    classes: set[LabelClass] = set()
    queries = []
    for _ in range(30):
        turn = random.randrange(5)
        if turn < 2:
            classes.add(index.class_of(world.labels(), world.some(PROFILES))[0])
        elif turn == 2 and classes:
            gone = random.choice(sorted(classes, key=lambda each: repr(each.identity)))
            classes.discard(gone)
            index.drop(gone)
        elif turn == 3:
            index.set_profile(random.choice(PROFILES), world.labels())
        elif queries and random.random() < 0.4:
            index.close(queries.pop(random.randrange(len(queries))))
        else:
            queries += index.open([parse(world.selector()) for _ in range(random.randint(1, 6))])
        for query in queries:
            answer = list(index.answer(query))
            assert len(answer) == len(set(answer))
            assert set(answer) == {each for each in classes if query.selector.evaluate(each.labels)}
