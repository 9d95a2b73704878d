"""Every problem of a document that an operator wrote, all at once, each with path, value and what is allowed.

A document is walked along the shape of its kind: unknown names (with the nearest known one), types, formats; then the constraints of
``constraints`` on whatever is fine so far, so that one mistake is reported once and hides no other. Knowledge about kinds is in tables
(``kinds``, ``resources``, ``constraints``, ``names``); this module only walks. Pure. Linear in the size of the document.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tabinet.errors import Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.constraints import CONSTRAINTS
from tabinet.model.documents import Document
from tabinet.model.findings import Constraint
from tabinet.model.kinds import BY_NAME, KINDS, Kind, nearest_kind
from tabinet.model.names import annotation_findings, judge_name, judge_namespace, label_findings
from tabinet.model.protected import protected_findings
from tabinet.model.resources import API_VERSION
from tabinet.model.semantics import INT64, is_acceptable, show
from tabinet.model.shapes import Anything, Field, Listing, Object, Scalar, Shape, Table, shape_of
from tabinet.model.strict import strict_of

Constraints = Mapping[type[msgspec.Struct], tuple[Constraint, ...]]
_BARE = (int, float, bool)
"""Types that a text becomes when YAML finds it without quotes."""
_TOLERATED_METADATA = (
    "generateName",
    "selfLink",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
)
"""Members that Kubernetes' tools write; without meaning here."""


def validate(document: Document) -> list[Problem]:
    """Everything that is wrong with a document; empty when it may be stored, or converted (``kubernetes.convert``) and then stored."""
    if document.data.get("apiVersion") != API_VERSION:
        # Only now: most who validate meet no document of Kubernetes, and it is built on this module.
        from tabinet.model.kubernetes.convert import foreign_problems

        foreign = foreign_problems(document)
        if foreign is not None:
            return foreign
    walk = _Walk()
    kind = _kind_of(document.data, walk)
    if kind is not None:
        if walk.problems or not is_sound(kind, document.data):
            walk.value(_document_shape(kind), document.data, "")
        _check_names(kind, document.data, walk)
    return [_placed(problem, document) for problem in walk.problems]


def validate_all(documents: Sequence[Document]) -> list[Problem]:
    """The problems of each document, then those between them: a resource given twice, pools that overlap."""
    problems = [problem for document in documents for problem in validate(document)]
    return problems + [_placed(problem, document) for document, problem in _between(documents)]


def examine(shape: Object, data: Any, constraints: Constraints) -> tuple[Any, list[Problem]]:
    """A document of any API along its shape: its clean value, and everything that is wrong with it."""
    walk = _Walk(constraints)
    clean, _ = walk.value(shape, data, "")
    return clean, walk.problems


def _placed(problem: Problem, document: Document) -> Problem:
    path = ".".join(part for part in (document.within, problem.path) if part)
    return msgspec.structs.replace(problem, path=path, source=document.source, document=document.index, line=document.line)


def _kind_of(data: dict[str, Any], walk: _Walk) -> Kind | None:
    """The kind that the document claims, when it is known and of our API."""
    version, name = data.get("apiVersion"), data.get("kind")
    if version != API_VERSION:
        walk.add("apiVersion", version, f"must be {API_VERSION}")
    kind = BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        near = nearest_kind(name) if isinstance(name, str) else ""
        hint = f"did you mean {near}?" if near else f"allowed: {', '.join(known.name for known in KINDS if not known.view)}"
        walk.add("kind", name, hint)
    elif kind.view:
        walk.add("kind", name, "only for reading: the address management keeps it")
        return None
    return kind


def is_sound(kind: Kind, data: dict[str, Any]) -> bool:
    """True when ``examine`` would find nothing in a document; several times faster. False says nothing: ``examine`` knows better."""
    if kind.name == "FelixConfiguration":
        return False  # its parameters are a table, not a record
    try:
        msgspec.json.encode(data)  # refuses halves of surrogate pairs, which a walk would find
        record = msgspec.convert(data, strict_of(kind.record))
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError):
        return False
    return is_acceptable(kind.record, record)


