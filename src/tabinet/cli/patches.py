"""Patches of documents: JSON Merge Patch (RFC 7386), JSON Patch (RFC 6902) with JSON Pointer (RFC 6901), strategic merge. Pure.

Strategic merge is Kubernetes' extension of RFC 7386: lists may be merged by a key that the type declares. The types of
``projectcalico.org/v3`` declare none, so lists are replaced as a whole, and what remains of it are the ``$patch`` directives ``replace``
(the mapping becomes what else stands in the patch), ``delete`` (the mapping goes) and ``merge`` (nothing special). Others are refused.

In: text, and a document. Out: a new document; the given one is not changed. Linear in the size of both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tabinet.errors import Conflict, InputError, Problem
from tabinet.model.semantics import show

Json = Any
MAX_OPERATIONS = 10_000


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operation of a JSON Patch."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    value: Json = msgspec.UNSET
    source: str = msgspec.field(name="from", default="")


class Patch(msgspec.Struct, frozen=True):
    """A patch that was read."""

    form: Literal["strategic", "merge", "json"]
    merged: dict[str, Json] = {}
    operations: tuple[Operation, ...] = ()


def parse_patch(text: str, form: str, source: str) -> Patch:
    """The patch that a text holds.

    Raises:
        InputError: it holds none of this form.
    """
    if form == "json":
        return Patch("json", operations=_parse_operations(text, source))
    from tabinet.model.documents import load_documents

    documents = load_documents(text, source)
    if len(documents) != 1 or documents[0].within:
        raise InputError([Problem(path="", value=show(text), allowed="must be one mapping, such as {spec: {order: 5}}", source=source)])
    return Patch("merge" if form == "merge" else "strategic", documents[0].data)


def apply_patch(patch: Patch, document: dict[str, Json]) -> dict[str, Json]:
    """The document after the patch.

    Raises:
        InputError: the patch does not fit the document.
        Conflict: a ``test`` of a JSON Patch does not hold.
    """
    match patch.form:
        case "merge":
            result: Json = merge_patch(document, patch.merged)
        case "strategic":
            result = strategic_patch(document, patch.merged)
        case "json":
            result = json_patch(document, patch.operations)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise InputError([Problem(path="", value=show(result), allowed="the patch would leave no resource: metadata must stay a mapping")])
    return result


def merge_patch(target: Json, patch: Json) -> Json:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def strategic_patch(target: Json, patch: Json, path: str = "") -> Json:
    """Strategic merge where no list has a merge key.

    Raises:
        InputError: a directive that means something only for lists with merge keys.
    """
    if not isinstance(patch, dict):
        return patch
    members = {name: value for name, value in patch.items() if not name.startswith("$")}
    for name in patch.keys() - members.keys():
        if name != "$patch" or patch[name] not in ("replace", "delete", "merge"):
            where = f"{path}.{name}" if path else name
            raise InputError(
                [Problem(path=where, value=show(patch[name]), allowed="of the directives only $patch: replace, delete or merge")]
            )
    if patch.get("$patch") == "delete":
        return None
    result = dict(target) if isinstance(target, dict) and patch.get("$patch") != "replace" else {}
    for name, value in members.items():
        after = strategic_patch(result.get(name), value, f"{path}.{name}" if path else name)
        if after is None:
            result.pop(name, None)
        else:
            result[name] = after
    return result


# --- JSON Patch -----------------------------------------------------------------------------------------------------


def _parse_operations(text: str, source: str) -> tuple[Operation, ...]:
    try:
        operations = msgspec.json.decode(text.encode("utf-8", "surrogateescape"), type=tuple[Operation, ...])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        allowed = f'must be a list of operations (RFC 6902), such as [{{"op": "replace", "path": "/spec/order", "value": 5}}]: {error}'
        raise InputError([Problem(path="", value=show(text), allowed=allowed, source=source)]) from None
    problems = []
    for index, operation in enumerate(operations):
        if operation.op in ("add", "replace", "test") and operation.value is msgspec.UNSET:
            problems.append(Problem(path=f"[{index}].value", value="nothing", allowed=f"{operation.op} needs a value", source=source))
        for name, pointer in (("path", operation.path), ("from", operation.source)):
            if pointer and not pointer.startswith("/"):
                problems.append(Problem(path=f"[{index}].{name}", value=show(pointer), allowed="must begin with /", source=source))
    if len(operations) > MAX_OPERATIONS:
        problems.append(Problem(path="", value=f"{len(operations)} operations", allowed=f"at most {MAX_OPERATIONS}", source=source))
    if problems:
        raise InputError(problems)
    return operations


def json_patch(document: Json, operations: tuple[Operation, ...]) -> Json:
    """RFC 6902: all operations in order, or none.

    Raises:
        InputError: an operation cannot be done.
        Conflict: a test does not hold.
    """
    result = copy.deepcopy(document)
    for index, operation in enumerate(operations):
        try:
            result = _OPERATIONS[operation.op](result, operation)
        except LookupError as error:
            pointer = operation.source if operation.op in ("move", "copy") and error.args[0] == "from" else operation.path
            where = f"[{index}] {operation.op} {pointer}"
            raise InputError([Problem(path=where, value="nothing", allowed="there is no such place in the resource")]) from None
        except ValueError as error:
            raise InputError([Problem(path=f"[{index}] {operation.op}", value=operation.path, allowed=str(error))]) from None
    return result


def _steps(pointer: str) -> list[str]:
    """RFC 6901: ``~1`` is a slash, ``~0`` a tilde."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _read(document: Json, pointer: str) -> Json:
    value = document
    for step in _steps(pointer):
        value = value[_index(value, step)] if isinstance(value, list) else _member(value, step)
    return value


