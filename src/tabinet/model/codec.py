"""Stored bytes to records, and documents to stored bytes.

Readers get typed views: ``decode_stored`` says what a path and a value mean, ignores fields that it does not know, and refuses
values that must not be acted on. Writers work on plain documents (``dict``), never on views: they read with ``decode_document``, change
what they want to change and write with ``encode_document``. So fields that we do not know survive a read and a write.

Go writes ``null`` for empty lists and maps; a member that is null is taken as absent. In: bytes of any kind. Out: a value or ``DataError``.
Linear in the size of the value.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.lib.ip import parse_prefix
from tabinet.model import ipam
from tabinet.model.arrivals import Arrival
from tabinet.model.holders import Holder
from tabinet.model.keys import (
    IPAM_CONFIG,
    AffinityKey,
    ArrivalKey,
    BlockKey,
    HandleKey,
    HolderKey,
    Key,
    ResourceKey,
    VirtualAffinityKey,
    parse_path,
)
from tabinet.model.kinds import BY_NAME
from tabinet.model.resources import Resource
from tabinet.model.semantics import problems_of, show

Record = Resource | ipam.IpamRecord | Arrival | Holder

_MAX_DEPTH = 200
_SELECTORS: tuple[str, ...] = ("selector", "namespaceSelector", "serviceAccountSelector")


def decode_stored(path: str, value: bytes) -> tuple[Key, Record] | None:
    """The key that ``path`` means and the record in ``value``; ``None`` when the path is not ours to interpret.

    Raises:
        DataError: the value does not decode, or holds something that must not be acted on; says everything that is wrong.
    """
    key = parse_path(path)
    if key is None:
        return None
    record = _decode(_decoder_of(key), path, value)
    problems = _problems_of(key, record)
    if problems:
        raise DataError(path, problems)
    return key, record


def _decoder_of(key: Key) -> msgspec.json.Decoder[Any]:
    match key:
        case ResourceKey(kind):
            return _decoder(BY_NAME[kind].record)
        case AffinityKey() | VirtualAffinityKey():
            return _decoder(ipam.Affinity)
        case BlockKey():
            return _decoder(ipam.Block)
        case HandleKey():
            return _decoder(ipam.Handle)
        case ArrivalKey():
            return _decoder(Arrival)
        case HolderKey():
            return _decoder(Holder)


@functools.cache
def _decoder(record: type[Record]) -> msgspec.json.Decoder[Any]:
    """The decoder of a record; made when it is needed first, because all of them take longer than a command should."""
    return msgspec.json.Decoder(record)


def _decode(decoder: msgspec.json.Decoder[Any], path: str, value: bytes) -> Record:
    """The record; when a first attempt fails, a second one without the members that are null."""
    if path != IPAM_CONFIG:
        try:
            return decoder.decode(value)  # type: ignore[no-any-return]  # the decoder's type is chosen by the key
        except RecursionError:
            raise DataError(path, [_problem("", _excerpt(value), "nested too deeply")]) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    document = decode_document(value, path)
    try:
        return msgspec.convert(_without_nulls(document), decoder.type)  # type: ignore[no-any-return]  # as above
    except msgspec.ValidationError as error:
        where, allowed = _place_of(error)
        raise DataError(path, [_problem(where, show(_at(document, where)), allowed)]) from None


def _problem(path: str, value: str, allowed: str) -> Problem:
    return Problem(path=path, value=value, allowed=allowed)


def _excerpt(value: bytes) -> str:
    return show(value[:80].decode("utf-8", "replace"))


def _place_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """Path and reason of msgspec's message: "Expected `str`, got `int` - at `$.spec.tier`"."""
    reason, _, place = str(error).partition(" - at `")
    return place.rstrip("`").removeprefix("$").removeprefix("."), reason[:1].lower() + reason[1:]


