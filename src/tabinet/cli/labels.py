"""Labels on the command line: selections (``-l``) and changes (``key=value``, ``key-``). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tabinet.selector import Selector

_TERM = re.compile(r"\s*([A-Za-z0-9_./-]+)\s*(==?|!=)\s*([A-Za-z0-9_.-]*)\s*")


def parse_selection(text: str) -> Selector:
    """The selector that ``-l`` means: one in Calico's language, or kubectl's short form ``app=web,tier!=db``.

    Raises:
        click.BadParameter: neither.
    """
    from tabinet import selector

    terms = [_TERM.fullmatch(term) for term in text.split(",")]
    if text and all(terms):
        text = " && ".join(f"{term[1]} {'!=' if term[2] == '!=' else '=='} '{term[3]}'" for term in terms if term)
    try:
        return selector.parse(text)
    except selector.SelectorError as error:
        raise click.BadParameter(f"{text!r} is not a selector: {error}", param_hint="'-l'") from None


def parse_label_changes(words: Sequence[str], *, remove: bool) -> tuple[dict[str, str], list[str]]:
    """Labels to set, and keys to remove: ``key=value`` and ``key-``; with ``remove``, bare keys are to be removed, as calicoctl has it.

    Raises:
        click.UsageError: a word that is neither, or a key that is both.
    """
    wanted: dict[str, str] = {}
    unwanted: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            wanted[key] = value
        elif remove and not equals:
            unwanted.append(word.removesuffix("-"))
        elif word.endswith("-") and len(word) > 1 and not equals:
            unwanted.append(word[:-1])
        else:
            raise click.UsageError(f"{word!r}: write key=value to set a label, key- to remove one")
    both = sorted(set(wanted) & set(unwanted))
    if both:
        raise click.UsageError(f"{', '.join(both)}: to be set and to be removed?")
    return wanted, unwanted


def changed_labels(labels: Mapping[str, str], wanted: Mapping[str, str], unwanted: Sequence[str], *, overwrite: bool) -> dict[str, str]:
    """The labels after the change.

    Raises:
        ValueError: a label that would get another value without ``overwrite``, or one to be removed that is not there.
    """
    taken = [f"{key} is {labels[key]!r} already" for key, value in wanted.items() if labels.get(key, value) != value]
    if taken and not overwrite:
        raise ValueError(f"{', '.join(taken)}: --overwrite sets another value")
    missing = [key for key in unwanted if key not in labels]
    if missing:
        raise ValueError(f"there is no label {', '.join(missing)}")
    return {key: value for key, value in {**labels, **wanted}.items() if key not in unwanted}
