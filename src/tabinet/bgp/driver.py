"""BIRD does what the intent says: renders, lets BIRD check, puts the file in place, has it loaded, and reports the sessions.

In: ``apply(intent, facts)``. Out: ``ApplyResult``, and the state of the sessions. The file on disk is always one that BIRD accepted; a
rejected one changes nothing. If BIRD rejects what is said of a peer, that peer is left out and the others are served. Nothing is
done for a text that BIRD has loaded already, also after a restart of ours. A BIRD that does not run finds its file when it starts. Blocking
(a few ms): callers with an event loop use a thread, one at a time. Cost: linear in the text that is rendered.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from tabinet.bgp.control import BirdControl
from tabinet.bgp.leftovers import SETTLED_S, metrics_in, past_metrics
from tabinet.bgp.names import protocol_name
from tabinet.bgp.prepare import origin_of, prepare
from tabinet.bgp.reasons import reason_with_drops
from tabinet.bgp.records import BgpOptions, HostFacts, SessionState, SessionStatus
from tabinet.bgp.refusals import Refusal, read_refusal
from tabinet.bgp.render import render_config
from tabinet.bgp.surroundings import HostSurroundings, NoSurroundings, Surroundings
from tabinet.bgp.tcpcounters import Drop, Trend
from tabinet.calc.intents import BgpIntent, PeerIntent
from tabinet.errors import BirdError, KernelError

BIRD_PROGRAM = "/usr/sbin/bird"
CHECK_TIMEOUT_S = 20.0
NO_SOCKET = "No listening socket"
"""BIRD could not listen, and disabled the protocol for good."""
REVIVE_EVERY_S = 5.0

Check = Callable[[Path], str]
"""Takes a file, returns what is wrong with it (``file:line:column message``), or nothing."""


class ApplyResult(msgspec.Struct, frozen=True, gc=False):
    """What ``apply`` did."""

    changed: bool
    """BIRD loaded a new configuration."""
    error: str = ""
    """Why BIRD does not run what was asked for; empty when it does. Ask again later."""


def check_with(program: str = BIRD_PROGRAM) -> Check:
    """The real check: ``bird -p`` parses the file, and starts nothing (bird(8))."""

    def check(path: Path) -> str:
        argv = [program, "-p", "-c", str(path)]
        try:
            run = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=CHECK_TIMEOUT_S, check=False)
        except OSError as error:
            return f"cannot run {program}: {error.strerror}"
        except subprocess.TimeoutExpired:
            return f"{program} did not check the configuration within {CHECK_TIMEOUT_S} s"
        return "" if run.returncode == 0 else run.stderr.strip().removeprefix("bird: ") or f"{program} ended with {run.returncode}"

    return check


class Refused(BirdError):
    """BIRD does not accept a configuration."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(f"BIRD refuses the configuration: {refusal.words}")


