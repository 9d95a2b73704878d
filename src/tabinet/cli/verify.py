"""``tabinet verify``: invariants proven, or refuted with packets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tabinet.cli.patience import TIMEOUT, expiry
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.analysis.verify import Verdict
    from tabinet.model.documents import Document
    from tabinet.model.invariants import Invariant

SHOWN = 5
"""Groups of flows in the text; JSON has all."""


@click.command()
@FILES
@click.option("--strict", is_flag=True, help="Invariants that say nothing, because nobody is meant, count as broken.")
@click.option("--junit", type=click.Path(dir_okay=False, writable=True), help="Write the result as JUnit XML to this file.")
@TIMEOUT
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to show it.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@STORE_OPTIONS
@click.pass_obj
def verify(
    place: Place, files: Sequence[str], recursive: bool, strict: bool, junit: str | None, timeout: float | None, output: str, as_json: bool
) -> int:
    """Prove invariants for every endpoint and packet, or show the packet that breaks them.

    FILES hold documents of kind Invariant (docs/analysis.md), such as: nothing but tcp 443 from these to those. Without FILES: those that
    the store keeps (tabinet invariant).

    With --timeout: those that are not proven by then are named.

    Exit code 0: all hold, 1: one is broken or could not be proven.
    """
    expired = expiry(timeout)
    import msgspec

    from tabinet.analysis.coverage import uncovered
    from tabinet.analysis.situation import calculate, hosting_of
    from tabinet.analysis.verify import verify as verify_all
    from tabinet.cli.fabric_reading import options_reader, read_all, with_store
    from tabinet.cli.invariant_guard import read_invariants as read_kept
    from tabinet.cli.output import note, printable, show_json
    from tabinet.cli.sources import read_own

    invariants = read_invariants(read_own(files, recursive=recursive)) if files else with_store(place, read_kept)
    if not invariants:
        raise click.UsageError("say what to verify: tabinet verify -f FILE (the store keeps no invariants)")
    situation = calculate(read_all(place)).situation
    options_of = options_reader(place)
    verdicts = verify_all(situation, invariants, expired, options_of)
    for text in uncovered(situation, with_hosts=bool(hosting_of([situation], options_of))):
        note(printable(f"note: {text}"))
    if junit:
        write_junit(junit, verdicts, strict=strict)
    if as_json or output == "json":
        show_json(msgspec.to_builtins(verdicts))
    else:
        for line in render_verdicts(verdicts):
            click.echo(printable(line))
    return 0 if all(is_fine(verdict, strict=strict) for verdict in verdicts) else 1


def is_fine(verdict: Verdict, *, strict: bool) -> bool:
    """True when it holds, and, strictly, says something."""
    return verdict.holds and not (strict and verdict.vacuous)


def read_invariants(documents: Sequence[Document]) -> list[Invariant]:
    """The invariants of the documents, in order.

    Raises:
        InputError: with every problem of every document.
    """
    from tabinet.cli.sources import placed
    from tabinet.errors import InputError, Problem
    from tabinet.model.invariants import read_invariant

    problems: list[Problem] = []
    found: dict[str, Invariant] = {}
    for document in documents:
        try:
            invariant = read_invariant(document.data)
        except InputError as error:
            problems += [placed(problem, document) for problem in error.problems]
            continue
        if invariant.name in found:
            problems.append(placed(Problem(path="metadata.name", value=invariant.name, allowed="each name once"), document))
        found[invariant.name] = invariant
    if problems:
        raise InputError(problems)
    return list(found.values())


def render_verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The lines of the text."""
    from tabinet.cli.plan import render_group

    for verdict in verdicts:
        word = "holds" if verdict.holds else "UNKNOWN" if verdict.unknown else "BROKEN"
        yield f"{word:8}{verdict.name}{f': {verdict.description}' if verdict.description else ''}"
        if verdict.unknown:
            yield f"  not proven: {verdict.unknown}"
        for text in verdict.vacuous:
            yield f"  warning: it says nothing: {text}"
        for group in verdict.breaches[:SHOWN]:
            yield from render_group(group)
        if len(verdict.breaches) > SHOWN:
            least = "at least " if verdict.has_more else ""
            yield f"  and {least}{len(verdict.breaches) - SHOWN} more groups of flows (-o json has them)"
    unknown = [verdict.name for verdict in verdicts if verdict.unknown]
    rest = f"; not known of {len(unknown)}: {', '.join(unknown)}" if unknown else ""
    yield f"{sum(verdict.holds for verdict in verdicts)} of {len(verdicts)} hold{rest}"


def write_junit(path: str, verdicts: Sequence[Verdict], *, strict: bool) -> None:
    """The result as pipelines read it: a test case for each invariant."""
    from xml.etree import ElementTree

    broken = [verdict for verdict in verdicts if not is_fine(verdict, strict=strict)]
    suite = ElementTree.Element("testsuite", name="tabinet verify", tests=str(len(verdicts)), failures=str(len(broken)))
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname="invariant", name=verdict.name)
        if verdict in broken:
            failure = ElementTree.SubElement(case, "failure", message=verdict.unknown or "broken")
            failure.text = "\n".join(render_verdicts([verdict]))
    ElementTree.ElementTree(suite).write(path, encoding="unicode", xml_declaration=True)
