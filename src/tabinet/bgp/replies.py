"""What BIRD answers on its control socket, as values.

The protocol (BIRD 2 developer documentation, nest/cli.c): a command is one line; a reply is lines ``NNNN-text`` (more follows),
`` text`` (the code of the line before), and one last ``NNNN text``. Codes 8xxx and 9xxx are errors. In: bytes. Out: records, or
``BirdError``; no other exception whatever the bytes. Pure; linear in the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from tabinet.bgp.reasons import reason_of
from tabinet.bgp.records import RECOVERY, Channel, SessionState, SessionStatus
from tabinet.errors import BirdError

CODE_STATUS_VERSION = 1000
CODE_PROTOCOL = 1002
CODE_PROTOCOL_DETAILS = 1006
CODE_ROUTES = 1007
CODE_BFD = 1020
FIRST_ERROR = 8000

_COUNT = re.compile(r"(\d{1,18}) of (\d{1,18}) routes for (\d{1,18}) networks in table (\S+)")
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?"
_PROTOCOL = re.compile(rf"(\S+)\s+BGP\s+(\S+)\s+(\S+)\s+({_TIME}|\S+)\s*(.*)")
_BFD = re.compile(r"(\S+)\s+(\S+)\s+(Up|Down|Init|AdminDown)\s(?:.*\s(\d{1,6})\.(\d{3})\s+(\d{1,6})\.(\d{3})\s*$)?")
_ROUTES = re.compile(r"(\d{1,18}) (imported|filtered|exported|preferred)")
_UPDATES = re.compile(r"(?:\S+\s+){2}(\d{1,18})\s")


class ReplyLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a reply."""

    code: int
    text: str


class BirdStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Answer to ``show status``."""

    version: str = ""
    router_id: str = ""
    last_reconfiguration_s: float | None = None
    """Unix time; BIRD has read its file at that time. ``None`` when BIRD prints times in another format than ours."""
    started: str = ""
    """When BIRD was started, as it prints it."""
    configured: str = ""
    """When it read its file last, as it prints it."""
    message: str = ""
    """What it is doing, as in ``Daemon is up and running``."""


class BfdStatus(msgspec.Struct, frozen=True, gc=False):
    """One of the sessions in the answer to ``show bfd sessions``."""

    state: str = ""
    interval_ms: int = 0
    timeout_ms: int = 0


class TableCount(msgspec.Struct, frozen=True, gc=False):
    """Routes in one of BIRD's tables."""

    table: str
    routes: int
    networks: int


def parse_reply(data: bytes) -> tuple[tuple[ReplyLine, ...], bytes] | None:
    """The first complete reply in ``data`` and the bytes after it; ``None`` when more has to be read.

    Raises:
        BirdError: these are not replies of BIRD.
    """
    lines: list[ReplyLine] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        raw = data[start:end]
        start = end + 1
        if raw.startswith(b" ") and lines:
            lines.append(ReplyLine(lines[-1].code, raw[1:].decode(errors="replace")))
            continue
        if len(raw) < 5 or not raw[:4].isdigit() or raw[4:5] not in (b" ", b"-"):
            raise BirdError(f"the control socket does not speak BIRD's protocol: {raw[:80]!r}")
        lines.append(ReplyLine(int(raw[:4]), raw[5:].decode(errors="replace")))
        if raw[4:5] == b" ":
            return tuple(lines), data[start:]
    return None


def error_in(reply: Sequence[ReplyLine]) -> str:
    """BIRD's message when the reply is an error; empty when it is not."""
    return next((line.text or f"error {line.code}" for line in reply if line.code >= FIRST_ERROR), "")


def parse_status(reply: Sequence[ReplyLine]) -> BirdStatus:
    """The answer to ``show status``."""
    version = router_id = started = configured = ""
    for line in reply:
        if line.code == CODE_STATUS_VERSION:
            version = line.text.removeprefix("BIRD ")
        elif line.text.startswith("Router ID is "):
            router_id = line.text.removeprefix("Router ID is ")
        elif line.text.startswith("Last reconfiguration on "):
            configured = line.text.removeprefix("Last reconfiguration on ")
        elif line.text.startswith("Last reboot on "):
            started = line.text.removeprefix("Last reboot on ")
    return BirdStatus(
        version=version,
        router_id=router_id,
        last_reconfiguration_s=parse_time(configured),
        started=started,
        configured=configured,
        message=reply[-1].text if reply else "",
    )


