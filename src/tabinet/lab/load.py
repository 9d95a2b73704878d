"""Reads a topology file and the resource files that it names.

In: a path. Out: a ``LoadedTopology`` with every resource validated and with defaults, or ``InputError`` with every problem of every file.
Names of resource files are relative to the topology file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.lab.parse import parse_topology
from tabinet.lab.topology import Topology
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document, load_documents
from tabinet.model.validate import validate_all


class LoadedTopology(msgspec.Struct, frozen=True, gc=False):
    """A topology with all that belongs to it."""

    topology: Topology
    source: str
    """The file's path, for people."""
    documents: tuple[dict[str, object], ...]
    """The topology's own resources, in order."""


def load_topology(path: Path) -> LoadedTopology:
    """The topology in ``path``, with its resources.

    Raises:
        InputError: with every problem of the file and of those it names.
    """
    topology = parse_topology(_read(path, "a topology file"), str(path))
    problems: list[Problem] = []
    documents: list[Document] = []
    for index, entry in enumerate(topology.resources):
        where = f"resources[{index}]"
        try:
            documents += _documents(path, where, entry)
        except InputError as error:
            problems += error.problems
    problems += validate_all(documents)
    if problems:
        raise InputError(problems)
    return LoadedTopology(topology, str(path), tuple(with_defaults(document.data) for document in documents))


def _documents(path: Path, where: str, entry: str | dict[str, object]) -> list[Document]:
    if isinstance(entry, dict):
        return [Document(data=entry, source=str(path), index=0, line=0, within=where)]
    file = path.parent / entry
    return list(load_documents(_read(file, f"the file that {where} of {path} names").encode(), str(file)))


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InputError([Problem(path="", value=str(path), allowed=f"must be {what} ({error.strerror})", source=str(path))]) from error
    except UnicodeDecodeError as error:
        raise InputError(
            [Problem(path="", value=str(path), allowed=f"must be text in UTF-8 ({error.reason})", source=str(path))]
        ) from error
