"""Reads plain documents (what YAML gives) strictly, and collects every problem instead of stopping at the first.

In: values of dicts, lists, texts and numbers; out: typed values, and a list of ``Problem`` with path, value and what is allowed. A value
that is wrong is replaced by a harmless one so that reading goes on; the caller raises ``InputError`` at the end. Pure apart from growing
``problems``; O(n) in the document. It knows nothing about labs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import yaml

from tabinet.errors import Problem


def parse_yaml(text: str, source: str) -> tuple[object, list[Problem]]:
    """The one document in ``text``, with a problem for each repeated key (YAML 1.2, section 3.2.1.3) or for what is not YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document: object = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return None, [Problem(path="", value=error.problem or "bad YAML", allowed="must be one YAML document", source=source, line=line)]
    except yaml.YAMLError as error:
        return None, [Problem(path="", value=str(error), allowed="must be one YAML document", source=source)]
    return document, list(_repeated_keys(node, "", source)) if node is not None else []


def _repeated_keys(node: yaml.Node, path: str, source: str) -> Iterable[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, f"{path}[{index}]", source)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            here = f"{path}.{name}" if path else name
            if name in seen:
                yield Problem(path=here, value="the same key again", allowed="each key may be given once", source=source)
            seen.add(name)
            yield from _repeated_keys(value, here, source)


def shorten(value: object, limit: int = 60) -> str:
    """``value`` as a reader would write it, at most ``limit`` characters."""
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word most like ``name``; empty when none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(slots=True)
class Reader:
    """Checks values one by one and remembers what was wrong."""

    source: str
    problems: list[Problem] = field(default_factory=list)

    def bad(self, path: str, value: object, allowed: str) -> None:
        """Notes one problem."""
        self.problems.append(Problem(path=path, value=shorten(value), allowed=allowed, source=self.source))

    def mapping(self, path: str, value: object, known: Sequence[str]) -> dict[str, object]:
        """A mapping with none but ``known`` keys; absent is empty."""
        entries = self.entries(path, value)
        for key in entries:
            if key not in known:
                self.bad(f"{path}.{key}" if path else key, entries[key], f"unknown key{nearest(key, known)} (known: {', '.join(known)})")
        return {key: entries[key] for key in known if key in entries}

    def entries(self, path: str, value: object) -> dict[str, object]:
        """A mapping from names to anything; absent is empty."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.bad(path, value, "must be a mapping")
            return {}
        for key in value:
            if not isinstance(key, str):
                self.bad(path, key, "keys must be texts; quote it")
        return {key: cast(object, item) for key, item in value.items() if isinstance(key, str)}

    def items(self, path: str, value: object) -> list[object]:
        """A list of anything; absent is empty."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.bad(path, value, "must be a list")
            return []
        return value

    def text(self, path: str, value: object, *, default: str = "") -> str:
        """A text; absent is ``default``."""
        if value is None:
            return default
        if not isinstance(value, str):
            self.bad(path, value, "must be a text; quote it")
            return default
        return value

    def texts(self, path: str, value: object) -> tuple[str, ...]:
        """A list of texts, without repetitions."""
        found: list[str] = []
        for index, item in enumerate(self.items(path, value)):
            text = self.text(f"{path}[{index}]", item)
            if text in found:
                self.bad(f"{path}[{index}]", text, "may be listed once")
            elif text:
                found.append(text)
        return tuple(found)

    def flag(self, path: str, value: object, *, default: bool) -> bool:
        """true or false; absent is ``default``."""
        if value is None:
            return default
        if not isinstance(value, bool):
            self.bad(path, value, "must be true or false")
            return default
        return value

    def number(self, path: str, value: object, low: int, high: int, *, default: int) -> int:
        """An integer from ``low`` to ``high``; absent is ``default``."""
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.bad(path, value, f"must be a number from {low} to {high}")
            return default
        return value

    def choice(self, path: str, value: object, allowed: Sequence[str], *, default: str) -> str:
        """One of ``allowed``; absent is ``default``."""
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            self.bad(path, value, f"must be one of {', '.join(allowed)}")
            return default
        return value
