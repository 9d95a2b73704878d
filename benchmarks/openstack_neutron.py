"""The part of the benchmark ``openstack`` that runs inside Neutron's Python (``.venv-openstack``): prints its figures as JSON.

``python -m benchmarks.openstack_neutron DIRECTORY ETCD PORTS GROUPS CALLS [DATABASE]``: a Neutron with sqlite in the directory (or another
empty database) and so many ports (written into its tables directly: over the API it would take an hour) and groups; the etcd is empty.
Besides the clock: processor time of this process (MariaDB and etcd not counted), and statements given to the database, which other work on
the machine does not change.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neutron.db.migration.models import head
from neutron_lib import context as neutron_context
from neutron_lib.plugins import directory as plugins
from oslo_config import cfg
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.engine import Engine

from tabinet.attach.openstack.comparison import Comparer
from tabinet.attach.openstack.ml2 import options
from tabinet.attach.openstack.ml2.driver import TabinetDriver
from tabinet.attach.openstack.ml2.reading import Database
from tabinet.attach.openstack.ml2.resync import load_neutron
from tabinet.attach.openstack.publisher import Publisher
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.lib.ip import parse_prefix
from tabinet.store.open import open_store

PROJECT = "a" * 32
HOSTS = 100
CONFIG = """\
[DEFAULT]
auth_strategy = noauth
core_plugin = ml2
service_plugins = router,qos,trunk
transport_url = fake://
state_path = {directory}
enable_traditional_dhcp = false
rpc_workers = 0
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = {database}
[oslo_concurrency]
lock_path = {directory}/lock
[quotas]
quota_security_group = -1
quota_security_group_rule = -1
[ml2]
type_drivers = local
tenant_network_types = local
mechanism_drivers = tabinet
extension_drivers = port_security,qos
[tabinet]
etcd_endpoints = {etcd}
"""


class Costs:
    """What work took since this was made."""

    statements = 0

    def __init__(self) -> None:
        self._begun, self._cpu, self._statements = time.perf_counter(), time.process_time(), Costs.statements

    def figures(self) -> tuple[float, float, int]:
        """Seconds, seconds of processor time, statements."""
        return time.perf_counter() - self._begun, time.process_time() - self._cpu, Costs.statements - self._statements


def _count(*_: Any) -> None:
    Costs.statements += 1


def main() -> None:
    event.listen(Engine, "before_cursor_execute", _count)
    directory, etcd, ports, groups, calls = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    config = directory / "neutron.conf"
    database = "".join(sys.argv[6:7]) or f"sqlite:///{directory}/neutron.sqlite"
    config.write_text(CONFIG.format(directory=directory, etcd=etcd, database=database))
    engine = create_engine(database)
    head.get_metadata().create_all(engine)
    load_neutron([str(config)])
    ids = _fill(engine, ports, groups)

    region = options.region_of(cfg.CONF)
    stores = StoreThread(lambda: open_store(options.store_config(cfg.CONF)), timeout_s=30.0)
    stores.start()
    publisher = Publisher(region, Database(region), stores)
    figures: dict[str, float] = {}
    for name in ("resync_into_empty_etcd", "comparison_without_differences"):
        costs = Costs()
        result = Comparer(publisher).compare()
        seconds, cpu, statements = costs.figures()
        figures |= {f"{name}_s": round(seconds, 2), f"{name}_cpu_s": round(cpu, 2), f"{name}_statements": statements}
        figures[f"{name}_written"] = result.repaired
    figures |= _calls(ids[:calls]) | _rules(calls)
    stores.close()
    print(json.dumps({"ports": ports, "groups": groups, **figures}))


def _calls(ids: list[str]) -> dict[str, float]:
    """What changing a port costs, and how much of it is the driver's."""
    plugin = plugins.get_plugin()
    [driver] = [each.obj for each in plugin.mechanism_manager.ordered_mech_drivers if isinstance(each.obj, TabinetDriver)]
    inside: list[tuple[float, float, int]] = []
    publish = driver.publish

    def timed(*arguments: Any) -> None:
        costs = Costs()
        publish(*arguments)
        inside.append(costs.figures())

    driver.publish = timed  # type: ignore[method-assign, assignment]  # measured from outside, so that the driver need not measure itself
    whole = []
    for number, port in enumerate(ids):
        pairs = [{"ip_address": f"10.200.0.{number % 250 + 1}"}]
        update = functools.partial(
            plugin.update_port, neutron_context.get_admin_context(), port, {"port": {"allowed_address_pairs": pairs}}
        )
        whole.append(_ms(update))
    seconds, cpu, statements = map(statistics.median, zip(*inside, strict=True))
    share = seconds * 1000
    return {
        "port_update_ms": round(statistics.median(whole), 1),
        "port_update_of_that_driver_ms": round(share, 1),
        "port_update_of_that_driver_cpu_ms": round(cpu * 1000, 1),
        "port_update_of_that_driver_statements": statements,
        "baseline_port_update_without_driver_ms": round(statistics.median(whole) - share, 1),
    }


