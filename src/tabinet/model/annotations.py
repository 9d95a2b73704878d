"""Annotations by which resources of Calico say what only Tabinet understands. Calico's programs ignore them."""

from __future__ import annotations

DRAIN = "tabinet.io/drain"
"""Of a Node: how far it is taken out of the paths of traffic: ``true``, ``withdrawn``, or (as without it) ``false``."""
INTERFACES = "tabinet.io/interfaces"
"""Of a BGPPeer: the peer is whoever is at the other end of these interfaces."""
REMOTE_AS = "tabinet.io/remote-as"
"""Of a BGPPeer: ``external``, for any AS number but our own."""
EXTERNAL = "external"
PORT_FORWARDS = "tabinet.io/port-forwards"
"""Of a WorkloadEndpoint: ports of addresses outside that lead to its own (``model.forwards``)."""
ADDRESS_LIMITS = "tabinet.io/address-limits"
"""Of a WorkloadEndpoint: limits of what passes through single floating addresses of it (``model.addresslimits``)."""
PROTOCOL = "tabinet.io/protocol"
"""Of a rule: what it matches instead of protocol, ports and ICMP type (``model.extended``)."""
STATELESS = "tabinet.io/stateless"
"""Of a WorkloadEndpoint: ``true``: its policy is asked about every packet by itself, so that answers need a rule of their own."""
