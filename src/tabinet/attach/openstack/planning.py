"""From what is stored and what should be: what to write.

In: the stored values by path (None: nothing stored), and the documents that Neutron's state comes to (a path without one, or with None,
is to be deleted). Out: one transaction. Pure; linear in the size of the documents.

Two guards keep a late write from winning. Every write compares the revision that the store had *before* Neutron's database was read, so
that a writer who read the database earlier than another, and writes later, fails and reads again. And a stored document that names a
later revision of Neutron's object than the one at hand is left as it is: then the database answered from the past (a lagging replica).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tabinet.attach.openstack.names import KEYSTONE_LABELS, PROJECT_LABEL
from tabinet.errors import DataError
from tabinet.model.codec import decode_document, encode_document
from tabinet.model.openstack import REVISION_ANNOTATION
from tabinet.store.api import Compare, DeleteOp, KeyValue, Op, PutOp

Document = dict[str, Any]
_IDENTITY = ("uid", "creationTimestamp")


class Identity(msgspec.Struct, frozen=True):
    """Where new resources get their identity from."""

    new_uid: Callable[[], str]
    now: Callable[[], str]
    """RFC 3339, UTC."""


class Plan(msgspec.Struct, frozen=True):
    """One transaction, and what it comes to."""

    compares: tuple[Compare, ...]
    operations: tuple[Op, ...]
    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    """What is stored there is from a later state of Neutron than ours."""


def plan_writes(stored: Mapping[str, KeyValue | None], desired: Mapping[str, Document | None], identity: Identity) -> Plan:
    """What makes the stored paths equal to the desired ones. ``stored`` has every path of ``desired``."""
    compares: list[Compare] = []
    operations: list[Op] = []
    outcomes: dict[str, list[str]] = {"created": [], "changed": [], "deleted": [], "late": []}
    for path, item in stored.items():
        document = desired.get(path)
        if document is None:
            if item is not None:
                operations.append(DeleteOp(path))
                outcomes["deleted"].append(path)
                compares.append(Compare(path, item.revision))
            continue
        before = _read(item)
        if revision_of(before) > revision_of(document):
            outcomes["late"].append(path)
            continue
        if before is not None and _same(before, document):
            continue
        value = encode_document(_identified(_completed(document, before), before, identity))
        operations.append(PutOp(path, value))
        outcomes["created" if item is None else "changed"].append(path)
        compares.append(Compare(path, 0 if item is None else item.revision))
    return Plan(tuple(compares), tuple(operations), **{name: tuple(paths) for name, paths in outcomes.items()})


def differs(item: KeyValue | None, document: Document | None) -> bool:
    """True: what is stored is not what should be; identity and revision aside."""
    if item is None or document is None:
        return (item is None) != (document is None)
    before = _read(item)
    return before is None or not _same(before, document)


def revision_of(document: Document | None) -> int:
    """Neutron's revision number that the document was made from; -1 when it names none."""
    metadata = (document or {}).get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    text = annotations.get(REVISION_ANNOTATION, "") if isinstance(annotations, dict) else ""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else -1


def _read(item: KeyValue | None) -> Document | None:
    if item is None:
        return None
    try:
        return decode_document(item.value, item.key)
    except DataError:
        return None  # whatever it is, it is replaced


def _completed(document: Document, before: Document | None) -> Document:
    """The document with the names of its project as they are stored, where nobody could say them anew: that Keystone is away for one of
    Neutron's processes is no reason to rewrite endpoints."""
    labels, stored = _labels(document), _labels(before)
    if PROJECT_LABEL not in labels or labels[PROJECT_LABEL] != stored.get(PROJECT_LABEL) or KEYSTONE_LABELS[0] in labels:
        return document
    kept = {name: stored[name] for name in KEYSTONE_LABELS if name in stored}
    return {**document, "metadata": {**document["metadata"], "labels": {**labels, **kept}}} if kept else document


def _labels(document: Document | None) -> Document:
    metadata = (document or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}


def _same(before: Document, document: Document) -> bool:
    """True: equal but for what the store keeps, and for the revision. That a port has become active gives it a new revision as well, and
    a state between two equal ones is equal to both, so nothing late can come of leaving the older revision there."""
    return encode_document(_bare(before)) == encode_document(_bare(_completed(document, before)))


def _identified(document: Document, before: Document | None, identity: Identity) -> Document:
    """A resource with the identity that it has, or a new one; other values as they are."""
    if "metadata" not in document:
        return document
    known = (before or {}).get("metadata")
    known = known if isinstance(known, dict) else {}
    kept = {"uid": known.get("uid") or identity.new_uid(), "creationTimestamp": known.get("creationTimestamp") or identity.now()}
    return {**document, "metadata": {**document["metadata"], **kept}}


def _bare(document: Document) -> Document:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return document
    bare = {name: value for name, value in metadata.items() if name not in _IDENTITY}
    annotations = bare.get("annotations")
    if isinstance(annotations, dict):
        bare["annotations"] = {name: value for name, value in annotations.items() if name != REVISION_ANNOTATION}
    return {**document, "metadata": bare}