def _rules(count: int) -> dict[str, float]:
    """What the driver adds to a call that makes a rule, in a group of few."""
    plugin = plugins.get_plugin()
    [driver] = [each.obj for each in plugin.mechanism_manager.ordered_mech_drivers if isinstance(each.obj, TabinetDriver)]
    inside: list[tuple[float, float, int]] = []
    publish = driver.publish_rule

    def timed(group: str, rule: str) -> None:
        costs = Costs()
        publish(group, rule)
        inside.append(costs.figures())

    driver.publish_rule = timed  # type: ignore[method-assign]  # as above
    context = neutron_context.get_admin_context()
    group = next(each["id"] for each in plugin.get_security_groups(context, default_sg=True) if each["name"] == "g")
    rule = {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "udp"}
    none = {"tenant_id": PROJECT, "project_id": PROJECT, "remote_ip_prefix": None, "remote_group_id": None, "remote_address_group_id": None}
    for port in range(1, count + 1):
        ports = {"port_range_min": port, "port_range_max": port}
        plugin.create_security_group_rule(context, {"security_group_rule": rule | none | ports})
    seconds, cpu, statements = map(statistics.median, zip(*inside, strict=True))
    return {
        "rule_create_of_that_driver_ms": round(seconds * 1000, 1),
        "rule_create_of_that_driver_cpu_ms": round(cpu * 1000, 1),
        "rule_create_of_that_driver_statements": statements,
    }


def _ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _fill(engine: Any, ports: int, groups: int) -> list[str]:
    """The identifiers of the ports that are there now."""
    plugin, context = plugins.get_plugin(), neutron_context.get_admin_context()
    wanted = {"name": "n", "tenant_id": PROJECT, "admin_state_up": True, "shared": False, "port_security_enabled": True}
    network = plugin.create_network(context, {"network": wanted | {"router:external": False}})
    tables = head.get_metadata().tables
    ids = [str(uuid.uuid4()) for _ in range(ports)]
    group_ids = [str(uuid.uuid4()) for _ in range(groups)]
    subnet = str(uuid.uuid4())
    base = parse_prefix("10.0.0.0/8")
    with engine.begin() as connection:
        attributes = tables["standardattributes"]
        last = max(connection.execute(select(attributes.c.id)).scalars())
        numbers = iter(range(last + 1, last + 10 + ports + groups * 6))

        def attribute(kind: str) -> int:
            number = next(numbers)
            connection.execute(insert(attributes).values(id=number, resource_type=kind, revision_number=1))
            return number

        def rows(table: str, values: list[dict[str, Any]]) -> None:
            connection.execute(insert(tables[table]), values)

        common = {"project_id": PROJECT}
        rows(
            "subnets",
            [
                common
                | {"id": subnet, "network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/8", "gateway_ip": "10.0.0.1"}
                | {"enable_dhcp": True, "standard_attr_id": attribute("subnets")}
            ],
        )
        rows(
            "securitygroups",
            [common | {"id": each, "name": "g", "stateful": True, "standard_attr_id": attribute("securitygroups")} for each in group_ids],
        )
        rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
        rows(
            "securitygrouprules",
            [
                common
                | rule
                | {"id": str(uuid.uuid4()), "security_group_id": each, "port_range_min": port, "port_range_max": port}
                | {"standard_attr_id": attribute("securitygrouprules")}
                for each in group_ids
                for port in range(80, 85)
            ],
        )
        rows(
            "ports",
            [
                common
                | {
                    "id": each,
                    "network_id": network["id"],
                    "mac_address": f"fa:16:{n >> 24 & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
                }
                | {"admin_state_up": True, "status": "DOWN", "device_id": str(uuid.uuid4()), "device_owner": "compute:nova"}
                | {"standard_attr_id": attribute("ports"), "ip_allocation": "immediate"}
                for n, each in enumerate(ids)
            ],
        )
        addresses = [{"port_id": each, "ip_address": base.host(n + 2).address} for n, each in enumerate(ids)]
        rows("ipallocations", [each | {"subnet_id": subnet, "network_id": network["id"]} for each in addresses])
        binding = {"vif_type": "tap", "vnic_type": "normal", "vif_details": "", "profile": "", "status": "ACTIVE"}
        rows("ml2_port_bindings", [binding | {"port_id": each, "host": f"host{n % HOSTS}"} for n, each in enumerate(ids)])
        rows(
            "securitygroupportbindings",
            [{"port_id": each, "security_group_id": group_ids[n % groups]} for n, each in enumerate(ids)],
        )
        rows("portsecuritybindings", [{"port_id": each, "port_security_enabled": True} for each in ids])
    return ids


if __name__ == "__main__":
    main()