class BgpDriver:
    """The BIRD of this host."""

    __slots__ = (
        "_check",
        "_clock",
        "_config",
        "_loaded",
        "_options",
        "_past",
        "_refusals",
        "_refused",
        "_revived",
        "_surroundings",
        "_trend",
        "_unread",
        "_up",
        "_wanted",
        "control",
    )

    def __init__(
        self,
        config: Path,
        control: BirdControl,
        options: BgpOptions,
        check: Check,
        surroundings: Surroundings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.control = control
        self._config = config
        self._options = options
        self._check = check
        self._surroundings = surroundings if surroundings is not None else NoSurroundings()
        self._clock = clock
        self._trend = Trend()
        self._loaded: str | None = None
        """What BIRD runs, as far as we know."""
        self._unread = False
        """We wrote the file, and BIRD was not told yet: certain, where BIRD's and the file's times can be some ms off each other."""
        self._past: tuple[float, frozenset[tuple[int, int]]] | None = None
        """From when on BIRD's routes with these metrics are left over (see ``leftovers``)."""
        self._refusals: dict[str, Refusal] = {}
        """Texts that BIRD did not accept lately, and why: they are not asked again."""
        self._refused: dict[str, str] = {}
        """Peers that BIRD did not accept, and why."""
        self._revived = -REVIVE_EVERY_S
        """When that was tried last."""
        self._wanted: tuple[BgpIntent | None, HostFacts] | None = None
        """With what the surroundings were like."""
        self._up: frozenset[str] = frozenset()
        """Protocols whose session was established when we looked last."""

    def apply(self, intent: BgpIntent | None, facts: HostFacts) -> ApplyResult:
        """BIRD runs what the intent says, or the result says why not. Call again after an error, and when BIRD was started."""
        facts = self._look(intent, facts)
        self._wanted = (intent, facts)
        try:
            text = self._accepted(intent, facts)
            if text == self._loaded:
                return ApplyResult(changed=False)
            if not self._unread and self._was_read():
                self._loaded = text
                return ApplyResult(changed=False)
            self.control.configure()
        except BirdError as error:
            return ApplyResult(changed=False, error=str(error))
        self._loaded = text
        self._unread = False
        return ApplyResult(changed=True)

    def refresh(self) -> ApplyResult | None:
        """As ``apply`` was called last, if a password or a neighbour changed since; ``None`` when not. To be called about once a second."""
        if self._wanted is None:
            return None
        if self._past is not None and self._clock() >= self._past[0]:
            try:
                self._surroundings.remove_routes(self._past[1] - metrics_in(self._text()))
            except KernelError as error:
                return ApplyResult(changed=False, error=f"routes of the metric before are left over: {error}")
            self._past = None
        intent, facts = self._wanted
        return self.apply(intent, facts) if self._look(intent, facts) != facts else None

    def sessions(self) -> tuple[SessionStatus, ...]:
        """The sessions as they are now, each with the reason when it is not established; those that cannot be run are among them.

        Raises:
            BirdError: BIRD does not answer.
        """
        found = self.control.sessions()
        self._up = frozenset(session.name for session in found if session.state is SessionState.ESTABLISHED)
        if self._wanted is None or self._wanted[0] is None:
            return found
        prepared = prepare(self._wanted[0], self._wanted[1], self._refused)
        drops = self._trend.observe(self._clock(), self._surroundings.counters())
        peers = {protocol_name(peer): peer for peer in prepared.intent.peers}
        explained = [_explained(session, peers[session.name], drops) if session.name in peers else session for session in found]
        left_out = [
            SessionStatus(
                name=protocol_name(skipped.peer),
                peer=skipped.peer.name,
                address="" if skipped.peer.interface else skipped.peer.address.address,
                peer_as=skipped.peer.as_number or None,
                state=SessionState.DOWN,
                reason=skipped.reason,
                origin=origin_of(skipped.peer),
                resource=skipped.peer.resource,
            )
            for skipped in prepared.skipped
        ]
        return tuple(sorted((*explained, *left_out), key=lambda session: session.name))

    def revive(self, sessions: Iterable[SessionStatus]) -> tuple[str, ...]:
        """Sessions that BIRD gave up because it could not listen are begun again, now and then; gives their names.

        So it is when BIRD starts before the host has its address, or while somebody else has the port.

        Raises:
            BirdError: BIRD does not answer.
        """
        given_up = tuple([each.name for each in sessions if each.state is SessionState.DOWN and NO_SOCKET in each.last_error])
        if not given_up or self._clock() < self._revived + REVIVE_EVERY_S:
            return ()
        self._revived = self._clock()
        for name in given_up:
            self.control.enable(name)
        return given_up

    def _look(self, intent: BgpIntent | None, facts: HostFacts) -> HostFacts:
        """The facts with passwords and neighbours as they are now; they are looked at only for peers that need them."""
        peers = intent.peers if intent else ()
        references = [peer.password for peer in peers if peer.password is not None]
        links = {protocol_name(peer): peer.interface for peer in peers if peer.interface}
        secrets = self._surroundings.secrets(references) if references else ()
        seeking = [interface for name, interface in links.items() if name not in self._up]
        neighbours = self._surroundings.neighbours(links.values(), seeking) if links else ()
        return msgspec.structs.replace(facts, secrets=secrets, neighbours=neighbours)

    def _accepted(self, intent: BgpIntent | None, facts: HostFacts) -> str:
        """The text for the intent, without the peers that BIRD refuses. It is in the file.

        Raises:
            BirdError: BIRD refuses it for another reason, or the file cannot be written.
        """
        refused: dict[str, str] = {}
        known, self._refusals = self._refusals, {}
        while True:
            text = render_config(intent, facts, self._options, refused)
            try:
                if text != self._loaded and not self._holds(text):
                    self._write(text, known.get(text))
            except Refused as error:
                self._refusals[text] = error.refusal
                culprits = set(error.refusal.culprits(intent)) - set(refused)
                if not culprits:
                    raise
                refused |= dict.fromkeys(culprits, f"{error.refusal.blamed(intent)}{error}")
            else:
                self._refused = refused
                return text

    def _holds(self, text: str) -> bool:
        return self._text() == text

    def _text(self) -> str:
        """What is in the file."""
        try:
            return self._config.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def _was_read(self) -> bool:
        """True when the running BIRD read the file after it was written."""
        try:
            written = self._config.stat().st_mtime
        except OSError:
            return False
        read = self.control.status().last_reconfiguration_s
        return read is not None and read > written

    def _write(self, text: str, known: Refusal | None) -> None:
        """The file holds ``text``, which BIRD accepts; or the file is as before. ``known``: BIRD refused it before.

        Raises:
            BirdError: BIRD does not accept it, or the file cannot be written.
        """
        if known is not None:
            raise Refused(known)
        candidate = self._config.with_name(self._config.name + ".new")
        try:
            write_private(candidate, text)
            complaint = self._check(candidate)
            if complaint:
                candidate.unlink()
                raise Refused(read_refusal(complaint, text))
            past = past_metrics(self._text(), text)
            if past:
                self._past = (self._clock() + SETTLED_S, past | (self._past[1] if self._past else frozenset()))
            os.replace(candidate, self._config)
            self._unread = True
        except OSError as error:
            raise BirdError(f"cannot write {self._config}: {error.strerror}") from error


def _explained(session: SessionStatus, peer: PeerIntent, drops: AbstractSet[Drop]) -> SessionStatus:
    """The session with what BIRD cannot know of it."""
    reason = reason_with_drops(session, peer, drops)
    return msgspec.structs.replace(session, reason=reason, origin=origin_of(peer), resource=peer.resource)


def write_private(path: Path, text: str) -> None:
    """The file holds ``text``; besides its owner only the group of its directory, as whom BIRD may run, can read it: it has passwords.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o640)
        with contextlib.suppress(PermissionError):  # without root, whoever runs us has to be in BIRD's group
            os.fchown(descriptor, -1, path.parent.stat().st_gid)
        file.write(text)


def open_driver(config: Path, socket: Path, options: BgpOptions, secrets_dir: Path | None) -> BgpDriver:
    """The driver of the BIRD with this configuration file and control socket, on this host. ``secrets_dir``: where passwords are."""
    return BgpDriver(config, BirdControl(socket), options, check_with(), HostSurroundings(secrets_dir))
