"""``tabinet dataplane``: what the kernel of this host should hold, what it holds, and how they differ.

What is wanted comes from the running agent, what is there from the kernel of the network namespace that the command runs in.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import note, printable, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tabinet.dataplane.view import Difference, Picture
    from tabinet.kernel.nftables import RuleInfo

SETTLE_S = 0.3
"""What differs is looked at again after this time: a change may have been on its way."""
NFT_TIMEOUT_S = 60.0


@click.group()
def dataplane() -> None:
    """What this host's kernel should hold, and what it holds."""


@dataplane.command()
@click.option("--nft", is_flag=True, help="The policy table as text.")
@click.option("--diff", is_flag=True, help="Only how the two differ. Exit code 1 when they do.")
@click.option("--wanted", is_flag=True, help="With --nft: as the agent wants it, not as the kernel has it.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the output.")
def show(nft: bool, diff: bool, wanted: bool, form: str) -> int:
    """Show what the kernel of this host holds, beside what the agent wants.

    Policy (chains, sets), routes, neighbours, addresses, interfaces, sysctls and bandwidth: only what is ours. Needs root. In a lab:

    tabinet lab exec host11 -- tabinet dataplane show --diff

    Without a running agent only the policy table and the routes as they are can be shown.
    """
    from tabinet.errors import SetupError

    if os.geteuid() != 0:
        raise SetupError("the kernel shows its tables to root only: run it with sudo")
    asked = _ask_agent()
    if asked is None or asked.about is None:
        if asked is not None:
            note("the agent waits for its store and does not know yet what it wants: this is only what is there")
        else:
            note("no agent runs in this network namespace (see 'tabinet agent'): this is only what is there")
        return _show_alone(nft=nft, diff=diff, form=form)
    if nft and wanted and form == "table":
        _print_nft(asked)
        return 0
    there = _read_kernel(asked, _as_nft_shows)
    differences = _lasting(asked, there)
    if form == "json":
        show_json(_as_json(asked, there, differences, with_objects=not diff))
    elif diff:
        _print_differences(differences)
    elif nft:
        _print_nft(there)
    else:
        _print_overview(asked, there, differences)
    return 1 if diff and differences else 0


def _ask_agent() -> Picture | None:
    """What the agent wants; None without an agent."""
    import msgspec

    from tabinet.agent.operator import VIEW, ask
    from tabinet.dataplane.view import AnyView, Picture

    answer = ask(VIEW)
    if answer is None:
        return None
    picture = Picture()
    decoder: msgspec.json.Decoder[AnyView] = msgspec.json.Decoder(AnyView)
    for view in decoder.decode_lines(answer):
        picture.add(view)
    return picture


def _read_kernel(wanted: Picture, text_of: Callable[[RuleInfo], str]) -> Picture:
    """What is there. Raises KernelError when the kernel does not answer."""
    from contextlib import ExitStack, closing

    from tabinet.dataplane.facts import read_facts
    from tabinet.dataplane.view import FactView, Picture, there_views
    from tabinet.kernel.nftsocket import open_nftables
    from tabinet.kernel.rtsocket import open_rtnetlink
    from tabinet.kernel.sysctl import ProcSysctl
    from tabinet.kernel.tcsocket import open_traffic_control

    picture = Picture(about=wanted.about)
    with ExitStack() as stack:
        nftables = stack.enter_context(closing(open_nftables()))
        rtnetlink = stack.enter_context(closing(open_rtnetlink()))
        control = stack.enter_context(closing(open_traffic_control()))
        for view in there_views(nftables, wanted, text_of):
            picture.add(view)
        for fact in read_facts(rtnetlink, ProcSysctl(), control, wanted.facts):
            picture.add(FactView(fact))
    return picture


def _as_nft_shows(rule: RuleInfo) -> str:
    """A rule that is not ours, as nft(8) shows it."""
    from tabinet.kernel.nftables import FAMILY_NAMES, family_of

    listed = _run_nft("-a", "list", "chain", FAMILY_NAMES[family_of(rule.chain)], "tabinet", rule.chain)
    for line in (listed or "").splitlines():
        text, _, number = line.strip().rpartition(" # handle ")
        if number == str(rule.handle):
            return text
    return _by_comment(rule)


def _by_comment(rule: RuleInfo) -> str:
    from tabinet.kernel.nftexpr import parse_comment

    return parse_comment(rule.userdata) or f"a rule without comment (handle {rule.handle})"


def _lasting(wanted: Picture, there: Picture) -> list[Difference]:
    """The differences that are still there a moment later: others were changes on their way."""
    from tabinet.dataplane.view import compare

    found = compare(wanted, there)
    if not found:
        return []
    time.sleep(SETTLE_S)
    again = _ask_agent()
    if again is None or again.about is None:
        return found
    later = {(item.kind, item.name): item for item in compare(again, _read_kernel(again, _as_nft_shows))}
    return [later[item.kind, item.name] for item in found if (item.kind, item.name) in later]


