"""Every problem of a document of Kubernetes, all at once, and the document as a record when there is none.

As strict as Kubernetes' API server: unknown fields, types, formats, and the rules between fields (``constraints``). Besides, what cannot be
converted is refused with the reason, never left out: a rule without one of its conditions would mean something else. Of Namespace,
ServiceAccount and Pod only the fields that count here are looked at.

In: plain data. Out: problems with path, value and what is allowed. Pure; linear in the size of the document.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from tabinet.errors import Problem
from tabinet.model.kubernetes.constraints import FOREIGN_CONSTRAINTS
from tabinet.model.kubernetes.kinds import DEFAULT_NAMESPACE, ForeignKind, converted_name, endpoint_name
from tabinet.model.kubernetes.records import ClusterNetworkPolicy, Pod
from tabinet.model.names import MAX_NAME, annotation_findings, judge_name, judge_namespace, label_findings
from tabinet.model.resources import Resource
from tabinet.model.semantics import show
from tabinet.model.shapes import Anything, Field, Listing, Object, Shape, shape_of
from tabinet.model.validate import examine

_TOLERATED_METADATA = (
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "selfLink",
)
"""What Kubernetes writes; without meaning here."""

CLUSTER_TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
"""Our tier for each of a ClusterNetworkPolicy."""


def examine_foreign(kind: ForeignKind, data: dict[str, Any]) -> tuple[Resource | None, list[Problem]]:
    """The document as a record, or ``None`` and everything that is wrong with it."""
    shape = _document_shape(kind)
    clean, problems = examine(shape, data if kind.whole else _known(shape, data), FOREIGN_CONSTRAINTS)
    problems += _name_problems(kind, data.get("metadata"))
    if problems:
        return None, problems
    record = msgspec.convert(clean, kind.record)
    problems = _result_problems(kind, record)
    return (None if problems else record), problems


@functools.cache
def _document_shape(kind: ForeignKind) -> Object:
    shape = shape_of(kind.record)
    metadata = shape.fields["metadata"]
    if not isinstance(metadata.shape, Object):
        raise TypeError("metadata is an object")
    tolerated = {name: Field(name, Anything(), False) for name in _TOLERATED_METADATA}
    wider = msgspec.structs.replace(metadata.shape, fields={**metadata.shape.fields, **tolerated})
    fields = {"status": Field("status", Anything(), False), **shape.fields, "metadata": msgspec.structs.replace(metadata, shape=wider)}
    return msgspec.structs.replace(shape, fields=fields)


def _known(shape: Shape, value: Any) -> Any:
    """The value without members that the shape does not know; metadata is left as it is."""
    match shape, value:
        case Object(_, fields), dict():
            return {
                name: member if name == "metadata" else _known(fields[name].shape, member)
                for name, member in value.items()
                if name in fields
            }
        case Listing(item), list():
            return [_known(item, member) for member in value]
        case _:
            return value


def _name_problems(kind: ForeignKind, metadata: Any) -> list[Problem]:
    if not isinstance(metadata, dict):
        return [_problem("metadata", metadata, "must be given, with a name")]
    problems = []
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not name:
        problems.append(_problem("metadata.name", name, "must be given"))
    elif isinstance(name, str) and (allowed := judge_namespace(name) if kind.label_name else judge_name(kind.name, name)):
        problems.append(_problem("metadata.name", name, allowed))
    if namespace and isinstance(namespace, str):
        allowed = judge_namespace(namespace) if kind.namespaced else f"{kind.name} has no namespace; leave it out"
        if allowed:
            problems.append(_problem("metadata.namespace", namespace, allowed))
    for member, findings in (("labels", label_findings), ("annotations", annotation_findings)):
        texts = metadata.get(member)
        if isinstance(texts, dict) and all(isinstance(value, str) for value in texts.values()):
            for key, value, allowed in findings(texts):
                problems.append(_problem(f"metadata.{member}.{key}".rstrip("."), value, allowed))
    return problems


def _result_problems(kind: ForeignKind, record: Resource) -> list[Problem]:
    """What stands against the name that the document gets."""
    name = record.metadata.name
    if isinstance(record, Pod):
        becomes = endpoint_name(record.spec.node_name, name)
        if not judge_name("WorkloadEndpoint", becomes):
            return []
        return [
            _problem("metadata.name", name, f"its endpoint must have a legal name of at most {MAX_NAME} characters, not {show(becomes)}")
        ]
    tier = CLUSTER_TIERS[record.spec.tier] if isinstance(record, ClusterNetworkPolicy) else ""
    becomes = converted_name(kind.name, name, record.metadata.namespace or DEFAULT_NAMESPACE, tier)
    if len(becomes) <= MAX_NAME:
        return []
    most = MAX_NAME - len(becomes) + len(name)
    return [_problem("metadata.name", name, f"allowed: at most {most} characters, because it becomes {becomes}")]


def _problem(path: str, value: object, allowed: str) -> Problem:
    return Problem(path=path, value="nothing" if value is None or value == "" else show(value), allowed=allowed)