def _at(document: Any, path: str) -> Any:
    """What stands at a path of ``_place_of``; the document itself where that cannot be followed."""
    found = document
    for step in path.replace("[", ".[").split("."):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step[1:-1].isdigit() and int(step[1:-1]) < len(found):
            found = found[int(step[1:-1])]
        elif step:
            break
    return found


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(member) for name, member in value.items() if member is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def _problems_of(key: Key, record: Record) -> list[Problem]:
    match key, record:
        case ResourceKey(kind), Resource():
            if record.kind not in ("", kind):
                return [_problem("kind", show(record.kind), f"must be {kind}, as the path says")]
            return problems_of(record)
        case BlockKey(block), ipam.Block():
            return _problems_of_block(block, record)
        case HandleKey(), ipam.Handle():
            return [_problem("block", show(cidr), "must be a prefix") for cidr in record.block if not _is_prefix(cidr)]
        case _:
            return []


def _problems_of_block(prefix: Any, block: ipam.Block) -> list[Problem]:
    problems = []
    if not _is_prefix(block.cidr) or parse_prefix(block.cidr) != prefix:
        problems.append(_problem("cidr", show(block.cidr), f"must be {prefix}, as the path says"))
    if prefix.size > 1 << 16 or len(block.allocations) != prefix.size:
        problems.append(_problem("allocations", f"{len(block.allocations)} entries", f"must have {prefix.size}, one for each address"))
    for ordinal, index in enumerate(block.allocations):
        if index is not None and not 0 <= index < len(block.attributes):
            problems.append(_problem(f"allocations[{ordinal}]", str(index), "must be the index of an attribute"))
    for position, ordinal in enumerate(block.unallocated):
        if not 0 <= ordinal < len(block.allocations):
            problems.append(_problem(f"unallocated[{position}]", str(ordinal), "must be an ordinal of the block"))
    return problems


def _is_prefix(text: str) -> bool:
    try:
        parse_prefix(text)
    except ValueError:
        return False
    return True


# --- documents ------------------------------------------------------------------------------------------------------


def decode_document(value: bytes, source: str = "") -> dict[str, Any]:
    """The document that was stored, with everything in it. ``source`` is where: the configuration of the address management, which is
    stored in another form, comes out as an IPAMConfiguration.

    Raises:
        DataError: not a JSON object in UTF-8, or nested deeper than 200 levels; ``source`` is named in it.
    """
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(source, [_problem("", _excerpt(value), f"not JSON: {error}")]) from None
    except RecursionError:
        document = None
        reason = "nested too deeply"
    else:
        reason = "must be a JSON object" if not isinstance(document, dict) else ""
    if not reason and _deeper_than(document, _MAX_DEPTH):
        reason = f"nested deeper than {_MAX_DEPTH} levels"
    if reason or not isinstance(document, dict):
        raise DataError(source, [_problem("", _excerpt(value), reason)])
    return ipam.config_document(document) if source == IPAM_CONFIG else document


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer) if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def encode_document(document: dict[str, Any]) -> bytes:
    """The document as it is stored: compact JSON with sorted names, so that equal documents are equal bytes.

    ``metadata.resourceVersion`` is left out: the store's revision takes its place. Of an IPAMConfiguration only its ``spec`` is stored,
    with other names (see ``ipam``).

    Raises:
        TypeError, ValueError: something in it cannot be JSON.
    """
    if document.get("kind") == "IPAMConfiguration":
        return msgspec.json.encode(ipam.config_value(document), order="deterministic")
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and "resourceVersion" in metadata:
        kept = {name: member for name, member in metadata.items() if name != "resourceVersion"}
        document = {**document, "metadata": kept}
    return msgspec.json.encode(document, order="deterministic")


# --- failing closed -------------------------------------------------------------------------------------------------


