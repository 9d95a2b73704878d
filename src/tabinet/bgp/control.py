"""BIRD's control socket, spoken directly (see ``replies`` for the protocol).

Each question opens a connection, so that a BIRD that was restarted in between is met without ado; a question takes under a
millisecond. Blocking, with a timeout on everything: callers with an event loop use a thread. It keeps no state but the path.
"""

from __future__ import annotations

import enum
import socket
import time
from pathlib import Path

from tabinet.bgp.records import SessionStatus
from tabinet.bgp.replies import (
    BirdStatus,
    ReplyLine,
    TableCount,
    error_in,
    parse_reply,
    parse_route_count,
    parse_sessions,
    parse_status,
)
from tabinet.bgp.routes import RouteStatus, parse_routes
from tabinet.errors import BirdError

READ_BYTES = 1 << 16
LONGEST_REPLY_BYTES = 1 << 28
NO_BFD = "no BFD protocol"


class Configured(enum.Enum):
    """What became of ``configure``."""

    DONE = "done"
    IN_PROGRESS = "in progress"
    """BIRD accepted the file and is still ending old protocols."""


class BirdAway(BirdError):
    """Nothing answers on the socket."""


class BirdControl:
    """One BIRD, by the path of its control socket."""

    __slots__ = ("path", "timeout_s")

    def __init__(self, path: Path, timeout_s: float = 3.0) -> None:
        self.path = path
        self.timeout_s = timeout_s

    def ask(self, command: str) -> tuple[ReplyLine, ...]:
        """BIRD's reply to a command.

        Raises:
            BirdAway: nothing answers, or not in time.
            BirdError: BIRD refuses the command, or what answers is not BIRD.
        """
        if "\n" in command:
            raise ValueError("a command is one line")
        reply = self._exchange(command)
        error = error_in(reply)
        if error:
            raise BirdError(f"{command}: {error}")
        return reply

    def status(self) -> BirdStatus:
        """Version, and when BIRD read its file last. Raises ``BirdError`` as ``ask`` does; so do all below."""
        return parse_status(self.ask("show status"))

    def check(self, path: Path) -> None:
        """BIRD accepts the file. Raises BirdError with file, line and column when it does not."""
        self.ask(f"configure check {_quoted(path)}")

    def configure(self, *, soft: bool = False) -> Configured:
        """BIRD read its file again. With ``soft`` it does not ask peers for their routes again when a filter changed."""
        reply = self.ask("configure soft" if soft else "configure")
        return Configured.IN_PROGRESS if any(line.code == 4 for line in reply) else Configured.DONE

    def sessions(self) -> tuple[SessionStatus, ...]:
        """Every BGP session, by name."""
        protocols = self.ask("show protocols all")
        try:
            bfd = self.ask("show bfd sessions")
        except BirdAway:
            raise
        except BirdError as error:
            if NO_BFD not in str(error):
                raise
            bfd = ()
        return parse_sessions(protocols, bfd)

    def enable(self, name: str) -> None:
        """The protocol is begun, if it was disabled."""
        self.ask(f'enable "{name}"')

    def route_count(self) -> tuple[TableCount, ...]:
        """How many routes each of BIRD's tables has."""
        return parse_route_count(self.ask("show route count"))

    def routes(self, limit: int) -> tuple[RouteStatus, ...]:
        """The first ``limit`` routes of BIRD's main tables, of each prefix the best first. BIRD tells all of them, whatever the limit."""
        return parse_routes(self.ask("show route"), limit)

    def graceful_restart(self) -> None:
        """BIRD ends without telling its peers, which keep its routes (RFC 4724), and leaves the kernel's as they are."""
        self.ask("graceful restart")

    def down(self) -> None:
        """BIRD ends, and its peers withdraw its routes. The kernel's stay (``persist``)."""
        self.ask("down")

    def is_running(self) -> bool:
        """True when a BIRD accepts connections."""
        try:
            self.status()
        except BirdError:
            return False
        return True

    def _exchange(self, command: str) -> tuple[ReplyLine, ...]:
        deadline = time.monotonic() + self.timeout_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self.timeout_s)
                connection.connect(str(self.path))
                _greeting, rest = _read_reply(connection, b"", deadline)
                connection.sendall(command.encode() + b"\n")
                reply, _rest = _read_reply(connection, rest, deadline)
        except TimeoutError as error:
            raise BirdAway(f"BIRD at {self.path} did not answer {command!r} within {self.timeout_s} s") from error
        except OSError as error:
            raise BirdAway(f"BIRD does not answer at {self.path}: {error.strerror or error}") from error
        return reply


def _read_reply(connection: socket.socket, data: bytes, deadline: float) -> tuple[tuple[ReplyLine, ...], bytes]:
    """One reply and what came after it. Bytes are parsed again only when a line that may be the last has come."""
    chunks = [data]
    size = len(data)
    while True:
        joined = b"".join(chunks)
        found = parse_reply(joined) if joined.endswith(b"\n") else None
        if found is not None:
            return found
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        chunk = connection.recv(READ_BYTES)
        if not chunk:
            raise BirdAway("BIRD closed the control socket in the middle of a reply")
        size += len(chunk)
        if size > LONGEST_REPLY_BYTES:
            raise BirdError("BIRD's reply does not end")
        chunks = [joined, chunk]


def _quoted(path: Path) -> str:
    """``path`` as a string of BIRD, which knows no escapes."""
    if '"' in str(path) or "\n" in str(path):
        raise ValueError(f"BIRD cannot read a file named {str(path)!r}")
    return f'"{path}"'
