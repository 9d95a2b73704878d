"""A comparison by hand: with Neutron's own configuration and database, from a process that serves nobody.

In: configuration files and a scope. Out: a ``Comparison``. Neutron's plugin is loaded for its readings only; this process neither leads
nor listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from neutron import manager
from neutron.common import config
from neutron_lib import context as neutron_context
from neutron_lib.plugins import directory
from oslo_config import cfg

from tabinet.attach.openstack.comparison import Comparer, Comparison, Scope
from tabinet.attach.openstack.ml2 import options
from tabinet.attach.openstack.ml2.identity import projects_of
from tabinet.attach.openstack.ml2.reading import Database
from tabinet.attach.openstack.publisher import GROUP, PORT, SUBNET, Publisher
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import InputError, Problem, SetupError
from tabinet.store.open import open_store

RESYNC_WAIT_S = 10.0
"""For the names of projects: nobody's API call waits here."""


def resync(
    config_files: Sequence[str],
    *,
    networks: Sequence[str] = (),
    ports: Sequence[str] = (),
    groups: Sequence[str] = (),
    dry_run: bool = False,
    on_progress: Callable[[Comparison], None] = lambda comparison: None,
) -> Comparison:
    """The store was compared with Neutron, and unless ``dry_run`` repaired; without identifiers all of it.

    Raises:
        SetupError: Neutron cannot be loaded with these files.
        InputError: there is no such network.
        StoreError: the store could not be read.
    """
    load_neutron(config_files)
    region = options.region_of(cfg.CONF)
    database = Database(region, projects_of(cfg.CONF, RESYNC_WAIT_S))
    store = options.store_config(cfg.CONF)
    stores = StoreThread(lambda: open_store(store), timeout_s=cfg.CONF[options.SECTION].etcd_timeout)
    stores.start()
    try:
        comparer = Comparer(
            Publisher(region, database, stores),
            page=cfg.CONF[options.SECTION].comparison_page,
            dry_run=dry_run,
            on_progress=on_progress,
        )
        return comparer.compare(_scope(networks, ports, groups))
    finally:
        stores.close()


def load_neutron(config_files: Sequence[str]) -> None:
    """Neutron's plugins are loaded.

    Raises:
        SetupError: they cannot be.
    """
    logging.disable(logging.INFO)
    arguments = [part for file in config_files for part in ("--config-file", file)]
    try:
        config.register_common_config_options()
        config.init(arguments, default_config_files=[])
        config.set_config_defaults()
        manager.init()
    except SystemExit as error:
        raise SetupError(f"Neutron does not start with {', '.join(config_files)}: {error}") from error
    except cfg.Error as error:
        raise SetupError(f"Neutron does not start with {', '.join(config_files)}: {error}") from error


def _scope(networks: Sequence[str], ports: Sequence[str], groups: Sequence[str]) -> Scope:
    if not (networks or ports or groups):
        return Scope()
    plugin, context = directory.get_plugin(), neutron_context.get_admin_context()
    ids = {PORT: list(ports), GROUP: list(groups), SUBNET: []}
    if networks:
        known = {network["id"] for network in plugin.get_networks(context, filters={"id": list(networks)}, fields=["id"])}
        missing = [network for network in networks if network not in known]
        if missing:
            raise InputError([Problem(path="network", value=network, allowed="the identifier of a network") for network in missing])
        filters = {"network_id": list(networks)}
        ids[PORT] += [port["id"] for port in plugin.get_ports(context, filters=filters, fields=["id"])]
        ids[SUBNET] += [subnet["id"] for subnet in plugin.get_subnets(context, filters=filters, fields=["id"])]
    return Scope(ids={kind: tuple(dict.fromkeys(found)) for kind, found in ids.items()})
