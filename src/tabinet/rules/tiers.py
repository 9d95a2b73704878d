"""The chain of a tier: its policies one after the other, or by protocol and port where many can be told apart by them.

In: the policies' chains with their reach, and the rules of those that have to stand in the tier's chain itself. Out: a program that decides
as if each policy were asked in order. Linear in the policies and their ranges of ports (``rules.dispatch``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabinet.rules import ir, names
from tabinet.rules.dispatch import Asked, Run, Segment, parts
from tabinet.rules.policy import Program
from tabinet.rules.roles import Form


def asked_in_turn(chains: Iterable[str], form: Form) -> Iterator[ir.Rule]:
    """Rules that jump to one chain after the other until one decides."""
    for chain in chains:
        yield ir.Rule(ir.Jump(chain))
        yield from _decided(form)


def tier_program(tier: str, form: Form, policies: Sequence[Asked], inlined: Mapping[str, Program], fewest: int) -> Program:
    """The program of the tier's chain, without what comes when no policy decides.

    ``tier`` is the chain's name, ``inlined`` the programs of policies that have no chain, ``fewest`` the policies that are worth a map.
    """
    program = Program()
    for part in parts(policies, fewest):
        if isinstance(part, Run):
            _ask_run(program, tier, form, part)
        elif part in inlined:
            program.rules += inlined[part].rules
            program.constants |= inlined[part].constants
        else:
            program.rules += asked_in_turn([part], form)
    return program


def _ask_run(program: Program, tier: str, form: Form, run: Run) -> None:
    lists: dict[tuple[str, ...], str] = {}

    def target(segment: Segment) -> str:
        """The chain that asks the policies of the segment."""
        if len(segment.chains) == 1:
            return segment.chains[0]
        if segment.chains not in lists:
            name = lists[segment.chains] = names.list_chain(form.ingress, (form, segment.chains))
            program.lists[name] = tuple(asked_in_turn(segment.chains, form))
        return lists[segment.chains]

    for protocol, segments in run.segments.items():
        about = (ir.Protocol(protocol),)
        if segments[0].whole:
            program.rules.append(ir.Rule(ir.Jump(target(segments[0])), about))
            continue
        name = names.port_map(protocol, (tier, run.first))
        program.maps[name] = {f"{item.first}-{item.last}": target(item) for item in segments}
        program.rules.append(ir.Rule(ir.DispatchPort(name), about))
    program.rules += _decided(form)


def _decided(form: Form) -> Iterator[ir.Rule]:
    if isinstance(form.allow, ir.Decide):
        yield ir.Rule(ir.Return(), (ir.Decided(),))
