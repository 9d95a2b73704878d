"""Answers of the label index against judging every carrier, by judging classes and by set algebra, with keys that come and go."""

from __future__ import annotations

from random import Random

from calc_world import PROFILES, World
from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.calc import few
from tabinet.calc.carriers import Carrier
from tabinet.calc.labels import LabelIndex
from tabinet.selector import Selector, parse


@settings(deadline=None, max_examples=150)
@given(random=st.integers(0, 2**32 - 1).map(Random), narrow=st.sampled_from((0, 2, 2_000)), idle=st.sampled_from((0, 1, 64)))
def test_answers_equal_judging_every_carrier(random: Random, narrow: int, idle: int) -> None:
    world, index = World(random), LabelIndex(narrow, idle)
    carriers: list[Carrier] = []
    asked: list[Selector] = []
    for _ in range(40):
        turn = random.randrange(7)
        origin = (random.choice(("", "n1")), "", "")
        if turn < 2:
            carriers.append(index.enter(origin, world.labels(), world.some(PROFILES), (), ()))
        elif turn == 2 and carriers:
            index.exit(carriers.pop(random.randrange(len(carriers))))
        elif turn == 3 and carriers:
            changed = random.choice(carriers)
            index.change(changed, origin, world.labels(), world.some(PROFILES))
            index.place(changed)
        elif turn == 4:
            index.set_profile(random.choice(PROFILES), world.labels())
        elif asked and random.random() < 0.4:
            index.unask(asked.pop(random.randrange(len(asked))))
        else:
            new = [parse(world.selector()) for _ in range(random.randint(1, 4))]
            index.ask(new)
            asked += new
        for _ in range(random.randrange(4)):
            for carrier in index.stale(1):
                if index.is_in(carrier):
                    index.place(carrier)
        if index.settled:
            check(index, carriers, asked)
    while not index.settled:
        for carrier in index.stale(5):
            if index.is_in(carrier):
                index.place(carrier)
    check(index, carriers, asked)


def check(index: LabelIndex, carriers: list[Carrier], asked: list[Selector]) -> None:
    for selector in asked:
        answer = index.answer(selector)
        assert len(answer) == len(set(answer))
        found = [carrier for each in answer for carrier in few.each(each.carriers)]
        assert len(found) == len(set(found))
        assert set(found) == {each for each in carriers if selector.evaluate(index.effective(each))}
