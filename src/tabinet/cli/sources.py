"""``-f FILE|DIR|-``: what the files say, as documents with their places.

In: names from the command line. Out: documents, valid and with defaults, or every problem of every document at once. Documents of
Kubernetes (``networking.k8s.io/v1`` and others, see ``model.kubernetes``) come out as the resources that they mean.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tabinet.cli.completion import complete_files

if TYPE_CHECKING:
    from tabinet.errors import Problem
    from tabinet.model.documents import Document
    from tabinet.model.keys import ResourceKey

SUFFIXES = (".yaml", ".yml", ".json")
"""What is read of a directory."""

Command = TypeVar("Command", bound=Callable[..., Any])


def FILES(command: Command) -> Command:
    """The options ``-f`` and ``-R``, as ``files`` and ``recursive``."""
    files = click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        metavar="FILE|DIR|-",
        shell_complete=complete_files,
        help="YAML or JSON, several documents allowed; of a directory, its .yaml, .yml and .json files; '-' is standard input. Repeatable.",
    )
    recursive = click.option("-R", "--recursive", is_flag=True, help="With -f DIR: the directories in it, too.")
    return files(recursive(command))


def read_documents(files: Sequence[str], *, recursive: bool = False) -> list[Document]:
    """All documents of the files, valid and with defaults.

    Raises:
        InputError: with every problem of every document.
    """
    import msgspec

    from tabinet.errors import InputError
    from tabinet.model.defaults import with_defaults
    from tabinet.model.validate import validate_all

    documents, problems = _load(files, recursive)
    problems += validate_all(documents)
    if problems:
        raise InputError(problems)
    return [msgspec.structs.replace(document, data=with_defaults(document.data)) for document in documents]


def read_keys(files: Sequence[str], *, recursive: bool = False) -> list[ResourceKey]:
    """What the documents of the files are about; the rest of them is not looked at.

    Raises:
        InputError: files that cannot be read, and documents that name no resource.
    """
    from tabinet.errors import InputError
    from tabinet.store.client import key_of

    documents, problems = _load(files, recursive)
    keys = []
    for document in documents:
        try:
            keys.append(key_of(document.data))
        except InputError as error:
            problems += [placed(problem, document) for problem in error.problems]
    if problems:
        raise InputError(problems)
    return keys


def read_own(files: Sequence[str], *, recursive: bool = False) -> list[Document]:
    """All documents of the files as they are written, for kinds that are not resources of the store.

    Raises:
        InputError: files that cannot be read.
    """
    from tabinet.errors import InputError
    from tabinet.model.documents import load_documents

    problems: list[Problem] = []
    documents: list[Document] = []
    for source, data in _read_files(files, recursive, problems):
        try:
            documents += load_documents(data, source)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return documents


def placed(problem: Problem, document: Document) -> Problem:
    """The problem with the place of the document that it is about."""
    import msgspec

    path = ".".join(part for part in (document.within, problem.path) if part)
    return msgspec.structs.replace(problem, path=path, source=document.source, document=document.index, line=document.line)


def place_of(document: Document) -> str:
    """Where a document stands, for messages: ``policies.yaml:12 document 2``."""
    return f"{document.source}:{document.line} document {document.index}" + (f" {document.within}" if document.within else "")


def _load(files: Sequence[str], recursive: bool) -> tuple[list[Document], list[Problem]]:
    from tabinet.errors import InputError
    from tabinet.model.documents import load_documents

    problems: list[Problem] = []
    documents: list[Document] = []
    for source, data in _read_files(files, recursive, problems):
        try:
            loaded = load_documents(data, source)
        except InputError as error:
            problems += error.problems
            continue
        for document in loaded:
            try:
                documents += _converted(document)
            except InputError as error:
                problems += error.problems
    return documents, problems


def _converted(document: Document) -> list[Document]:
    """What a document of Kubernetes (a NetworkPolicy, ...) means in our model; the document itself if it is none.

    Raises:
        InputError: a document of Kubernetes that is wrong.
    """
    from tabinet.model.resources import API_VERSION

    if document.data.get("apiVersion") == API_VERSION:
        return [document]
    from tabinet.model.kubernetes.convert import convert_foreign

    return convert_foreign(document) or [document]


def _read_files(files: Sequence[str], recursive: bool, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    from tabinet.errors import Problem

    for name in files:
        if name == "-":
            yield "standard input", sys.stdin.buffer.read()
            continue
        for path in _paths(Path(name), recursive):
            try:
                data = path.read_bytes()
            except OSError as error:
                problems.append(Problem(path="", value=str(path), allowed=f"must be a readable file ({error.strerror})"))
            else:
                yield str(path), data


def _paths(path: Path, recursive: bool) -> list[Path]:
    """The file itself, or the files of a directory in the order of their names."""
    if not path.is_dir():
        return [path]
    entries = path.rglob("*") if recursive else path.iterdir()
    return sorted(entry for entry in entries if entry.suffix in SUFFIXES and not entry.is_dir())
