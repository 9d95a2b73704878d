"""A real Neutron for tests: its API under uwsgi, in a directory of its own, on a port of its own, with sqlite; and a client for its REST
API.

It runs from ``.venv-openstack`` (``make setup-openstack``). Nobody is asked who he is (``auth_strategy = noauth``).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etcd_process import free_port

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-openstack"
PROJECT = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
READY_WITHIN_S = 60.0
ANSWER_WITHIN_S = 30.0

NEUTRON_CONF = """\
[DEFAULT]
auth_strategy = noauth
core_plugin = ml2
service_plugins = router,qos,trunk
transport_url = fake://
state_path = {directory}
api_paste_config = {venv}/etc/neutron/api-paste.ini
enable_traditional_dhcp = false
rpc_workers = 0
notify_nova_on_port_status_changes = {nova}
notify_nova_on_port_data_changes = false
dns_domain = cloud.example.
max_allowed_address_pair = 50
send_events_interval = 1
{more}
[database]
connection = sqlite:///{directory}/neutron.sqlite?timeout=5
[oslo_concurrency]
lock_path = {directory}/lock
[oslo_policy]
policy_file = {directory}/policy.yaml
[quotas]
quota_port = -1
quota_network = -1
quota_subnet = -1
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
"""
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


class ApiError(Exception):
    """Neutron refused a request."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(f"HTTP {status}: {body}")


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
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def prepare(self, template: Path) -> None:
        """Configuration and an empty database, copied from ``template``."""
        self.directory.mkdir(exist_ok=True)
        sections = f"[nova]\nauth_type = none\nendpoint = {self.nova}\n" if self.nova else ""
        values = {"directory": self.directory, "venv": VENV, "nova": bool(self.nova), "more": "", "sections": sections}
        (self.directory / "neutron.conf").write_text(NEUTRON_CONF.format(**values))
        more = {"etcd": self.etcd, "comparison_interval": self.comparison_interval, "isolated": self.isolated}
        (self.directory / "ml2_conf.ini").write_text(ML2_CONF.format(**more))
        allowed = (
            "create_port:fixed_ips",
            "create_port:fixed_ips:ip_address",
            "create_port:fixed_ips:subnet_id",
            "create_port:binding:profile",
            "update_port:binding:profile",
            "create_port_binding",
            "delete_port_binding",
            "activate",
        )
        (self.directory / "policy.yaml").write_text("".join(f'"{action}": ""\n' for action in (*allowed, "get_agent")))
        shutil.copy(template, self.directory / "neutron.sqlite")

    def start(self) -> None:
        """The API answers."""
        environment = {
            **os.environ,
            "OS_NEUTRON_CONFIG_DIR": str(self.directory),
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2_conf.ini",
            "PYTHONWARNINGS": "ignore",
        }
        command = [str(VENV / "bin" / "uwsgi"), "--http-socket", f"127.0.0.1:{self.port}", "--module", "neutron_wsgi:application"]
        command += ["--master", "--processes", str(self.processes), "--threads", "4", "--enable-threads", "--lazy-apps", "--die-on-term"]
        command += ["--pythonpath", str(Path(__file__).parent), "--need-app", "--disable-logging", "--virtualenv", str(VENV)]
        with open(self.directory / "neutron.log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                self.get("/networks")
                return
            except OSError:
                alive = self.process.poll() is None
                if not alive or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"Neutron does not answer: {self.log()[-4000:]}") from None
                time.sleep(0.05)

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
        if self.process is not None:
            with_group = self.process.pid
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(with_group, signal.SIGKILL)
                self.process.wait()
            self.process = None

    def log(self) -> str:
        return (self.directory / "neutron.log").read_text(errors="replace")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the API answers.

        Raises:
            ApiError: it refused.
        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2.0{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode()) from None
        return json.loads(data) if data else None

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

    def show(self, kind: str, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/{kind.replace('_', '-')}s/{identifier}")[kind]
        return found


def _wire(fields: dict[str, Any]) -> dict[str, Any]:
    colons = ("binding_", "provider_", "router_external")
    return {name.replace("_", ":", 1) if name.startswith(colons) else name: value for name, value in fields.items()}
