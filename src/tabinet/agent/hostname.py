"""The name of this host, as its Node resource and ``spec.node`` of its endpoints have it."""

from __future__ import annotations

import socket

from tabinet.agent.parameters import Parameters


def host_name(parameters: Parameters) -> str:
    """The name that is configured, else the machine's own in lower case."""
    return parameters.text("agent", "host") or socket.gethostname().lower()
