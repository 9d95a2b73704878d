"""What the words ``KIND NAMES`` on the command line mean: keys of single resources, and listings of kinds. Pure.

A KIND is a name, a plural or a short name in any case; several with commas (``np,gnp``); ``all`` is every kind that can be written, so not
the views of the address management. ``kind/name`` words are resources of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from tabinet.model.keys import ResourceKey
    from tabinet.model.kinds import Kind

ALL = "all"


class Listing(NamedTuple):
    """All resources of a kind, of one namespace or (None) of all."""

    kind: str
    namespace: str | None


class Targets(NamedTuple):
    """What a command is about."""

    keys: list[ResourceKey]
    listings: list[Listing]


def parse_targets(words: Sequence[str], namespace: str | None, *, all_namespaces: bool = False) -> Targets:
    """What the words mean.

    Raises:
        click.UsageError: an unknown kind, or words that do not fit together.
    """
    from tabinet.model.keys import ResourceKey

    if "/" in words[0]:
        return Targets([_slashed(word, namespace) for word in words], [])
    kinds = parse_kinds(words[0])
    names = words[1:]
    if names and len(kinds) != 1:
        raise click.UsageError("names need one kind; for resources of several kinds write KIND/NAME KIND/NAME")
    if names and all_namespaces and kinds[0].namespaced:
        raise click.UsageError("a name is looked for in one namespace: -n NAMESPACE instead of -A")
    if names:
        return Targets([ResourceKey(kinds[0].name, name, _namespace(kinds[0], namespace)) for name in names], [])
    return Targets([], [Listing(kind.name, None if all_namespaces else _namespace(kind, namespace) or None) for kind in kinds])


def parse_kinds(word: str) -> list[Kind]:
    """The kinds that a word such as ``np,gnp`` or ``all`` means, each once.

    Raises:
        click.UsageError: an unknown kind.
    """
    from tabinet.model.kinds import KINDS

    if word.lower() == ALL:
        return [kind for kind in KINDS if not kind.view]
    return list(dict.fromkeys(parse_kind(part) for part in word.split(",") if part)) or [parse_kind(word)]


def parse_kind(word: str) -> Kind:
    """The kind that a word means.

    Raises:
        click.UsageError: there is none.
    """
    from tabinet.model.kinds import KINDS, find_kind, nearest_kind

    found = find_kind(word)
    if found is None:
        near = nearest_kind(word)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(sorted(kind.plural for kind in KINDS))}"
        raise click.UsageError(f"there is no kind {word!r}; {hint}")
    return found


def parse_key(kind_word: str, name: str, namespace: str | None) -> ResourceKey:
    """The key of one resource.

    Raises:
        click.UsageError: there is no such kind.
    """
    from tabinet.model.keys import ResourceKey

    kind = parse_kind(kind_word)
    return ResourceKey(kind.name, name, _namespace(kind, namespace))


def _slashed(word: str, namespace: str | None) -> ResourceKey:
    kind, slash, name = word.partition("/")
    if not slash or not name:
        raise click.UsageError(f"{word!r}: either KIND NAME NAME, or KIND/NAME KIND/NAME")
    inner, slash, rest = name.partition("/")  # kind/namespace/name, as our own messages write it
    return parse_key(kind, rest, inner) if slash else parse_key(kind, name, namespace)


def _namespace(kind: Kind, namespace: str | None) -> str:
    return (namespace or "default") if kind.namespaced else ""