def _counts(picture: Picture) -> dict[str, int]:
    from tabinet.dataplane import facts

    counts = {
        "chain": len(picture.chains),
        "rule": sum(len(chain.rules) for chain in picture.chains.values()),
        "set": len(picture.sets),
        "element": sum(len(view.elements) for view in picture.sets.values()),
    }
    for kind in (facts.ROUTE, facts.NEIGHBOUR, facts.ADDRESS, facts.LINK, facts.SYSCTL, facts.BANDWIDTH):
        counts[kind] = sum(fact.kind == kind for fact in picture.facts)
    return counts


def _print_overview(wanted: Picture, there: Picture, differences: list[Difference]) -> None:
    about = wanted.about
    if about is not None:
        click.echo(f"host {about.host}, agent {about.version}: store revision {about.revision}, generation {about.generation}")
        if about.kernel:
            click.echo(printable(f"the kernel does not hold everything: {about.kernel}"))
    asked, found = _counts(wanted), _counts(there)
    different = {kind: sum(item.kind == kind for item in differences) for kind in asked}
    unlike = {"rule": "chain", "element": "set"}
    rows = [[kind, asked[kind], found[kind], different[kind] if kind not in unlike else ""] for kind in asked]
    show_table(["OBJECT", "WANTED", "THERE", "DIFFERENT"], rows)
    marks = dict.fromkeys(wanted.facts - there.facts, "missing") | dict.fromkeys(there.facts - wanted.facts, "not wanted")
    facts = sorted(wanted.facts | there.facts)
    click.echo()
    show_table(["OBJECT", "NAME", "IS", ""], [[fact.kind, fact.name, fact.text, marks.get(fact, "")] for fact in facts])
    if differences:
        click.echo()
        _print_differences(differences)


def _print_differences(differences: list[Difference]) -> None:
    for item in differences:
        click.echo(printable(f"{item.kind} {item.name}"))
        for sign, lines, colour in (("-", item.missing, "red"), ("+", item.foreign, "green")):
            for line in lines:
                click.secho(printable(f"  {sign} {line}"), fg=colour)
    if differences:
        click.echo(f"{len(differences)} objects differ: - is wanted and not there, + is there and not wanted")
    else:
        click.echo("the kernel holds exactly what is wanted")


def _print_nft(picture: Picture) -> None:
    from tabinet.dataplane.view import render_nft

    _print_lines(render_nft(picture))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        indent = len(line) - len(line.lstrip("\t"))
        click.echo("\t" * indent + printable(line[indent:]))


def _as_json(wanted: Picture, there: Picture, differences: list[Difference], *, with_objects: bool) -> dict[str, object]:
    import msgspec

    answer: dict[str, object] = {
        "about": msgspec.to_builtins(wanted.about),
        "counts": {"wanted": _counts(wanted), "there": _counts(there)},
        "differences": msgspec.to_builtins(differences),
    }
    if with_objects:
        answer["there"] = _objects(there)
    return answer


def _objects(picture: Picture) -> dict[str, object]:
    """Chains as lists of rules, sets as lists of elements, facts."""
    import msgspec

    return {
        "chains": {name: {"hook": chain.hook, "rules": [rule.text for rule in chain.rules]} for name, chain in picture.chains.items()},
        "sets": {name: sorted(view.elements) for name, view in picture.sets.items()},
        "facts": [msgspec.to_builtins(fact) for fact in sorted(picture.facts)],
    }


def _nft_listing(there: Picture) -> Iterator[str]:
    """The tables as nft(8) shows them; a chain that it cannot show (rules of others that it does not know) by the rules' comments."""
    from tabinet.kernel.nftables import FAMILY_NAMES, family_of

    tables = [_run_nft("list", "table", family, "tabinet") for family in FAMILY_NAMES.values()]
    if None not in tables:
        yield from (line for table in tables for line in (table or "").splitlines())
        return
    for name, chain in sorted(there.chains.items()):
        if (listed := _run_nft("list", "chain", FAMILY_NAMES[family_of(name)], "tabinet", name)) is not None:
            yield from listed.splitlines()
        else:
            yield f"# chain {name} {{ {chain.hook} }}: its rules' comments"
            yield from (f"# {rule.text}" for rule in chain.rules)
    yield from (_run_nft("list", "sets") or "").splitlines()


def _run_nft(*arguments: str) -> str | None:
    """What nft(8) says; None when it cannot."""
    try:
        done = subprocess.run(["nft", *arguments], capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _show_alone(*, nft: bool, diff: bool, form: str) -> int:
    """What is there, without anyone to say what is wanted."""
    from tabinet.dataplane.view import Picture
    from tabinet.errors import SetupError

    if diff:
        raise SetupError("without an agent nobody says what is wanted, so that there is no difference to show")
    there = _read_kernel(Picture(), _by_comment)
    if form == "json":
        show_json({"about": None, "counts": {"there": _counts(there)}, "there": _objects(there)})
    elif nft:
        if not there.chains:
            raise SetupError("this network namespace has no table inet tabinet")
        _print_lines(_nft_listing(there))
    else:
        show_table(["OBJECT", "THERE"], [[kind, count] for kind, count in _counts(there).items() if count])
        click.echo()
        show_table(["OBJECT", "NAME", "IS"], [[fact.kind, fact.name, fact.text] for fact in sorted(there.facts)])
    return 0
