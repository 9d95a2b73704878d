"""A BIRD that only talks: the control socket of ``FakeBird`` answers as BIRD 2.0.12 does, from the configuration file it was given.

It knows the commands that ``BirdControl`` sends. Every ``protocol bgp`` of the file is a session; tests set what became of it in
``sessions``. A file is refused when its braces do not match. ``check`` stands for ``bird -p``. It serves one connection at a time in a
thread of its own, from ``start`` until ``stop``, ``graceful restart`` or ``down``. It passes the same contract as the real one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_PROTOCOL = re.compile(r"protocol bgp '?([^' ]+)'? \{(.*?)\n\}", re.DOTALL)
_DESCRIPTION = re.compile('description "(.*)"')
_NEIGHBOUR = re.compile(r"neighbor (\S+)")
_NEIGHBOUR_AS = re.compile(r"neighbor .* as (\d+)")
_FAMILY = re.compile(r"(ipv[46])")
_STATES = {"Established": "up", "Down": "down"}
"""Of protocols, by BGP state."""
_SYNTAX_ERROR = "9001 syntax error, unexpected CF_SYM_UNDEFINED\n"


@dataclass(slots=True)
class FakeSession:
    """What a test says of one session."""

    state: str = "Active"
    last_error: str = ""
    imported: int = 0
    exported: int = 0
    bfd: str = ""


def check_text(text: str) -> str:
    """What is wrong with a configuration, as ``line:column message``: only braces are looked at."""
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        depth += line.count("{") - line.count("}")
        if depth < 0:
            return f"{number}:{line.index('}') + 1} syntax error, unexpected '}}'"
    return f"{len(text.splitlines())}:1 syntax error, unexpected END" if depth else ""


def check(path: Path) -> str:
    """As ``driver.check_with``: what is wrong with a file."""
    error = check_text(path.read_text())
    return f"{path}:{error}" if error else ""


@dataclass(slots=True)
class FakeBird:
    """A fake BIRD, by its configuration file and the path of its control socket."""

    config: Path
    path: Path
    sessions: dict[str, FakeSession] = field(default_factory=dict)
    """By protocol name; one that the file has and this has not is in Active."""
    commands: list[str] = field(default_factory=list)
    """Everything that was asked, in order."""
    _text: str = ""
    _configured: datetime = field(default_factory=datetime.now)
    _listener: socket.socket | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """It has read its file and answers."""
        self._load()
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing answers any more."""
        if self._listener is not None:
            self._close(self._listener)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _close(self, listener: socket.socket) -> None:
        self._listener = None
        self.path.unlink(missing_ok=True)
        # A close alone does not wake a thread that waits in accept(2).
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def _load(self) -> None:
        self._text = self.config.read_text()
        self._configured = datetime.now()

    def _serve(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                stream.write(b"0001 BIRD 2.0.12 ready.\n")
                stream.flush()
                for line in stream:
                    command = line.decode().rstrip("\n")
                    self.commands.append(command)
                    stream.write(self._answer(command).encode())
                    stream.flush()
                    if command in ("graceful restart", "down"):
                        self._close(listener)
                        return

    def _answer(self, command: str) -> str:
        match command.split():
            case ["show", "status"]:
                return self._show_status()
            case ["show", "protocols", "all"]:
                return self._show_protocols()
            case ["show", "bfd", "sessions"]:
                return self._show_bfd()
            case ["show", "route"]:
                return self._show_routes()
            case ["show", "route", "count"]:
                total = sum(session.imported for session in self.sessions.values())
                return f"1007-{total} of {total} routes for {total} networks in table master4\n0014 Total: {total} of {total} routes\n"
            case ["configure"] | ["configure", "soft"]:
                return self._configure()
            case ["configure", "check", path]:
                error = check(Path(path.strip('"')))
                return f"0002-Reading configuration from {path}\n" + (f"8002 {error}\n" if error else "0020 Configuration OK\n")
            case ["enable", name]:
                session = self.sessions.get(name.strip('"'))
                if session is not None and session.state == "Down":
                    session.state = "Active"
                return f"0011 {name}: enabled\n"
            case ["graceful", "restart"]:
                return "0025 Graceful restart requested\n"
            case ["down"]:
                return "0007 Shutdown requested\n"
        return _SYNTAX_ERROR

    def _configure(self) -> str:
        reading = f"0002-Reading configuration from {self.config}\n"
        error = check(self.config)
        if error:
            return f"{reading}8002 {error}\n"
        self._load()
        return f"{reading}0003 Reconfigured\n"

    def _show_status(self) -> str:
        router_id = re.search(r"router id (\S+);", self._text)
        configured = self._configured.isoformat(sep=" ", timespec="milliseconds")
        return (
            f"1000-BIRD 2.0.12\n1011-Router ID is {router_id[1] if router_id else '0.0.0.0'}\n Hostname is fake\n"
            f" Last reboot on {configured}\n Last reconfiguration on {configured}\n0013 Daemon is up and running\n"
        )

    def _each(self) -> list[tuple[str, str, FakeSession]]:
        return [(match[1], match[2], self.sessions.get(match[1], FakeSession())) for match in _PROTOCOL.finditer(self._text)]

    def _show_protocols(self) -> str:
        since = self._configured.isoformat(sep=" ", timespec="milliseconds")
        out = ["2002-Name       Proto      Table      State  Since         Info"]
        out.append(f"1002-tb_device  Device     ---        up     {since}  \n1006-")
        for name, body, session in self._each():
            up = session.state == "Established"
            state = _STATES.get(session.state, "start")
            out.append(f"1002-{name} BGP        ---        {state}     {since}  {session.state}   {session.last_error}")
            out.append(f"1006-  Description:    {_find(_DESCRIPTION, body)}")
            out.append(f"   BGP state:          {session.state}")
            out.append(f"     Neighbor address: {_find(_NEIGHBOUR, body)}")
            out.append(f"     Neighbor AS:      {_find(_NEIGHBOUR_AS, body)}")
            if session.last_error:
                out.append(f"     Last error:       {session.last_error}")
            out.append(f"   Channel {_find(_FAMILY, body)}\n     State:          {'UP' if up else 'DOWN'}")
            if up:
                out.append(f"     Routes:         {session.imported} imported, {session.exported} exported, {session.imported} preferred")
            out.append(" ")
        return "\n".join(out) + "\n0000 \n"

    def _show_routes(self) -> str:
        """Own blocks only."""
        since = self._configured.isoformat(sep=" ", timespec="milliseconds")
        blocks = re.findall(r"  route (\S+) blackhole;", self._text)
        lines = [f" {block:<20} blackhole [tb_blocks{6 if ':' in block else 4} {since}] * (200)\n" for block in blocks]
        return "1007-Table master4:\n" + "".join(lines) + "0000 \n"

    def _show_bfd(self) -> str:
        if "protocol bfd" not in self._text:
            return "9001 There is no BFD protocol running\n"
        lines = [
            f" {_find(_NEIGHBOUR, body)}  eth0  {session.bfd}  2026-01-01 00:00:00.000  0.100  0.300\n"
            for _, body, session in self._each()
            if session.bfd
        ]
        return "1020-tb_bfd:\n IP address  Interface  State  Since  Interval  Timeout\n" + "".join(lines) + "0000 \n"


def _find(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
