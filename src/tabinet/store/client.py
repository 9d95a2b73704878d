"""Resources as plain documents in a store, with the semantics of Calico's clients.

In: documents (``dict``, as YAML or JSON gives them) that were validated and defaulted by the caller, keys. Out: documents with
``metadata.uid``, ``creationTimestamp`` and ``resourceVersion`` (the store's revision of it, never stored). Fields that we do not know are
kept as they are. Every write is a compare-and-swap; nobody's change is overwritten unseen, except by ``apply``, which is meant to.

Costs: one or two requests for one document; ``apply_many`` two for each hundred, several at a time.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tabinet.errors import AlreadyExists, Conflict, DataError, InputError, NotFound, Problem, StoreError
from tabinet.model.codec import decode_document, encode_document
from tabinet.model.keys import ResourceKey, kind_prefix, path_of
from tabinet.model.kinds import BY_NAME
from tabinet.model.views import view_of, view_paths, view_prefixes
from tabinet.store.api import Compare, Datastore, DeleteOp, GetOp, KeyValue, PutOp

Document = dict[str, Any]
Documents = list[Document]  # inside the class, `list` is a method
Outcome = Literal["created", "configured", "unchanged"]
Outcomes = list[tuple[str, Outcome]]
"""Key as text, and what was done."""

DEFAULT_NAMESPACE = "default"
"""Of a namespaced resource that names none, as calicoctl has it."""
CHUNK = 100
CHUNK_BYTES = 500_000
"""Documents and bytes in one transaction: etcd takes 128 operations and 1.5 MiB."""
IN_FLIGHT = 8
ATTEMPTS = 20
"""Times that apply tries again when somebody else wrote in between."""


@dataclass(slots=True)
class _Wanted:
    """A document to be applied, and where."""

    key: ResourceKey
    path: str
    document: Document
    size_bytes: int


@dataclass(slots=True)
class _Planned:
    """What applying it comes to, given what is stored."""

    document: Document
    outcome: Outcome
    revision: int
    value: bytes


class ResourceClient:
    """Reads and writes resources."""

    def __init__(
        self,
        store: Datastore,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.store = store
        self._now = now
        self._new_uid = new_uid

    async def get(self, key: ResourceKey) -> Document:
        """The document.

        Raises:
            NotFound: there is none.
            DataError: what is stored is no document.
        """
        for path in _paths(key):
            item = await self.store.get(path)
            if item is not None:
                return read_item(item)
        raise NotFound(f"{key} does not exist")

    async def list(self, kind: str, namespace: str | None = None, *, on_broken: Callable[[DataError], None] | None = None) -> Documents:
        """All documents of a kind, of one namespace or (None, empty) of all, by namespace and name.

        What is stored and is no document goes to ``on_broken``, or without it raises ``DataError``.

        Raises:
            InputError: there is no such kind, or it has no namespaces.
        """
        found: dict[str, Document] = {}
        for prefix in prefixes_of(kind, namespace):
            async for page in self.store.list(prefix):
                for item in page.items:
                    try:
                        found[item.key] = read_item(item)
                    except DataError as error:
                        if on_broken is None:
                            raise
                        on_broken(error)
        # The store's order is that of bytes, in which "a-b/c" comes before "a/c".
        return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]

    async def create(self, document: Document) -> Document:
        """The document as stored, with a new uid and the time.

        Raises:
            AlreadyExists: the resource exists.
            InputError: it carries a resourceVersion, or is no resource.
        """
        key = key_of(document)
        given = document["metadata"].get("resourceVersion")
        if given:
            raise _input_error("metadata.resourceVersion", given, "must be left out when a resource is created")
        path = _path(key)
        fresh = self._fresh(key, document)
        result = await self.store.txn([Compare(path, 0)], [PutOp(path, encode_document(fresh))])
        if not result.succeeded:
            raise AlreadyExists(f"{key} exists already")
        return _with_version(fresh, result.revision)

    async def update(self, document: Document) -> Document:
        """The document as stored; uid and creationTimestamp stay those of the resource.

        Raises:
            NotFound: the resource does not exist.
            Conflict: it is no longer that of the document's resourceVersion: get it again.
            InputError: the document has no resourceVersion, or is no resource.
        """
        key = key_of(document)
        expected = _parse_version(document["metadata"].get("resourceVersion"))
        path = _path(key)
        item = await self.store.get(path)
        if item is None:
            raise NotFound(f"{key} does not exist")
        changed = self._keeping(key, document, item)
        result = await self.store.txn([Compare(path, expected)], [PutOp(path, encode_document(changed))], [GetOp(path)])
        if not result.succeeded:
            raise _refusal(key, expected, result.values[0])
        return _with_version(changed, result.revision)

    async def replace(self, document: Document) -> Document:
        """As ``update``, but a document without resourceVersion replaces whatever is stored at the moment.

        Raises:
            NotFound: the resource does not exist.
            Conflict: it is no longer that of the document's resourceVersion.
            InputError: it is no resource.
        """
        if document["metadata"].get("resourceVersion"):
            return await self.update(document)
        changed, _ = await self.change(key_of(document), lambda _: document)
        return changed

    async def change(self, key: ResourceKey, edit: Callable[[Document], Document]) -> tuple[Document, Outcome]:
        """The resource is as ``edit`` makes it from what is stored; uid and creationTimestamp stay. Equal documents write nothing.

        ``edit`` is called again with the newer document when somebody else wrote in between; what it raises comes through.

        Raises:
            NotFound: the resource does not exist.
            DataError: what is stored is no document.
            Conflict: others changed it ``ATTEMPTS`` times in between.
        """
        path = _path(key)
        item = await self.store.get(path)
        for _ in range(ATTEMPTS):
            if item is None:
                raise NotFound(f"{key} does not exist")
            plan = self._plan(_Wanted(key, path, edit(read_item(item)), 0), item)
            if plan.outcome == "unchanged":
                return _with_version(plan.document, item.revision), plan.outcome
            result = await self.store.txn([Compare(path, item.revision)], [PutOp(path, plan.value)], [GetOp(path)])
            if result.succeeded:
                return _with_version(plan.document, result.revision), plan.outcome
            item = result.values[0]
        raise Conflict(f"{key}: changed by others all the time, {ATTEMPTS} attempts failed")

    async def delete(self, key: ResourceKey, resource_version: str | None = None) -> Document:
        """The resource is gone; returns it as it was, if it was a document, else an empty one.

        Raises:
            NotFound: it did not exist.
            Conflict: it is no longer that of ``resource_version``; nothing was deleted.
        """
        path = _path(key)
        expected = 0 if resource_version is None else _parse_version(resource_version)
        compares = [] if resource_version is None else [Compare(path, expected)]
        result = await self.store.txn(compares, [GetOp(path), DeleteOp(path)], [GetOp(path)])
        item = result.values[0]
        if item is None or not result.succeeded:
            raise _refusal(key, expected, item)
        try:
            return read_item(item)
        except DataError:
            return {}

    async def apply(self, document: Document) -> tuple[Document, Outcome]:
        """The resource is as the document says, whatever it was; uid and creationTimestamp stay. Equal documents write nothing.

        A resourceVersion in the document means nothing here. With the document as stored comes what was done.

        Raises:
            InputError: it is no resource.
            Conflict: others changed it ``ATTEMPTS`` times in between.
        """
        [planned] = await self._apply_chunk([_wanted(document)])
        return _with_version(planned.document, planned.revision), planned.outcome

    async def apply_many(self, documents: Sequence[Document], *, on_done: Callable[[int, Outcome], None] | None = None) -> Outcomes:
        """As ``apply`` for each, in transactions of up to ``CHUNK``; the keys as text and what was done, in the order given.

        ``on_done`` is told the index of each document that is stored, and what was done, as it happens. After the first ``StoreError`` no
        transaction is begun any more, those under way are waited for, and the error is raised: what ``on_done`` was told by then is stored;
        of the rest something may be only if the error is that the store did not answer.

        Raises:
            InputError: documents are no resources, or a resource is given twice; nothing was applied.
        """
        wanted = _check_all(documents)
        outcomes: list[Outcome | None] = [None] * len(wanted)
        failures: list[StoreError] = []
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def run(first: int, chunk: Sequence[_Wanted]) -> None:
            async with slots:
                if failures:
                    return
                try:
                    planned = await self._apply_chunk(chunk)
                except StoreError as error:
                    failures.append(error)
                    return
            for index, plan in enumerate(planned, first):
                outcomes[index] = plan.outcome
                if on_done is not None:
                    on_done(index, plan.outcome)

        async with asyncio.TaskGroup() as group:
            first = 0
            for chunk in _chunks(wanted):
                group.create_task(run(first, chunk))
                first += len(chunk)
        if failures:
            raise failures[0]
        return [(str(each.key), outcome) for each, outcome in zip(wanted, outcomes, strict=True) if outcome is not None]

    async def _apply_chunk(self, chunk: Sequence[_Wanted]) -> Sequence[_Planned]:
        """All documents of the chunk are stored, in one transaction."""
        reads = [GetOp(wanted.path) for wanted in chunk]
        stored = (await self.store.txn([], reads)).values
        for _ in range(ATTEMPTS):
            planned = [self._plan(wanted, item) for wanted, item in zip(chunk, stored, strict=True)]
            writes = [(wanted.path, plan) for wanted, plan in zip(chunk, planned, strict=True) if plan.outcome != "unchanged"]
            if not writes:
                return planned
            result = await self.store.txn(
                [Compare(path, plan.revision) for path, plan in writes], [PutOp(path, plan.value) for path, plan in writes], reads
            )
            if result.succeeded:
                for _, plan in writes:
                    plan.revision = result.revision
                return planned
            stored = result.values
        names = ", ".join(str(wanted.key) for wanted in chunk[:3])
        raise Conflict(f"{names}{' and others' if len(chunk) > 3 else ''}: changed by others all the time, {ATTEMPTS} attempts failed")

    def _plan(self, wanted: _Wanted, item: KeyValue | None) -> _Planned:
        if item is None:
            fresh = self._fresh(wanted.key, wanted.document)
            return _Planned(fresh, "created", 0, encode_document(fresh))
        document = self._keeping(wanted.key, wanted.document, item)
        value = encode_document(document)
        return _Planned(document, "unchanged" if value == _canonical(item) else "configured", item.revision, value)

    def _fresh(self, key: ResourceKey, document: Document) -> Document:
        return _with_metadata(key, document, self._new_uid(), self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def _keeping(self, key: ResourceKey, document: Document, item: KeyValue) -> Document:
        """The document with the identity of what is stored; with a new one if what is stored is broken and has none."""
        try:
            metadata = read_item(item)["metadata"]
        except DataError:
            return self._fresh(key, document)
        fresh = self._fresh(key, document)["metadata"]
        uid, created = metadata.get("uid"), metadata.get("creationTimestamp")
        return _with_metadata(key, document, uid or fresh["uid"], created or fresh["creationTimestamp"])


def key_of(document: Document) -> ResourceKey:
    """The key of a document; a namespaced one without namespace is in ``DEFAULT_NAMESPACE``.

    Raises:
        InputError: it is no resource: kind or name are missing or unknown, or there is a namespace where none belongs.
    """
    metadata = document.get("metadata")
    kind = BY_NAME.get(str(document.get("kind")))
    if kind is None:
        raise _input_error("kind", document.get("kind"), f"must be one of {', '.join(sorted(BY_NAME))}")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise _input_error("metadata.name", name, "a resource needs a name")
    namespace = metadata.get("namespace") or (DEFAULT_NAMESPACE if kind.namespaced else "")
    if not isinstance(namespace, str):
        raise _input_error("metadata.namespace", namespace, "must be a text")
    key = ResourceKey(kind.name, name, namespace)
    _path(key)
    return key


def prefixes_of(kind: str, namespace: str | None = None) -> tuple[str, ...]:
    """Below which prefixes the resources of a kind are stored, of one namespace or of all.

    Raises:
        InputError: there is no such kind, or it has no namespaces.
    """
    try:
        known = BY_NAME.get(kind)
        return view_prefixes(kind) if known is not None and known.view else (kind_prefix(kind, namespace or ""),)
    except ValueError as error:
        raise _input_error("kind", kind, str(error)) from error


def _paths(key: ResourceKey) -> tuple[str, ...]:
    """Where a resource may be stored: one path, except that a view may be of one of several values."""
    known = BY_NAME.get(key.kind)
    return view_paths(key.kind, key.name) if known is not None and known.view else (_path(key),)


def _path(key: ResourceKey) -> str:
    try:
        return path_of(key)
    except ValueError as error:
        raise _input_error("metadata", str(key), str(error)) from error


def _wanted(document: Document) -> _Wanted:
    key = key_of(document)
    return _Wanted(key, _path(key), document, len(encode_document(document)))


def _check_all(documents: Sequence[Document]) -> list[_Wanted]:
    problems: list[Problem] = []
    wanted: dict[ResourceKey, _Wanted] = {}
    for number, document in enumerate(documents, 1):
        try:
            each = _wanted(document)
        except InputError as error:
            problems += [Problem(path=p.path, value=p.value, allowed=p.allowed, document=number) for p in error.problems]
            continue
        if each.key in wanted:
            problems.append(Problem(path="", value=str(each.key), allowed="a resource may be given once", document=number))
        wanted[each.key] = each
    if problems:
        raise InputError(problems)
    return list(wanted.values())


def _chunks(wanted: Sequence[_Wanted]) -> list[list[_Wanted]]:
    chunks: list[list[_Wanted]] = []
    room = 0
    for each in wanted:
        if not chunks or len(chunks[-1]) == CHUNK or each.size_bytes > room:
            chunks.append([])
            room = CHUNK_BYTES
        chunks[-1].append(each)
        room -= each.size_bytes
    return chunks


def read_item(item: KeyValue) -> Document:
    """The document that is stored, with its resourceVersion.

    Raises:
        DataError: it is no document, or has no metadata.
    """
    document = view_of(item.key, item.value) or decode_document(item.value, item.key)
    if not isinstance(document.get("metadata"), dict):
        raise DataError(item.key, [Problem(path="metadata", value=repr(document.get("metadata"))[:80], allowed="must be an object")])
    return _with_version(document, item.revision)


def _canonical(item: KeyValue) -> bytes | None:
    """What is stored, as we would write it; None when it is no document."""
    try:
        return encode_document(decode_document(item.value, item.key))
    except DataError:
        return None


def _with_version(document: Document, revision: int) -> Document:
    return {**document, "metadata": {**document["metadata"], "resourceVersion": str(revision)}}


def _with_metadata(key: ResourceKey, document: Document, uid: str, created: str) -> Document:
    metadata = {name: member for name, member in document["metadata"].items() if name != "resourceVersion"}
    metadata |= {"uid": uid, "creationTimestamp": created}
    if key.namespace:
        metadata["namespace"] = key.namespace
    return {**document, "metadata": metadata}


def _parse_version(text: object) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and 0 < int(text) < 1 << 63:
        return int(text)
    raise _input_error("metadata.resourceVersion", text, "must be the resourceVersion that the resource was read with")


def _refusal(key: ResourceKey, expected: int, item: KeyValue | None) -> NotFound | Conflict:
    if item is None:
        return NotFound(f"{key} does not exist")
    return Conflict(f"{key} has changed: its resourceVersion is {item.revision}, not {expected}; get it again and repeat the change")


def _input_error(path: str, value: object, allowed: str) -> InputError:
    return InputError([Problem(path=path, value="nothing" if value is None else repr(value)[:80], allowed=allowed)])