@functools.cache
def _document_shape(kind: Kind) -> Object:
    shape = shape_of(kind.record)
    metadata = shape.fields["metadata"]
    if not isinstance(metadata.shape, Object):
        raise TypeError("metadata is an object")
    tolerated = {name: Field(name, Anything(), False) for name in _TOLERATED_METADATA}
    wider = msgspec.structs.replace(metadata.shape, fields={**metadata.shape.fields, **tolerated})
    fields = {
        **shape.fields,
        "metadata": msgspec.structs.replace(metadata, shape=wider),
        "status": Field("status", Anything(), False),
    }
    return msgspec.structs.replace(shape, fields=fields)


def _check_names(kind: Kind, data: dict[str, Any], walk: _Walk) -> None:
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        walk.add("metadata", metadata, "must be given, with a name")
        return
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not name:
        walk.add("metadata.name", name, "must be given")
    elif isinstance(name, str) and (allowed := judge_name(kind.name, name)):
        walk.add("metadata.name", name, allowed)
    if namespace and isinstance(namespace, str):
        allowed = judge_namespace(namespace) if kind.namespaced else f"{kind.name} has no namespace; leave it out"
        if allowed:
            walk.add("metadata.namespace", namespace, allowed)
    for member, findings in (("labels", label_findings), ("annotations", annotation_findings)):
        texts = metadata.get(member)
        if isinstance(texts, dict) and all(isinstance(value, str) for value in texts.values()):
            for key, value, allowed in findings(texts):
                walk.add(f"metadata.{member}.{key}".rstrip("."), value, allowed)
    spec = data.get("spec")
    for finding in protected_findings(kind.name, str(name), spec if isinstance(spec, dict) else {}):
        walk.add(*finding)
    labels = metadata.get("labels")
    if kind.name in ("NetworkSet", "GlobalNetworkSet") and isinstance(labels, dict) and "projectcalico.org/namespace" in labels:
        walk.add("metadata.labels.projectcalico.org/namespace", "a label", "not allowed: it is set from the namespace")


class _Walk:
    """One pass over a document. Methods return the value without what is wrong in it, and the places of what was wrong."""

    __slots__ = ("problems", "rules")

    def __init__(self, rules: Constraints = CONSTRAINTS) -> None:
        self.problems: list[Problem] = []
        self.rules = rules

    def add(self, path: str, value: object, allowed: str) -> None:
        shown = "nothing" if value is None or value == "" else show(value)
        self.problems.append(Problem(path=path, value=shown, allowed=allowed))

    def value(self, shape: Shape, value: Any, path: str) -> tuple[Any, set[str]]:
        """The clean value, and the broken places below it as dotted names without indices (``""``: the value itself)."""
        match shape:
            case Scalar():
                broken = self.scalar(shape, value, path)
                return value, broken
            case Listing(item):
                return self.listing(item, value, path)
            case Table(inner):
                return self.table(inner, value, path)
            case Object():
                return self.object(shape, value, path)
            case Anything():
                return value, set()

    def scalar(self, shape: Scalar, value: Any, path: str) -> set[str]:
        allowed = ""
        kind = type(value)
        if kind not in shape.types and not (kind is int and float in shape.types):
            allowed = f"must be {shape.words}" + ("; put it in quotes" if str in shape.types and kind in _BARE else "")
        elif kind is int and not -INT64 <= value < INT64:
            allowed = "must be a whole number of at most 64 bits"
        elif kind is float and not math.isfinite(value):
            allowed = "must be a finite number"
        elif kind is str and not _is_storable(value):
            allowed = "must be Unicode text"
        elif shape.form is not None:
            allowed = shape.form.check(value)
        if not allowed:
            return set()
        self.add(path, value, allowed)
        return {""}

    def listing(self, item: Shape, value: Any, path: str) -> tuple[Any, set[str]]:
        if not isinstance(value, list):
            self.add(path, value, "must be a list")
            return [], {""}
        clean: list[Any] = []
        broken: set[str] = set()
        for index, member in enumerate(value):
            where = f"{path}[{index}]"
            if member is None or (member == "" and isinstance(item, Scalar) and item.form is not None):
                self.add(where, member, "must not be empty")
                broken.add("")
                continue
            kept, below = self.value(item, member, where)
            broken |= below
            if "" not in below:
                clean.append(kept)
        return clean, broken

    def table(self, inner: Shape, value: Any, path: str) -> tuple[Any, set[str]]:
        if not isinstance(value, dict):
            self.add(path, value, "must be a mapping")
            return {}, {""}
        clean = {}
        for name, member in value.items():
            kept, below = self.value(inner, member, f"{path}.{name}")
            if not below:
                clean[name] = kept
        return clean, set() if len(clean) == len(value) else {""}

    def object(self, shape: Object, value: Any, path: str) -> tuple[Any, set[str]]:
        if not isinstance(value, dict):
            self.add(path, value, "must be a mapping")
            return {}, {""}
        clean: dict[str, Any] = {}
        broken: set[str] = set()
        for name, member in value.items():
            field = shape.fields.get(name)
            where = f"{path}.{name}" if path else name
            if field is None:
                self.add(where, member, _unknown(name, shape.fields))
            elif member is not None and not (member == "" and (field.blank or field.required)):
                kept, below = self.value(field.shape, member, where)
                broken |= {f"{name}.{place}".rstrip(".") for place in below}
                if "" not in below:
                    clean[name] = kept
        for name in shape.required:
            if value.get(name) in (None, ""):
                self.add(f"{path}.{name}" if path else name, None, "must be given")
                broken.add(name)
            if name not in clean:
                clean[name] = _stand_in(shape.fields[name].shape)
        if shape.record is not None:
            self.constraints(shape.record, clean, broken, path)
        return clean, broken

    def constraints(self, record: type[msgspec.Struct], clean: dict[str, Any], broken: set[str], path: str) -> None:
        wanted = [rule for rule in self.rules.get(record, ()) if not any(_touches(read, broken) for read in rule.reads)]
        if not wanted:
            return
        typed = msgspec.convert(clean, record)
        for rule in wanted:
            for finding in rule.check(typed):
                self.add(finding.below(path), finding.value, finding.allowed)


