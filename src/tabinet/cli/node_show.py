"""Hosts as text and as JSON: the tables of ``calicoctl node status``, with what it does not know. Pure but for printing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
import msgspec

from tabinet.cli.node_views import NodeView
from tabinet.cli.output import printable, show_json, show_table
from tabinet.model.report import HostReport, SessionReport

TYPES = {"mesh": "node-to-node mesh", "node": "node specific", "global": "global", "workload": "workload"}
"""What calicoctl calls where a session comes from; ``workload`` is Tabinet's own."""
COLUMNS = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO", "AS", "IN", "OUT", "BFD", "PEERING")
DRAIN = {"": "", "true": "draining", "withdrawn": "withdrawn"}


def show_status(views: Sequence[NodeView], *, as_json: bool) -> None:
    """Prints everything that is known of each host."""
    if as_json:
        show_json({"nodes": [_as_json(view) for view in views]})
        return
    for index, view in enumerate(views):
        if index:
            click.echo()
        for text in render_status(view):
            click.echo(printable(text))


def _as_json(view: NodeView) -> dict[str, object]:
    return {
        "name": view.name,
        "healthy": not view.troubles,
        "source": view.source,
        "lastSeen": view.last_seen,
        "addresses": view.addresses,
        "drain": view.drain,
        "troubles": view.troubles,
        "report": msgspec.to_builtins(view.report) if view.report else None,
    }


def render_status(view: NodeView) -> Iterator[str]:
    """The lines about one host."""
    report = view.report
    yield f"Node {view.name}"
    if report is None:
        yield f"Agent: does not report{f', last seen {view.last_seen}' if view.last_seen else ''}"
    else:
        yield from _render_daemons(view, report)
        yield from _render_sessions(report.sessions)
    if view.troubles:
        yield ""
        yield "What is wrong:"
        yield from (f"  {trouble}" for trouble in view.troubles)


def _render_daemons(view: NodeView, report: HostReport) -> Iterator[str]:
    if view.source == "bird":
        yield "Agent: does not answer; this is what BIRD says"
    else:
        ready = report.endpoints_ready
        follows = "follows the store" if report.in_sync else "does not follow the store"
        yield f"Agent: {report.version}, runs since {report.started}, {follows}"
        yield f"Kernel: revision {report.revision}, {ready} of {ready + report.endpoints_waiting} endpoints ready"
    if report.bird_version:
        since = f", runs since {_seconds(report.bird_started)}, configured {_seconds(report.bird_configured)}"
        number = f", AS {report.as_number}" if report.as_number else ""
        yield f"BIRD: {report.bird_version}, router ID {report.router_id}{number}{since}"
    if view.drain or report.drain:
        asked, done = (DRAIN.get(word, word) for word in (view.drain, report.drain))
        yield f"Drain: {done or 'not yet'}" + (f" (asked for: {asked or 'none'})" if asked != done else "")


def _render_sessions(sessions: Sequence[SessionReport]) -> Iterator[str]:
    four = [session for session in sessions if session.address and ":" not in session.address]
    six = [session for session in sessions if ":" in session.address]
    unknown = [session for session in sessions if not session.address]
    for title, found in (("IPv4 BGP status", four), ("IPv6 BGP status", six), ("BGP with peers whose address is not known", unknown)):
        if found:
            yield ""
            yield title
            yield from boxed(COLUMNS, [_row(session) for session in found])
    for family, found in ((4, four), (6, six)):
        if not found:
            yield ""
            yield f"No IPv{family} peers found."


def _row(session: SessionReport) -> tuple[str, ...]:
    kind = TYPES.get(session.origin, session.origin or "-")
    bfd = session.bfd + (f" {session.bfd_interval_ms} ms" if session.bfd_interval_ms else "")
    if session.bfd and session.bfd_timeout_ms:
        bfd += f", dead after {session.bfd_timeout_ms} ms"
    return (
        session.address or session.peer,
        kind,
        session.state,
        _seconds(session.since),
        session.bgp_state,
        str(session.peer_as or "-"),
        str(session.imported),
        str(session.exported),
        bfd or "-",
        session.peer,
    )


def _seconds(text: str) -> str:
    """A time of BIRD without fractions."""
    return text.partition(".")[0] or "-"


def boxed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table as calicoctl draws them."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield rule
    yield "|" + "|".join(f" {name.center(width)} " for name, width in zip(columns, widths, strict=True)) + "|"
    yield rule
    for row in rows:
        yield "|" + "|".join(f" {cell.ljust(width)} " for cell, width in zip(row, widths, strict=True)) + "|"
    yield rule


def show_list(views: Sequence[NodeView], *, as_json: bool, now: datetime | None = None) -> None:
    """Prints one line for each host."""
    foremost = max((view.report.revision for view in views if view.report), default=0)
    if as_json:
        behind = [foremost - view.report.revision if view.report else None for view in views]
        show_json({"nodes": [_as_json(view) | {"behind": count} for view, count in zip(views, behind, strict=True)]})
        return
    columns = ["NAME", "STATE", "DRAIN", "ADDRESSES", "ASN", "SEEN", "ENDPOINTS READY", "BGP UP", "REVISION", "BEHIND"]
    show_table(columns, [_line(view, foremost, now or datetime.now(UTC)) for view in views])
    for view in views:
        for trouble in view.troubles:
            click.echo(printable(f"{view.name}: {trouble}"))


def _line(view: NodeView, foremost: int, now: datetime) -> list[object]:
    drain = DRAIN.get(view.drain, view.drain)
    if view.report is not None and view.report.drain != view.drain:
        drain = f"{drain or 'none'} (not yet)"
    head: list[object] = [view.name, "", drain or "-", ",".join(view.addresses) or "-"]
    seen = _age(view.last_seen, now)
    report = view.report
    if report is None:
        head[1] = "no agent"
        return [*head, "-", seen, "-", "-", "-", "-"]
    head[1] = "trouble" if view.troubles else "well"
    endpoints = f"{report.endpoints_ready}/{report.endpoints_ready + report.endpoints_waiting}"
    up = f"{sum(session.state == 'up' for session in report.sessions)}/{len(report.sessions)}"
    return [*head, report.as_number or "-", seen, endpoints, up, report.revision, foremost - report.revision]


def _age(time: str, now: datetime) -> str:
    """How long ago that was, as in ``12s ago``."""
    try:
        age_s = max(0, int((now - datetime.fromisoformat(time)).total_seconds()))
    except (ValueError, TypeError):
        return "never"
    for unit, length_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s // length_s}{unit} ago"
    return f"{age_s}s ago"
