"""The trunk driver: subports run where their trunk's parent port runs.

In: Neutron's trunks. Out: subports bound to the parent's host, which makes them ports like any other, whose endpoints know the parent's
interface and the VLAN tag. Tags end at the host: between hosts there are only routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neutron.objects import trunk as trunk_objects
from neutron.services.trunk.drivers import base
from neutron_lib import context as neutron_context
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.exceptions import PortNotFound
from neutron_lib.plugins import directory
from neutron_lib.services.trunk import constants

from tabinet.attach.openstack.ml2.notices import Outlet
from tabinet.attach.openstack.publisher import PORT


class TabinetTrunks(base.DriverBase):
    """Registers itself with Neutron's trunk plugin when that has been loaded."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__("tabinet", (portbindings.VIF_TYPE_TAP,), (constants.SEGMENTATION_TYPE_VLAN,), can_trunk_bound_port=True)
        self._outlet = outlet
        for event in (events.AFTER_CREATE, events.AFTER_DELETE):
            registry.subscribe(self._on_subports, resources.SUBPORTS, event)
        for event in (events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE):
            registry.subscribe(self._on_trunk, resources.TRUNK, event)

    @property
    def is_loaded(self) -> bool:
        return True

    def follow_parent(self, port_id: str, host: str) -> None:
        """The subports of the trunk whose parent the port is, if it is one, run on this host."""
        trunk = trunk_objects.Trunk.get_object(neutron_context.get_admin_context(), port_id=port_id)
        if trunk is not None:
            self._bind(host, (subport.port_id for subport in trunk.sub_ports))

    def _on_trunk(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        trunk = payload.states[-1]
        ids = [subport.port_id for subport in trunk.sub_ports]
        if event == events.AFTER_UPDATE:
            self._outlet.publish_later(PORT, ids)  # it may have gone administratively down, or come up
        else:
            self._bind("" if event == events.AFTER_DELETE else _host_of(trunk.port_id), ids)

    def _on_subports(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        ids = [subport.port_id for subport in payload.metadata["subports"]]
        self._bind("" if event == events.AFTER_DELETE else _host_of(payload.states[-1].port_id), ids)

    def _bind(self, host: str, port_ids: Iterable[str]) -> None:
        plugin = directory.get_plugin()
        owner = constants.TRUNK_SUBPORT_OWNER if host else ""
        for port_id in port_ids:
            try:
                plugin.update_port(
                    neutron_context.get_admin_context(), port_id, {"port": {portbindings.HOST_ID: host, "device_owner": owner}}
                )
            except PortNotFound:  # it was deleted meanwhile
                continue


def _host_of(port_id: str) -> str:
    try:
        return str(directory.get_plugin().get_port(neutron_context.get_admin_context(), port_id)[portbindings.HOST_ID])
    except PortNotFound:
        return ""


def refresh_trunk(port_id: str) -> None:
    """The trunk that the port is the parent or a subport of, if there is one, is active when all of its ports are, else down."""
    context = neutron_context.get_admin_context()
    trunk = trunk_objects.Trunk.get_object(context, port_id=port_id)
    if trunk is None:
        subport = trunk_objects.SubPort.get_object(context, port_id=port_id)
        trunk = trunk_objects.Trunk.get_object(context, id=subport.trunk_id) if subport is not None else None
    if trunk is None:
        return
    ids = [trunk.port_id, *(subport.port_id for subport in trunk.sub_ports)]
    ports = directory.get_plugin().get_ports(context, filters={"id": ids}, fields=["status"])
    active = len(ports) == len(ids) and all(port["status"] == "ACTIVE" for port in ports)
    status = constants.TRUNK_ACTIVE_STATUS if active else constants.TRUNK_DOWN_STATUS
    if trunk.status != status:
        trunk.update(status=status)
