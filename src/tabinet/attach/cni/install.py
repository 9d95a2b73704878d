"""What is put on a host so that container runtimes find the plugins: two programs, and on request the configuration of a network.

In: directories and names. Out: files, written whole or not at all; those that are right already are left alone. Both programs are
``shim``, with a first line that starts this Python without ``site``; they need nothing of Tabinet but an agent.
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from tabinet.attach.cni import shim
from tabinet.attach.cni.protocol import IPAM_PLUGIN, PLUGIN
from tabinet.errors import SetupError

BIN_DIRECTORY = Path("/opt/cni/bin")
CONFIG_DIRECTORY = Path("/etc/cni/net.d")
LIST_VERSION = "1.0.0"
"""Of the lists that are written: what container runtimes since 2021 understand."""


def render_program(deletions: str = shim.DELETIONS, python: str = "") -> str:
    """The program. ``python``: the interpreter's path; empty: the one that runs this."""
    python = python or os.path.realpath(sys.executable)
    source = inspect.getsource(shim).replace(f'DELETIONS = "{shim.DELETIONS}"', f"DELETIONS = {deletions!r}")
    return f"#!{python} -IS\n{source}"


def network_list(name: str, *, ipv4: bool = True, ipv6: bool = False, portmap: bool = True) -> dict[str, Any]:
    """The configuration list of a network."""
    plugin: dict[str, Any] = {
        "type": PLUGIN,
        "ipam": {"type": IPAM_PLUGIN, "assign_ipv4": ipv4, "assign_ipv6": ipv6},
        "capabilities": {"bandwidth": True, "ips": True, "mac": True},
    }
    plugins = [plugin, {"type": "portmap", "capabilities": {"portMappings": True}}] if portmap else [plugin]
    return {"cniVersion": LIST_VERSION, "name": name, "plugins": plugins}


def install_programs(directory: Path, deletions: str = shim.DELETIONS) -> list[Path]:
    """Both programs are in the directory; gives those that were written.

    Raises:
        SetupError: they could not be written.
    """
    text = render_program(deletions)
    return [path for name in (PLUGIN, IPAM_PLUGIN) if _write(path := directory / name, text, 0o755)]


def install_network(directory: Path, document: dict[str, Any]) -> list[Path]:
    """The network's configuration is in the directory; gives the path if it was written.

    Raises:
        SetupError: it could not be written, or there is another one of this name.
    """
    path = directory / f"10-{document['name']}.conflist"
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
    if path.exists() and path.read_text() != text:
        raise SetupError(f"{path} is there already and says something else: remove it first, or edit it")
    return [path] if _write(path, text, 0o644) else []


def _write(path: Path, text: str, mode: int) -> bool:
    try:
        if path.exists() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # A runtime may start the program at any moment: the new one takes the place of the old one at once.
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from error
    return True
