"""Hears of inactive bindings: Neutron makes and removes them without a word to mechanism drivers.

In: SQLAlchemy's events of ``ml2_port_bindings``. Out: ports to publish, once the transaction is committed, in the thread of repairs, so
that no API call waits. What is rolled back is never published. With a removed binding goes the place where it may have left an endpoint.
"""

from __future__ import annotations

from typing import Any, Protocol

from neutron.db import models_v2
from neutron.plugins.ml2 import models
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from sqlalchemy import event, orm

_MIGRATING_TO = "migrating_to"
Place = tuple[str, str]
"""Host and device."""


class BindingOutlet(Protocol):
    """The driver, as far as bindings need it."""

    def publish_places_later(self, identifier: str, places: list[Place]) -> None: ...


class Bindings:
    """Listens for an outlet until ``close``."""

    def __init__(self, outlet: BindingOutlet) -> None:
        self._outlet = outlet
        for name in ("after_insert", "after_update", "after_delete"):
            event.listen(models.PortBinding, name, self._on_binding)

    def close(self) -> None:
        """Nothing is heard any more."""
        for name in ("after_insert", "after_update", "after_delete"):
            event.remove(models.PortBinding, name, self._on_binding)

    def _on_binding(self, mapper: Any, connection: Any, binding: models.PortBinding) -> None:
        """Within a transaction."""
        session = orm.object_session(binding)
        if binding.status != constants.INACTIVE or binding.vif_type != portbindings.VIF_TYPE_TAP or session is None:
            return
        port_id = str(binding.port_id)
        device = connection.execute(models_v2.Port.__table__.select().where(models_v2.Port.id == port_id)).mappings().first()
        places = [(str(binding.host), str(device["device_id"]))] if device is not None else []
        event.listen(session, "after_commit", lambda _: self._outlet.publish_places_later(port_id, places), once=True)


def places_of(*ports: dict[str, Any] | None) -> list[Place]:
    """Where a port that is, or was, as these say may have left something; each place once."""
    found: dict[Place, None] = {}
    for port in ports:
        if port is None:
            continue
        profile = port.get(portbindings.PROFILE) or {}
        for host in (port.get(portbindings.HOST_ID), profile.get(_MIGRATING_TO)):
            if host and isinstance(host, str):
                found[host, port["device_id"]] = None
    return list(found)
