"""Passwords of BGP sessions, from files of the host: ``<directory>/<name>/<key>``, as ``secretKeyRef`` has name and key.

That is how Kubernetes mounts secrets, and how an operator without Kubernetes can lay them down. In: references. Out: ``Secret`` records,
also for those that cannot be read. One newline at a file's end is no part of the password. Blocking, one small file for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tabinet.bgp.records import Secret
from tabinet.calc.intents import SecretRef

LONGEST_BYTES = 4096
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")
"""Names and keys of Kubernetes' secrets; never a way out of the directory."""


def read_secrets(directory: Path | None, references: Iterable[SecretRef]) -> tuple[Secret, ...]:
    """What is kept under each reference, sorted. ``None``: the host has no directory of secrets."""
    return tuple(_read(directory, name, key) for name, key in sorted({(reference.name, reference.key) for reference in references}))


def _read(directory: Path | None, name: str, key: str) -> Secret:
    if directory is None:
        return Secret(name, key, problem="the agent has no secrets_dir")
    if not (_PART.fullmatch(name) and _PART.fullmatch(key)):
        return Secret(name, key, problem="its name or key cannot be a file's")
    try:
        with (directory / name / key).open("rb") as file:
            data = file.read(LONGEST_BYTES + 1)
    except OSError as error:
        return Secret(name, key, problem=(error.strerror or str(error)).lower())
    if len(data) > LONGEST_BYTES:
        return Secret(name, key, problem=f"it is longer than {LONGEST_BYTES} bytes")
    try:
        return Secret(name, key, data.decode().removesuffix("\n").removesuffix("\r"), found=True)
    except UnicodeDecodeError:
        return Secret(name, key, problem="it is no text")
