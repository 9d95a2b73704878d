"""Which programs of Calico's run in this network namespace. Reads /proc; O(processes).

They are known by the name that they were started with: Felix is ``calico-felix`` or ``calico-node -felix``, confd ``calico-node -confd`` or
``confd``. A BIRD is Calico's when its configuration is below ``/etc/calico``, as confd writes it; also from within a container.
"""

from __future__ import annotations

from pathlib import Path

from tabinet.agent.takeover.records import Process

BIRD_CONFIGURATION = "/etc/calico/"


def find_processes(proc: Path = Path("/proc")) -> list[Process]:
    """Calico's programs in the network namespace of this process, in order of what they are."""
    here = _namespace(proc / "self")
    found = []
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        words = _command(directory / "cmdline")
        what = classify(words)
        if what and _namespace(directory) == here:
            found.append(Process(what, int(directory.name), " ".join(words)))
    return sorted(found)


def classify(words: list[str]) -> str:
    """``felix``, ``bird`` or ``confd``; empty for what is none of Calico's."""
    name = words[0].rpartition("/")[2] if words else ""
    options = {word.lstrip("-") for word in words[1:]}
    if name == "calico-felix" or (name == "calico-node" and "felix" in options):
        return "felix"
    if name == "confd" or (name == "calico-node" and "confd" in options):
        return "confd"
    if name in ("bird", "bird6") and any(word.startswith(BIRD_CONFIGURATION) for word in words):
        return "bird"
    return ""


def _command(path: Path) -> list[str]:
    try:
        return [word.decode(errors="replace") for word in path.read_bytes().split(b"\0") if word]
    except OSError:  # it has ended
        return []


def _namespace(directory: Path) -> tuple[int, int]:
    try:
        found = (directory / "ns" / "net").stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
