"""Programs that tests start: each in a session of its own, its output in a file, stopped by its number."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY_WITHIN_S = 240.0
STOPPED_WITHIN_S = 20.0


@dataclass
class Running:
    """One program; ``start`` after ``stop`` runs it again."""

    command: Sequence[str]
    directory: Path
    """Its working directory; its output is there, in ``NAME.log``."""
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, ready: Callable[[], bool] = lambda: True) -> None:
        """It runs, and is ready."""
        with open(self.directory / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, env={**os.environ, **self.environment}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self.name} is not ready: {self.log()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """It has ended, and what it started."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def log(self) -> str:
        return (self.directory / f"{self.name}.log").read_text(errors="replace")


def uwsgi(venv: Path, module: str, port: int, processes: int, *more: str, threads: int = 4) -> list[str]:
    """The command that serves a WSGI application on a port of the loopback."""
    command = [str(venv / "bin" / "uwsgi"), "--http-socket", f"127.0.0.1:{port}", "--module", module]
    command += ["--master", "--processes", str(processes), "--threads", str(threads), "--enable-threads", "--lazy-apps", "--die-on-term"]
    # It closes each connection and does not say so by itself; and URLs are as long as queries for many objects.
    command += ["--add-header", "Connection: close", "--buffer-size", "65535"]
    return [*command, "--need-app", "--disable-logging", "--virtualenv", str(venv), *more]
