"""Every error that Tabinet raises on purpose, as one tree.

TabinetError
├── InputError          what an operator gave us is wrong: carries every Problem found, nothing was changed
├── DataError           a value in the store (or from a peer) is wrong: it is dropped, reported, and fails closed
├── StoreError
│   ├── StoreUnavailable    no answer, or the connection broke; try again
│   ├── StoreDenied         user, password or certificate refused
│   ├── Conflict            somebody else wrote first (compare-and-swap failed)
│   ├── AlreadyExists       create of a key that exists
│   ├── NotFound            get, update or delete of a key that does not exist
│   └── Compacted           the revision asked for is gone; list again
├── KernelError         the kernel refused an operation: carries errno and what was asked
│   └── KernelOverrun       messages from the kernel were lost: read everything again
├── BirdError           BIRD refused a configuration or a command, or does not answer
├── PacketError         bytes that a guest or a server sent are no message of the protocol: they are dropped
├── AddressError        no address could be assigned: carries which pools were tried and why each failed
├── AttachError         a workload could not be attached, or was not ready in time; nothing is left behind
├── CniError            a CNI call has no result: carries the specification's error code
├── SetupError          the machine lacks something (root, a program, a kernel feature): says what to do
└── LabError            a lab could not be made, found or changed

Bugs of our own are not in this tree: they raise Python's own exceptions and end the process.
"""

from __future__ import annotations

import errno
import os

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with one document: where it is, what is there, what may be there."""

    path: str
    """Dotted path in the document, as in ``spec.ingress[0].protocol``; empty for the whole document."""
    value: str
    """The offending value, shortened, as the reader would write it."""
    allowed: str
    """What is allowed there, in words."""
    source: str = ""
    """File name, or store key; empty when unknown."""
    document: int = 0
    """Which document of a file with several, counted from 1; 0 when that does not apply."""
    line: int = 0
    """Line of the file where the document begins, from 1; 0 when unknown."""

    def __str__(self) -> str:
        where = self.source
        if self.line:
            where += f":{self.line}"
        if self.document:
            where += f" document {self.document}"
        parts = [part for part in (where.strip(), self.path) if part]
        return f"{': '.join(parts)}: got {self.value}; {self.allowed}"


class TabinetError(Exception):
    """The root: catching it catches everything that is not a bug."""


class InputError(TabinetError):
    """Operator input is wrong; nothing was changed."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class DataError(TabinetError):
    """A stored value is wrong; whoever reads it drops it and reports it."""

    def __init__(self, key: str, problems: list[Problem]) -> None:
        self.key = key
        self.problems = problems
        super().__init__(f"{key}: " + "; ".join(f"{p.path}: got {p.value}; {p.allowed}" for p in problems))


class StoreError(TabinetError):
    """The datastore could not do what was asked."""


class StoreUnavailable(StoreError):
    """The datastore does not answer, or the connection broke."""


class StoreDenied(StoreError):
    """The datastore refuses the credentials, or the user lacks the permission."""


class Conflict(StoreError):
    """The key changed since it was read."""


class AlreadyExists(StoreError):
    """The key to be created exists."""


class NotFound(StoreError):
    """The key does not exist."""


class Compacted(StoreError):
    """The revision asked for has been compacted away: list again."""

    def __init__(self, compact_revision: int) -> None:
        self.compact_revision = compact_revision
        super().__init__(f"revisions before {compact_revision} are compacted")


class KernelError(TabinetError):
    """The kernel refused an operation."""

    def __init__(self, errno: int, operation: str, explanation: str = "") -> None:
        self.errno = errno
        self.operation = operation
        self.explanation = explanation
        """The kernel's own words (extended acknowledgement), where it gave any."""
        words = f": {explanation}" if explanation else ""
        super().__init__(f"{operation}: {os.strerror(errno)} (errno {errno}){words}")


class KernelOverrun(KernelError):
    """The kernel had more to say than the socket could hold: what we know is incomplete, so read again."""

    def __init__(self, operation: str) -> None:
        super().__init__(errno.ENOBUFS, operation)


class BirdError(TabinetError):
    """BIRD refused a configuration or command, or does not answer."""


class PacketError(TabinetError):
    """Bytes are no message of the protocol that they came by."""


class AddressError(TabinetError):
    """No address could be assigned."""


class AttachError(TabinetError):
    """A workload could not be attached, or was not ready in time."""


class CniError(TabinetError):
    """A CNI call has no result."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        """As the CNI specification counts; from 100 our own."""
        self.details = details
        super().__init__(message)


class SetupError(TabinetError):
    """The machine lacks something; the message says what to do."""


class LabError(TabinetError):
    """A lab could not be made, found or changed."""
