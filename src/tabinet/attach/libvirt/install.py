"""The hook is put where libvirt looks for it.

In: a path. Out: the program, written whole or not at all; one that is right already is left alone, and one that is not ours is never
overwritten. It is ``hook`` with a first line that starts this Python without ``site``; it needs nothing of Tabinet but an agent.
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

from tabinet.attach.libvirt import hook
from tabinet.errors import SetupError

HOOK = Path("/etc/libvirt/hooks/qemu")
OWN_DIRECTORY = Path("/etc/libvirt/hooks/qemu.d")
"""Where hooks of several owners live side by side (libvirt 6.5)."""
_MARK = '"""The program that libvirt runs as ``/etc/libvirt/hooks/qemu``'


def render_hook(python: str = "") -> str:
    """The program. ``python``: the interpreter's path; empty: the one that runs this."""
    return f"#!{python or os.path.realpath(sys.executable)} -IS\n{inspect.getsource(hook)}"


def install_hook(path: Path) -> bool:
    """The hook is there; False: it was.

    Raises:
        SetupError: there is another one, or it cannot be written.
    """
    text = render_hook()
    try:
        there = path.read_text(errors="replace") if path.exists() else None
        if there is not None and _MARK not in there:
            beside = OWN_DIRECTORY / "tabinet"
            raise SetupError(f"{path} is somebody else's hook: add --path {beside}, libvirt (6.5 and later) runs both")
        if there == text and path.stat().st_mode & 0o777 == 0o755:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # libvirt may run it at any moment: the new one takes the place of the old one at once. In qemu.d it runs whatever is executable.
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from error
    return True
