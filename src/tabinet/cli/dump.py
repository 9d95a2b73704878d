"""The form of an exported store: a header line, then one line of JSON for each value, ``{"key": ..., "value": ...}``. Pure.

Values are as they were stored, byte for byte, where they are JSON without line breaks (all that Calico's clients and we write); JSON
with line breaks is written without them, anything else as base64 under ``"base64"``. In: bytes of any kind. Out: entries, or every
problem with its line. Linear.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.model.kept_invariants import INVARIANTS
from tabinet.model.keys import ROOT
from tabinet.model.semantics import show

FORMAT = "tabinet-datastore"
VERSION = 1
REPORTED = ("/calico/felix/", "/calico/openstack/", "/calico/compaction/")
"""What hosts and drivers report or elect among themselves; it is not configuration, and they write it anew."""
MAX_PROBLEMS = 50


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key and what is stored there."""

    key: str
    value: bytes


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    key: str
    value: msgspec.Raw = msgspec.Raw(b"")
    base64: str = ""


def is_exported(key: str) -> bool:
    """True for what an export holds."""
    return key.startswith((ROOT, INVARIANTS)) and not key.startswith(REPORTED)


def render_header() -> bytes:
    """The first line."""
    return msgspec.json.encode(_Header(FORMAT, VERSION)) + b"\n"


def render_entry(entry: Entry) -> bytes:
    """The line of an entry."""
    try:
        decoded = msgspec.json.decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode(_Line(entry.key, base64=base64.b64encode(entry.value).decode())) + b"\n"
    value = msgspec.json.encode(decoded) if b"\n" in entry.value or b"\r" in entry.value else entry.value
    return msgspec.json.encode(_Line(entry.key, value=msgspec.Raw(value))) + b"\n"


def parse_dump(data: bytes, source: str) -> list[Entry]:
    """The entries of an exported store.

    Raises:
        InputError: it is none, or lines of it are broken; says which.
    """
    lines = data.split(b"\n")
    try:
        header = msgspec.json.decode(lines[0], type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        header = _Header("", 0)
    if header.format != FORMAT or header.version != VERSION:
        allowed = "must be what 'tabinet datastore migrate export' wrote; resources from other programs: tabinet apply -f"
        raise InputError([Problem(path="", value=show(lines[0][:60].decode("utf-8", "replace")), allowed=allowed, source=source, line=1)])
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            entry = _entry(decoder.decode(line))
            if entry.key in entries:
                raise ValueError("this key stands twice")
            entries[entry.key] = entry
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, binascii.Error) as error:
            problems.append(
                Problem(path="", value=show(line[:60].decode("utf-8", "replace")), allowed=str(error), source=source, line=number)
            )
            if len(problems) == MAX_PROBLEMS:
                break
    if problems:
        raise InputError(problems)
    return list(entries.values())


def _entry(line: _Line) -> Entry:
    if not is_exported(line.key):
        raise ValueError("this key is not part of an export")
    value = bytes(line.value) if not line.base64 else base64.b64decode(line.base64, validate=True)
    if not value and not line.base64:
        raise ValueError("a value is missing")
    return Entry(line.key, value)