def _is_storable(text: str) -> bool:
    """False for halves of surrogate pairs, which UTF-8 cannot hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _touches(read: str, broken: Iterable[str]) -> bool:
    """True when something broken is what a constraint reads, part of it, or holds it."""
    return any(place == read or place.startswith(f"{read}.") or read.startswith(f"{place}.") for place in broken)


def _stand_in(shape: Shape) -> Any:
    """A value of the right type for a required member that is missing or broken, so that the rest can be judged."""
    match shape:
        case Scalar(types):
            return types[0]()
        case Listing():
            return []
        case Object(_, fields, required):
            return {name: _stand_in(fields[name].shape) for name in required}
        case _:
            return {}


def _unknown(name: str, fields: dict[str, Field]) -> str:
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    return f"unknown field; did you mean {near[0]}?" if near else f"unknown field; allowed: {', '.join(fields)}"


def _between(documents: Sequence[Document]) -> Iterator[tuple[Document, Problem]]:
    first: dict[tuple[object, ...], Document] = {}
    pools: list[tuple[Prefix, str]] = []
    for document in documents:
        metadata, spec = document.data.get("metadata"), document.data.get("spec")
        if not isinstance(metadata, dict):
            continue
        name = metadata.get("name")
        identity = (str(document.data.get("apiVersion")), str(document.data.get("kind")), str(metadata.get("namespace", "")), str(name))
        earlier = first.setdefault(identity, document)
        if earlier is not document:
            yield document, Problem(path="metadata.name", value=show(name), allowed=f"given already at {earlier.source}:{earlier.line}")
        if document.data.get("kind") == "IPPool" and isinstance(spec, dict):
            try:
                cidr = parse_prefix(str(spec.get("cidr")))
            except ValueError:
                continue
            for other, owner in pools:
                if other.overlaps(cidr) and owner != name:
                    yield document, Problem(path="spec.cidr", value=show(str(cidr)), allowed=f"must not overlap {other} of {owner}")
            pools.append((cidr, str(name)))
