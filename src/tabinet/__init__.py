"""Tabinet: a Layer 3 fabric where every host is a router and every workload has its own route.

Layers, low to high: errors, lib, selector, model, store and kernel, calc and rules and ipam, dataplane
and bgp, agent and attach, lab, cli. ``pyproject.toml`` holds the import contracts that enforce the order.
"""

__version__ = "0.1.0"
