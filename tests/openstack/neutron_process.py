"""A real Neutron for tests: its API under uwsgi, in a directory of its own, on a port of its own; and a client for its REST API.

It runs from ``.venv-openstack`` (``make setup-openstack``). Unless it is given more to stand on (``Backing``), its database is sqlite and
nobody is asked who he is (``auth_strategy = {auth}``).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etcd_process import free_port
from keystone_process import PASSWORD, REGION, VENV, Keystone
from rest import ApiError, request
from running import Running, uwsgi

__all__ = ["PROJECT", "VENV", "ApiError", "Backing", "Neutron", "make_template"]
PROJECT = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

NEUTRON_CONF = """\
[DEFAULT]
auth_strategy = {auth}
core_plugin = ml2
service_plugins = router,qos,trunk,port_forwarding
transport_url = {queue}
state_path = {directory}
api_paste_config = {venv}/etc/neutron/api-paste.ini
enable_traditional_dhcp = false
rpc_workers = {rpc_workers}
rpc_state_report_workers = 0
notify_nova_on_port_status_changes = {nova}
notify_nova_on_port_data_changes = false
dns_domain = cloud.example.
max_allowed_address_pair = 50
send_events_interval = 1
{more}
[database]
connection = {database}
[oslo_concurrency]
lock_path = {directory}/lock
[oslo_policy]
policy_file = {directory}/policy.yaml
[quotas]
quota_port = -1
quota_network = -1
quota_subnet = -1
quota_router = -1
quota_floatingip = -1
quota_security_group = -1
quota_security_group_rule = -1
{sections}
"""
ML2_CONF = """\
[ml2]
type_drivers = local,flat
tenant_network_types = local
mechanism_drivers = tabinet
extension_drivers = port_security,qos,dns_domain_ports
[ml2_type_flat]
flat_networks = *
[tabinet]
etcd_endpoints = {etcd}
etcd_timeout = 3
election_ttl = 2
comparison_interval = {comparison_interval}
isolate_networks = {isolated}
{etcd_options}
"""
AUTH = """\
auth_url = {url}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = neutron
password = {password}
region_name = {region}
"""
OPENED = (
    "create_port:fixed_ips",
    "create_port:fixed_ips:ip_address",
    "create_port:fixed_ips:subnet_id",
    "create_port:binding:profile",
    "update_port:binding:profile",
    "create_port_binding",
    "delete_port_binding",
    "activate",
    "get_agent",
)
"""What everybody may who is nobody."""
MAKE_DATABASE = """
import sys
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import create_engine
from neutron.db.migration.models import head
head.get_metadata().create_all(create_engine(sys.argv[1]))
"""


def make_template(path: Path) -> None:
    """A file with all of Neutron's tables, empty."""
    command = [VENV / "bin" / "python", "-W", "ignore", "-c", MAKE_DATABASE, f"sqlite:///{path}"]
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Backing:
    """What a Neutron stands on, besides etcd."""

    database: str = ""
    """URL of an empty database; empty: sqlite, in the directory."""
    queue: str = ""
    """URL of the message queue; then ``neutron-rpc-server`` and ``neutron-periodic-workers`` run too. Empty: none."""
    keystone: Keystone | None = None
    etcd_options: Mapping[str, str] = field(default_factory=dict)
    """More options of the section ``[tabinet]``."""


