"""FelixConfiguration of each host (``default`` overlaid by ``node.<host>``), and whether the store is ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tabinet.calc.outbox import Outbox
from tabinet.model.resources import ClusterInformation, FelixConfiguration


def overlay(configurations: Mapping[str, dict[str, object]], host: str) -> dict[str, object]:
    """The parameters of a host: its own over those of all."""
    return {**configurations.get("default", {}), **configurations.get(f"node.{host}", {})}


def is_ready(information: ClusterInformation | None) -> bool:
    """False only when the store says so: a store that nobody locks says nothing."""
    return information is None or information.spec.datastore_ready is not False


@dataclass(slots=True)
class ConfigurationIndex:
    """The parameters that the outbox shall tell."""

    hosts: frozenset[str]
    outbox: Outbox
    _configurations: dict[str, dict[str, object]] = field(default_factory=dict)

    def start(self) -> None:
        """Every host has a configuration, if an empty one, and the store is ready until it says otherwise."""
        for host in self.hosts:
            self.outbox.config.set_desired(host, {})
        self.outbox.ready.set_desired(None, True)

    def on_configuration_update(self, name: str, configuration: FelixConfiguration | None) -> None:
        if configuration is None:
            self._configurations.pop(name, None)
        else:
            self._configurations[name] = configuration.spec
        for host in self.hosts:
            if name in ("default", f"node.{host}"):
                self.outbox.config.set_desired(host, overlay(self._configurations, host))

    def on_cluster_update(self, information: ClusterInformation | None) -> None:
        self.outbox.ready.set_desired(None, is_ready(information))
