"""Tells systemd how far we are (sd_notify(3)): ready, and alive for its watchdog."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends ``state``, such as ``READY=1``, to the supervisor; nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return  # a supervisor that does not listen is no reason to stop forwarding
