"""Records that take only what is known: for judging whole documents at the speed of msgspec.

``strict_of(record)`` is a subclass of a record that refuses members with unknown names, and so are the records within it. A document that
converts to it has the right types and names everywhere; what it is refused for does not matter, ``validate`` finds that out by walking.
Built once for each record.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from typing import Annotated, Any, Union

import msgspec

from tabinet.model.records.base import Record


@functools.cache
def strict_of(record: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The subclass of ``record`` that refuses unknown names."""
    hints = typing.get_type_hints(record, include_extras=True)
    changed: list[Any] = []
    for known in msgspec.structs.fields(record):
        hint = _strict(hints[known.name])
        if hint is not hints[known.name]:
            changed.append((known.name, hint, _member_of(known)))
    return msgspec.defstruct(
        f"Strict{record.__name__}", changed, bases=(record,), frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True
    )


def _member_of(known: msgspec.structs.FieldInfo) -> Any:
    if known.default is not msgspec.NODEFAULT:
        return msgspec.field(default=known.default, name=known.encode_name)
    if known.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=known.default_factory, name=known.encode_name)
    return msgspec.field(name=known.encode_name)


def _strict(hint: Any) -> Any:
    """The type with every record in it made strict; the same object when there is none."""
    if isinstance(hint, type) and issubclass(hint, Record):
        return strict_of(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not arguments or not any(_strict(argument) is not argument for argument in arguments):
        return hint
    made = tuple(_strict(argument) for argument in arguments)
    if origin is Annotated:
        return Annotated[(made[0], *hint.__metadata__)]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, made)
    return origin[made]