def _member(value: Json, step: str) -> Json:
    if not isinstance(value, dict):
        raise LookupError("path")
    return value[step]


def _index(items: list[Json], step: str) -> int:
    if not step.isascii() or not step.isdigit() or (step != "0" and step.startswith("0")) or int(step) >= len(items):
        raise LookupError("path")
    return int(step)


def _add(document: Json, operation: Operation) -> Json:
    return _put(document, operation.path, copy.deepcopy(operation.value))


def _put(document: Json, pointer: str, value: Json) -> Json:
    steps = _steps(pointer)
    if not steps:
        return value
    parent = _read(document, pointer.rpartition("/")[0])
    if isinstance(parent, list):
        parent.insert(len(parent) if steps[-1] in ("-", str(len(parent))) else _index(parent, steps[-1]), value)
    elif isinstance(parent, dict):
        parent[steps[-1]] = value
    else:
        raise LookupError("path")
    return document


def _remove(document: Json, operation: Operation) -> Json:
    _take(document, operation.path)
    return document


def _take(document: Json, pointer: str) -> Json:
    steps = _steps(pointer)
    if not steps:
        raise ValueError("the whole resource cannot be removed")
    parent = _read(document, pointer.rpartition("/")[0])
    if isinstance(parent, list):
        return parent.pop(_index(parent, steps[-1]))
    _member(parent, steps[-1])
    return parent.pop(steps[-1])


def _replace(document: Json, operation: Operation) -> Json:
    if not operation.path:
        return copy.deepcopy(operation.value)
    steps = _steps(operation.path)
    parent = _read(document, operation.path.rpartition("/")[0])
    if isinstance(parent, list):
        parent[_index(parent, steps[-1])] = copy.deepcopy(operation.value)
    else:
        _member(parent, steps[-1])
        parent[steps[-1]] = copy.deepcopy(operation.value)
    return document


def _move(document: Json, operation: Operation) -> Json:
    if operation.path.startswith(f"{operation.source}/"):
        raise ValueError("a value cannot be moved into itself")
    if operation.path == operation.source:
        _from(document, operation)
        return document
    value = _from(document, operation)
    _take(document, operation.source)
    return _put(document, operation.path, value)


def _copy(document: Json, operation: Operation) -> Json:
    return _put(document, operation.path, copy.deepcopy(_from(document, operation)))


def _from(document: Json, operation: Operation) -> Json:
    try:
        return _read(document, operation.source)
    except LookupError:
        raise LookupError("from") from None


def _test(document: Json, operation: Operation) -> Json:
    found = _read(document, operation.path)
    if not _equal(found, operation.value):
        raise Conflict(f"test {operation.path}: it is {show(found)}, not {show(operation.value)}; nothing was changed")
    return document


def _equal(one: Json, other: Json) -> bool:
    """RFC 6902, section 4.6: numbers by value; but true is not 1, which Python takes for equal."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
        case list(), list():
            return len(one) == len(other) and all(map(_equal, one, other))
        case _:
            return isinstance(one, bool) == isinstance(other, bool) and one == other


_OPERATIONS: dict[str, Callable[[Json, Operation], Json]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