@dataclass
class Neutron:
    """One Neutron API server; ``start`` after ``stop`` goes on with the same database."""

    directory: Path
    etcd: str
    processes: int = 1
    comparison_interval: float = 0.0
    isolated: bool = False
    nova: str = ""
    """URL of the Nova that is told about ports; empty: none."""
    backing: Backing = Backing()
    port: int = field(default_factory=free_port)
    api: Running | None = None
    others: list[Running] = field(default_factory=list)
    """The processes besides the API's."""

    def prepare(self, template: Path) -> None:
        """Configuration, and a database with nothing in it: copied from ``template``, or what Neutron's own migrations make."""
        self.directory.mkdir(exist_ok=True)
        keystone = self.backing.keystone
        auth = keystone and AUTH.format(url=keystone.url, password=PASSWORD, region=REGION)
        sections = f"[keystone_authtoken]\nwww_authenticate_uri = {keystone.url}\n{auth}" if keystone else ""
        if self.nova:
            sections += f"[nova]\n{auth}" if auth else f"[nova]\nauth_type = none\nendpoint = {self.nova}\n"
        values = {
            "directory": self.directory,
            "venv": VENV,
            "auth": "keystone" if keystone else "noauth",
            "database": self.backing.database or f"sqlite:///{self.directory}/neutron.sqlite?timeout=5",
            "queue": self.backing.queue or "fake://",
            "rpc_workers": int(bool(self.backing.queue)),
            "nova": bool(self.nova),
            "more": "",
            "sections": sections,
        }
        (self.directory / "neutron.conf").write_text(NEUTRON_CONF.format(**values))
        options = "".join(f"{name} = {value}\n" for name, value in self.backing.etcd_options.items())
        more = {"etcd": self.etcd, "comparison_interval": self.comparison_interval, "isolated": self.isolated, "etcd_options": options}
        (self.directory / "ml2_conf.ini").write_text(ML2_CONF.format(**more))
        opened = () if keystone else OPENED
        (self.directory / "policy.yaml").write_text("".join(f'"{action}": ""\n' for action in opened))
        if self.backing.database:
            command = [VENV / "bin" / "neutron-db-manage", "--config-file", self.directory / "neutron.conf", "upgrade", "heads"]
            subprocess.run(command, check=True, capture_output=True)
        else:
            shutil.copy(template, self.directory / "neutron.sqlite")

    def start(self) -> None:
        """The API answers."""
        environment = {
            "OS_NEUTRON_CONFIG_DIR": str(self.directory),
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2_conf.ini",
            "PYTHONWARNINGS": "ignore",
        }
        command = uwsgi(VENV, "neutron_wsgi:application", self.port, self.processes, "--pythonpath", str(Path(__file__).parent))
        files = [part for name in ("neutron.conf", "ml2_conf.ini") for part in ("--config-file", str(self.directory / name))]
        for name in ("neutron-rpc-server", "neutron-periodic-workers") if self.backing.queue else ():
            self.others.append(Running([str(VENV / "bin" / name), *files], self.directory, name, environment))
            self.others[-1].start()
        self.api = Running(command, self.directory, "neutron", environment)
        self.api.start(self._answers)

    def _answers(self) -> bool:
        try:
            self.get("/networks")
        except OSError:
            return False
        return True

    def make_default_rules(self) -> None:
        """New groups have the rules that Neutron's migrations bring: everything may leave, members of a default group reach each other."""
        for ethertype in ("IPv4", "IPv6"):
            common = {"ethertype": ethertype, "used_in_default_sg": True}
            for more in (
                {"direction": "egress", "used_in_non_default_sg": True},
                {"direction": "ingress", "remote_group_id": "PARENT", "used_in_non_default_sg": False},
            ):
                self.call("POST", "/default-security-group-rules", {"default_security_group_rule": common | more})

    def stop(self) -> None:
        """All of its processes are gone."""
        running = [each for each in (self.api, *self.others) if each is not None]
        with ThreadPoolExecutor() as pool:  # each takes its time
            list(pool.map(Running.stop, running))
        self.others.clear()

    def log(self) -> str:
        return (self.directory / "neutron.log").read_text(errors="replace")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the API answers, to the administrator where it asks who it is.

        Raises:
            ApiError: it refused.
        """
        token = {"X-Auth-Token": self.backing.keystone.admin_token} if self.backing.keystone else {}
        return request(method, f"http://127.0.0.1:{self.port}/v2.0{path}", body, token)[0]

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def create(self, kind: str, path: str = "", **fields: Any) -> dict[str, Any]:
        """The object as made, in the project unless the fields say otherwise. ``binding_host_id`` is written for ``binding:host_id``."""
        owner = {} if path.endswith("_rules") else {"tenant_id": PROJECT}
        body = owner | _wire(fields)
        made: dict[str, Any] = self.call("POST", path or f"/{kind.replace('_', '-')}s", {kind: body})[kind]
        return made

    def update(self, kind: str, identifier: str, path: str = "", **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.call("PUT", f"{path or '/' + kind.replace('_', '-') + 's'}/{identifier}", {kind: _wire(fields)})[kind]
        return made

    def attach(self, router: dict[str, Any], network: dict[str, Any], address: str = "") -> None:
        """The router is on the network: at the gateway of its only subnet, or at another address."""
        [subnet] = self.get(f"/subnets?network_id={network['id']}")["subnets"]
        body = {"subnet_id": subnet["id"]}
        if address:
            fixed = [{"subnet_id": subnet["id"], "ip_address": address}]
            body = {"port_id": self.create("port", network_id=network["id"], fixed_ips=fixed)["id"]}
        self.call("PUT", f"/routers/{router['id']}/add_router_interface", body)

    def show(self, kind: str, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/{kind.replace('_', '-')}s/{identifier}")[kind]
        return found


def _wire(fields: dict[str, Any]) -> dict[str, Any]:
    colons = ("binding_", "provider_", "router_external")
    return {name.replace("_", ":", 1) if name.startswith(colons) else name: value for name, value in fields.items()}
