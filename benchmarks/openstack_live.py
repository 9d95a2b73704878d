"""The part of ``benchmarks.openstack_hosts`` that runs inside Neutron's Python (``.venv-openstack``): a Neutron that does what each line of
its standard input says (JSON), and answers with a line, in seconds of the monotonic clock.

``python -m benchmarks.openstack_live DIRECTORY ETCD``. It leads, so that ports become active when hosts report them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neutron.db.migration.models import head
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins import directory as plugins
from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import create_engine, exc

from benchmarks.openstack_neutron import CONFIG, PROJECT
from tabinet.attach.openstack.ml2.resync import load_neutron

POLL_S = 0.01
ACTIVE_WITHIN_S = 30.0
COMMON = {"tenant_id": PROJECT, "project_id": PROJECT, "name": "", "description": ""}


@dataclass(slots=True)
class Live:
    """One network, one group that all ports are in, and the rule that comes and goes."""

    plugin: Any
    network: str
    subnet: str
    group: str
    rule: str = ""

    def answer(self, question: dict[str, Any]) -> dict[str, float]:
        match question["do"]:
            case "port":
                return self._port(question)
            case "allow":
                ports = {"port_range_min": question["port"], "port_range_max": question["port"]}
                rule = {"security_group_id": self.group, "direction": "ingress", "ethertype": "IPv4", "protocol": "udp"}
                empty = dict.fromkeys(("remote_ip_prefix", "remote_group_id", "remote_address_group_id"))
                begun = time.monotonic()
                made = self.plugin.create_security_group_rule(_context(), {"security_group_rule": COMMON | rule | ports | empty})
                self.rule = made["id"]
                return {"took": time.monotonic() - begun}
            case "deny":
                begun = time.monotonic()
                self.plugin.delete_security_group_rule(_context(), self.rule)
                return {"took": time.monotonic() - begun}
            case _:
                return {}

    def _port(self, question: dict[str, Any]) -> dict[str, float]:
        port = COMMON | {"allowed_address_pairs": constants.ATTR_NOT_SPECIFIED, "extra_dhcp_opts": []}
        port |= {"id": question["id"], "network_id": self.network, "mac_address": question["mac"], "admin_state_up": True}
        port |= {"fixed_ips": [{"subnet_id": self.subnet, "ip_address": question["address"]}], "security_groups": [self.group]}
        port |= {"device_owner": "compute:nova", "device_id": question["id"], "binding:host_id": question["host"]}
        port |= {"binding:vnic_type": "normal", "binding:profile": {}, "port_security_enabled": True}
        begun = time.monotonic()
        self.plugin.create_port(_context(), {"port": port})
        created = time.monotonic()
        while self.plugin.get_port(_context(), question["id"], fields=["status"])["status"] != constants.PORT_STATUS_ACTIVE:
            if time.monotonic() > created + ACTIVE_WITHIN_S:
                raise SystemExit(f"port {question['id']} does not become active")
            time.sleep(POLL_S)
        return {"begun": begun, "created": created, "active": time.monotonic()}


def main() -> None:
    directory, etcd = Path(sys.argv[1]), sys.argv[2]
    config = directory / "neutron.conf"
    database = f"sqlite:///{directory}/neutron.sqlite?timeout=10"
    config.write_text(CONFIG.format(directory=directory, etcd=etcd, database=database))
    head.get_metadata().create_all(create_engine(database))
    load_neutron([str(config)])
    exc_filters.filters("sqlite", exc.OperationalError, r".*database is locked")(_locked)
    plugin = plugins.get_plugin()
    wanted = COMMON | {"admin_state_up": True, "shared": False, "port_security_enabled": True, "router:external": False}
    network = plugin.create_network(_context(), {"network": wanted})["id"]
    subnet = COMMON | {"network_id": network, "ip_version": 4, "cidr": "10.65.0.0/24", "gateway_ip": "10.65.0.1", "enable_dhcp": True}
    unspecified = ("allocation_pools", "dns_nameservers", "host_routes", "ipv6_ra_mode", "ipv6_address_mode", "prefixlen", "subnetpool_id")
    subnet |= dict.fromkeys(unspecified, constants.ATTR_NOT_SPECIFIED)
    group = plugin.create_security_group(_context(), {"security_group": COMMON | {"stateful": True}})["id"]
    egress = {"security_group_id": group, "direction": "egress", "ethertype": "IPv4", "protocol": None}
    empty = ("port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id", "remote_address_group_id")
    plugin.create_security_group_rule(_context(), {"security_group_rule": COMMON | egress | dict.fromkeys(empty)})
    live = Live(plugin, network, plugin.create_subnet(_context(), {"subnet": subnet})["id"], group)
    registry.publish(resources.PROCESS, events.AFTER_INIT, main)
    for line in sys.stdin:
        print(json.dumps(live.answer(json.loads(line))), flush=True)


def _locked(error: Exception, match: object, engine_name: str, is_disconnect: bool) -> None:
    """To Neutron that is what a deadlock is in MariaDB, and is tried again."""
    raise exception.DBDeadlock(error)


def _context() -> Any:
    return neutron_context.get_admin_context()


if __name__ == "__main__":
    main()