def fail_closed(path: str, value: bytes) -> tuple[Key, Record] | None:
    """What to act on in place of a broken policy, profile or tier, so that what it would have allowed is denied.

    - A policy of which at least the selectors can be read: the same selectors, tier and order as far as they can be read, and in each of
      its directions (in both where they cannot be read) the one rule Deny.
    - A profile: no rules; the labels that it applies, if they can be read.
    - A tier: its order, if it can be read, and the default action Deny.
    - A workload endpoint, if single addresses are all that is broken: the endpoint without them. (Neutron's driver writes address pairs
      that are prefixes as ``10.99.0.0/24/32``.) What is no address can neither be sent from nor be reached.
    - ``None`` for everything else: without selector nobody knows whom a policy is about, and a broken pool or node allows nothing when it
      is left out.
    """
    key = parse_path(path)
    if not isinstance(key, ResourceKey):
        return None
    if key.kind == "WorkloadEndpoint":
        endpoint = _without_broken_addresses(key, value)
        return None if endpoint is None else (key, endpoint)
    if key.kind not in ("NetworkPolicy", "GlobalNetworkPolicy", "Profile", "Tier"):
        return None
    try:
        spec = _without_nulls(decode_document(value)).get("spec")
    except DataError:
        spec = None
    readable: dict[str, Any] = spec if isinstance(spec, dict) else {}
    match key.kind:
        case "Profile":
            return key, _closed(key, {}, readable, ("labelsToApply",))
        case "Tier":
            return key, _closed(key, {"defaultAction": "Deny"}, readable, ("order",))
        case _ if isinstance(spec, dict):
            policy = _closed_policy(key, readable)
            return None if policy is None else (key, policy)
        case _:
            return None


_ADDRESSES = ("ipNetworks", "ipNATs", "allowSpoofedSourcePrefixes")


def _without_broken_addresses(key: ResourceKey, value: bytes) -> Record | None:
    try:
        document = _without_nulls(decode_document(value))
    except DataError:
        return None
    spec = document.get("spec")
    if not isinstance(spec, dict) or not all(isinstance(spec.get(name, []), list) for name in _ADDRESSES):
        return None
    fine = {name: [item for item in spec[name] if _is_fine(key, {name: [item]})] for name in _ADDRESSES if name in spec}
    try:
        record = msgspec.convert({**document, "kind": key.kind, "spec": {**spec, **fine}}, BY_NAME[key.kind].record)
    except (msgspec.ValidationError, RecursionError):
        return None
    return None if problems_of(record) else record


def _closed_policy(key: ResourceKey, readable: dict[str, Any]) -> Record | None:
    selectors: dict[str, Any] = {name: readable[name] for name in _SELECTORS if name in readable}
    if not _is_fine(key, selectors):
        return None
    types = ["Ingress", "Egress"]
    stated = readable.get("types")
    if stated and _is_fine(key, {"types": stated}):
        types = stated
    elif not stated and not readable.get("egress"):
        types = ["Ingress"]
    deny = {kind.lower(): [{"action": "Deny"}] for kind in types}
    return _closed(key, {**selectors, **deny, "types": types}, readable, ("tier", "order", "applyOnForward"))


def _closed(key: ResourceKey, spec: dict[str, Any], readable: dict[str, Any], wanted: tuple[str, ...]) -> Record:
    """The record of ``spec``, with those of the ``wanted`` members of ``readable`` that can be understood."""
    for name in wanted:
        if name in readable and _is_fine(key, {name: readable[name]}):
            spec[name] = readable[name]
    return _record(key, spec)


def _is_fine(key: ResourceKey, spec: dict[str, Any]) -> bool:
    try:
        return not problems_of(_record(key, spec))
    except (msgspec.ValidationError, RecursionError):
        return False


def _record(key: ResourceKey, spec: dict[str, Any]) -> Resource:
    shell = {"kind": key.kind, "metadata": {"name": key.name, "namespace": key.namespace}, "spec": spec}
    return msgspec.convert(shell, BY_NAME[key.kind].record)
