"""Checks of decoded records: what a typed decode lets through but nobody should act on.

``problems_of(record)`` walks a record along its shape, with the ``stored`` degree of every format and the constraints that are marked
so. The walk is compiled once for each record type into nested closures that skip what needs no check, so that a workload endpoint costs
microseconds. In: records of ``resources``. Out: every problem, with its path. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from tabinet.errors import Problem
from tabinet.model.constraints import CONSTRAINTS
from tabinet.model.findings import Constraint
from tabinet.model.formats import Judge
from tabinet.model.shapes import Field, Listing, Object, Scalar, Shape, shape_of

Check = Callable[[Any, str, list[Problem]], None]

_SHOWN = 120


def show(value: object) -> str:
    """A value as a reader would write it, shortened."""
    try:
        text = msgspec.json.encode(value, order="deterministic").decode()
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError, RecursionError):
        text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def problems_of(record: msgspec.Struct) -> list[Problem]:
    """Everything that makes a decoded resource unfit to act on; empty when it is fine."""
    problems: list[Problem] = []
    check = _check_for(type(record))
    if check is not None:
        check(record, "", problems)
    return problems


@functools.cache
def _check_for(record: type[msgspec.Struct]) -> Check | None:
    return _compile(shape_of(record))


def _compile(shape: Shape) -> Check | None:
    match shape:
        case Scalar():
            judge = shape.form.stored if shape.form else None
            return None if judge is None else _compile_scalar(judge)
        case Listing(item):
            inner = _compile(item)
            return None if inner is None else _compile_listing(inner)
        case Object(record, fields) if record is not None:
            constraints = tuple(constraint for constraint in CONSTRAINTS.get(record, ()) if constraint.stored)
            return _compile_object(fields, constraints)
        case _:
            return None


def _compile_scalar(judge: Judge) -> Check:
    def check(value: Any, path: str, problems: list[Problem]) -> None:
        allowed = judge(value)
        if allowed:
            problems.append(Problem(path=path, value=show(value), allowed=allowed))

    return check


def _compile_listing(inner: Check) -> Check:
    def check(values: Any, path: str, problems: list[Problem]) -> None:
        for index, value in enumerate(values):
            inner(value, f"{path}[{index}]", problems)

    return check


def _compile_object(fields: dict[str, Field], constraints: tuple[Constraint, ...]) -> Check | None:
    compiled = ((field.attribute, wire, "" if field.blank else None, _compile(field.shape)) for wire, field in fields.items())
    parts = tuple((attribute, wire, absent, check) for attribute, wire, absent, check in compiled if check is not None)
    if not parts and not constraints:
        return None

    def check_object(value: Any, path: str, problems: list[Problem]) -> None:
        before = len(problems)
        for attribute, wire, absent, check in parts:
            member = getattr(value, attribute)
            if member is not None and member != absent and member != ():
                check(member, f"{path}.{wire}" if path else wire, problems)
        if constraints and len(problems) == before:
            for constraint in constraints:
                for finding in constraint.check(value):
                    where = f"{path}.{finding.path}" if path else finding.path
                    problems.append(Problem(path=where, value=show(finding.value), allowed=finding.allowed))

    return check_object
