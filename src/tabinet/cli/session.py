"""Over which SSH connection the operator works, also behind sudo, which takes the variable away. Reads /proc; O(ancestors)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

VARIABLE = "SSH_CONNECTION"
"""ssh(1): client address, client port, server address, server port."""


class SshSession(msgspec.Struct, frozen=True):
    """A connection to this host's SSH server."""

    client: str
    server: str
    port: int
    """The server's."""


def find_session(environment: Mapping[str, str], process: int | None = None, proc: Path = Path("/proc")) -> SshSession | None:
    """The session that this process runs in: what the environment says, else that of the nearest process above that knows one."""
    text = environment.get(VARIABLE, "")
    at = os.getpid() if process is None else process
    while not text and at > 1:
        text = _variable(proc / str(at) / "environ")
        at = _parent(proc / str(at) / "stat")
    words = text.split()
    return SshSession(words[0], words[2], int(words[3])) if len(words) == 4 and words[3].isdigit() else None


def _variable(path: Path) -> str:
    try:
        pairs = path.read_bytes().split(b"\0")
    except OSError:
        return ""
    start = VARIABLE.encode() + b"="
    return next((pair[len(start) :].decode(errors="replace") for pair in pairs if pair.startswith(start)), "")


def _parent(path: Path) -> int:
    """Fourth field of proc_pid_stat(5); the second, the name, may hold anything, and ends with the last parenthesis. 0: no such process."""
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
