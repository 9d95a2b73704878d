"""The story of a packet has the verdict that the table has, whatever the policy."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from test_rules_against_naive import ECHOES, EXAMPLES, PACKETS, SERVICES, empty, whole

from tabinet.analysis.story import Outcome, allows, tell, tell_answer
from tabinet.calc.messages import Action
from tabinet.rules.evaluate import answer_to, evaluate
from tabinet.rules.options import HostAction, TableOptions


@settings(max_examples=EXAMPLES, deadline=None)
@given(whole, st.randoms(use_true_random=False))
def test_the_story_ends_as_the_table_decides(announced, random):
    builder, world = empty(random.choice((TableOptions(), TableOptions(endpoint_to_host=HostAction.ACCEPT, host_services=SERVICES))))
    for update in announced:
        builder.on_update(update)
        world.on_update(update)
    builder.flush()
    for hook, packet in random.sample(PACKETS, 120):
        stages = tell(world, packet, hook)
        assert allows(stages) == evaluate(builder.table, packet, hook).accepted, (hook, packet, stages)
        for stage in stages[:-1]:
            assert stage.outcome is Outcome.ALLOW
        for look in itertools.chain.from_iterable(tier.policies for stage in stages for tier in stage.tiers):
            decided = [rule for rule in look.rules if rule.mismatch is None and rule.action is not Action.LOG]
            assert look.trouble or [rule.action for rule in decided] == ([] if look.action is None else [look.action])


@settings(max_examples=EXAMPLES, deadline=None)
@given(whole, st.randoms(use_true_random=False))
def test_the_story_of_an_answer_is_that_of_stateless_endpoints(announced, random):
    builder, world = empty(TableOptions())
    for update in announced:
        builder.on_update(update)
        world.on_update(update)
    builder.flush()
    for hook, packet in random.sample(ECHOES, 60):
        stages, answer = tell_answer(world, packet), answer_to(packet)
        if len(stages) == 2 and world.is_own_source(answer):
            assert allows(stages) == evaluate(builder.table, answer, hook).accepted, (packet, stages)
