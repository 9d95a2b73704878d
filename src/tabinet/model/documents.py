"""Files to documents: YAML (several documents in one text) and JSON, lists of resources unpacked.

Only data comes out: mappings with text keys, lists, texts, numbers, switches, null. Unlike YAML 1.1 nothing else is guessed from plain
words: no dates, no base-60 numbers (``80:90`` is a text, as in Go), no numbers with leading zeros. Refused with a place: duplicate
names, names that are no texts, unknown tags, aliases that repeat more than they are worth, nesting without end, texts in no known
encoding.

In: text or bytes, and the name to report. Out: documents in order, or ``InputError`` with everything that is wrong. Linear in the size
of what comes out; what goes in and what comes out are limited.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from tabinet.errors import InputError, Problem
from tabinet.model.semantics import show

MAX_BYTES = 64 << 20
"""Size of a file."""
MAX_DEPTH = 100
"""Mappings and lists inside each other."""
MAX_REPEATED = 100_000
"""Values that come from repeated use of YAML anchors, in one document."""
MAX_PROBLEMS = 100
"""Problems reported of one file that cannot be read."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One resource as it was written."""

    data: dict[str, Any]
    source: str
    """File name, or ``-``."""
    index: int
    """Which document of the file, from 1."""
    line: int
    """Line of the file where it begins, from 1."""
    within: str = ""
    """Path in a document that holds a list of resources, as in ``items[2]``; empty for a document of its own."""


def load_documents(text: str | bytes, source: str) -> list[Document]:
    """All resources of a file; empty documents are left out.

    Raises:
        InputError: not YAML or JSON, or beyond the limits of this module.
    """
    if len(text) > MAX_BYTES:
        raise InputError([_refusal(source, f"{len(text)} bytes", f"allowed: at most {MAX_BYTES}")])
    decoded = _decoded(text, source) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    if decoded.lstrip().startswith("{"):
        try:
            return list(_unpacked(_load_json(decoded, source), source, 1, 1, {}))
        except json.JSONDecodeError as error:
            if source.endswith(".json"):
                raise InputError([_refusal(source, _excerpt(decoded, error.pos), f"not JSON: {error.msg}", error.lineno)]) from None
    return _load_yaml(decoded, source)


def _refusal(source: str, value: str, allowed: str, line: int = 0, path: str = "", document: int = 0) -> Problem:
    return Problem(path=path, value=value, allowed=allowed, source=source, line=line, document=document)


def _excerpt(text: str, position: int) -> str:
    line = text[position : position + 40].partition("\n")[0]
    return show(line) if line else "the end"


def _decoded(raw: bytes, source: str) -> str:
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError([_refusal(source, f"byte {raw[error.start]:#04x}", "must be text in UTF-8", line)]) from None


def _unpacked(data: Any, source: str, index: int, line: int, item_lines: dict[int, int]) -> Iterator[Document]:
    """The resources of one document: itself, or the items of a ``List``."""
    if data is None:
        return
    if not isinstance(data, dict):
        raise InputError([_refusal(source, show(data), "must be a resource: a mapping with apiVersion, kind, metadata, spec", line)])
    kind = data.get("kind")
    items = data.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield Document(data=data, source=source, index=index, line=line)
        return
    for position, item in enumerate(items):
        where = f"items[{position}]"
        own_line = item_lines.get(position, line)
        if not isinstance(item, dict):
            raise InputError([_refusal(source, show(item), "must be a resource", own_line, where)])
        yield Document(data=item, source=source, index=index, line=own_line, within=where)


# --- JSON -----------------------------------------------------------------------------------------------------------


def _load_json(text: str, source: str) -> Any:
    """The value of a JSON text.

    Raises:
        json.JSONDecodeError: not JSON.
        InputError: JSON, but not acceptable.
    """
    problems: list[Problem] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                problems.append(_refusal(source, show(value), "this name stands twice in one object", 0, name))
            found[name] = value
        return found

    def constant(word: str) -> float:
        problems.append(_refusal(source, word, "not a number that can be stored"))
        return 0.0

    try:
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant)
    except RecursionError:
        raise InputError([_refusal(source, "brackets", "nested too deeply")]) from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        # The only other reason: Python refuses to convert integers of thousands of digits.
        raise InputError([_refusal(source, "a number", "not a number that can be stored: too many digits")]) from None
    if problems:
        raise InputError(problems)
    return value


# --- YAML -----------------------------------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})|0x[0-9a-fA-F]{1,16}|0o[0-7]{1,21}")
_FRACTION = r"(\.[0-9]{1,30}|(0|[1-9][0-9]{0,29})\.[0-9]{0,30})([eE][-+]?[0-9]{1,3})?|(0|[1-9][0-9]{0,29})[eE][-+]?[0-9]{1,3}"
_PLAIN_WORDS = {
    None: [
        (f"{_TAG}null", re.compile(r"(~|null|Null|NULL|)$")),
        (f"{_TAG}bool", re.compile(r"(true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$")),
        (f"{_TAG}int", re.compile(rf"({_INTEGER.pattern})$")),
        (f"{_TAG}float", re.compile(rf"([-+]?({_FRACTION})|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")),
        (f"{_TAG}merge", re.compile(r"<<$")),
    ]
}
"""Which plain words are not texts. (``yes``, ``on`` and their kind are switches in Go's YAML too.)"""


