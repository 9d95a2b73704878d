"""Values of the address management, shown as resources: IPAMBlock, IPAMHandle, BlockAffinity.

These kinds are for looking: what is stored are the values under ``/calico/ipam/v2/``, which only the address management writes. In: paths
and bytes of the store, or kind and name as people say them. Out: documents, and the paths where to look. Names are Calico's:
``10-0-0-0-26`` for a block, ``<owner>-10-0-0-0-26`` for an affinity, the handle's own name in lower case for a handle. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.codec import decode_document
from tabinet.model.keys import (
    AFFINITIES,
    BLOCKS,
    HANDLES,
    VIRTUAL_AFFINITIES,
    AffinityKey,
    BlockKey,
    HandleKey,
    VirtualAffinityKey,
    parse_path,
    path_of,
)
from tabinet.model.records.base import API_VERSION

_PREFIXES = {
    "BlockAffinity": (AFFINITIES, VIRTUAL_AFFINITIES),
    "IPAMBlock": (BLOCKS,),
    "IPAMHandle": (HANDLES,),
}
_IPV4 = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-(\d+)")


def view_prefixes(kind: str) -> tuple[str, ...]:
    """The prefixes below which everything is stored that a kind shows.

    Raises:
        ValueError: the kind is no view.
    """
    if kind not in _PREFIXES:
        raise ValueError(f"{kind} is not a view")
    return _PREFIXES[kind]


def view_paths(kind: str, name: str) -> tuple[str, ...]:
    """Where the resource ``name`` of a view may be stored, most likely first; empty when nothing can have that name.

    There can be several places because names of affinities do not say where the owner ends, nor whether it is a host.

    Raises:
        ValueError: the kind is no view.
    """
    view_prefixes(kind)
    match kind:
        case "IPAMBlock":
            block = _parse_block_name(name)
            return () if block is None else (path_of(BlockKey(block)),)
        case "IPAMHandle":
            return (path_of(HandleKey(name)),) if name and "/" not in name else ()
        case _:
            owned = list(_splits(name))
            hosts = [path_of(AffinityKey(owner, block)) for owner, block in owned]
            return (*hosts, *(path_of(VirtualAffinityKey(owner, block)) for owner, block in owned))


def view_of(path: str, value: bytes) -> dict[str, Any] | None:
    """The document that shows what is stored at ``path``; ``None`` for paths that no view shows.

    Raises:
        DataError: the value is no JSON object.
    """
    match parse_path(path):
        case BlockKey(block):
            return _document("IPAMBlock", block_name(block), decode_document(value, path))
        case HandleKey(handle):
            return _document("IPAMHandle", handle.lower(), {"handleID": handle, **decode_document(value, path)})
        case AffinityKey(owner, block):
            return _affinity(owner, "host", block, decode_document(value, path))
        case VirtualAffinityKey(owner, block):
            return _affinity(owner, "virtual", block, decode_document(value, path))
        case _:
            return None


def block_name(block: Prefix) -> str:
    """``10-0-0-0-26`` for 10.0.0.0/26, ``fd00---122`` for fd00::/122."""
    return re.sub(r"[.:/]", "-", f"{block.address}/{block.length}")


def _affinity(owner: str, kind: str, block: Prefix, stored: dict[str, Any]) -> dict[str, Any]:
    spec = {
        **stored,
        "node": owner,
        "type": kind,
        "cidr": str(block),
        "deleted": "true" if stored.get("deleted") in (True, "true") else "false",
    }
    return _document("BlockAffinity", f"{owner}-{block_name(block)}", spec)


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _parse_block_name(name: str) -> Prefix | None:
    if found := _IPV4.fullmatch(name):
        text = "{}.{}.{}.{}/{}".format(*found.groups())
    else:
        address, _, length = name.rpartition("-")
        text = f"{address.replace('-', ':')}/{length}"
    try:
        block = parse_prefix(text, strict=True)
    except ValueError:
        return None
    return block if block_name(block) == name else None


def _splits(name: str) -> Iterator[tuple[str, Prefix]]:
    """Every way to read ``<owner>-<block>``, longest owner first."""
    for position in range(len(name) - 1, 0, -1):
        if name[position] == "-" and (block := _parse_block_name(name[position + 1 :])) is not None:
            yield name[:position], block
