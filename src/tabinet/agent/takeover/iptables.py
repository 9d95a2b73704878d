"""Felix's part of an iptables table, and how it is taken out. Pure.

In: what iptables-save(8) prints. Out: for each table that Felix has something in, its chains and its rules in others' chains, and the text
for ``iptables-restore --noflush`` that removes exactly these: rules first, then what is in the chains, then the chains. The program commits
a table as a whole or not at all, and touches nothing that the text does not name: what others change meanwhile stays. O(text).

Felix marks everything: its chains begin with ``cali-``, its rules in the kernel's chains have a comment that begins with ``cali:``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

CHAIN, COMMENT = "cali-", "cali:"
_CLOSING = ("DROP", "REJECT")
_GUARDED = "FORWARD"


class FelixTable(msgspec.Struct, frozen=True, kw_only=True):
    """What Felix has in one table."""

    program: str
    """Which iptables, as in ``ip6tables-nft``."""
    table: str
    """``raw``, ``mangle``, ``nat`` or ``filter``."""
    chains: tuple[str, ...]
    rules: tuple[str, ...]
    """In others' chains, as they are saved: ``-A FORWARD ...``."""
    closed: str = ""
    """What drops workloads' packets once Felix's rules accept them no more; empty: nothing."""

    @property
    def name(self) -> str:
        """As people say it."""
        return f"{self.program} {self.table}"


def find_felix(saved: str, program: str, prefixes: tuple[str, ...]) -> list[FelixTable]:
    """The tables that Felix has something in. ``prefixes``: how interfaces of workloads begin."""
    return [found for table, lines in _tables(saved) if (found := _read(table, lines, program, prefixes)) is not None]


def render_removal(table: FelixTable) -> str:
    """For ``iptables-restore --noflush``: afterwards nothing of Felix's is in the table."""
    lines = [f"*{table.table}", *(f"-D{rule.removeprefix('-A')}" for rule in table.rules)]
    lines += [f"-F {chain}" for chain in table.chains]
    lines += [f"-X {chain}" for chain in table.chains]
    return "\n".join([*lines, "COMMIT", ""])


def _tables(saved: str) -> Iterator[tuple[str, list[str]]]:
    name: str = ""
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            name, lines = line[1:], []
        elif line == "COMMIT":
            yield name, lines
        else:
            lines.append(line)


def _read(table: str, lines: Sequence[str], program: str, prefixes: tuple[str, ...]) -> FelixTable | None:
    chains = tuple(line[1:].split()[0] for line in lines if line.startswith(f":{CHAIN}"))
    rules: list[str] = []
    kept: list[str] = []
    for line in lines:
        words = _words(line)
        if len(words) < 2 or words[0] != "-A" or words[1].startswith(CHAIN):
            continue
        (rules if _is_felix(words) else kept).append(line)
    if not chains and not rules:
        return None
    closed = _closing([line for line in lines if line.startswith(":")], kept, prefixes) if table == "filter" else ""
    return FelixTable(program=program, table=table, chains=chains, rules=tuple(rules), closed=closed)


def _words(rule: str) -> list[str]:
    try:
        return shlex.split(rule)
    except ValueError:  # not a rule
        return []


def _is_felix(words: Sequence[str]) -> bool:
    pairs = pairwise(words)
    return any(
        (option == "--comment" and value.startswith(COMMENT)) or (option in ("-j", "-g") and value.startswith(CHAIN))
        for option, value in pairs
    )


def _closing(heads: Sequence[str], kept: Sequence[str], prefixes: tuple[str, ...]) -> str:
    """What in the chain of forwarded packets stops those of workloads, when nothing there names their interfaces."""
    if any(word.startswith(prefixes) for line in kept for word in _words(line)):
        return ""
    if any(head.split()[:2] == [f":{_GUARDED}", "DROP"] for head in heads):
        return f"the policy of {_GUARDED} is DROP"
    return next((f"its rule {line!r}" for line in kept if _stops_all(_words(line))), "")


def _stops_all(words: Sequence[str]) -> bool:
    """A rule of the guarded chain without any condition, that ends every packet."""
    return list(words[:3]) == ["-A", _GUARDED, "-j"] and len(words) > 3 and words[3] in _CLOSING