def _load_yaml(text: str, source: str) -> list[Document]:
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        loader.yaml_implicit_resolvers = _PLAIN_WORDS
        index = 0
        while loader.check_node():
            index += 1
            node = loader.get_node()
            if node is None:
                continue
            line = node.start_mark.line + 1
            builder = _Builder(source, index, problems)
            data = builder.value(node, "", 0)
            if not builder.failed:
                documents.extend(_unpacked(data, source, index, line, _item_lines(node)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError([*problems, _refusal(source, _line(text, line), f"not YAML: {reason}", line)]) from None
    except yaml.reader.ReaderError:
        raise InputError([*problems, _control_character(text, source)]) from None
    except yaml.YAMLError as error:
        raise InputError([*problems, _refusal(source, "this", f"not YAML: {error}")]) from None
    except RecursionError:
        raise InputError([*problems, _refusal(source, "brackets", "nested too deeply")]) from None
    if problems:
        raise InputError(problems)
    return documents


def _control_character(text: str, source: str) -> Problem:
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    value = f"character {ord(found[0]):#x}" if found else "a character"
    line = text.count("\n", 0, found.start()) + 1 if found else 0
    return _refusal(source, value, "control characters are not allowed", line)


def _line(text: str, line: int) -> str:
    lines = text.splitlines()
    return show(lines[line - 1].strip()[:80]) if 0 < line <= len(lines) else "the end"


def _item_lines(node: yaml.Node) -> dict[int, int]:
    """Line of each item of a document's ``items``."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "items" and isinstance(value, yaml.SequenceNode):
                return {position: item.start_mark.line + 1 for position, item in enumerate(value.value)}
    return {}


class _Builder:
    """Builds the plain value of one YAML document and notes what is wrong with it."""

    __slots__ = ("_begun", "failed", "index", "problems", "repeated", "source", "stopped")

    def __init__(self, source: str, index: int, problems: list[Problem]) -> None:
        self.source = source
        self.index = index
        self.problems = problems
        self.failed = False
        self.repeated = 0
        self.stopped = False
        self._begun: set[int] = set()

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        """What ``node`` says; None after a problem."""
        if self.stopped:
            return None
        if id(node) in self._begun:
            self.repeated += 1
        self._begun.add(id(node))
        if self.repeated > MAX_REPEATED:
            return self.stop(node, path, "an alias", f"allowed: at most {MAX_REPEATED} values by aliases")
        if depth > MAX_DEPTH:
            return self.stop(node, path, "brackets", f"nested deeper than {MAX_DEPTH} levels")
        match node, node.tag.removeprefix(_TAG):
            case yaml.MappingNode(), "map":
                return self.mapping(node, path, depth)
            case yaml.SequenceNode(), "seq":
                return [self.value(item, f"{path}[{position}]", depth + 1) for position, item in enumerate(node.value)]
            case yaml.ScalarNode(), kind:
                return self.scalar(node, kind, path)
            case _:
                return self.refuse(node, path, node.tag, "unknown tag")

    def mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged = self.merge(value_node, path, depth) | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.refuse(key_node, path, shown, "names must be texts; put it in quotes")
                continue
            name = key_node.value
            where = f"{path}.{name}" if path else name
            if name in found:
                self.refuse(key_node, where, "a second value", "this name stands twice in one mapping")
            found[name] = self.value(value_node, where, depth + 1)
        return merged | found

    def merge(self, node: yaml.Node, path: str, depth: int) -> dict[str, Any]:
        """The members that ``<<: *anchor`` or ``<<: [*one, *two]`` brings; the first one wins."""
        merged: dict[str, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.value(part, path, depth + 1)
            if isinstance(value, dict):
                merged = value | merged
            else:
                self.refuse(part, path, "<<", "must be a mapping or a list of mappings")
        return merged

    def scalar(self, node: yaml.ScalarNode, kind: str, path: str) -> Any:
        text: str = node.value
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int" if _INTEGER.fullmatch(text):
                return int(text, 0)
            case "float":
                return self.number(node, text, path)
            case _:
                return self.refuse(node, path, f"{text!r:.40} tagged {node.tag.removeprefix(_TAG)!r}", "cannot be read as that")

    def number(self, node: yaml.Node, text: str, path: str) -> float | None:
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if found != found or found in (float("inf"), float("-inf")):
            self.refuse(node, path, text[:40], "not a number that can be stored")
            return None
        return found

    def refuse(self, node: yaml.Node, path: str, value: str, allowed: str) -> None:
        self.failed = True
        self.problems.append(_refusal(self.source, value, allowed, node.start_mark.line + 1, path, self.index))
        if len(self.problems) >= MAX_PROBLEMS:
            self.stopped = True

    def stop(self, node: yaml.Node, path: str, value: str, allowed: str) -> None:
        """Refuses, and looks no further: what follows would be the same again, perhaps without end."""
        self.refuse(node, f"{path[:60]}...", value, allowed)
        self.stopped = True
