"""What pages of the documentation ask of ``systemctl``, for hosts of tests: units are started by what their files say.

In: ``enable|disable [--now] UNIT...``, ``start|stop|restart UNIT...``, ``daemon-reload``; unit files of ``/etc/systemd/system`` and
``/lib/systemd/system`` (systemd.service(5)). Of these are heeded: ``Type=notify``, ``Environment``, ``EnvironmentFile``,
``RuntimeDirectory``, ``ExecStartPre``, ``ExecStart``, ``ExecStop``; what else stands there (restarts, limits, users, dependencies) is
not. A unit's output is in ``/var/log/units``, its process number in ``/run/units``. Runs as a program of its own, in the host's mounts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PLACES = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
NUMBERS, LOGS = Path("/run/units"), Path("/var/log/units")
WITHIN_S = 90.0


def settings_of(unit: str) -> dict[str, list[str]]:
    """All values of a unit's file, by name."""
    path = next((found for place in PLACES if (found := Path(place) / f"{unit}.service").exists()), None)
    if path is None:
        raise SystemExit(f"Unit {unit}.service could not be found.")
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value.replace("%p", unit).replace("%H", socket.gethostname()))
    return found


def environment_of(settings: dict[str, list[str]]) -> dict[str, str]:
    words = [word for value in settings.get("Environment", ()) for word in shlex.split(value)]
    for value in settings.get("EnvironmentFile", ()):
        with contextlib.suppress(FileNotFoundError):
            lines = Path(value.removeprefix("-")).read_text().splitlines()
            words += [shlex.split(line)[0] for line in lines if "=" in line and not line.startswith("#")]
    return dict(os.environ) | dict(word.split("=", 1) for word in words)


def argv_of(command: str, environment: dict[str, str]) -> list[str]:
    """Words of a command; a variable that is a word by itself is split into words, as systemd does."""
    found: list[str] = []
    for word in shlex.split(command):
        found += shlex.split(environment.get(word[1:], "")) if word[:1] == "$" else [word]
    return found


def number_of(unit: str) -> int:
    """Of the unit's process; 0: it does not run."""
    with contextlib.suppress(OSError, ValueError):
        number = int((NUMBERS / unit).read_text())
        if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            return number
    return 0


def start(unit: str) -> None:
    """The unit runs; one that tells when it is ready has said so."""
    if number_of(unit):
        return
    settings = settings_of(unit)
    environment = environment_of(settings)
    for place in (NUMBERS, LOGS, *(Path("/run") / name for name in settings.get("RuntimeDirectory", ()))):
        place.mkdir(parents=True, exist_ok=True)
    for command in settings.get("ExecStartPre", ()):
        subprocess.run(argv_of(command.removeprefix("-"), environment), check=not command.startswith("-"), env=environment)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, (LOGS / unit).open("ab") as log:
        path = NUMBERS / f"{unit}.notify"
        path.unlink(missing_ok=True)
        told.bind(str(path))
        told.settimeout(0.5)
        process = subprocess.Popen(
            argv_of(settings["ExecStart"][0], environment),
            env=environment | {"NOTIFY_SOCKET": str(path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        (NUMBERS / unit).write_text(str(process.pid))
        deadline = time.monotonic() + WITHIN_S
        while settings.get("Type") == ["notify"]:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in told.recv(4096):
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{unit} is not ready: {(LOGS / unit).read_text()[-3000:]}")


def stop(unit: str) -> None:
    """The unit does not run."""
    number = number_of(unit)
    if not number:
        return
    settings = settings_of(unit)
    for command in settings.get("ExecStop", ()):
        subprocess.run(argv_of(command, environment_of(settings)), check=False, stdout=subprocess.DEVNULL)
    if "ExecStop" not in settings:
        os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + WITHIN_S
    while number_of(unit):
        if time.monotonic() > deadline:
            raise SystemExit(f"{unit} does not stop: {(LOGS / unit).read_text()[-3000:]}")
        time.sleep(0.02)


def main(words: list[str]) -> None:
    verb, *rest = words
    units = [word.removesuffix(".service") for word in rest if not word.startswith("-")]
    now = "--now" in rest
    if verb not in ("enable", "disable", "start", "stop", "restart", "daemon-reload"):
        raise SystemExit(f"Unknown command verb {verb}.")
    for unit in units:
        if verb in ("stop", "restart") or (verb == "disable" and now):
            stop(unit)
        if verb in ("start", "restart") or (verb == "enable" and now):
            start(unit)


if __name__ == "__main__":
    main(sys.argv[1:])
