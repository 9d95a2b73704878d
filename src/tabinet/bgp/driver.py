"""BIRD does what the intent says: renders, lets BIRD check, puts the file in place, has it loaded, and reports the sessions.

In: ``apply(intent, facts)``. Out: ``ApplyResult``, and the state of the sessions. The file on disk is always one that BIRD accepted; a
rejected one changes nothing. Nothing is done for a text that BIRD has loaded already, also after a restart of ours. A BIRD that does
not run finds its file when it starts. Blocking (a few ms): callers with an event loop use a thread, one at a time. Cost: linear in the
text that is rendered.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from tabinet.bgp.control import BirdControl
from tabinet.bgp.records import BgpOptions, HostFacts, SessionStatus
from tabinet.bgp.render import render_config
from tabinet.calc.messages import BgpIntent
from tabinet.errors import BirdError

BIRD_PROGRAM = "/usr/sbin/bird"
CHECK_TIMEOUT_S = 20.0

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


def explain_refusal(message: str, text: str) -> str:
    """BIRD's complaint about the configuration ``text``, with the line it is about and the peer in whose session that line is."""
    match = re.search(r":(\d{1,9}):\d+ (.*)", message)
    if not match:
        return message
    lines = text.splitlines()
    number = int(match[1])
    if not 1 <= number <= len(lines):
        return message
    shown = f"line {number}: {match[2]}: {lines[number - 1].strip()}"
    peer = ""
    for line in lines[:number]:
        if line == "}":
            peer = ""
        found = re.fullmatch(r'  description "(.*)";', line)
        peer = found[1] if found else peer
    return f"peer {peer}: {shown}" if peer else shown


class BgpDriver:
    """The BIRD of this host."""

    __slots__ = ("_check", "_config", "_loaded", "_options", "_refused", "_wanted", "control")

    def __init__(self, config: Path, control: BirdControl, options: BgpOptions, check: Check) -> None:
        self.control = control
        self._config = config
        self._options = options
        self._check = check
        self._loaded: str | None = None
        """What BIRD runs, as far as we know."""
        self._refused = ("", "")
        """The last text that BIRD did not accept, and why: it is not asked again."""
        self._wanted: tuple[BgpIntent | None, HostFacts] | None = None

    def apply(self, intent: BgpIntent | None, facts: HostFacts) -> ApplyResult:
        """BIRD runs what the intent says, or the result says why not. Call again after an error, and when BIRD was started."""
        self._wanted = (intent, facts)
        text = render_config(intent, facts, self._options)
        if text == self._loaded:
            return ApplyResult(changed=False)
        try:
            if not self._holds(text):
                self._write(text)
            elif self._was_read():
                self._loaded = text
                return ApplyResult(changed=False)
            self.control.configure()
        except BirdError as error:
            return ApplyResult(changed=False, error=str(error))
        self._loaded = text
        return ApplyResult(changed=True)

    def sessions(self) -> tuple[SessionStatus, ...]:
        """The sessions as they are now, each with the reason when it is not established.

        Raises:
            BirdError: BIRD does not answer.
        """
        return self.control.sessions()

    def drain(self) -> ApplyResult:
        """Peers that have another way stop sending traffic through this host (RFC 8326). Stays so for later applies."""
        return self._set_drain(True)

    def undrain(self) -> ApplyResult:
        """Takes ``drain`` back."""
        return self._set_drain(False)

    def _set_drain(self, drain: bool) -> ApplyResult:
        self._options = msgspec.structs.replace(self._options, drain=drain)
        return self.apply(*self._wanted) if self._wanted else ApplyResult(changed=False)

    def _holds(self, text: str) -> bool:
        try:
            return self._config.read_text() == text
        except (OSError, UnicodeDecodeError):
            return False

    def _was_read(self) -> bool:
        """True when the running BIRD read the file after it was written."""
        try:
            written = self._config.stat().st_mtime
        except OSError:
            return False
        read = self.control.status().last_reconfiguration_s
        return read is not None and read > written

    def _write(self, text: str) -> None:
        """The file holds ``text``, which BIRD accepts; or the file is as before.

        Raises:
            BirdError: BIRD does not accept it, or the file cannot be written.
        """
        if text == self._refused[0]:
            raise BirdError(self._refused[1])
        candidate = self._config.with_name(self._config.name + ".new")
        try:
            candidate.write_text(text)
            refusal = self._check(candidate)
            if refusal:
                candidate.unlink()
                self._refused = (text, f"BIRD refuses the configuration: {explain_refusal(refusal, text)}")
                raise BirdError(self._refused[1])
            os.replace(candidate, self._config)
        except OSError as error:
            raise BirdError(f"cannot write {self._config}: {error.strerror}") from error
