"""A program of a lab: how it is started, what it needs beside it, and when it is ready.

Records only; see ``tabinet.lab.launches`` for which programs there are.
"""

from __future__ import annotations

import msgspec

from tabinet.lab.processes import Launch
from tabinet.lab.routers import RouterFile


class Component(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One program of a node."""

    launch: Launch
    restart_argv: tuple[str, ...]
    """How it comes back after it ran before: routes that are in the kernel are kept until the neighbours have told theirs again."""
    socket: str = ""
    """Unix socket that accepts connections when the program is ready; empty when readiness shows elsewhere."""
    files: tuple[RouterFile, ...] = ()
    """Written into the node's directory before the first start, and never again."""
    late: bool = False
    """It is started after the agents."""
    group: str = ""
    """Those of a node with the same group are started one after the other, groups at the same time."""

    @property
    def node(self) -> str:
        return self.launch.node

    @property
    def name(self) -> str:
        return self.launch.component
