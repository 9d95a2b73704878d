"""Checks of decoded records: what a typed decode lets through but nobody should act on, or nobody should write.

``problems_of(record)`` walks a record along its shape, with the ``stored`` degree of every format and the constraints that are marked
so; ``is_acceptable`` with the degree for operators and all constraints. The walk is compiled once for each record type into nested closures
that skip what needs no check, so that a workload endpoint costs microseconds. In: records of ``resources``. Out: every problem, with its
path. Pure.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import msgspec

from tabinet.errors import Problem
from tabinet.model.constraints import CONSTRAINTS
from tabinet.model.findings import Constraint
from tabinet.model.formats import Judge
from tabinet.model.shapes import Field, Listing, Object, Scalar, Shape, shape_of

Check = Callable[[Any, str, list[Problem]], None]
Part = tuple[str, str, object, Judge | None, Check | None]
"""A member of a record: attribute, name on the wire, the value that needs no check, and what judges a scalar or checks anything else."""

_SHOWN = 120
INT64 = 1 << 63
"""Numbers from -INT64 on, and below INT64, fit in 64 bits."""


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
    check = _check_for(type(record), strict=False)
    if check is not None:
        check(record, "", problems)
    return problems


def is_acceptable(kind: type[msgspec.Struct], record: msgspec.Struct) -> bool:
    """True when an operator's document that was decoded to ``record``, of type ``kind``, passes every format and constraint."""
    problems: list[Problem] = []
    check = _check_for(kind, strict=True)
    if check is not None:
        check(record, "", problems)
    return not problems


@functools.cache
def _check_for(record: type[msgspec.Struct], *, strict: bool) -> Check | None:
    return _Compiler(strict).compile(shape_of(record))


class _Compiler:
    """Makes the check of a shape. ``strict``: for operators' documents; else the ``stored`` degree."""

    __slots__ = ("strict",)

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def compile(self, shape: Shape) -> Check | None:
        match shape:
            case Listing(Scalar() as item):
                judge = self.judge_of(item)
                if judge is not None and self.strict and item.form is not None:
                    judge = _refusing_empty(judge)
                return None if judge is None else _compile_scalars(judge)
            case Listing(item):
                inner = self.compile(item)
                return None if inner is None else _compile_listing(inner)
            case Object(record) if record is not None:
                constraints = tuple(constraint for constraint in CONSTRAINTS.get(record, ()) if constraint.stored or self.strict)
                parts = tuple(part for wire, field in shape.fields.items() if (part := self.part_of(wire, field)) is not None)
                return _compile_object(parts, constraints) if parts or constraints else None
            case _:
                return None

    def part_of(self, wire: str, field: Field) -> Part | None:
        if isinstance(field.shape, Scalar):
            judge = self.judge_of(field.shape)
            if self.strict and field.required and str in field.shape.types:
                judge = _refusing_empty(judge)
            return None if judge is None else (field.attribute, wire, _harmless_default(field, judge), judge, None)
        check = self.compile(field.shape)
        return None if check is None else (field.attribute, wire, (), None, check)

    def judge_of(self, shape: Scalar) -> Judge | None:
        if not self.strict:
            return shape.form.stored if shape.form else None
        if shape.form is not None:
            return shape.form.check
        if float in shape.types:
            return _judge_float
        return _judge_int if int in shape.types else None


def _harmless_default(field: Field, judge: Judge) -> object:
    """The value that needs no judging: an empty text that means absence, or a default that the judge finds fine."""
    if field.blank or (isinstance(field.default, (int, str)) and not judge(field.default)):
        return field.default
    return None


def _refusing_empty(judge: Judge | None) -> Judge:
    return lambda value: "must be given" if value == "" else judge(value) if judge is not None else ""


def _judge_int(value: int) -> str:
    return "" if -INT64 <= value < INT64 else "must be a whole number of at most 64 bits"


def _judge_float(value: float) -> str:
    # A whole number became a float when it was decoded: too large a one is left to a walk of the document.
    return "" if -INT64 < value < INT64 else "must be a finite number, if whole of at most 64 bits"


def _compile_scalars(judge: Judge) -> Check:
    def check(values: Any, path: str, problems: list[Problem]) -> None:
        for index, value in enumerate(values):
            allowed = judge(value)
            if allowed:
                problems.append(Problem(path=f"{path}[{index}]", value=show(value), allowed=allowed))

    return check


def _compile_listing(inner: Check) -> Check:
    def check(values: Any, path: str, problems: list[Problem]) -> None:
        for index, value in enumerate(values):
            inner(value, f"{path}[{index}]", problems)

    return check


def _compile_object(parts: tuple[Part, ...], constraints: tuple[Constraint, ...]) -> Check:
    attributes = [attribute for attribute, *_ in parts]
    members_of = operator.attrgetter(*attributes) if len(attributes) > 1 else lambda value: [getattr(value, name) for name in attributes]

    def check_object(value: Any, path: str, problems: list[Problem]) -> None:
        before = len(problems)
        for member, (_, wire, absent, judge, check) in zip(members_of(value), parts, strict=True):
            if member is None or member == absent:
                continue
            if judge is not None:
                allowed = judge(member)
                if allowed:
                    problems.append(Problem(path=f"{path}.{wire}" if path else wire, value=show(member), allowed=allowed))
            elif check is not None:
                check(member, f"{path}.{wire}" if path else wire, problems)
        if len(problems) == before:
            for constraint in constraints:
                for finding in constraint.check(value):
                    problem = Problem(path=finding.below(path), value=show(finding.value), allowed=finding.allowed)
                    problems.append(problem)

    return check_object
