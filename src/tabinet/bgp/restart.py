"""A planned restart of BIRD that loses no packet: the steps, for whoever supervises BIRD.

1. ``graceful restart`` on the control socket. BIRD ends without closing its sessions by a NOTIFICATION and leaves the kernel's routes,
   so this host forwards on; its peers keep its routes as stale (RFC 4724). A SIGTERM instead would tell the peers to drop them.
2. Wait until nothing answers on the socket.
3. Start BIRD with ``-R``: it leaves the routes that it finds in the kernel for ``BgpOptions.recovery_time_s``, while the peers tell theirs
   again. Until then it installs no new ones.

Peers must keep stale routes although BFD went with BIRD: FRR does. A peer that does not (BIRD with ``bfd on``) drops this host's routes
for about a second. Under systemd, ``ExecStop=`` does step 1 (``birdc graceful restart``) and ``ExecStart=`` has ``-R``; at the first
start of a machine ``-R`` finds nothing to keep.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tabinet.bgp.control import BirdControl
from tabinet.errors import BirdError

POLL_S = 0.01


def bird_command(program: str, config: Path, socket: Path, pid_file: Path, *, recover: bool) -> tuple[str, ...]:
    """The command line of a BIRD in the foreground; with ``recover`` it is the continuation of one that ran before."""
    argv = (program, "-f", "-c", str(config), "-s", str(socket), "-P", str(pid_file))
    return (*argv, "-R") if recover else argv


def planned_restart(control: BirdControl, start: Callable[[], None], timeout_s: float = 5.0) -> None:
    """BIRD was ended and started again without loss. ``start`` runs it with ``recover`` and returns at once. Blocking.

    Raises:
        BirdError: it does not answer, does not end, or does not come back in time; each of them is waited for ``timeout_s``.
    """
    control.graceful_restart()
    _wait_until(control, False, timeout_s)
    start()
    _wait_until(control, True, timeout_s)


def _wait_until(control: BirdControl, running: bool, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while control.is_running() is not running:
        if time.monotonic() > deadline:
            raise BirdError(f"BIRD at {control.path} did not {'come back' if running else 'end'} within {timeout_s} s")
        time.sleep(POLL_S)
