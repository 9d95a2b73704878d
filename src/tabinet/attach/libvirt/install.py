"""The hook is put where libvirt looks for it.

In: a path. Out: the program, written whole or not at all; one that is right already is left alone, one that is not ours is never
overwritten. It is ``hook``, and needs nothing of Tabinet but an agent. Before it stand a few lines that are shell to sh(1) and a text
without meaning to Python: libvirt calls its hook for more than there is to do, and a shell starts ten times as fast.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from pathlib import Path

from tabinet.attach.libvirt import hook
from tabinet.errors import SetupError

HOOK = Path("/etc/libvirt/hooks/qemu")
OWN_DIRECTORY = Path("/etc/libvirt/hooks/qemu.d")
"""Where hooks of several owners live side by side (libvirt 6.5)."""
_MARK = '"""The program that libvirt runs as ``/etc/libvirt/hooks/qemu``'


_HEADER = """\
#!/bin/sh
''':'
case "$2" in
{operations}) exec {python} -IS "$0" "$@" ;;
*) exit 0 ;;
esac
'''
"""


def render_hook(python: str = "") -> str:
    """The program. ``python``: the interpreter's path; empty: the one that runs this."""
    header = _HEADER.format(operations=" | ".join(hook.ASKED), python=shlex.quote(python or os.path.realpath(sys.executable)))
    return header + inspect.getsource(hook)


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
