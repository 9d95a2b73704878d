"""``TabinetDriver``: the ML2 mechanism driver. It binds ports, and has what Neutron commits written into the store.

In: Neutron's calls and notifications, in threads of its API and RPC processes. Out: subjects to publish. What was committed is read again
from the database by whoever publishes it, so nothing here depends on what a notification carries besides identifiers.

An API call succeeds whether etcd answers or not: when it does not, within ``etcd_timeout``, the change is written as soon as it does
(``Repairs``), and should this process end before, by the leader's comparison. Until then hosts go on with what they have.

It inherits because Neutron asks for it: ML2 calls every method of its driver interface.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from neutron.db import provisioning_blocks
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from oslo_config import cfg
from oslo_log import log

from tabinet.attach.openstack import translate
from tabinet.attach.openstack.ml2 import finding, notices, options, routing
from tabinet.attach.openstack.ml2.bindings import Bindings, Place, places_of
from tabinet.attach.openstack.ml2.duties import Duties, start_leading
from tabinet.attach.openstack.ml2.identity import projects_of
from tabinet.attach.openstack.ml2.qos import TabinetQos
from tabinet.attach.openstack.ml2.reading import Database
from tabinet.attach.openstack.ml2.trunk import TabinetTrunks
from tabinet.attach.openstack.names import election_path, is_host
from tabinet.attach.openstack.publisher import GROUP, NETWORK, PORT, ROUTER, Publisher, Subject
from tabinet.attach.openstack.repairs import Repairs
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.store.open import open_store

LOG = log.getLogger(__name__)
NETWORK_TYPES = ("flat", "local")
"""A routed fabric needs no segments: these are the types without an identifier on the wire."""
VIF_DETAILS = {portbindings.CAP_PORT_FILTER: True, portbindings.VIF_DETAILS_CONNECTIVITY: portbindings.CONNECTIVITY_L3}


class TabinetDriver(api.MechanismDriver):
    """Entry point ``tabinet`` of ``neutron.ml2.mechanism_drivers``."""

    def __init__(self) -> None:
        self._repairs: Repairs | None = None
        self._notices: notices.Notices | None = None
        self._qos: TabinetQos | None = None
        self._bindings: Bindings | None = None
        self._routes: routing.Routes | None = None
        self._trunks: TabinetTrunks | None = None
        self._pid = 0
        self._lock = threading.Lock()

    @property
    def connectivity(self) -> str:
        return str(portbindings.CONNECTIVITY_L3)

    def initialize(self) -> None:
        """Nothing runs yet: this is before the process forks, where it forks."""
        options.register(cfg.CONF)
        self._notices = notices.subscribe(self, options.region_of(cfg.CONF).isolated)
        self._qos = TabinetQos(self)
        self._bindings = Bindings(self)
        self._routes = routing.Routes(self, options.region_of(cfg.CONF).isolated)
        self._trunks = TabinetTrunks(self)
        registry.subscribe(self._process_started, resources.PROCESS, events.AFTER_INIT)

    # --- binding --------------------------------------------------------------------------------------------------------

    def bind_port(self, context: Any) -> None:
        if context.current.get(portbindings.VNIC_TYPE, portbindings.VNIC_NORMAL) != portbindings.VNIC_NORMAL or not is_host(context.host):
            LOG.debug("port %s is not ours to bind: vnic type or host %r", context.current["id"], context.host)
            return
        for segment in context.segments_to_bind:
            if segment[api.NETWORK_TYPE] in NETWORK_TYPES:
                context.set_binding(segment[api.ID], portbindings.VIF_TYPE_TAP, VIF_DETAILS, status=constants.PORT_STATUS_DOWN)
                return

    # --- ports ----------------------------------------------------------------------------------------------------------

    def create_port_precommit(self, context: Any) -> None:
        _block(context)

    def update_port_precommit(self, context: Any) -> None:
        if context.host != context.original_host:
            _block(context)

    def create_port_postcommit(self, context: Any) -> None:
        self._attach_router(context)
        _show_router(context)
        if context.vif_type == portbindings.VIF_TYPE_TAP:
            self.publish(PORT, context.current["id"], places_of(context.current))

    def update_port_postcommit(self, context: Any) -> None:
        if _only_status(context):
            return
        self._attach_router(context)
        _show_router(context)
        if portbindings.VIF_TYPE_TAP not in (context.vif_type, context.original_vif_type):
            return
        self.publish(PORT, context.current["id"], places_of(context.current, context.original))
        if self._trunks is not None and context.host != context.original_host:
            self._trunks.follow_parent(context.current["id"], context.host)
        if context.host != context.original_host:
            self.publish_later(PORT, finding.forwarded_beside(context.current["id"]))

    def delete_port_postcommit(self, context: Any) -> None:
        self._attach_router(context)
        if context.host:
            self.publish(PORT, context.current["id"], places_of(context.current))

    def _attach_router(self, context: Any) -> None:
        """Where networks are isolated: a port by which a router is attached to one came, changed or went."""
        if not options.region_of(cfg.CONF).isolated:
            return
        for port in filter(None, (context.current, context.original)):
            if port["device_owner"] in finding.ROUTER_OWNERS:
                self.publish(ROUTER, port["device_id"])
                self.publish(NETWORK, port["network_id"])
                with_sets = {*finding.ports_with_pairs(port["network_id"]), *routing.next_hops(port["network_id"])}
                self.publish_later(PORT, sorted(with_sets))
                ends = routing.by_way_of(fixed["ip_address"] for fixed in port["fixed_ips"])
                self.publish_later(ROUTER, routing.in_a_row([port["device_id"], *ends]))

    # --- publishing -----------------------------------------------------------------------------------------------------

    def publish(self, kind: str, identifier: str, places: Sequence[tuple[str, str]] = ()) -> None:
        """The store agrees with the database about the object, now or soon."""
        self.repairs.publish_or_repair(Subject(kind, identifier), places)

    def publish_rule(self, group: str, rule: str) -> None:
        """The store has the new rule, now or soon."""
        self.repairs.publish_unless_mentioned(Subject(GROUP, group), rule)

    def publish_later(self, kind: str, identifiers: Sequence[str]) -> None:
        """The store will agree about these; the caller does not wait."""
        self.repairs.add([Subject(kind, identifier) for identifier in identifiers])

    def publish_places_later(self, identifier: str, places: list[Place]) -> None:
        """The store will agree about a port and what it may have left in these places."""
        self.repairs.add([Subject(PORT, identifier)], places)

    @property
    def repairs(self) -> Repairs:
        """Of this process; started when it is first needed, so that it belongs to the process that needs it, forked or not."""
        with self._lock:
            if self._repairs is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._repairs = _start()
            return self._repairs

    def _process_started(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        publisher = self.repairs.publisher
        section = cfg.CONF[options.SECTION]
        duties = Duties(publisher, section.comparison_interval, section.comparison_page)
        name = f"{socket.gethostname()}:{os.getpid()}"
        start_leading(publisher.stores, election_path(publisher.region), name, section.election_ttl, duties)


def _start() -> Repairs:
    region = options.region_of(cfg.CONF)
    config = options.store_config(cfg.CONF)
    stores = StoreThread(lambda: open_store(config), timeout_s=cfg.CONF[options.SECTION].etcd_timeout)
    stores.start()
    database = Database(region)
    repairs = Repairs(Publisher(region, database, stores), _tell)

    def with_names(projects: list[str]) -> None:
        repairs.add([Subject(PORT, port) for port in finding.ports_of_projects(projects)])

    database.projects = projects_of(cfg.CONF, cfg.CONF[options.SECTION].keystone_wait, with_names)
    threading.Thread(target=repairs.run, name="tabinet-repairs", daemon=True).start()
    return repairs


def _tell(event: str, subject: Subject, reason: str) -> None:
    LOG.warning("Tabinet: %s: %s %s: %s", event, subject.kind, subject.id, reason)


def _block(context: Any) -> None:
    """The port does not become active before its host says that it has it."""
    port = context.current
    if context.host and port["status"] != constants.PORT_STATUS_ACTIVE and translate.is_workload_owner(port["device_owner"]):
        provisioning_blocks.add_provisioning_component(
            context.plugin_context, port["id"], resources.PORT, provisioning_blocks.L2_AGENT_ENTITY
        )


def _show_router(context: Any) -> None:
    """A router's own port is active while it is administratively up: each host is the router, and there is nothing to wait for."""
    port = context.current
    wanted = constants.PORT_STATUS_ACTIVE if port["admin_state_up"] else constants.PORT_STATUS_DOWN
    if port["device_owner"] in finding.ROUTER_OWNERS and port["status"] != wanted:
        directory.get_plugin().update_port_status(context.plugin_context, port["id"], wanted)


_BOOKKEEPING = ("status", "updated_at", "revision_number")


def _only_status(context: Any) -> bool:
    """True: nothing changed that hosts would want to know."""
    names = context.current.keys() | context.original.keys()
    return all(context.current.get(name) == context.original.get(name) for name in names if name not in _BOOKKEEPING)
