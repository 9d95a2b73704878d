"""Shapes: what a document of a kind looks like, read off the records of ``resources``.

A record's fields say name on the wire, type and (by the annotations of ``formats``) format. ``shape_of`` turns that into a small tree which
``validate`` walks beside a document and which ``semantics`` compiles into checks of decoded records; references for people can be written
from it too. Built once for each record. Pure.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from msgspec import inspect

from tabinet.model.formats import Format


class Scalar(msgspec.Struct, frozen=True):
    """A text, number or switch, or one of several of these."""

    types: tuple[type, ...]
    """Of ``str``, ``int``, ``float``, ``bool``. An ``int`` will do where ``float`` is listed."""
    form: Format | None = None

    @property
    def words(self) -> str:
        """What may stand there, for people."""
        if self.form is not None and self.form.choices:
            return ", ".join(self.form.choices)
        kinds = " or ".join(_WORDS[kind] for kind in self.types)
        return kinds if self.form is None else f"{kinds} ({self.form.name})"


class Listing(msgspec.Struct, frozen=True):
    """A list of one kind of item."""

    item: Shape


class Table(msgspec.Struct, frozen=True):
    """A mapping from free texts to one kind of value."""

    value: Shape


class Field(msgspec.Struct, frozen=True):
    """A named member of an object."""

    attribute: str
    """Its name in the record."""
    shape: Shape
    required: bool
    blank: bool = False
    """An empty text means that it is absent."""
    default: Any = None
    """What absence decodes to."""


class Object(msgspec.Struct, frozen=True):
    """A mapping with known names."""

    record: type[msgspec.Struct] | None
    """The record that it decodes to; ``None`` where there is only a table of names."""
    fields: dict[str, Field]
    """By name on the wire, in the order of the record."""
    required: tuple[str, ...] = ()
    """Those of them that must be given."""


class Anything(msgspec.Struct, frozen=True):
    """Not looked into."""


Shape = Scalar | Listing | Table | Object | Anything

_WORDS: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_SCALARS: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
}


@functools.cache
def shape_of(record: type[msgspec.Struct]) -> Object:
    """The shape of a record."""
    shape = _shape(inspect.type_info(record))
    if not isinstance(shape, Object):
        raise TypeError(f"{record} is not a record")
    return shape


def _shape(info: inspect.Type, extra: dict[str, Any] | None = None) -> Shape:
    match info:
        case inspect.Metadata():
            return _shape(info.type, {**(extra or {}), **(info.extra or {})})
        case inspect.StructType():
            fields = {
                field.encode_name: Field(
                    field.name,
                    _shape(field.type),
                    field.required,
                    field.default == "",
                    None if field.default is msgspec.NODEFAULT else field.default,
                )
                for field in info.fields
            }
            return Object(info.cls, fields, tuple(name for name, field in fields.items() if field.required))
        case inspect.VarTupleType():
            return Listing(_shape(info.item_type))
        case inspect.DictType() if extra and "fields" in extra:
            known: dict[str, Any] = extra["fields"]
            return Object(None, {name: Field(name, _shape(inspect.type_info(kind)), False, True, "") for name, kind in known.items()})
        case inspect.DictType():
            return Table(_shape(info.value_type))
        case inspect.UnionType():
            return _union([member for member in info.types if not isinstance(member, inspect.NoneType)], extra)
        case _ if type(info) in _SCALARS:
            return Scalar((_SCALARS[type(info)],), (extra or {}).get("format"))
        case _:
            return Anything()


def _union(members: list[inspect.Type], extra: dict[str, Any] | None) -> Shape:
    if len(members) == 1:
        return _shape(members[0], extra)
    kinds = tuple(_SCALARS[type(member)] for member in members)
    return Scalar(kinds, (extra or {}).get("format"))