def parse_time(text: str) -> float | None:
    """Unix time of BIRD's local time in the format ``iso long``, with or without fractions; ``None`` for any other text."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def parse_route_count(reply: Sequence[ReplyLine]) -> tuple[TableCount, ...]:
    """The answer to ``show route count``, a record for each table."""
    found = (_COUNT.match(line.text) for line in reply if line.code == CODE_ROUTES)
    return tuple(TableCount(match[4], int(match[2]), int(match[3])) for match in found if match)


def parse_sessions(protocols: Sequence[ReplyLine], bfd: Sequence[ReplyLine]) -> tuple[SessionStatus, ...]:
    """The BGP sessions in the answers to ``show protocols all`` and ``show bfd sessions``, by name."""
    states = {}
    for line in bfd:
        match = _BFD.match(line.text)
        if line.code == CODE_BFD and match:
            # Link-local addresses can be the same on several interfaces.
            interval_ms, timeout_ms = (int((match[n] or "0") + (match[n + 1] or "")) for n in (4, 6))
            states[match[1]] = states[f"{match[1]}%{match[2]}"] = BfdStatus(match[3], interval_ms, timeout_ms)
    return tuple(sorted(_each_session(protocols, states), key=lambda session: session.name))


def _each_session(protocols: Sequence[ReplyLine], bfd: dict[str, BfdStatus]) -> Iterator[SessionStatus]:
    head: re.Match[str] | None = None
    details: list[str] = []
    for line in protocols:
        if line.code == CODE_PROTOCOL:
            if head:
                yield _session(head, details, bfd)
            head, details = _PROTOCOL.fullmatch(line.text), []
            if head and head[1] == RECOVERY:
                head = None
        elif line.code == CODE_PROTOCOL_DETAILS:
            details.append(line.text.strip())
    if head:
        yield _session(head, details, bfd)


def _session(head: re.Match[str], details: list[str], bfd: dict[str, BfdStatus]) -> SessionStatus:
    values: dict[str, str] = {}
    for text in details:
        key, colon, value = text.partition(":")
        if colon:
            values.setdefault(key, value.strip())
    neighbour = values.get("Neighbor address", "")
    address = neighbour.partition("%")[0]
    state = _state(values.get("BGP state", ""))
    as_number = values.get("Neighbor AS", "")
    error = values.get("Last error", "")
    path = bfd.get(neighbour) or bfd.get(address) or BfdStatus()
    session = SessionStatus(
        name=head[1],
        peer=values.get("Description") or head[1],
        address=address,
        peer_as=int(as_number) if re.fullmatch(r"[0-9]{1,10}", as_number) else None,
        state=state,
        since=head[4],
        last_error=error,
        bfd=path.state,
        bfd_interval_ms=path.interval_ms,
        bfd_timeout_ms=path.timeout_ms,
        channels=tuple(_channels(details)),
    )
    return msgspec.structs.replace(session, reason=reason_of(session))


def _state(text: str) -> SessionState:
    try:
        return SessionState(text)
    except ValueError:
        return SessionState.DOWN


def _channels(details: list[str]) -> Iterator[Channel]:
    family = 0
    counts: dict[str, int] = {}
    for text in [*details, "Channel end"]:
        if text.startswith("Channel "):
            if family:
                yield Channel(
                    family, counts.get("imported", 0), counts.get("filtered", 0), counts.get("exported", 0), counts.get("preferred", 0)
                )
            family, counts = {"Channel ipv4": 4, "Channel ipv6": 6}.get(text, 0), {}
        elif text.startswith("Routes:"):
            counts |= {match[2]: int(match[1]) for match in _ROUTES.finditer(text)}
        elif text.startswith("Import updates:"):
            # BIRD lists filtered routes under "Routes" only when it is told to keep them; the updates it refused are always counted.
            updates = _UPDATES.match(text.removeprefix("Import updates:").strip() + " ")
            counts.setdefault("filtered", int(updates[1]) if updates else 0)
